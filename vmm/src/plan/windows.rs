//! Addresses of BARs and bridge windows: those of a port inside its expander's, those of the expanders side by side.
//!
//! A PCI-to-PCI bridge forwards two ranges (PCIe 6.0, 7.5.1.3): one for memory below 4 GiB, and one for prefetchable
//! memory, which may be above. So a BAR goes above 4 GiB when it is prefetchable and has 64 bits, else below.

use nestling_arch::layout::{self, HighRegions};
use nestling_devices::pci::msix;

use super::error::Error;
use super::pack::{Need, Packed, pack, pack_from};
use super::spec::{Bar, Window};
use super::topology::{Group, Port};
use crate::config::Size;
use crate::host::HostBar;

/// Bridge windows begin and end at these.
const GRANULE: u64 = 1 << 20;
/// Each BAR has the pages it lies on for itself, up to the largest page size of an arm64 host or guest.
const BAR_LEAST: u64 = 64 << 10;
/// A root port's own BAR 0: its MSI-X table.
const PORT_BAR0: u64 = msix::BAR_SIZE;
/// What each port has at least: Linux reserves as much behind a port that can be hot-plugged (`hpmmiosize` and
/// `hpmmioprefsize`, drivers/pci/setup-bus.c) and looks for it in vain if the Plan has not.
const PORT_LEAST: u64 = 2 << 20;
/// Room behind a free port, for a device plugged in later.
const FREE_PORT_MMIO32: u64 = 2 << 20;
const FREE_PORT_MMIO64: u64 = 1 << 30;
/// Room for emulated devices on pcie.0.
const ROOT_MMIO32: u64 = 32 << 20;
const ROOT_MMIO64: u64 = 1 << 30;

/// Above or below 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Low,
    High,
}

impl Space {
    fn of(bar: &HostBar) -> Self {
        if bar.wide && bar.prefetchable { Self::High } else { Self::Low }
    }
}

/// Where everything is.
pub struct Windows {
    /// Windows of pcie.0.
    pub root: Pair,
    /// One for each group.
    pub expanders: Vec<ExpanderWindows>,
    /// What lies behind guest RAM.
    pub high: HighRegions,
}

/// A window below 4 GiB and one above.
#[derive(Clone, Copy, Default)]
pub struct Pair {
    /// Below 4 GiB.
    pub mmio32: Window,
    /// Above 4 GiB.
    pub mmio64: Window,
}

/// Windows of one expander.
pub struct ExpanderWindows {
    /// Its own.
    pub window: Pair,
    /// One for each port.
    pub ports: Vec<PortWindows>,
}

/// Windows of one port.
#[derive(Default)]
pub struct PortWindows {
    /// Its own.
    pub window: Pair,
    /// Its BAR 0.
    pub bar0: Window,
    /// The BARs of its function, ascending.
    pub bars: Vec<Bar>,
}

/// Everything of one expander in one space, with places relative to the start of its window.
struct Bridge {
    /// Each port's window; below 4 GiB each port's BAR 0 after them.
    packed: Packed,
    /// The BARs of each port's function that are in this space.
    ports: Vec<(Vec<HostBar>, Packed)>,
}

