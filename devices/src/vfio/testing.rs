//! A host function, a guest memory map and an interrupt router for the tests of this room, with one common diary.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use nestling_iommufd::{AttachHwpt, DeviceId, Error as IommufdError, HwptId};
use vmm_sys_util::eventfd::EventFd;

use super::host::{HostFunction, Irqs, Region, irq, region};
use crate::interrupt::{MsiRoute, MsiRouter};
use crate::mapping::{self, GuestMapper, HostMemory};

/// What reached the outside, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Config {
        offset: u64,
        data: Vec<u8>,
    },
    Bar {
        region: u32,
        offset: u64,
        data: Vec<u8>,
    },
    /// The high byte of the Command register alone.
    Intx {
        disabled: bool,
    },
    SetIrqs {
        index: u32,
        start: u32,
        connected: Vec<bool>,
    },
    DisableIrqs(u32),
    Reset,
    BusReset,
    /// The vSMMU shuts the function, and may open it again.
    Hold,
    Release,
    Map(u64, u64),
    Unmap(u64),
    Connect {
        device_id: u32,
        data: u32,
    },
    Disconnect {
        data: u32,
    },
}

/// The diary.
#[derive(Clone, Default)]
pub(super) struct Diary(Arc<Mutex<Vec<Entry>>>);

impl Diary {
    pub(super) fn add(&self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }

    /// What happened since the last time.
    pub(super) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Memory(u64);

impl HostMemory for Memory {
    fn host_address(&self) -> u64 {
        0x7000_0000_0000
    }
    fn length(&self) -> u64 {
        self.0
    }
}

/// A function of the host that is only memory.
pub(super) struct FakeHost {
    pub(super) diary: Diary,
    config: Mutex<Vec<u8>>,
    regions: BTreeMap<u32, Region>,
    irqs: BTreeMap<u32, Irqs>,
    /// The eventfds that the device's interrupts signal.
    triggers: Mutex<BTreeMap<(u32, u32), EventFd>>,
    /// Every call fails from now on.
    pub(super) broken: Mutex<bool>,
    /// What the next resets answer; afterwards they work.
    pub(super) resets: Mutex<VecDeque<io::Result<bool>>>,
    /// While set a reset does not end.
    pub(super) stuck: Mutex<bool>,
    pub(super) unstuck: Condvar,
    /// How many calls to enable vectors fail, after as many that work.
    pub(super) fail_irqs: Mutex<(u32, u32)>,
}

impl FakeHost {
    /// A function with `size` bytes of configuration space: an endpoint without capabilities and BARs.
    pub(super) fn new(size: usize) -> Self {
        let mut host = Self {
            diary: Diary::default(),
            config: Mutex::new(vec![0; size]),
            regions: BTreeMap::new(),
            irqs: BTreeMap::new(),
            triggers: Mutex::default(),
            broken: Mutex::new(false),
            resets: Mutex::default(),
            stuck: Mutex::new(false),
            unstuck: Condvar::new(),
            fail_irqs: Mutex::default(),
        };
        host.regions.insert(region::CONFIG, Region { size: size as u64, mappable: Vec::new() });
        host.put(0, &[0x36, 0x1b, 0x10, 0x00]);
        host.put(8, &[2, 2, 8, 1]);
        host
    }

    /// Bytes of the device's configuration space.
    pub(super) fn put(&self, offset: usize, data: &[u8]) {
        self.config.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
    }

    pub(super) fn config(&self, offset: usize) -> u8 {
        self.config.lock().unwrap()[offset]
    }

    /// Appends a capability to the legacy list.
    pub(super) fn capability(&self, offset: u8, id: u8, body: &[u8]) {
        let mut link = 0x34;
        loop {
            match self.config(link) {
                0 => break,
                next => link = usize::from(next) + 1,
            }
        }
        self.put(6, &[self.config(6) | 1 << 4]);
        self.put(link, &[offset]);
        self.put(offset.into(), &[id, 0]);
        self.put(usize::from(offset) + 2, body);
    }

    /// Writes a header of the extended list.
    pub(super) fn extended(&self, offset: u16, id: u16, next: u16, body: &[u8]) {
        let head = u32::from(id) | 1 << 16 | u32::from(next) << 20;
        self.put(offset.into(), &head.to_le_bytes());
        self.put(usize::from(offset) + 4, body);
    }

    /// A memory BAR with the low bits of its register.
    pub(super) fn bar(&mut self, index: u32, size: u64, flags: u8, mappable: &[Range<u64>]) {
        self.put(0x10 + 4 * index as usize, &[flags]);
        self.regions.insert(index, Region { size, mappable: mappable.to_vec() });
    }

    pub(super) fn vectors(&mut self, index: u32, count: u32, dynamic: bool) {
        self.irqs.insert(index, Irqs { count, dynamic });
    }

    /// The device raises an interrupt.
    pub(super) fn raise(&self, index: u32, vector: u32) {
        self.triggers.lock().unwrap()[&(index, vector)].write(1).unwrap();
    }

    fn wait_for_end_of_reset(&self) {
        drop(self.unstuck.wait_while(self.stuck.lock().unwrap(), |stuck| *stuck).unwrap());
    }

