//! How the set-up shows that it is alive: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, a running step speaks at most this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What a step counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Bytes of packages.
    Bytes,
    /// Things of this name: objects, files.
    Things(&'static str),
}

/// Where progress goes: standard error, as bars if that is a terminal.
#[derive(Debug)]
pub struct Progress {
    bars: bool,
    quiet: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Bars on a terminal, plain lines elsewhere.
    #[must_use]
    pub fn new() -> Self {
        Self { bars: std::io::stderr().is_terminal(), quiet: false }
    }

    /// Shows nothing; for tests.
    #[must_use]
    pub fn silent() -> Self {
        Self { bars: false, quiet: true }
    }

    /// One line of text that stays.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("lab: {text}");
        }
    }

    /// Begins a step of `total` units.
    pub(super) fn step(&self, title: &str, unit: Unit, total: u64) -> Step<'_> {
        let bar = if self.bars {
            let bar = ProgressBar::new(total).with_message(title.to_owned());
            bar.set_style(style(unit));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            self.say(title);
            ProgressBar::hidden()
        };
        let now = Instant::now();
        Step { progress: self, title: title.to_owned(), unit, total, bar, begun: now, spoke: now }
    }
}

fn style(unit: Unit) -> ProgressStyle {
    let template = match unit {
        Unit::Bytes => "lab: {msg:40} [{bar:30}] {binary_bytes}/{binary_total_bytes} {elapsed}".to_owned(),
        Unit::Things(name) => format!("lab: {{msg:40}} [{{bar:30}}] {{pos}}/{{len}} {name} {{elapsed}}"),
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// A step under way; dropping it without [`Step::done`] means that it failed.
#[derive(Debug)]
pub(super) struct Step<'a> {
    progress: &'a Progress,
    title: String,
    unit: Unit,
    total: u64,
    bar: ProgressBar,
    begun: Instant,
    spoke: Instant,
}

impl Step<'_> {
    /// `count` units are done so far; returned. More than the total stretches the total: estimates may be low.
    pub(super) fn set(&mut self, count: u64) -> u64 {
        if count > self.total {
            self.total = count;
            self.bar.set_length(count);
        }
        self.bar.set_position(count);
        if !self.progress.bars && self.spoke.elapsed() >= LINE_EVERY {
            self.spoke = Instant::now();
            self.progress.say(&line(&self.title, self.unit, count, self.total, self.begun.elapsed()));
        }
        count
    }

    /// The step is finished; leaves one line that says how long it took.
    pub(super) fn done(self) {
        self.bar.finish_and_clear();
        let seconds = self.begun.elapsed().as_secs_f32();
        self.progress.say(&format!("{}: done in {seconds:.1} s", self.title));
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn line(title: &str, unit: Unit, count: u64, total: u64, elapsed: Duration) -> String {
    let percent = (count * 100).checked_div(total).unwrap_or(0);
    let seconds = elapsed.as_secs();
    match unit {
        Unit::Bytes => format!("{title}: {} of {} MiB ({percent} %), {seconds} s", count >> 20, total >> 20),
        Unit::Things(name) => format!("{title}: {count} of {total} {name} ({percent} %), {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_how_much_and_how_long() {
        let text = line("fetching qemu", Unit::Bytes, 25 << 20, 100 << 20, Duration::from_secs(7));
        assert_eq!(text, "fetching qemu: 25 of 100 MiB (25 %), 7 s");
        let text = line("building", Unit::Things("objects"), 3, 0, Duration::ZERO);
        assert_eq!(text, "building: 3 of 0 objects (0 %), 0 s");
    }

    #[test]
    fn a_low_estimate_is_stretched() {
        let progress = Progress::silent();
        let mut step = progress.step("building", Unit::Things("objects"), 2);
        step.set(5);
        assert_eq!(step.total, 5);
    }
}
