//! The engine itself: registers, and the work that a command asks for.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard};

use super::spec::*;
use crate::bus::MmioDevice;
use crate::pci::msix::Msix;
use crate::smmuv3::{DmaError, DmaPort};

/// Bytes of one access: no more than a small buffer on the stack.
const CHUNK: usize = 4096;

/// What configuration space allows the engine.
#[derive(Clone, Copy, Default)]
pub(super) struct Enabled {
    pub bus_master: bool,
    pub pasid: PasidControl,
}

#[derive(Clone, Copy, Default)]
struct State {
    enabled: Enabled,
    source: u64,
    destination: u64,
    length: u64,
    pasid: u64,
    status: u64,
    done: u64,
    fault: u64,
    data: u64,
}

/// BAR 0.
pub(super) struct Registers {
    port: DmaPort,
    msix: Arc<Msix>,
    state: Mutex<State>,
}

/// Why a command ends early.
enum End {
    Aborted(u64),
    Refused,
}

impl From<DmaError> for End {
    fn from(error: DmaError) -> Self {
        let (DmaError::Aborted { iova } | DmaError::NoMemory { iova, .. }) = error;
        Self::Aborted(iova)
    }
}

impl Registers {
    pub fn new(port: DmaPort, msix: Arc<Msix>) -> Self {
        Self { port, msix, state: Mutex::default() }
    }

    /// Takes over what configuration space says.
    pub fn enable(&self, enabled: Enabled) {
        self.lock().enabled = enabled;
    }

    pub fn reset(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Does it on the thread of the vCPU that wrote the register: a command is at most [`MAX_LENGTH`] bytes.
    fn start(&self, state: &mut State, command: Command) {
        (state.done, state.fault) = (0, 0);
        let status = match self.run(state, command) {
            Ok(()) => Status::Done,
            Err(End::Aborted(iova)) => {
                state.fault = iova;
                Status::Aborted
            }
            Err(End::Refused) => Status::Refused,
        };
        state.status = status as u64;
    }

    fn run(&self, state: &mut State, command: Command) -> Result<(), End> {
        let port = self.port(state, command)?;
        let State { source, destination, length, data, .. } = *state;
        if length > MAX_LENGTH {
            return Err(End::Refused);
        }
        let mut buffer = [0; CHUNK];
        let mut sum = 0u64;
        if command.operation() == OPERATION_FILL {
            buffer.as_chunks_mut::<8>().0.fill(data.to_le_bytes());
        }
        while state.done < length {
            let count = (length - state.done).min(CHUNK as u64);
            let Some(chunk) = buffer.get_mut(..count as usize) else { break };
            let (from, to) = (source.wrapping_add(state.done), destination.wrapping_add(state.done));
            match command.operation() {
                OPERATION_COPY => {
                    port.dma_read(from, chunk)?;
                    port.dma_write(to, chunk)?;
                }
                OPERATION_FILL => port.dma_write(to, chunk)?,
                OPERATION_SUM => {
                    port.dma_read(from, chunk)?;
                    sum = chunk.iter().fold(sum, |sum, &byte| sum.wrapping_add(byte.into()));
                }
                _ => return Err(End::Refused),
            }
            state.done += count;
        }
        match command.operation() {
            OPERATION_COPY | OPERATION_FILL => Ok(()),
            OPERATION_SUM => {
                state.data = sum;
                Ok(())
            }
            _ => Err(End::Refused),
        }
    }

    /// The port for a command, with what configuration space allows it.
    fn port(&self, state: &State, command: Command) -> Result<DmaPort, End> {
        let pasid = Pasid::from_bits(state.pasid as u32);
        let Enabled { bus_master, pasid: control } = state.enabled;
        let prefix = pasid.valid();
        let legal = bus_master
            && (!prefix || control.enable())
            && (!command.privileged() || prefix && control.privileged())
            && (!command.execute() || prefix && control.execute());
        if !legal {
            return Err(End::Refused);
        }
        let port = self.port.with_substream(prefix.then(|| pasid.pasid()));
        Ok(port.with_privilege(command.privileged()).with_execution(command.execute()))
    }
}

impl State {
    fn word(&self, offset: u64) -> u64 {
        match offset {
            ID => ID_VALUE,
            SOURCE => self.source,
            DESTINATION => self.destination,
            LENGTH => self.length,
            PASID => self.pasid,
            STATUS => self.status,
            DONE => self.done,
            FAULT => self.fault,
            DATA => self.data,
            _ => 0,
        }
    }

    fn set_word(&mut self, offset: u64, value: u64) {
        match offset {
            SOURCE => self.source = value,
            DESTINATION => self.destination = value,
            LENGTH => self.length = value,
            PASID => self.pasid = value & u64::from(u32::MAX),
            DATA => self.data = value,
            _ => {}
        }
    }
}

fn is_legal(offset: u64, length: usize) -> bool {
    matches!(length, 1 | 2 | 4 | 8) && offset.is_multiple_of(length as u64)
}

impl MmioDevice for Registers {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if !is_legal(offset, data.len()) {
            data.fill(0xff);
            return;
        }
        let word = self.lock().word(offset & !7).to_le_bytes();
        let bytes = word.iter().skip(offset as usize & 7);
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if !is_legal(offset, data.len()) {
            return;
        }
        let mut state = self.lock();
        let mut word = state.word(offset & !7).to_le_bytes();
        word.iter_mut().skip(offset as usize & 7).zip(data).for_each(|(to, from)| *to = *from);
        let word = u64::from_le_bytes(word);
        state.set_word(offset & !7, word);
        if offset == COMMAND && data.len() >= 4 {
            let command = Command::from_bits(word as u32);
            self.start(&mut state, command);
            let tell = command.interrupt() && state.enabled.bus_master;
            drop(state);
            if tell {
                self.msix.notify(0);
            }
        }
    }
}
