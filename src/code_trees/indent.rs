//! Blocks, by the indentation of their lines.

use super::answer::Rule;

/// How a line is indented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Indentation {
    /// Columns, with a tab to each eighth.
    columns: usize,
    /// Columns, with tabs as wide as spaces.
    characters: usize,
    tabs: bool,
    spaces: bool,
}

impl Indentation {
    /// The indentation that is `text`: spaces and tabs.
    pub(super) fn of(text: &[u8]) -> Self {
        let mut found = Self::default();
        for byte in text {
            if *byte == b'\t' {
                found.columns = (found.columns / 8 + 1) * 8;
                found.tabs = true;
            } else {
                found.columns += 1;
                found.spaces = true;
            }
            found.characters += 1;
        }
        found
    }
}

/// The blocks that are open.
#[derive(Debug, Default)]
pub(super) struct Indents {
    /// Without the module's.
    open: Vec<Indentation>,
    /// The line before ended with a colon.
    expected: bool,
    tabs: bool,
    spaces: bool,
}

impl Indents {
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// A logical line is over; `colon` if that was its last token.
    pub(super) fn open_block(&mut self, colon: bool) {
        self.expected = colon;
    }

    /// Whether a block is expected that has not come.
    pub(super) fn block_missing(&self) -> bool {
        self.expected
    }

    /// Whether some lines are indented by tabs and some by spaces.
    pub(super) fn mixed(&self) -> bool {
        self.tabs && self.spaces
    }

    /// A logical line begins. `Err(None)`: tabs and spaces decide, and not alike for everyone.
    pub(super) fn begin_line(&mut self, line: Indentation) -> Result<(), Option<Rule>> {
        self.tabs |= line.tabs;
        self.spaces |= line.spaces;
        let rule = self.step(line);
        match rule {
            Some(_) if self.mixed() => Err(None),
            Some(rule) => Err(Some(rule)),
            None => Ok(()),
        }
    }

    fn step(&mut self, line: Indentation) -> Option<Rule> {
        let top = self.open.last().copied().unwrap_or_default();
        let expected = std::mem::take(&mut self.expected);
        if line.columns > top.columns {
            self.open.push(line);
            return (!expected).then_some(Rule::UnexpectedIndent);
        }
        while self.open.last().is_some_and(|block| block.columns > line.columns) {
            self.open.pop();
        }
        let enclosing = self.open.last().copied().unwrap_or_default();
        if expected {
            Some(Rule::MissingBlock)
        } else {
            (enclosing.columns != line.columns).then_some(Rule::Dedent)
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["a", "b"], Ok(()))]
    #[case(&[" a"], Err(Some(Rule::UnexpectedIndent)))]
    #[case(&["a:", "  b", "c"], Ok(()))]
    #[case(&["a:", "b"], Err(Some(Rule::MissingBlock)))]
    #[case(&["a:", "    b:", "        c", "      d"], Err(Some(Rule::Dedent)))]
    #[case(&["a:", "\tb", "        c"], Ok(()))]
    #[case(&["a:", "\tb", "    c"], Err(None))]
    fn blocks(#[case] lines: &[&str], #[case] end: Result<(), Option<Rule>>) {
        let mut indents = Indents::default();
        let results = lines.iter().map(|line| {
            let text = line.trim_start();
            let result = indents.begin_line(Indentation::of(&line.as_bytes()[..line.len() - text.len()]));
            indents.open_block(text.ends_with(':'));
            result
        });
        assert_eq!(results.into_iter().find(Result::is_err).unwrap_or(Ok(())), end);
    }
}
