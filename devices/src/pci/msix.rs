//! MSI-X of an emulated function (PCIe 7.7.2): the table and the pending bits in a BAR, and when a message is sent.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Bdf;
use super::config::{ConfigBuilder, ConfigSpace};
use super::spec::{Command, MsixControl, capability, header};
use crate::bus::MmioDevice;
use crate::interrupt::MsiTarget;

/// Length of the capability in bytes.
const LENGTH: u16 = 12;
/// Bytes of a table entry: address, upper address, data, vector control (7.7.2.6 to 7.7.2.9).
const ENTRY: u64 = 16;
/// Where the pending bits start in the BAR.
const PBA: u64 = 0x800;
/// Mask Bit of Vector Control (7.7.2.9).
const MASKED: u32 = 1;

/// Bytes of the BAR that table and pending bits share.
pub const BAR_SIZE: u64 = 0x1000;
/// Vectors that fit into the BAR.
pub const MAX_VECTORS: u16 = (PBA / ENTRY) as u16;

#[derive(Clone, Copy)]
struct Vector {
    /// Message Address, Message Upper Address, Message Data, Vector Control.
    words: [u32; 4],
    pending: bool,
}

impl Vector {
    /// As after reset: masked (7.7.2.9).
    const RESET: Self = Self { words: [0, 0, 0, MASKED], pending: false };
}

struct State {
    vectors: Vec<Vector>,
    /// MSI-X and bus mastering are both enabled.
    enabled: bool,
    function_mask: bool,
}

/// The vectors of one function; the [`MmioDevice`] is its BAR.
pub struct Msix {
    target: Arc<dyn MsiTarget>,
    device_id: AtomicU32,
    state: Mutex<State>,
}

impl Msix {
    /// `vectors` (from 1 to [`MAX_VECTORS`]) masked vectors whose messages go to `target`.
    pub fn new(vectors: u16, target: Arc<dyn MsiTarget>) -> Self {
        let vectors = vec![Vector::RESET; usize::from(vectors.clamp(1, MAX_VECTORS))];
        let state = State { vectors, enabled: false, function_mask: false };
        Self { target, device_id: AtomicU32::new(0), state: Mutex::new(state) }
    }

    /// Appends the capability, with table and pending bits in BAR number `bar`; returns its offset.
    pub fn capability(&self, config: &mut ConfigBuilder, bar: u8) -> u16 {
        let last = self.lock().vectors.len() as u16 - 1;
        let at = config.capability(capability::MSIX, LENGTH);
        let writable = MsixControl::ENABLE | MsixControl::FUNCTION_MASK;
        config.u16(at + 2, last, writable.bits());
        config.u32(at + 4, u32::from(bar), 0);
        config.u32(at + 8, PBA as u32 | u32::from(bar), 0);
        at
    }

    /// Takes over what the guest wrote to Message Control of the capability at `at` and to Command; sends what was
    /// held back and now need not be.
    pub fn follow(&self, config: &ConfigSpace, at: u16) {
        let control = MsixControl::from_bits_retain(config.get_u16(at + 2));
        let command = Command::from_bits_retain(config.get_u16(header::COMMAND));
        let mut state = self.lock();
        // A function that may not master the bus can write no message (7.5.1.1.3).
        state.enabled = control.contains(MsixControl::ENABLE) && command.contains(Command::BUS_MASTER);
        state.function_mask = control.contains(MsixControl::FUNCTION_MASK);
        self.send_pending(&mut state);
    }

    /// The requester ID under which messages are sent.
    pub fn set_requester_id(&self, id: Bdf) {
        self.device_id.store(id.requester_id().into(), Ordering::Relaxed);
    }

    /// Raises `vector`: sent now, or kept pending while it is masked.
    pub fn notify(&self, vector: u16) {
        let mut state = self.lock();
        if let Some(vector) = state.vectors.get_mut(usize::from(vector)) {
            vector.pending = true;
        }
        self.send_pending(&mut state);
    }

    /// As at power-on: disabled, every vector masked, nothing pending.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.vectors.fill(Vector::RESET);
        state.enabled = false;
        state.function_mask = false;
    }

    fn send_pending(&self, state: &mut State) {
        if !state.enabled || state.function_mask {
            return;
        }
        let device_id = self.device_id.load(Ordering::Relaxed);
        for vector in state.vectors.iter_mut().filter(|v| v.pending && v.words[3] & MASKED == 0) {
            vector.pending = false;
            self.target.send(device_id, vector.words[2]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    fn word(&self, offset: u64) -> u32 {
        if offset < PBA {
            let vector = self.vectors.get((offset / ENTRY) as usize);
            return vector.map_or(0, |v| v.words[(offset % ENTRY / 4) as usize]);
        }
        let first = ((offset - PBA) * 8) as usize;
        let bits = self.vectors.iter().skip(first).take(32).enumerate();
        bits.fold(0, |word, (bit, vector)| word | u32::from(vector.pending) << bit)
    }
}

/// Software reads and writes whole DWORDs or QWORDs; anything else is undefined (7.7.2) and here reads zero.
impl MmioDevice for Msix {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !offset.is_multiple_of(4) {
            return;
        }
        let state = self.lock();
        for (at, chunk) in (offset..BAR_SIZE).step_by(4).zip(data.chunks_exact_mut(4)) {
            chunk.copy_from_slice(&state.word(at).to_le_bytes());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) {
            return;
        }
        let mut state = self.lock();
        for (at, chunk) in (offset..PBA).step_by(4).zip(data.chunks_exact(4)) {
            let Some(vector) = state.vectors.get_mut((at / ENTRY) as usize) else { continue };
            let field = (at % ENTRY / 4) as usize;
            let value = chunk.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
            vector.words[field] = if field == 3 { value & MASKED } else { value };
        }
        self.send_pending(&mut state);
    }
}

#[cfg(test)]
mod tests;
