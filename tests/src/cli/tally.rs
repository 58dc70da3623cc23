//! Counts test results in the output of test programs.

use std::fmt;

/// Written by the integration tests for a test that cannot run here; see [`crate::guest`].
pub const SKIPPED: &str = "lab: skipped: ";

/// How many tests had which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Did what they should.
    pub passed: u64,
    /// Did not.
    pub failed: u64,
    /// Did not run.
    pub skipped: u64,
}

impl Tally {
    /// Takes a line of output, for example `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`.
    pub fn line(&mut self, line: &str) {
        // with one test at a time it comes behind "test x ... "
        if line.contains(SKIPPED) {
            // the test itself says "ok"
            self.skipped += 1;
            self.passed = self.passed.wrapping_sub(1);
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let counts = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for part in counts.split(';') {
            let Some((count, what)) = part.trim().split_once(' ') else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed = self.passed.wrapping_add(count),
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_programs_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s",
        ] {
            tally.line(line);
        }
        assert_eq!(tally.to_string(), "5 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_skips_itself_has_not_passed() {
        let mut tally = Tally::default();
        tally.line("lab: skipped: there is no /dev/kvm");
        tally.line("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tally.line("test it_works ... lab: skipped: there is no /dev/kvm");
        tally.line("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        assert_eq!(tally.to_string(), "0 passed, 0 failed, 2 skipped");
    }
}