/// Finds a place for every BAR and window of a guest with `ram` bytes of memory. With `ipa_bits` the window above 4 GiB
/// is made as small as possible if the usual one does not fit.
pub fn windows(groups: &[Group<'_>], ram: u64, ipa_bits: Option<u8>) -> Result<Windows, Error> {
    let too_much = || Error::AddressSpace(Size(ram));
    let low: Option<Vec<_>> = groups.iter().map(|group| bridge(group, Space::Low)).collect();
    let low = low.ok_or_else(|| no_room_below_4g(groups))?;
    let high: Option<Vec<_>> = groups.iter().map(|group| bridge(group, Space::High)).collect();
    let high = high.ok_or_else(too_much)?;

    let space = layout::PCI_MMIO32;
    let (low_bases, low_end) =
        pack_from(space.base + ROOT_MMIO32, &needs(&low)).ok_or_else(|| no_room_below_4g(groups))?;
    if low_end > space.end() {
        return Err(no_room_below_4g(groups));
    }
    // From 0: the whole is aligned to its own size, so what is aligned in it is aligned anyway. pcie.0 goes last, where
    // it opens no hole before a large BAR.
    let mut high_needs = needs(&high);
    high_needs.push(Need { size: ROOT_MMIO64, align: GRANULE });
    let (mut high_offsets, high_size) = pack_from(0, &high_needs).ok_or_else(too_much)?;
    let root_offset = high_offsets.pop().unwrap_or_default();
    let usual = HighRegions::new(ram, high_size.max(layout::HIGH_MMIO_SIZE));
    let least = || HighRegions::new(ram, high_size).ok_or_else(too_much);
    let regions = match (usual, ipa_bits) {
        (Some(usual), None) => usual,
        (Some(usual), Some(bits)) if layout::ipa_bits(usual.mmio.end()) <= bits => usual,
        _ => least()?,
    };

    let expanders = low
        .iter()
        .zip(&high)
        .enumerate()
        .map(|(i, (low, high))| expander((low, low_bases[i]), (high, regions.mmio.base + high_offsets[i])));
    let expanders = expanders.collect();
    let root = Pair {
        mmio32: Window { base: space.base, size: ROOT_MMIO32 },
        mmio64: Window { base: regions.mmio.base + root_offset, size: ROOT_MMIO64 },
    };
    Ok(Windows { root, expanders, high: regions })
}

fn needs(bridges: &[Bridge]) -> Vec<Need> {
    bridges.iter().map(|bridge| bridge.packed.need).collect()
}

fn bridge(group: &Group<'_>, space: Space) -> Option<Bridge> {
    let ports: Vec<_> = group.ports.iter().map(|port| behind_port(port, space)).collect::<Option<_>>()?;
    let mut needs: Vec<Need> = ports.iter().map(|(_, packed)| packed.need).collect();
    if space == Space::Low {
        needs.extend(ports.iter().map(|_| Need::natural(PORT_BAR0, BAR_LEAST)));
    }
    Some(Bridge { packed: pack(&needs, GRANULE)?, ports })
}

fn behind_port(port: &Port<'_>, space: Space) -> Option<(Vec<HostBar>, Packed)> {
    let Some(function) = &port.function else {
        let size = if space == Space::Low { FREE_PORT_MMIO32 } else { FREE_PORT_MMIO64 };
        return Some((Vec::new(), Packed { offsets: Vec::new(), need: Need { size, align: GRANULE } }));
    };
    let bars: Vec<_> = function.device.bars.iter().filter(|bar| Space::of(bar) == space).copied().collect();
    let needs: Vec<_> = bars.iter().map(|bar| Need::natural(bar.size, BAR_LEAST)).collect();
    let mut packed = pack(&needs, GRANULE)?;
    packed.need = Need { size: packed.need.size.max(PORT_LEAST), align: packed.need.align.max(GRANULE) };
    Some((bars, packed))
}

/// From relative places to addresses.
fn expander((low, low_base): (&Bridge, u64), (high, high_base): (&Bridge, u64)) -> ExpanderWindows {
    let count = low.ports.len();
    let ports = (0..count).map(|i| {
        let at = |bridge: &Bridge, base| window(base + bridge.packed.offsets[i], bridge.ports[i].1.need.size);
        let pair = Pair { mmio32: at(low, low_base), mmio64: at(high, high_base) };
        let mut bars: Vec<_> = [(low, pair.mmio32), (high, pair.mmio64)]
            .into_iter()
            .flat_map(|(bridge, window)| {
                let (bars, packed) = &bridge.ports[i];
                bars.iter().zip(&packed.offsets).map(move |(bar, offset)| Bar {
                    index: bar.index,
                    window: Window { base: window.base + offset, size: bar.size },
                    wide: bar.wide,
                    prefetchable: bar.prefetchable,
                })
            })
            .collect();
        bars.sort_by_key(|bar| bar.index);
        let bar0 = window(low_base + low.packed.offsets[count + i], PORT_BAR0);
        PortWindows { window: pair, bar0, bars }
    });
    ExpanderWindows {
        ports: ports.collect(),
        window: Pair {
            mmio32: window(low_base, low.packed.need.size),
            mmio64: window(high_base, high.packed.need.size),
        },
    }
}

/// A window that is not there is at 0.
fn window(base: u64, size: u64) -> Window {
    if size == 0 { Window::default() } else { Window { base, size } }
}

fn no_room_below_4g(groups: &[Group<'_>]) -> Error {
    let room = Size(layout::PCI_MMIO32.size - ROOT_MMIO32);
    let functions = groups.iter().flat_map(|group| &group.ports).filter_map(|port| port.function);
    let bars =
        functions.flat_map(|function| function.device.bars.iter().map(move |bar| (function.device.address, bar)));
    match bars.filter(|(_, bar)| Space::of(bar) == Space::Low).max_by_key(|(_, bar)| bar.size) {
        Some((address, bar)) => Error::NoRoomBelow4G { room, address, bar: bar.index, size: Size(bar.size) },
        // Free ports alone are too many.
        None => Error::TooManySmmus { count: groups.len(), most: super::topology::MAX_EXPANDERS },
    }
}