    fn check(&self) -> io::Result<()> {
        if *self.broken.lock().unwrap() { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn triggers(&self) -> MutexGuard<'_, BTreeMap<(u32, u32), EventFd>> {
        self.triggers.lock().unwrap()
    }
}

impl AttachHwpt for FakeHost {
    fn attach_hwpt(&self, _: HwptId) -> Result<(), IommufdError> {
        Ok(())
    }
    fn try_attach_hwpt(&self, _: HwptId) -> Result<(), IommufdError> {
        Ok(())
    }
    fn detach_hwpt(&self) -> Result<(), IommufdError> {
        Ok(())
    }
    fn dev_id(&self) -> DeviceId {
        DeviceId(1)
    }
}

impl HostFunction for FakeHost {
    fn region(&self, index: u32) -> Region {
        self.regions.get(&index).cloned().unwrap_or_default()
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.check()?;
        if region == region::CONFIG {
            let at = offset as usize;
            data.copy_from_slice(&self.config.lock().unwrap()[at..at + data.len()]);
        } else {
            data.fill(offset as u8);
        }
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        if region == region::CONFIG {
            self.put(offset as usize, data);
            self.diary.add(match data {
                [high] if offset == 5 => Entry::Intx { disabled: high & 4 != 0 },
                _ => Entry::Config { offset, data: data.to_vec() },
            });
        } else {
            self.diary.add(Entry::Bar { region, offset, data: data.to_vec() });
        }
        Ok(())
    }

    fn map(&self, _region: u32, part: Range<u64>) -> io::Result<Arc<dyn HostMemory>> {
        self.check()?;
        Ok(Arc::new(Memory(part.end - part.start)))
    }

    fn irqs(&self, index: u32) -> Irqs {
        self.irqs.get(&index).copied().unwrap_or_default()
    }

    fn set_irqs(&self, index: u32, start: u32, triggers: &[Option<&EventFd>]) -> io::Result<()> {
        self.check()?;
        match &mut *self.fail_irqs.lock().unwrap() {
            (0, 0) => {}
            (0, failures) => {
                *failures -= 1;
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            (successes, _) => *successes -= 1,
        }
        let connected: Vec<bool> = triggers.iter().map(Option::is_some).collect();
        let end = start as usize + triggers.len();
        assert!(end <= self.irqs(index).count as usize, "more vectors than there are");
        let active = self.triggers().keys().any(|(known, _)| *known == index);
        assert!(self.irqs(index).dynamic || !active, "index {index} cannot grow while it is enabled");
        for (vector, trigger) in (start..).zip(triggers) {
            if let Some(trigger) = trigger {
                self.triggers().insert((index, vector), trigger.try_clone()?);
            }
        }
        if index <= irq::MSIX {
            self.diary.add(Entry::SetIrqs { index, start, connected });
        }
        Ok(())
    }

    fn disable_irqs(&self, index: u32) -> io::Result<()> {
        self.check()?;
        self.triggers().retain(|(known, _), _| *known != index);
        if index <= irq::MSIX {
            self.diary.add(Entry::DisableIrqs(index));
        }
        Ok(())
    }

    fn reset(&self) -> io::Result<bool> {
        self.check()?;
        self.diary.add(Entry::Reset);
        self.wait_for_end_of_reset();
        self.resets.lock().unwrap().pop_front().unwrap_or(Ok(true))
    }

    fn reset_bus(&self) -> io::Result<bool> {
        self.check()?;
        self.diary.add(Entry::BusReset);
        self.wait_for_end_of_reset();
        self.resets.lock().unwrap().pop_front().unwrap_or(Ok(true))
    }

    fn page_size(&self) -> u64 {
        0x1000
    }
}

/// Guest memory slots that are only noted; refuses what lies above 2^44.
pub(super) struct FakeMapper(pub(super) Diary);

impl GuestMapper for FakeMapper {
    fn map(&self, guest_address: u64, memory: Arc<dyn HostMemory>) -> Result<(), mapping::Error> {
        let length = memory.length();
        if guest_address >> 44 != 0 {
            let source = io::Error::from_raw_os_error(libc::EFAULT);
            return Err(mapping::Error { guest_address, length, source });
        }
        self.0.add(Entry::Map(guest_address, length));
        Ok(())
    }

    fn unmap(&self, guest_address: u64) {
        self.0.add(Entry::Unmap(guest_address));
    }
}

/// Routes that are only noted. Connecting takes what is pending in the eventfd, as KVM does.
pub(super) struct FakeRouter {
    pub(super) diary: Diary,
    /// Data of the messages that were delivered while connecting.
    pub(super) delivered: Mutex<Vec<u32>>,
    /// Data of messages that cannot be connected.
    pub(super) refused: Mutex<Vec<u32>>,
}

impl MsiRouter for FakeRouter {
    fn connect(&self, trigger: &EventFd, device_id: u32, data: u32) -> io::Result<MsiRoute> {
        if self.refused.lock().unwrap().contains(&data) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        if trigger.read().is_ok() {
            self.delivered.lock().unwrap().push(data);
        }
        self.diary.add(Entry::Connect { device_id, data });
        Ok(MsiRoute(data))
    }

    fn disconnect(&self, _trigger: &EventFd, route: MsiRoute) {
        self.diary.add(Entry::Disconnect { data: route.0 });
    }
}
