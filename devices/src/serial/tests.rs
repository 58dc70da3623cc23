use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;

#[derive(Default)]
struct Line(AtomicBool);

impl InterruptLine for Line {
    fn set_level(&self, high: bool) {
        self.0.store(high, Ordering::Relaxed);
    }
}

/// An output that a test can look at, and close.
#[derive(Clone, Default)]
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    closed: Arc<AtomicBool>,
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.text.lock().unwrap().extend(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Machine {
    serial: Serial,
    output: Output,
    line: Arc<Line>,
}

impl Machine {
    fn new() -> Self {
        let (output, line) = (Output::default(), Arc::new(Line::default()));
        Self { serial: Serial::new(Box::new(output.clone()), line.clone()), output, line }
    }

    fn read(&self, register: u64) -> u32 {
        let mut data = [0xff; 4];
        self.serial.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        self.serial.write(register, &value.to_le_bytes());
    }

    fn flags(&self) -> Flags {
        Flags::from_bits_retain(self.read(offset::FR))
    }

    fn raw(&self) -> Interrupts {
        Interrupts::from_bits_retain(self.read(offset::RIS))
    }

    fn listen(&self, interrupts: Interrupts) {
        self.write(offset::IMSC, interrupts.bits());
    }

    fn line_is_high(&self) -> bool {
        self.line.0.load(Ordering::Relaxed)
    }

    /// As Linux does (drivers/tty/serial/amba-pl011.c, `pl011_fifo_to_tty`).
    fn receive_all(&self) -> Vec<u8> {
        let mut text = Vec::new();
        while !self.flags().contains(Flags::RXFE) {
            text.push(self.read(offset::DR) as u8);
        }
        text
    }
}

#[test]
fn it_identifies_itself_as_a_pl011_with_fifos_of_16() {
    let machine = Machine::new();
    let ids: Vec<u32> = (0..8).map(|n| machine.read(offset::PERIPH_ID0 + 4 * n)).collect();
    assert_eq!(ids, [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn it_starts_as_firmware_leaves_it() {
    let machine = Machine::new();
    assert_eq!(machine.read(offset::CR), 0x301);
    assert_eq!(machine.read(offset::LCR_H), 0x70);
    assert_eq!(machine.read(offset::IFLS), 0x12);
    assert_eq!(machine.flags(), Flags::TXFE | Flags::RXFE | Flags::CTS | Flags::DSR | Flags::DCD);
}

#[test]
fn what_is_written_is_out_at_once_at_any_width() {
    let machine = Machine::new();
    machine.serial.write(offset::DR, b"h");
    machine.serial.write(offset::DR, &[b'i', 0]);
    machine.write(offset::DR, u32::from(b'!'));
    assert_eq!(*machine.output.text.lock().unwrap(), b"hi!");
    assert!(machine.flags().contains(Flags::TXFE));
}

#[test]
fn an_output_that_fails_loses_characters_and_stops_nobody() {
    let machine = Machine::new();
    machine.output.closed.store(true, Ordering::Relaxed);
    machine.write(offset::DR, 1);
    machine.write(offset::DR, 2);
    assert_eq!(machine.serial.lost_output(), 2);
    machine.output.closed.store(false, Ordering::Relaxed);
    machine.write(offset::DR, u32::from(b'x'));
    assert_eq!(*machine.output.text.lock().unwrap(), b"x");
}

#[test]
fn a_transmitted_character_raises_the_transmit_interrupt_until_it_is_cleared() {
    let machine = Machine::new();
    machine.listen(Interrupts::TX);
    assert!(!machine.line_is_high(), "the level is not yet passed (3.3.9)");
    machine.write(offset::DR, u32::from(b'x'));
    assert!(machine.line_is_high());
    machine.write(offset::ICR, Interrupts::TX.bits());
    assert!(!machine.line_is_high());
}

#[test]
fn one_character_raises_the_timeout_and_reading_it_takes_the_line_down() {
    let machine = Machine::new();
    machine.listen(Interrupts::RX | Interrupts::RT);
    assert_eq!(machine.serial.push_input(b"a"), 1);
    assert!(machine.line_is_high());
    assert_eq!(machine.read(offset::MIS), Interrupts::RT.bits());
    assert_eq!(machine.receive_all(), b"a");
    assert!(!machine.line_is_high());
    assert_eq!(machine.raw(), Interrupts::empty());
}

#[test]
fn the_receive_interrupt_follows_the_level() {
    let machine = Machine::new();
    machine.serial.push_input(b"1234567");
    assert_eq!(machine.raw(), Interrupts::RT);
    machine.serial.push_input(b"8");
    assert_eq!(machine.raw(), Interrupts::RT | Interrupts::RX, "half full (3.3.9)");
    machine.read(offset::DR);
    assert_eq!(machine.raw(), Interrupts::RT);
    machine.write(offset::IFLS, 0);
    machine.receive_all();
    machine.serial.push_input(b"12");
    assert_eq!(machine.raw(), Interrupts::RT | Interrupts::RX, "an eighth");
}

#[test]
fn a_masked_interrupt_is_raw_only() {
    let machine = Machine::new();
    machine.serial.push_input(b"a");
    assert!(!machine.line_is_high());
    assert_eq!(machine.read(offset::MIS), 0);
    machine.listen(Interrupts::RT);
    assert!(machine.line_is_high());
    machine.listen(Interrupts::empty());
    assert!(!machine.line_is_high());
}

#[test]
fn input_beyond_the_fifo_is_refused_until_the_guest_made_space() {
    let machine = Machine::new();
    let wakes = Arc::new(AtomicUsize::new(0));
    let count = wakes.clone();
    machine.serial.on_input_space(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let text = b"0123456789abcdefghij";
    assert_eq!(machine.serial.push_input(text), 16);
    assert!(machine.flags().contains(Flags::RXFF));
    assert_eq!(machine.serial.push_input(&text[16..]), 0);
    assert_eq!(machine.read(offset::DR), u32::from(b'0'));
    assert!(!machine.flags().contains(Flags::RXFF));
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
    assert_eq!(machine.receive_all(), b"123456789abcdef");
    assert_eq!(wakes.load(Ordering::Relaxed), 1, "told once");
    assert_eq!(machine.serial.push_input(&text[16..]), 4);
    assert_eq!(machine.receive_all(), b"ghij");
}

#[test]
fn without_fifos_one_character_is_held() {
    let machine = Machine::new();
    machine.serial.push_input(b"abc");
    machine.write(offset::LCR_H, LineControl::WLEN_8.bits());
    assert!(machine.flags().contains(Flags::RXFF));
    assert_eq!(machine.receive_all(), b"a");
    assert_eq!(machine.serial.push_input(b"bc"), 1);
    assert_eq!(machine.raw() & Interrupts::RX, Interrupts::RX);
}

#[test]
fn a_receiver_that_is_off_takes_nothing_and_says_when_it_is_on() {
    let machine = Machine::new();
    let wakes = Arc::new(AtomicUsize::new(0));
    let count = wakes.clone();
    machine.serial.on_input_space(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    machine.write(offset::CR, 0);
    assert_eq!(machine.serial.push_input(b"a"), 0);
    machine.write(offset::CR, (Control::UARTEN | Control::RXE).bits());
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
    assert_eq!(machine.serial.push_input(b"a"), 1);
}

#[test]
fn in_loopback_what_is_sent_comes_back() {
    let machine = Machine::new();
    machine.write(offset::CR, (Control::UARTEN | Control::RXE | Control::TXE | Control::LBE).bits());
    machine.write(offset::DR, u32::from(b'x'));
    assert_eq!(machine.receive_all(), b"x");
    assert!(machine.output.text.lock().unwrap().is_empty());
    for _ in 0..2 * FIFO_DEPTH {
        machine.write(offset::DR, u32::from(b'y'));
    }
    assert_eq!(machine.receive_all(), [b'y'; FIFO_DEPTH]);
}

#[test]
fn reset_forgets_input_and_interrupts() {
    let machine = Machine::new();
    machine.listen(Interrupts::RT);
    machine.serial.push_input(b"abc");
    machine.serial.reset();
    assert!(!machine.line_is_high());
    assert!(machine.flags().contains(Flags::RXFE));
    assert_eq!(machine.read(offset::IMSC), 0);
}

#[test]
fn an_access_that_fits_no_register_does_nothing() {
    let machine = Machine::new();
    machine.serial.push_input(b"a");
    assert_eq!(machine.read(0x001), 0);
    assert_eq!(machine.read(0x1000), 0);
    assert_eq!(machine.read(u64::MAX - 3), 0);
    machine.serial.write(0x031, &[0; 4]);
    machine.serial.write(0x00c, &[0xff; 8]);
    machine.serial.write(offset::CR, &[]);
    machine.serial.write(offset::FR, &[0xff; 8]);
    let mut wide = [0xff; 8];
    machine.serial.read(offset::DR, &mut wide);
    assert_eq!(wide, [b'a', 0, 0, 0, 0, 0, 0, 0]);
}
