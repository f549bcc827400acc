//! The command line.

pub mod args;
mod bench;
mod check_config;
mod client;
pub mod client_args;
mod collect;
pub mod completions;
mod dispatch;
mod doctor;
mod exit;
mod healthcheck;
mod parking;
pub mod progress;
mod publish;
mod report;
mod report_csv;
mod report_markdown;
mod report_text;
mod run;
pub mod schema;
mod serve;
mod signals;
mod stack;
pub mod table;
mod topology;

pub use dispatch::main;

use std::io::{self, ErrorKind, Write};

use crate::config::{Loaded, Problems};
use crate::processors::Registry;
use exit::Failure;

/// Whether there is each processor that the configuration speaks of.
fn processors_are_known(loaded: &Loaded) -> Result<(), Failure> {
    Ok(loaded.processors_are_known(&Registry::BUILTIN).map_err(|problem| Problems(vec![problem]))?)
}

/// Writes all of it to standard output. A reader that has enough is no error.
fn print(bytes: &[u8]) -> io::Result<()> {
    print_to(&mut io::stdout().lock(), bytes)
}

fn print_to(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Without control characters: what others wrote must not steer a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_broken_pipe_is_no_error() {
        assert!(print_to(&mut Broken(ErrorKind::BrokenPipe), b"x").is_ok());
        assert!(print_to(&mut Broken(ErrorKind::StorageFull), b"x").is_err());
    }
}
