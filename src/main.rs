//! The `evalmill` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any runtime or thread exists: this process may have been started as a launcher.
    evalmill::init();
    evalmill::cli::main()
}
