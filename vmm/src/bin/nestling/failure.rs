//! One line for whatever went wrong, and the exit status that goes with it.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Why the command did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    line: String,
    status: u8,
}

impl Failure {
    /// The guest was running, and then this happened: status 1.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "guests run on arm64 only"))]
    pub fn failed(error: impl Error) -> Self {
        Self { line: chain(&error), status: 1 }
    }

    /// The guest was running, and then this happened: status 1.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "guests run on arm64 only"))]
    pub fn stopped(text: impl Into<String>) -> Self {
        Self { line: text.into(), status: 1 }
    }

    /// Nothing was started, because of this: status 2.
    pub fn refused(error: impl Error) -> Self {
        Self { line: chain(&error), status: 2 }
    }

    /// Nothing was started, because of this: status 2.
    pub fn message(text: impl Into<String>) -> Self {
        Self { line: text.into(), status: 2 }
    }

    /// The exit status.
    pub fn status(&self) -> ExitCode {
        self.status.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::refused(error)
    }
}

/// The error and what caused it, on one line. Errors do not repeat their source; a source that does is left out.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        source = error.source();
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nestling::host;
    use nestling::plan;

    #[test]
    fn the_chain_is_one_line_in_which_nothing_is_said_twice() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        let host = host::Error::Read { path: "/proc/meminfo".into(), source };
        let failure = Failure::from(plan::Error::Host(host));
        assert_eq!(failure.to_string(), "/proc/meminfo cannot be read: entity not found");
        assert_eq!(failure.status(), ExitCode::from(2));
    }
}
