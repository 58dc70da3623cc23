//! A limit on how often a guest can make this process log.

use std::time::{Duration, Instant};

/// Messages let through in one [`PERIOD`].
const BURST: u32 = 10;
const PERIOD: Duration = Duration::from_secs(5);

/// Counts messages; at most ten in five seconds pass.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    start: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl RateLimit {
    /// Whether a message may be logged now, and if so how many were suppressed before it.
    pub(super) fn pass(&mut self) -> Option<u64> {
        if self.start.is_none_or(|start| start.elapsed() >= PERIOD) {
            self.start = Some(Instant::now());
            self.passed = 0;
        }
        if self.passed == BURST {
            self.suppressed += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_off_and_counted() {
        let mut limit = RateLimit::default();
        let passed = (0..1000).filter(|_| limit.pass().is_some()).count();
        assert_eq!(passed, BURST as usize);
        limit.start = None;
        assert_eq!(limit.pass(), Some(990));
    }
}
