//! From what was typed to what is done.

use std::process::ExitCode;

use clap::Parser as _;

use super::args::{BenchCommand, Cli, Command};
use super::exit::{Failure, conclude};
use super::{
    bench, check_config, collect, completions, doctor, healthcheck, parking, publish, report, run, schema,
    serve, stack, topology,
};

/// Runs the program with its command line.
#[must_use]
pub fn main() -> ExitCode {
    stack::deepen();
    // Clap answers --help, -V and wrong usage itself, with exit code 0 or 2.
    let cli = Cli::parse();
    conclude(dispatch(cli))
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let printed = |result: std::io::Result<()>| {
        result.map_err(|error| Failure::Io(format!("standard output cannot be written: {error}")))
    };
    match cli.command {
        Command::Run(args) => run::run(cli.config, &args),
        Command::Serve(args) => serve::serve(cli.config, &args),
        Command::Topology { apply } => topology::topology(cli.config, apply),
        Command::Publish(args) => publish::publish(cli.config, &args),
        Command::Collect(args) => collect::collect(cli.config, &args),
        Command::Report(args) => report::report(cli.config, &args),
        Command::Parking { what } => parking::parking(cli.config, &what),
        Command::Bench(BenchCommand::Broker { count, bytes }) => bench::broker(cli.config, count, bytes),
        Command::Healthcheck { url } => healthcheck::healthcheck(cli.config, url.as_deref()),
        Command::Doctor(args) => doctor::doctor(cli.config, &args),
        Command::CheckConfig { show_origin } => check_config::check_config(cli.config, show_origin),
        Command::Schema { message } => printed(schema::print_schema(message)),
        Command::Completions { shell } => printed(completions::print_completions(shell)),
    }
}
