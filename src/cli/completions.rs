//! `evalmill completions`.

use std::io;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::args::Cli;

/// Prints the completion script for a shell.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_completions(shell: Shell) -> io::Result<()> {
    super::print(&script(shell))
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "evalmill", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_has_one() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            assert!(script.contains("check-config"), "{shell}");
        }
    }
}
