//! What the guest of a demo said and what nestling counted, checked and as tables.

use std::fmt::Write;

use serde::Deserialize;

/// Lines of the guest that programs read begin so.
const MARK: &str = "nestling-guest: ";

/// nestling's counters, as `--stats` writes them; only what the demo shows.
#[derive(Debug, Default, Deserialize)]
pub struct Stats {
    /// One for each vSMMU.
    pub vsmmus: Vec<Vsmmu>,
}

/// Counters of one vSMMU.
#[derive(Debug, Deserialize)]
pub struct Vsmmu {
    name: String,
    host: String,
    stage1_installs: u64,
    invalidation_commands: u64,
    invalidation_ioctls: u64,
    events: u64,
    devices: Vec<Device>,
}

/// A device behind a vSMMU.
#[derive(Debug, Deserialize)]
struct Device {
    host: String,
    stream_id: u32,
}

/// A drive that the guest wrote, read back and compared.
#[derive(Debug, PartialEq, Eq)]
struct Drive {
    /// Address in the guest.
    device: String,
    bytes: u64,
}

/// What the guest said so far.
#[derive(Debug, Default)]
pub struct Report {
    failure: Option<String>,
    passed: bool,
    smmus: Option<usize>,
    drives: Vec<Drive>,
    /// Addresses of guest devices and the types of their IOMMU groups.
    groups: Vec<(String, String)>,
}

impl Report {
    /// Takes one line of the guest's console; true if it is the first of the guest's init.
    pub fn line(&mut self, line: &str) -> bool {
        let Some((_, said)) = line.split_once(MARK) else { return false };
        let words: Vec<&str> = said.split_whitespace().collect();
        match words.as_slice() {
            ["init", ..] => return true,
            ["passed"] => self.passed = true,
            ["failed", ..] if self.failure.is_none() => self.failure = Some(said.to_owned()),
            ["smmus", count] => self.smmus = count.parse().ok(),
            ["group", _, "type", kind, "device", device, ..] => {
                self.groups.push(((*device).to_owned(), (*kind).to_owned()));
            }
            [_, "verified", bytes, "device", device] => {
                self.drives.extend(bytes.parse().ok().map(|bytes| Drive { device: (*device).to_owned(), bytes }));
            }
            _ => {}
        }
        false
    }

    /// Everything that is not as it should be, in a host with this many SMMUs and drives for the guest.
    #[must_use]
    pub fn problems(&self, stats: &Stats, smmus: usize, drives: Option<usize>) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(failure) = &self.failure {
            problems.push(format!("the guest says: {failure}"));
        } else if !self.passed {
            problems.push("the guest never said 'passed'".to_owned());
        }
        // a guest that failed may not have come as far as to count them
        if self.smmus != Some(smmus) && (self.smmus.is_some() || self.failure.is_none()) {
            problems.push(format!("the guest sees {} SMMUs instead of {smmus}", self.smmus.unwrap_or(0)));
        }
        if let Some(drives) = drives.filter(|drives| *drives != self.drives.len()) {
            problems.push(format!("the guest verified {} drives instead of {drives}", self.drives.len()));
        }
        for (device, kind) in self.groups.iter().filter(|(_, kind)| !kind.starts_with("DMA")) {
            problems.push(format!("the IOMMU group of {device} in the guest has type {kind} instead of DMA"));
        }
        if stats.vsmmus.len() != smmus {
            problems.push(format!("nestling reports {} vSMMUs instead of {smmus}", stats.vsmmus.len()));
        }
        for vsmmu in stats.vsmmus.iter().filter(|vsmmu| vsmmu.stage1_installs == 0) {
            problems.push(format!("no stage 1 was ever installed in {}", vsmmu.name));
        }
        problems
    }

    /// The tables at the end of the demo: vSMMUs, then devices.
    #[must_use]
    pub fn summary(&self, stats: &Stats) -> String {
        let vsmmus = stats.vsmmus.iter().map(|vsmmu| {
            let counts = [vsmmu.stage1_installs, vsmmu.invalidation_commands, vsmmu.invalidation_ioctls, vsmmu.events];
            [vsmmu.name.clone(), vsmmu.host.clone()].into_iter().chain(counts.map(|count| count.to_string())).collect()
        });
        let head = ["vSMMU", "host SMMU", "stage-1 installs", "invalidation commands", "ioctls", "events"];
        let first = table(&head, vsmmus.collect());
        let devices = stats.vsmmus.iter().flat_map(|vsmmu| vsmmu.devices.iter().map(move |device| (vsmmu, device)));
        let devices = devices.map(|(vsmmu, device)| {
            let guest = address(device.stream_id);
            let checked = self.drives.iter().find(|drive| drive.device == guest);
            vec![
                device.host.clone(),
                guest,
                vsmmu.name.clone(),
                format!("{:#06x}", device.stream_id),
                checked.map_or_else(|| "-".to_owned(), |drive| drive.bytes.to_string()),
            ]
        });
        let second = table(&["device", "in the guest", "vSMMU", "StreamID", "bytes checked"], devices.collect());
        format!("{first}\n{second}")
    }
}

