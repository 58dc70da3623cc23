//! `cargo lab fuzz`: one fuzz target under libFuzzer, for as long as one likes.

use std::path::{PathBuf, absolute};
use std::process::{Command, ExitCode};

use super::error::file;
use super::{Error, build};

/// Where the targets are: a workspace of their own, see docs/fuzzing.md.
const FOLDER: &str = "tests/fuzz";

/// Options of `fuzz`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The target: a file in tests/fuzz/fuzz_targets.
    target: String,
    /// Only run these inputs, once: those that failed are in tests/fuzz/artifacts.
    files: Vec<PathBuf>,
    /// How long to look for inputs that fail.
    #[arg(long, default_value_t = 20)]
    minutes: u32,
}

impl Arguments {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let files = self.files.iter().map(|path| absolute(path).map_err(file("finding", path)));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let mut command = build::cargo_of_toolchain("nightly");
        command.args(["fuzz", "run", "--fuzz-dir", FOLDER, "--sanitizer", "none", &self.target]).args(&files);
        command.args(["--", "-max_len=2048", "-len_control=10", "-timeout=10", "-rss_limit_mb=1024"]);
        if files.is_empty() {
            command.arg(format!("-max_total_time={}", u64::from(self.minutes) * 60));
        }
        let status = Command::status(&mut command);
        let status = status.map_err(|source| Error::Start { program: "rustup".to_owned(), source })?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
