//! The `trine` program: the command line, handed the node that `trine node` runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(node::run)
}
