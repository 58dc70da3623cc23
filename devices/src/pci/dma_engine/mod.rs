//! A DMA engine of nestling's own: a PCIe endpoint that copies, fills and adds up guest memory through a vSMMU in
//! software ([`crate::smmuv3::WalkerSmmu`]), for tests and demonstrations. [`spec`] has its registers.

#![forbid(unsafe_code)]

mod registers;
pub mod spec;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::bar::{BarShape, MmioBar};
use super::config::{ConfigBuilder, ConfigSpace};
use super::msix::{self, Msix};
use super::spec::{Command, capability, express, header};
use super::{Bdf, PciFunction};
use crate::bus::MmioBus;
use crate::interrupt::MsiTarget;
use crate::smmuv3::DmaPort;
use crate::vfio::Upstream;
use registers::{Enabled, Registers};
use spec::{
    CLASS_OTHER_PERIPHERAL, DEVICE_ID, FLR_CAPABLE, INITIATE_FLR, PASID_CAP, PASID_CAPABILITY, PASID_CAPABILITY_SIZE,
    PASID_CONTROL, PasidControl, REGISTERS_SIZE, VENDOR_ID,
};

/// What an engine is at power-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaEngineConfig {
    /// Addresses of BAR 0 (registers) and BAR 1 (MSI-X), 4 KiB each, below 4 GiB.
    pub bars: [u64; 2],
    /// Bits of a PASID, at most 20; 0 for no PASID capability.
    pub pasid_bits: u8,
}

const BARS: [BarShape; 2] = [
    BarShape { index: 0, size: REGISTERS_SIZE, wide: false, prefetchable: false },
    BarShape { index: 1, size: msix::BAR_SIZE, wide: false, prefetchable: false },
];

/// Where the capabilities are.
#[derive(Clone, Copy)]
struct Layout {
    msix: u16,
    express: u16,
    pasid: Option<u16>,
}

struct State {
    config: ConfigSpace,
    bars: [MmioBar; 2],
}

/// A DMA engine; put it behind a root port that is behind the vSMMU of its port.
pub struct DmaEngine {
    layout: Layout,
    msix: Arc<Msix>,
    registers: Arc<Registers>,
    state: Mutex<State>,
    upstream: OnceLock<Arc<dyn Upstream>>,
}

impl DmaEngine {
    /// An engine whose DMA goes through `port` and whose messages go to `target`.
    pub fn new(config: DmaEngineConfig, port: DmaPort, bus: &Arc<MmioBus>, target: Arc<dyn MsiTarget>) -> Self {
        let msix = Arc::new(Msix::new(1, target));
        let (space, layout) = build(&config, &msix);
        let registers = Arc::new(Registers::new(port, msix.clone()));
        let bars = [
            MmioBar::new(bus.clone(), registers.clone(), REGISTERS_SIZE),
            MmioBar::new(bus.clone(), msix.clone(), msix::BAR_SIZE),
        ];
        let state = Mutex::new(State { config: space, bars });
        Self { layout, msix, registers, state, upstream: OnceLock::new() }
    }

