//! Splits bytes into lines of bounded length.

use std::io::{self, BufRead, ErrorKind};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What one call found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// Only white space.
    Blank,
    /// Longer than allowed; it was skipped.
    TooLong,
}

/// Reads a stream line by line.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    limit: usize,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, number: 0 }
    }

    /// How many lines were read to their end.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line; `None` at the end.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line>> {
        // Room for what does not count: the byte order mark and the carriage return.
        let room = self.limit.saturating_add(BOM.len() + 1);
        let mut line = Vec::new();
        let mut started = false;
        let mut skipping = false;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() && !started {
                return Ok(None);
            }
            started = true;
            let end = available.iter().position(|&byte| byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            if !skipping && part.len() > room - line.len() {
                skipping = true;
                line = Vec::new();
            }
            if !skipping {
                line.extend_from_slice(part);
            }
            let complete = end.is_some() || available.is_empty();
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if complete {
                break;
            }
        }
        self.number += 1;
        if skipping {
            return Ok(Some(Line::TooLong));
        }
        if self.number == 1 && line.starts_with(BOM) {
            line.drain(..BOM.len());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(if line.trim_ascii().is_empty() {
            Line::Blank
        } else if line.len() > self.limit {
            Line::TooLong
        } else {
            Line::Whole(line)
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use rstest::rstest;

    use super::*;

    fn split(text: &[u8], limit: usize, buffer: usize) -> Vec<Line> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, text), limit);
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[rstest]
    #[case(b"", vec![])]
    #[case(b"a", vec![whole("a")])]
    #[case(b"a\n", vec![whole("a")])]
    #[case(b"a\r\nb\r", vec![whole("a"), whole("b")])]
    #[case(b"\n \t\r\na", vec![Line::Blank, Line::Blank, whole("a")])]
    #[case(b"\xef\xbb\xbfa\n\xef\xbb\xbf\n", vec![whole("a"), whole("\u{feff}")])]
    #[case(b"\xef\xbb\xbf", vec![Line::Blank])]
    #[case(b"1234567\n12345678\nb", vec![whole("1234567"), Line::TooLong, whole("b")])]
    #[case(b"\xef\xbb\xbf1234567\r\n", vec![whole("1234567")])]
    #[case(b"12345678901234567890\nb\n", vec![Line::TooLong, whole("b")])]
    #[case(b"12345678901234567890", vec![Line::TooLong])]
    fn lines(#[case] text: &[u8], #[case] expected: Vec<Line>, #[values(1, 3, 64)] buffer: usize) {
        assert_eq!(split(text, 7, buffer), expected);
    }
}
