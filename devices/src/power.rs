//! The power button: an ACPI Generic Event Device (ACPI 6.5, 5.6.9) with QEMU's register layout
//! (hw/acpi/generic_event_device.c), so that the AML for one fits the other.
//!
//! | offset | bytes | access | register |
//! | --- | --- | --- | --- |
//! | 0x0 | 4 | read | selector: the events that happened since the last read, which clears it and lowers the line |
//!
//! Bit 1 (value 0x2) is the power button. No other bit is ever set, writes are ignored, and the rest of the window
//! reads zero. The line rises with the first event and falls when the selector is read, so the interrupt may be
//! described as edge- or level-triggered, active high. The device's `_EVT` reads the selector once and notifies
//! `PWRB` with 0x80 if the bit is set.
//!
//! Power-off and reset are PSCI's business.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use crate::bus::MmioDevice;
use crate::interrupt::InterruptLine;

/// Bytes of the register window.
pub const WINDOW_SIZE: u64 = 0x1000;
/// Offset of the selector register.
pub const SELECTOR: u64 = 0x0;
/// The power button in the selector.
pub const POWER_BUTTON: u32 = 1 << 1;

/// A Generic Event Device.
pub struct Power {
    line: Arc<dyn InterruptLine>,
    selector: Mutex<u32>,
}

impl Power {
    /// A button that nobody pressed yet.
    pub fn new(line: Arc<dyn InterruptLine>) -> Self {
        Self { line, selector: Mutex::new(0) }
    }

    /// Asks the guest's operating system to shut down.
    pub fn press_power_button(&self) {
        let mut selector = self.selector.lock().unwrap_or_else(|e| e.into_inner());
        *selector |= POWER_BUTTON;
        self.line.set_level(true);
    }

    /// As at power-on: no event pending.
    pub fn reset(&self) {
        self.take();
    }

    fn take(&self) -> u32 {
        let mut selector = self.selector.lock().unwrap_or_else(|e| e.into_inner());
        let events = std::mem::take(&mut *selector);
        if events != 0 {
            self.line.set_level(false);
        }
        events
    }
}

impl MmioDevice for Power {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset == SELECTOR {
            let events = self.take().to_le_bytes();
            data.iter_mut().zip(events).for_each(|(to, from)| *to = from);
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Default)]
    struct Line(AtomicBool);

    impl InterruptLine for Line {
        fn set_level(&self, high: bool) {
            self.0.store(high, Ordering::Relaxed);
        }
    }

    fn selector(power: &Power) -> u32 {
        let mut data = [0xff; 4];
        power.read(SELECTOR, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn a_press_raises_the_line_until_the_selector_is_read() {
        let line = Arc::new(Line::default());
        let power = Power::new(line.clone());
        assert_eq!(selector(&power), 0);
        power.press_power_button();
        assert!(line.0.load(Ordering::Relaxed));
        assert_eq!(selector(&power), 0x2);
        assert!(!line.0.load(Ordering::Relaxed));
        assert_eq!(selector(&power), 0, "reading clears");
    }

    #[test]
    fn only_the_selector_clears_the_event() {
        let power = Power::new(Arc::new(Line::default()));
        power.press_power_button();
        let mut data = [0xff; 4];
        power.read(4, &mut data);
        assert_eq!(data, [0; 4]);
        power.write(SELECTOR, &[0xff; 4]);
        assert_eq!(selector(&power), 0x2);
    }

    #[test]
    fn reset_forgets_a_press() {
        let line = Arc::new(Line::default());
        let power = Power::new(line.clone());
        power.press_power_button();
        power.reset();
        assert!(!line.0.load(Ordering::Relaxed));
        assert_eq!(selector(&power), 0);
    }
}
