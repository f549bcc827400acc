//! Sizes, times and places, as people read them.

use std::path::{Path, PathBuf};

const HUNDREDTHS_OF_A_MINUTE: u64 = 6_000;

/// `HH:MM:SS.ss`, rounded to hundredths: 59.999 s are `00:01:00.00`. Hours may have more digits.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
pub fn seconds_to_human(seconds: f64) -> String {
    if !seconds.is_finite() {
        return seconds.to_string();
    }
    let all = (seconds.abs() * 100.0).round() as u64;
    let sign = if seconds < 0.0 && all > 0 { "-" } else { "" };
    let (minutes, rest) = (all / HUNDREDTHS_OF_A_MINUTE, all % HUNDREDTHS_OF_A_MINUTE);
    format!("{sign}{:02}:{:02}:{:02}.{:02}", minutes / 60, minutes % 60, rest / 100, rest % 100)
}

/// A number with a binary prefix: `sizeof_fmt(1536.0, "B")` is `1.5KiB`.
#[must_use]
pub fn sizeof_fmt(num: f64, suffix: &str) -> String {
    let mut num = num;
    for unit in ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi"] {
        if num.abs() < 1024.0 {
            return format!("{num:.1}{unit}{suffix}");
        }
        num /= 1024.0;
    }
    format!("{num:.1}Yi{suffix}")
}

/// The directory of a prediction: `parent/pred<idx>`.
#[must_use]
pub fn get_pred_dir(idx: u64, parent: &Path) -> PathBuf {
    parent.join(format!("pred{idx}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0.0, "00:00:00.00")]
    #[case(1.5, "00:00:01.50")]
    #[case(3_661.25, "01:01:01.25")]
    #[case(59.994, "00:00:59.99")]
    #[case(59.999, "00:01:00.00")]
    #[case(3_599.996, "01:00:00.00")]
    #[case(360_000.0, "100:00:00.00")]
    #[case(-61.5, "-00:01:01.50")]
    #[case(-0.001, "00:00:00.00")]
    #[case(f64::INFINITY, "inf")]
    #[case(f64::NAN, "NaN")]
    fn times(#[case] seconds: f64, #[case] expected: &str) {
        assert_eq!(seconds_to_human(seconds), expected);
    }

    #[rstest]
    #[case(0.0, "B", "0.0B")]
    #[case(1023.0, "B", "1023.0B")]
    #[case(1536.0, "B", "1.5KiB")]
    #[case(-1536.0, "B", "-1.5KiB")]
    #[case(5.0 * 1024.0 * 1024.0 * 1024.0, "B/s", "5.0GiB/s")]
    #[case(1024_f64.powi(8), "B", "1.0YiB")]
    #[case(1024_f64.powi(9), "", "1024.0Yi")]
    fn sizes(#[case] num: f64, #[case] suffix: &str, #[case] expected: &str) {
        assert_eq!(sizeof_fmt(num, suffix), expected);
    }

    #[test]
    fn places() {
        assert_eq!(get_pred_dir(7, Path::new("/a/b")), Path::new("/a/b/pred7"));
    }
}