/// A StreamID is the requester ID, in segment 0.
fn address(stream_id: u32) -> String {
    format!("0000:{:02x}:{:02x}.{}", stream_id >> 8, (stream_id >> 3) & 0x1f, stream_id & 7)
}

/// Columns as wide as they need to be; those of numbers are aligned to the right.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let number = |cell: &str| cell == "-" || (!cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit()));
    let right = |column: usize| !rows.is_empty() && rows.iter().all(|row| row.get(column).is_some_and(|it| number(it)));
    let mut text = String::new();
    for row in std::iter::once(head.iter().map(ToString::to_string).collect()).chain(rows.iter().cloned()) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _ = match (right(column), width(column)) {
                (true, width) => write!(line, "{cell:>width$}  "),
                (false, width) => write!(line, "{cell:<width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = r#"{"vsmmus":[
        {"name":"vsmmu0","host":"smmu3.0x0000000008080000","stage1_installs":1,"invalidation_commands":512,
         "invalidation_ioctls":40,"events":0,"devices":[{"host":"0000:11:00.0","stream_id":2304}]},
        {"name":"vsmmu1","host":"smmu3.0x00000000080a0000","stage1_installs":2,"invalidation_commands":9,
         "invalidation_ioctls":4,"events":1,"devices":[{"host":"0000:21:00.0","stream_id":4096}]}],"vcpu_exits":7}"#;

    fn good() -> Report {
        let mut report = Report::default();
        for line in [
            "nestling-guest: group 0 type DMA device 0000:09:00.0 smmu smmu3.0x000000000c000000",
            "nestling-guest: group 1 type DMA-FQ device 0000:10:00.0 smmu smmu3.0x000000000c020000",
            "nestling-guest: smmus 2",
            "nestling-guest: nvme0n1 verified 16777216 device 0000:09:00.0",
            "nestling-guest: nvme1n1 verified 16777216 device 0000:10:00.0",
            "nestling-guest: passed",
        ] {
            report.line(line);
        }
        report
    }

    fn stats() -> Stats {
        serde_json::from_str(STATS).expect("it is JSON")
    }

    #[test]
    fn a_good_run_has_no_problems() {
        assert_eq!(good().problems(&stats(), 2, Some(2)), Vec::<String>::new());
    }

    #[test]
    fn the_line_that_failed_is_named() {
        let mut report = Report::default();
        report.line("[    1.0] nestling-guest: failed io: mounting nvme0n1");
        let problems = report.problems(&stats(), 2, None);
        assert_eq!(problems, ["the guest says: failed io: mounting nvme0n1"]);
    }

    #[test]
    fn silence_missing_drives_and_bypass_are_problems() {
        let mut report = Report::default();
        report.line("nestling-guest: group 0 type identity device 0000:09:00.0 smmu smmu3.0x000000000c000000");
        report.line("nestling-guest: smmus 1");
        let problems = report.problems(&Stats::default(), 2, Some(2)).join("\n");
        for part in ["never said 'passed'", "1 SMMUs instead of 2", "0 drives instead of 2", "identity", "0 vSMMUs"] {
            assert!(problems.contains(part), "{part} is not in: {problems}");
        }
    }

    #[test]
    fn only_the_first_line_of_init_is_told_apart() {
        let mut report = Report::default();
        assert!(report.line("nestling-guest: init after 1.2 s on 2 processors"));
        assert!(!report.line("nestling-guest: passed"));
        assert!(!report.line("Booting Linux"));
    }

    #[test]
    fn the_summary_connects_host_devices_with_what_the_guest_checked() {
        let expected = "\
vSMMU   host SMMU                 stage-1 installs  invalidation commands  ioctls  events
vsmmu0  smmu3.0x0000000008080000                 1                    512      40       0
vsmmu1  smmu3.0x00000000080a0000                 2                      9       4       1

device        in the guest  vSMMU   StreamID  bytes checked
0000:11:00.0  0000:09:00.0  vsmmu0  0x0900         16777216
0000:21:00.0  0000:10:00.0  vsmmu1  0x1000         16777216
";
        assert_eq!(good().summary(&stats()), expected);
    }
}
