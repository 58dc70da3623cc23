//! The clock: a PL031 (Arm DDI 0224) that counts the host's real time in seconds since 1970.
//!
//! vm-superio has one too, but its match register does nothing, so there is no alarm, and a write to the enabled
//! control register sets its clock back; hence an own one.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime};

use crate::bus::MmioDevice;
use crate::interrupt::InterruptLine;

/// Bytes of the register window.
pub const WINDOW_SIZE: u64 = 0x1000;

/// Register offsets (table 3-1).
mod offset {
    /// Data: the counter.
    pub const DR: u64 = 0x00;
    /// Match.
    pub const MR: u64 = 0x04;
    /// Load.
    pub const LR: u64 = 0x08;
    /// Control.
    pub const CR: u64 = 0x0c;
    /// Interrupt mask.
    pub const IMSC: u64 = 0x10;
    /// Raw interrupt status.
    pub const RIS: u64 = 0x14;
    /// Masked interrupt status.
    pub const MIS: u64 = 0x18;
    /// Interrupt clear.
    pub const ICR: u64 = 0x1c;
    /// RTCPeriphID0; seven more identification registers follow.
    pub const PERIPH_ID0: u64 = 0xfe0;
}

/// RTCPeriphID0-3 and RTCPCellID0-3 (3.3.9 to 3.3.16).
const IDENTIFICATION: [u8; 8] = [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;
type AlarmHook = Box<dyn Fn() + Send + Sync>;

struct State {
    /// What is added to the host's seconds, modulo 2^32.
    offset: u32,
    load: u32,
    alarm: u32,
    mask: bool,
    raw: bool,
    /// The counter as of the last look; the alarm goes off when the counter passes it after that.
    seen: u32,
    high: bool,
}

/// A PL031. The device is its register window of [`WINDOW_SIZE`] bytes.
///
/// It has no thread of its own: the control loop calls [`Rtc::poll`] when the time that the last one returned is
/// over, and whenever the hook of [`Rtc::on_alarm_change`] says that the guest set another alarm.
pub struct Rtc {
    line: Arc<dyn InterruptLine>,
    clock: Clock,
    state: Mutex<State>,
    alarm_hook: OnceLock<AlarmHook>,
}

impl Rtc {
    /// A clock that counts the host's real time and drives `line` as a level.
    pub fn new(line: Arc<dyn InterruptLine>) -> Self {
        Self::with_clock(line, SystemTime::now)
    }

    /// A clock that counts the time of `clock`.
    pub fn with_clock(line: Arc<dyn InterruptLine>, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let clock: Clock = Box::new(clock);
        let seen = since_epoch(&clock).as_secs() as u32;
        let state = State { offset: 0, load: 0, alarm: 0, mask: false, raw: false, seen, high: false };
        Self { line, clock, state: Mutex::new(state), alarm_hook: OnceLock::new() }
    }

    /// Calls `hook` after each write of the guest that may bring an alarm nearer. It runs on a vCPU thread and should
    /// only wake the control loop. Set once; a second one is ignored.
    pub fn on_alarm_change(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.alarm_hook.set(Box::new(hook));
    }

    /// Raises the interrupt if the alarm is due; returns how long it is to the next one, `None` while the guest
    /// listens to none.
    pub fn poll(&self) -> Option<Duration> {
        let now = since_epoch(&self.clock);
        let mut state = self.lock();
        self.advance(&mut state, now);
        if !state.mask || state.raw {
            return None;
        }
        // A match at the very value of the counter is a whole round away.
        let seconds = match state.alarm.wrapping_sub(state.seen) {
            0 => 1 << 32,
            seconds => u64::from(seconds),
        };
        Some(Duration::from_secs(seconds) - Duration::from_nanos(now.subsec_nanos().into()))
    }

    /// As at power-on: no alarm, and the host's time again.
    pub fn reset(&self) {
        let now = since_epoch(&self.clock);
        let mut state = self.lock();
        *state = State { offset: 0, load: 0, alarm: 0, mask: false, raw: false, seen: 0, high: state.high };
        state.seen = now.as_secs() as u32;
        self.drive(&mut state);
    }

    /// Brings the counter up to date and raises the raw interrupt if it met the match register (2.2.4).
    fn advance(&self, state: &mut State, now: Duration) {
        let counter = (now.as_secs() as u32).wrapping_add(state.offset);
        let passed = counter.wrapping_sub(state.seen);
        // The host's clock may be set back; then nothing was passed.
        if passed < 1 << 31 {
            let to_alarm = state.alarm.wrapping_sub(state.seen);
            state.raw |= (1..=passed).contains(&to_alarm);
        }
        state.seen = counter;
        self.drive(state);
    }

    fn drive(&self, state: &mut State) {
        let high = state.raw && state.mask;
        if std::mem::replace(&mut state.high, high) != high {
            self.line.set_level(high);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A host clock before 1970 counts as 1970.
fn since_epoch(clock: &Clock) -> Duration {
    clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Registers are 32 bits wide; other widths read the low part and write zero-extended.
impl MmioDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.lock();
        self.advance(&mut state, since_epoch(&self.clock));
        let value = match offset {
            offset::DR => state.seen,
            offset::MR => state.alarm,
            offset::LR => state.load,
            offset::CR => 1,
            offset::IMSC => state.mask.into(),
            offset::RIS => state.raw.into(),
            offset::MIS => (state.raw && state.mask).into(),
            offset::PERIPH_ID0.. if offset.is_multiple_of(4) => {
                let id = IDENTIFICATION.get((offset - offset::PERIPH_ID0) as usize / 4);
                id.copied().unwrap_or(0).into()
            }
            _ => 0,
        };
        data.fill(0);
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let value = data.iter().take(4).rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        let now = since_epoch(&self.clock);
        let mut state = self.lock();
        self.advance(&mut state, now);
        match offset {
            offset::MR => {
                state.alarm = value;
                state.raw |= value == state.seen;
            }
            offset::LR => {
                state.load = value;
                state.offset = value.wrapping_sub(now.as_secs() as u32);
                state.seen = value;
                state.raw |= value == state.alarm;
            }
            offset::IMSC => state.mask = value & 1 != 0,
            offset::ICR => state.raw &= value & 1 == 0,
            // RTCCR: once started the counter runs (3.3.4). The rest is read-only or reserved.
            _ => return,
        }
        self.drive(&mut state);
        drop(state);
        if let Some(hook) = self.alarm_hook.get() {
            hook();
        }
    }
}

#[cfg(test)]
mod tests;
