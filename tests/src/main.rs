//! `cargo lab`: see `docs/lab.md`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nestling_lab::cli::main()
}
