//! The last lines of a stream, for messages about what went wrong.

use std::collections::VecDeque;

/// Lines kept of each stream.
const LINES: usize = 25;
/// A line longer than this is cut into several.
const WIDTH: usize = 400;

/// The last lines that went by, without escape sequences and control characters.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    lines: VecDeque<String>,
    unfinished: Vec<u8>,
}

impl Tail {
    /// Takes the next bytes of the stream and returns the lines that they complete, without their ends.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.unfinished.len() >= WIDTH {
                let line = readable(&self.unfinished);
                self.unfinished.clear();
                self.lines.push_back(line.clone());
                if self.lines.len() > LINES {
                    self.lines.pop_front();
                }
                complete.push(line);
            }
            if *byte != b'\n' {
                self.unfinished.push(*byte);
            }
        }
        complete
    }

    /// The last lines, the unfinished one included, below a heading.
    #[must_use]
    pub fn report(&self, heading: &str) -> String {
        let unfinished = Some(readable(&self.unfinished)).filter(|line| !line.is_empty());
        let lines: Vec<&str> = self
            .lines
            .iter()
            .map(String::as_str)
            .chain(unfinished.as_deref())
            .filter(|line| !line.is_empty())
            .collect();
        if lines.is_empty() {
            return format!("--- {heading}: nothing ---");
        }
        format!("--- {heading}, last lines ---\n{}", lines.join("\n"))
    }
}

/// What a person sees of a line: no escape sequences (UEFI paints its console), no control characters.
fn readable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut seen = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => {
                if characters.clone().next() == Some('[') {
                    characters.next();
                    // a control sequence ends with its first letter or similar (ECMA-48, 5.4)
                    characters.by_ref().find(|end| ('@'..='~').contains(end));
                } else {
                    characters.next();
                }
            }
            '\t' => seen.push('\t'),
            _ if character.is_control() => {}
            _ => seen.push(character),
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_the_bytes_come_in() {
        let mut tail = Tail::default();
        assert!(tail.push(b"hel").is_empty());
        assert_eq!(tail.push(b"lo\r\nwor"), ["hello"]);
        assert_eq!(tail.push(b"ld\n\n"), ["world", ""]);
    }

    #[test]
    fn a_report_has_the_last_lines_and_the_unfinished_one() {
        let mut tail = Tail::default();
        for line in 0..100 {
            tail.push(format!("line {line}\n").as_bytes());
        }
        tail.push(b"login: ");
        let report = tail.report("guest's console");
        assert!(report.starts_with("--- guest's console, last lines ---\nline 75\n"), "{report}");
        assert!(report.ends_with("line 99\nlogin: "), "{report}");
    }

    #[test]
    fn silence_is_said() {
        assert_eq!(Tail::default().report("host's console"), "--- host's console: nothing ---");
    }

    #[test]
    fn paint_is_scraped_off() {
        let mut tail = Tail::default();
        assert_eq!(tail.push(b"\x1b[2J\x1b[01;01HUEFI\x1b=\x07 firmware\n"), ["UEFI firmware"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut tail = Tail::default();
        let lines = tail.push(&[b'x'; 3 * WIDTH]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [WIDTH, WIDTH]);
    }
}
