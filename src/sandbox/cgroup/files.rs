//! Small files of the kernel's, which stay open.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(super) fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cgroup: {what} is not as expected"))
}

/// All of it, from its beginning.
pub(in crate::sandbox) fn text(file: &File) -> io::Result<String> {
    let mut buffer = [0; 16 << 10];
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, have as u64)? {
            0 => break,
            count => have += count,
        }
    }
    Ok(String::from_utf8_lossy(buffer.get(..have).unwrap_or_default()).into_owned())
}

pub(super) fn write(file: &File, number: u64) -> io::Result<()> {
    file.write_all_at(number.to_string().as_bytes(), 0)
}

pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number behind a name that stands at the beginning of a line.
pub(in crate::sandbox) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(name)?.strip_prefix(' ')?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("low 0\nmax 3\noom 2\noom_kill 1\n", "oom_kill", Some(1))]
    #[case("low 0\nmax 3\noom 2\noom_kill 1\n", "oom", Some(2))]
    #[case("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", "oom_kill", Some(7))]
    #[case("usage_usec 12\nuser_usec 5\n", "usage_usec", Some(12))]
    #[case("", "max", None)]
    fn fields(#[case] text: &str, #[case] name: &str, #[case] expected: Option<u64>) {
        assert_eq!(field(text, name), expected);
    }
}
