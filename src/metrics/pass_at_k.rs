//! The unbiased estimator of pass@k.

/// The probability that at least one of `k` samples passes, drawn without replacement from `n` of
/// which `c` pass: 1 − C(n−c, k) / C(n, k).
///
/// 1 where fewer than `k` fail, `n` < `k` included; more than `n` count as `n`. Source: Chen et al.,
/// "Evaluating Large Language Models Trained on Code" (2021). It takes min(`c`, `k`) steps at most, and
/// small values are as accurate as large ones.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "numbers of samples are far below 2^53")]
pub fn pass_at_k(n: u64, c: u64, k: u64) -> f64 {
    let c = c.min(n);
    if n - c < k {
        return 1.0;
    }
    // The quotient is the same with c and k exchanged.
    let (few, many) = (c.min(k), c.max(k));
    let (mut some, mut none) = (0.0, 1.0);
    for i in n - few + 1..=n {
        let share = many as f64 / i as f64;
        // Sums of positive terms keep what 1 − product would lose where the result is small.
        some += none * share;
        none *= 1.0 - share;
        if none < f64::EPSILON / 4.0 {
            return 1.0;
        }
    }
    if some < 0.5 { some } else { 1.0 - none }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// The same by its definition, in whole numbers.
    fn exact(n: u64, c: u64, k: u64) -> f64 {
        const DIGITS: u32 = 60;
        // C(n−c, k) / C(n, k), without what both are divided by.
        let falling = |from: u64| (0..k).map(|i| BigUint::from(from.saturating_sub(i))).product::<BigUint>();
        let (none, all) = (falling(n - c), falling(n));
        let scaled = (&all - none) * BigUint::from(10_u32).pow(DIGITS) / all;
        format!("{scaled}e-{DIGITS}").parse().unwrap()
    }

    #[rstest]
    #[case(1, 0, 1, 0.0)]
    #[case(1, 1, 1, 1.0)]
    #[case(10, 3, 1, 0.3)]
    #[case(4, 2, 2, 5.0 / 6.0)]
    #[case(5, 1, 5, 1.0)]
    #[case(200, 0, 100, 0.0)]
    #[case::fewer_samples_than_k(3, 0, 4, 1.0)]
    #[case::nothing(0, 0, 1, 1.0)]
    #[case::none_drawn(7, 3, 0, 0.0)]
    #[case::more_than_all(2, 9, 1, 1.0)]
    fn known_values(#[case] n: u64, #[case] c: u64, #[case] k: u64, #[case] expected: f64) {
        assert!((pass_at_k(n, c, k) - expected).abs() < 1e-15);
    }

    #[rstest]
    #[case(1_000_000, 1, 1)]
    #[case(1_000_000, 999_999, 1)]
    #[case(2_000_000, 3, 100)]
    #[case(2_000_000, 100_000, 2)]
    #[case(5_000_000, 20_000, 300)]
    #[case(20_000, 700, 700)]
    #[case(9_000_000_000, 5, 1_000)]
    fn large_numbers_against_whole_ones(#[case] n: u64, #[case] c: u64, #[case] k: u64) {
        let (found, expected) = (pass_at_k(n, c, k), exact(n, c, k));
        assert!((found - expected).abs() <= expected * 1e-13, "{found} {expected}");
    }

    #[test]
    fn millions_take_no_time_and_stay_in_range() {
        // Half of ten million pass, half are drawn: it is over after a few steps.
        assert!(pass_at_k(10_000_000, 5_000_000, 5_000_000) >= 1.0);
        // Each step counts: 1 − e^(−1), about.
        let value = pass_at_k(1_000_000_000_000, 1_000_000, 1_000_000);
        assert!((value - (1.0 - (-1.0_f64).exp())).abs() < 1e-6, "{value}");
    }

    proptest! {
        #[test]
        fn exact_binomials(n in 1_u64..400, c in 0_u64..400, k in 1_u64..400) {
            let (c, k) = (c.min(n), k.min(n));
            let (found, expected) = (pass_at_k(n, c, k), exact(n, c, k));
            prop_assert!((found - expected).abs() <= expected * 1e-13, "{} {}", found, expected);
        }

        #[test]
        fn more_passes_and_more_draws_are_never_worse(n in 1_u64..5_000, c in 0_u64..5_000, k in 1_u64..5_000) {
            let value = pass_at_k(n, c, k);
            prop_assert!((0.0..=1.0).contains(&value));
            prop_assert!(pass_at_k(n, c + 1, k) >= value - 1e-12);
            prop_assert!(pass_at_k(n, c, k + 1) >= value - 1e-12);
        }
    }
}