    /// Names the vSMMU that is told of a new requester ID: [`crate::smmuv3::EmulatedUpstream`]. Only the first counts.
    pub fn set_upstream(&self, upstream: Arc<dyn Upstream>) {
        let _ = self.upstream.set(upstream);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets BARs, interrupts and DMA be as configuration space has them.
    fn follow(&self, state: &mut State) {
        let State { config, bars } = state;
        let command = Command::from_bits_retain(config.get_u16(header::COMMAND));
        for (bar, shape) in bars.iter_mut().zip(&BARS) {
            let address = command.contains(Command::MEMORY).then(|| config.bar(shape));
            if let Err(error) = bar.place(address) {
                log::debug!("dma engine: bar {} answers nowhere: {error}", shape.index);
            }
        }
        self.msix.follow(config, self.layout.msix);
        let pasid = self.layout.pasid.map(|at| PasidControl::from_bits(config.get_u16(at + PASID_CONTROL)));
        let bus_master = command.contains(Command::BUS_MASTER);
        self.registers.enable(Enabled { bus_master, pasid: pasid.unwrap_or_default() });
    }

    fn renumber(&self, to: Option<Bdf>) {
        if let Some(upstream) = self.upstream.get()
            && let Err(error) = upstream.renumber(to)
        {
            log::warn!("dma engine: its stream id cannot change: {error}");
        }
        if let Some(id) = to {
            self.msix.set_requester_id(id);
        }
    }
}

impl PciFunction for DmaEngine {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.lock().config.read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut state = self.lock();
        state.config.write(offset, data);
        let control = self.layout.express + express::DEVICE_CONTROL;
        if state.config.get_u16(control) & INITIATE_FLR != 0 {
            drop(state);
            return self.reset();
        }
        self.follow(&mut state);
    }

    fn reset(&self) {
        let mut state = self.lock();
        state.config.reset();
        self.registers.reset();
        self.msix.reset();
        self.follow(&mut state);
    }

    fn on_requester_id(&self, id: Bdf) {
        self.renumber(Some(id));
    }

    fn on_unreachable(&self) {
        // Until the configuration write that makes it reachable again.
        self.registers.enable(Enabled::default());
        self.renumber(None);
    }
}

fn build(config: &DmaEngineConfig, msix: &Msix) -> (ConfigSpace, Layout) {
    /// PCI Express Capabilities: version 2, endpoint (7.5.3.2).
    const EXPRESS: u16 = 2;
    const ROLE_BASED_ERROR_REPORTING: u32 = 1 << 15;
    /// 2.5 GT/s, one lane (7.5.3.6).
    const LINK: u32 = 1 << 4 | 1;
    /// Execute and privileged mode (7.8.9.2).
    const PASID_MODES: u16 = 0b110;

    let mut space = ConfigBuilder::new();
    let command = Command::MEMORY | Command::BUS_MASTER | Command::INTERRUPT_DISABLE;
    space
        .u16(header::VENDOR_ID, VENDOR_ID, 0)
        .u16(header::DEVICE_ID, DEVICE_ID, 0)
        .u16(header::COMMAND, 0, command.bits())
        .u32(header::REVISION_AND_CLASS, CLASS_OTHER_PERIPHERAL << 8, 0)
        .u8(header::CACHE_LINE_SIZE, 0, 0xff)
        .u16(header::SUBSYSTEM_VENDOR_ID, VENDOR_ID, 0)
        .u16(header::SUBSYSTEM_ID, DEVICE_ID, 0)
        .u8(header::INTERRUPT_LINE, 0, 0xff);
    for (shape, address) in BARS.iter().zip(config.bars) {
        space.bar(shape, address);
    }
    let msix = msix.capability(&mut space, BARS[1].index);
    let express = space.capability(capability::PCI_EXPRESS, express::LENGTH);
    space
        .u16(express + express::CAPABILITIES, EXPRESS, 0)
        .u32(express + express::DEVICE_CAPABILITIES, ROLE_BASED_ERROR_REPORTING | FLR_CAPABLE, 0)
        .u16(express + express::DEVICE_CONTROL, 0x2810, 0x78ff | INITIATE_FLR)
        .u32(express + express::LINK_CAPABILITIES, LINK, 0)
        .u16(express + express::LINK_STATUS, LINK as u16, 0);
    let pasid = (config.pasid_bits > 0).then(|| {
        let at = space.extended_capability(PASID_CAPABILITY, 1, PASID_CAPABILITY_SIZE);
        let width = u16::from(config.pasid_bits.min(20));
        space.u16(at + PASID_CAP, width << 8 | PASID_MODES, 0).u16(at + PASID_CONTROL, 0, 0b111);
        at
    });
    (space.build(), Layout { msix, express, pasid })
}
