//! The kernel's DMA mapping benchmark in guests: what an unmapping costs, and that nothing breaks under it.
#![cfg(target_arch = "aarch64")]

use std::io::Write;
use std::time::Duration;

use nestling_lab::guest::{Finished, Launch, Model, Place};

/// Shows a line past the test harness, which keeps what passing tests print to itself.
macro_rules! show {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// A guest with four processors, both drives and the benchmark, which has `seconds` for each of its parts.
fn benchmark(place: &Place, step: &str, seconds: u32, drives: usize) -> Option<Finished> {
    let all = place.devices_of(Model::Nvme, drives)?;
    let launch = Launch::new(place).initrd(place.guests().tools()).devices(&all[..drives]).cpus("4");
    let launch = launch.kernel_option("iommu.strict=1").kernel_option(&format!("nestling.seconds={seconds}"));
    Some(launch.steps(step).limit(Duration::from_secs(300)).run())
}

#[test]
fn four_processors_map_and_unmap_on_two_vsmmus_for_a_minute() {
    let Some(place) = Place::here() else { return };
    let Some(finished) = benchmark(place, "contend,io", 30, 2) else { return };
    assert_eq!(finished.said("contended").len(), 2);
    assert_eq!(finished.said("drives verified"), ["2"]);
    for at in 0..2 {
        let count = |what: &str| finished.count(&format!("/vsmmus/{at}/{what}"));
        assert_eq!((count("events"), count("lost_events")), (0, 0));
        assert!(count("commands/CMD_SYNC") > 1000, "{} CMD_SYNCs", count("commands/CMD_SYNC"));
        show!(
            "vSMMU {at}: {} CMD_SYNCs, {} invalidations, {} ioctls",
            count("commands/CMD_SYNC"),
            count("invalidation_commands"),
            count("invalidation_ioctls")
        );
    }
    for line in finished.said("bench").iter().chain(&finished.said("contended")) {
        show!("{line}");
    }
}

#[test]
fn a_sync_costs_one_exit_and_one_ioctl() {
    let Some(place) = Place::here() else { return };
    let Some(finished) = benchmark(place, "bench", 3, 1) else { return };
    let count = |what: &str| finished.count(&format!("/vsmmus/0/{what}"));
    let (syncs, ioctls, exits) =
        (count("commands/CMD_SYNC"), count("invalidation_ioctls"), finished.count("/vcpu_exits"));
    assert_eq!(finished.said("bench").len(), 4);
    assert!(syncs > 1000, "{syncs} CMD_SYNCs");
    assert!(ioctls <= syncs, "{ioctls} ioctls for {syncs} CMD_SYNCs");
    // the others are those of booting and of the console
    assert!(exits <= syncs + 5000, "{exits} exits for {syncs} CMD_SYNCs");
    show!("| threads | pages | map, us | deviation | unmap, us | deviation |");
    show!("| --- | --- | --- | --- | --- | --- |");
    for line in finished.said("bench") {
        let words: Vec<&str> = line.split_whitespace().filter(|word| word.parse::<f64>().is_ok()).collect();
        show!("| {} |", words.join(" | "));
    }
    show!(
        "{} invalidations, {syncs} CMD_SYNCs, {ioctls} ioctls, {exits} exits of all vCPUs",
        count("invalidation_commands")
    );
}
