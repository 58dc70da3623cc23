//! The console: a PL011 UART (Arm DDI 0183) whose transmitter is a [`Write`] and whose receiver is fed by
//! [`Serial::push_input`].
//!
//! Baud rates and line settings are kept and mean nothing: a character is out as soon as it is written. Registers
//! start as firmware leaves them (enabled, 8 bits, FIFOs on), because Linux takes the UART of SPCR and of ACPI
//! `ARMH0011` as it is (drivers/tty/serial/amba-pl011.c, `vendor_sbsa`).

#![forbid(unsafe_code)]

pub mod spec;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::bus::MmioDevice;
use crate::interrupt::InterruptLine;
use spec::{Control, Flags, IDENTIFICATION, Interrupts, LineControl, offset};

/// Bytes of the register window.
pub const WINDOW_SIZE: u64 = 0x1000;
/// Depth of the receive FIFO (2.1.1).
pub const FIFO_DEPTH: usize = 16;

type SpaceHook = Box<dyn Fn() + Send + Sync>;

/// Registers that only keep what is written, and the two that mean something.
struct Registers {
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    lcr_h: u32,
    cr: u32,
    ifls: u32,
    dmacr: u32,
    imsc: Interrupts,
    ris: Interrupts,
}

impl Registers {
    /// As firmware leaves them; UARTIFLS is at both half levels (3.3.9).
    const POWER_ON: Self = Self {
        ilpr: 0,
        ibrd: 0,
        fbrd: 0,
        lcr_h: LineControl::FEN.union(LineControl::WLEN_8).bits(),
        cr: Control::UARTEN.union(Control::TXE).union(Control::RXE).bits(),
        ifls: 0x12,
        dmacr: 0,
        imsc: Interrupts::empty(),
        ris: Interrupts::empty(),
    };

    fn control(&self) -> Control {
        Control::from_bits_retain(self.cr)
    }

    fn depth(&self) -> usize {
        if LineControl::from_bits_retain(self.lcr_h).contains(LineControl::FEN) { FIFO_DEPTH } else { 1 }
    }

    /// Characters at which the receive interrupt rises (UARTIFLS bits 5:3, 3.3.9).
    fn receive_level(&self) -> usize {
        if self.depth() == 1 {
            return 1;
        }
        match self.ifls >> 3 & 7 {
            0 => FIFO_DEPTH / 8,
            1 => FIFO_DEPTH / 4,
            2 => FIFO_DEPTH / 2,
            3 => FIFO_DEPTH * 3 / 4,
            _ => FIFO_DEPTH * 7 / 8,
        }
    }
}

struct State {
    registers: Registers,
    received: VecDeque<u8>,
    output: Box<dyn Write + Send>,
    /// Some input was refused: whoever has it waits for [`Serial::on_input_space`].
    refused: bool,
    high: bool,
}

impl State {
    fn space(&self) -> usize {
        if self.registers.control().contains(Control::UARTEN | Control::RXE) {
            self.registers.depth().saturating_sub(self.received.len())
        } else {
            0
        }
    }

    fn receive(&mut self, characters: &[u8]) {
        if characters.is_empty() {
            return;
        }
        let before = self.received.len();
        self.received.extend(characters);
        let level = self.registers.receive_level();
        if before < level && self.received.len() >= level {
            self.registers.ris |= Interrupts::RX;
        }
        // The line is idle at once, so what waits has timed out (2.8.3).
        self.registers.ris |= Interrupts::RT;
    }

    fn take(&mut self) -> u8 {
        let character = self.received.pop_front().unwrap_or(0);
        if self.received.len() < self.registers.receive_level() {
            self.registers.ris -= Interrupts::RX;
        }
        if self.received.is_empty() {
            self.registers.ris -= Interrupts::RT;
        }
        character
    }

    fn flags(&self) -> Flags {
        let mut flags = Flags::CTS | Flags::DSR | Flags::DCD | Flags::TXFE;
        flags.set(Flags::RXFE, self.received.is_empty());
        flags.set(Flags::RXFF, self.received.len() >= self.registers.depth());
        flags
    }
}

/// A PL011. The device is its register window of [`WINDOW_SIZE`] bytes.
pub struct Serial {
    line: Arc<dyn InterruptLine>,
    state: Mutex<State>,
    space_hook: OnceLock<SpaceHook>,
    lost_output: AtomicU64,
}

impl Serial {
    /// A UART that writes to `output` and drives `line` as a level.
    ///
    /// `output` is written to on vCPU threads, one character at a time, and flushed after each. What it does not take
    /// is lost and counted.
    pub fn new(output: Box<dyn Write + Send>, line: Arc<dyn InterruptLine>) -> Self {
        let state = State {
            registers: Registers::POWER_ON,
            received: VecDeque::with_capacity(FIFO_DEPTH),
            output,
            refused: false,
            high: false,
        };
        Self { line, state: Mutex::new(state), space_hook: OnceLock::new(), lost_output: AtomicU64::new(0) }
    }

