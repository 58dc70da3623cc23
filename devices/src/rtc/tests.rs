use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::*;

#[derive(Default)]
struct Line(AtomicBool);

impl InterruptLine for Line {
    fn set_level(&self, high: bool) {
        self.0.store(high, Ordering::Relaxed);
    }
}

/// A clock at 1000.25 s that a test moves.
struct Machine {
    rtc: Rtc,
    line: Arc<Line>,
    milliseconds: Arc<AtomicU64>,
}

impl Machine {
    fn new() -> Self {
        let (line, milliseconds) = (Arc::new(Line::default()), Arc::new(AtomicU64::new(1_000_250)));
        let time = milliseconds.clone();
        let clock = move || SystemTime::UNIX_EPOCH + Duration::from_millis(time.load(Ordering::Relaxed));
        Self { rtc: Rtc::with_clock(line.clone(), clock), line, milliseconds }
    }

    fn read(&self, register: u64) -> u32 {
        let mut data = [0xff; 4];
        self.rtc.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        self.rtc.write(register, &value.to_le_bytes());
    }

    /// As Linux does (drivers/rtc/rtc-pl031.c, `pl031_set_alarm`).
    fn set_alarm(&self, seconds: u32) {
        self.write(offset::MR, seconds);
        self.write(offset::ICR, 1);
        self.write(offset::IMSC, 1);
    }

    fn pass(&self, milliseconds: u64) {
        self.milliseconds.fetch_add(milliseconds, Ordering::Relaxed);
    }

    fn line_is_high(&self) -> bool {
        self.line.0.load(Ordering::Relaxed)
    }
}

#[test]
fn it_identifies_itself_as_a_pl031() {
    let machine = Machine::new();
    let ids: Vec<u32> = (0..8).map(|n| machine.read(offset::PERIPH_ID0 + 4 * n)).collect();
    assert_eq!(ids, [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn it_counts_the_seconds_of_the_host() {
    let machine = Machine::new();
    assert_eq!(machine.read(offset::DR), 1000);
    machine.pass(5000);
    assert_eq!(machine.read(offset::DR), 1005);
    assert_eq!(machine.read(offset::CR), 1, "it runs");
}

#[test]
fn a_guest_can_set_it() {
    let machine = Machine::new();
    machine.write(offset::LR, 50);
    machine.pass(3000);
    assert_eq!(machine.read(offset::DR), 53);
    assert_eq!(machine.read(offset::LR), 50);
    machine.write(offset::CR, 1);
    assert_eq!(machine.read(offset::DR), 53, "starting a clock that runs changes nothing (3.3.4)");
    machine.rtc.reset();
    assert_eq!(machine.read(offset::DR), 1003);
}

#[test]
fn an_alarm_goes_off_when_it_is_due() {
    let machine = Machine::new();
    assert_eq!(machine.rtc.poll(), None);
    machine.set_alarm(1002);
    assert_eq!(machine.rtc.poll(), Some(Duration::from_millis(1750)));
    machine.pass(1749);
    assert_eq!(machine.rtc.poll(), Some(Duration::from_millis(1)));
    assert!(!machine.line_is_high());
    machine.pass(1);
    assert_eq!(machine.rtc.poll(), None);
    assert!(machine.line_is_high());
    assert_eq!(machine.read(offset::MIS), 1);
    machine.write(offset::ICR, 1);
    assert!(!machine.line_is_high());
    assert_eq!(machine.read(offset::RIS), 0);
}

#[test]
fn an_alarm_is_not_missed_when_the_poll_comes_late() {
    let machine = Machine::new();
    machine.set_alarm(1002);
    machine.pass(60_000);
    machine.rtc.poll();
    assert!(machine.line_is_high());
}

#[test]
fn an_alarm_in_the_past_waits_for_the_next_round() {
    let machine = Machine::new();
    machine.set_alarm(999);
    machine.pass(2000);
    let wait = machine.rtc.poll().unwrap();
    assert_eq!(wait, Duration::from_millis(((1 << 32) - 3) * 1000 - 250));
    assert!(!machine.line_is_high());
}

#[test]
fn a_match_with_the_counter_as_it_is_counts() {
    let machine = Machine::new();
    machine.write(offset::IMSC, 1);
    machine.write(offset::MR, 1000);
    assert!(machine.line_is_high());
    machine.write(offset::ICR, 1);
    machine.write(offset::MR, 77);
    machine.write(offset::LR, 77);
    assert!(machine.line_is_high());
}

#[test]
fn a_masked_alarm_is_raw_only() {
    let machine = Machine::new();
    machine.write(offset::MR, 1001);
    machine.pass(1000);
    assert_eq!(machine.read(offset::RIS), 1);
    assert_eq!(machine.read(offset::MIS), 0);
    assert!(!machine.line_is_high());
    machine.write(offset::IMSC, 1);
    assert!(machine.line_is_high());
}

#[test]
fn a_host_clock_that_is_set_back_raises_no_alarm() {
    let machine = Machine::new();
    machine.set_alarm(1010);
    machine.milliseconds.store(500_000, Ordering::Relaxed);
    assert_eq!(machine.read(offset::DR), 500);
    assert!(!machine.line_is_high());
    assert_eq!(machine.rtc.poll(), Some(Duration::from_secs(510)));
}

#[test]
fn the_control_loop_is_told_of_a_new_alarm() {
    let machine = Machine::new();
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    machine.rtc.on_alarm_change(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    machine.read(offset::DR);
    machine.write(offset::CR, 1);
    assert_eq!(told.load(Ordering::Relaxed), 0);
    machine.set_alarm(1010);
    assert_eq!(told.load(Ordering::Relaxed), 3);
}

#[test]
fn reset_forgets_the_alarm() {
    let machine = Machine::new();
    machine.set_alarm(1001);
    machine.pass(1000);
    machine.rtc.poll();
    machine.rtc.reset();
    assert!(!machine.line_is_high());
    assert_eq!(machine.read(offset::IMSC), 0);
    assert_eq!(machine.rtc.poll(), None);
}

#[test]
fn an_access_that_fits_no_register_does_nothing() {
    let machine = Machine::new();
    for register in [0x02, 0x20, 0xfe1, 0x1000, u64::MAX] {
        machine.write(register, u32::MAX);
        assert_eq!(machine.read(register), 0, "{register:#x}");
    }
    machine.rtc.write(offset::LR, &[]);
    assert_eq!(machine.read(offset::DR), 0, "no byte is a zero");
}