    /// Calls `hook` each time the guest makes space after [`Serial::push_input`] could not take everything. It runs
    /// on a vCPU thread and should only wake somebody. Set once; a second one is ignored.
    pub fn on_input_space(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.space_hook.set(Box::new(hook));
    }

    /// Puts as much of `input` into the receive FIFO as there is space for; returns how many bytes those were.
    /// Nothing is taken while the guest has the receiver disabled.
    pub fn push_input(&self, input: &[u8]) -> usize {
        let mut state = self.lock();
        let accepted = input.len().min(state.space());
        state.receive(&input[..accepted]);
        state.refused |= accepted < input.len();
        self.drive(&mut state);
        accepted
    }

    /// Characters that the output did not take.
    pub fn lost_output(&self) -> u64 {
        self.lost_output.load(Ordering::Relaxed)
    }

    /// As at power-on; what was received and not read is gone.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.registers = Registers::POWER_ON;
        state.received.clear();
        self.finish(state);
    }

    fn transmit(&self, state: &mut State, character: u8) {
        if state.registers.control().contains(Control::LBE) {
            let space = state.space().min(1);
            state.receive(&[character][..space]);
        } else if state.output.write_all(&[character]).and_then(|()| state.output.flush()).is_err() {
            self.lost_output.fetch_add(1, Ordering::Relaxed);
        }
        // The FIFO went through its level on the way to being empty again (3.3.9).
        state.registers.ris |= Interrupts::TX;
    }

    fn read_register(state: &mut State, register: u64) -> u32 {
        let registers = &state.registers;
        match register {
            offset::DR => state.take().into(),
            offset::FR => state.flags().bits(),
            offset::ILPR => registers.ilpr,
            offset::IBRD => registers.ibrd,
            offset::FBRD => registers.fbrd,
            offset::LCR_H => registers.lcr_h,
            offset::CR => registers.cr,
            offset::IFLS => registers.ifls,
            offset::IMSC => registers.imsc.bits(),
            offset::RIS => registers.ris.bits(),
            offset::MIS => (registers.ris & registers.imsc).bits(),
            offset::DMACR => registers.dmacr,
            offset::PERIPH_ID0.. => {
                let id = IDENTIFICATION.get((register - offset::PERIPH_ID0) as usize / 4);
                id.copied().unwrap_or(0).into()
            }
            // UARTRSR shows no error: none ever happens. The rest is reserved or write-only.
            _ => 0,
        }
    }

    fn write_register(&self, state: &mut State, register: u64, value: u32) {
        let registers = &mut state.registers;
        match register {
            offset::DR => self.transmit(state, value as u8),
            offset::ILPR => registers.ilpr = value & 0xff,
            offset::IBRD => registers.ibrd = value & 0xffff,
            offset::FBRD => registers.fbrd = value & 0x3f,
            offset::LCR_H => {
                registers.lcr_h = value & 0xff;
                // Disabling the FIFOs leaves one holding register (3.3.7).
                let depth = registers.depth();
                state.received.truncate(depth);
            }
            offset::CR => registers.cr = value & 0xff87,
            offset::IFLS => registers.ifls = value & 0x3f,
            offset::IMSC => registers.imsc = Interrupts::from_bits_truncate(value),
            offset::ICR => registers.ris -= Interrupts::from_bits_truncate(value),
            offset::DMACR => registers.dmacr = value & 7,
            // UARTECR clears errors that never happen; the rest is reserved or read-only.
            _ => {}
        }
    }

    /// Brings the line to the level of the masked interrupt status.
    fn drive(&self, state: &mut State) {
        let high = !(state.registers.ris & state.registers.imsc).is_empty();
        if std::mem::replace(&mut state.high, high) != high {
            self.line.set_level(high);
        }
    }

    /// Drives the line and tells the source of input, outside the lock, if there is space again.
    fn finish(&self, mut state: MutexGuard<'_, State>) {
        self.drive(&mut state);
        let tell = state.refused && state.space() > 0;
        state.refused &= !tell;
        drop(state);
        if let Some(hook) = self.space_hook.get().filter(|_| tell) {
            hook();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        match self.lost_output() {
            0 => {}
            lost => log::info!("console: {lost} characters were lost, because the output did not take them"),
        }
    }
}

/// Registers are 32 bits wide; narrower reads get their part, narrower writes are zero-extended. What starts inside
/// a register reads zero and is not written.
impl MmioDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !offset.is_multiple_of(4) {
            return;
        }
        let mut state = self.lock();
        let value = Self::read_register(&mut state, offset).to_le_bytes();
        data.iter_mut().zip(value).for_each(|(to, from)| *to = from);
        self.finish(state);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) {
            return;
        }
        let value = data.iter().take(4).rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        let mut state = self.lock();
        self.write_register(&mut state, offset, value);
        self.finish(state);
    }
}

#[cfg(test)]
mod tests;
