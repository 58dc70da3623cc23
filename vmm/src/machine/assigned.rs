//! Assigned devices and their vSMMUs: the kernel's objects in the order in which they are made and torn down.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use nestling_devices::bus::MmioBus;
use nestling_devices::interrupt::MsiRouter;
use nestling_devices::pci::{Bdf, PciFunction};
use nestling_devices::smmuv3::capabilities::Features;
use nestling_devices::smmuv3::{Config, DeviceCounters, Interrupts, IommufdSmmu, PhysicalSmmu, Smmuv3, VacantSmmu};
use nestling_devices::vfio::{
    BarAddress, Translation, VfioCdev, VfioCounters, VfioFunction, VfioFunctionConfig, VfioHost,
};
use nestling_iommufd::{AttachHwpt, Ioas, Iommufd, LiveObjects};

use super::error::Error;
use super::features;
use super::platform::Platform;
use super::upstream::Behind;
use crate::memory::GuestRam;
use crate::plan::spec::{AssignedFunction, Expander, Pci};
use crate::run::ControlLoop;
use crate::stats::{DeviceStats, ObjectStats, VsmmuStats};

/// All assigned devices of a machine.
///
/// Nothing of it exists in a machine without devices: such a guest needs no /dev/iommu.
pub struct Assigned {
    smmus: Vec<Vsmmu>,
    functions: BTreeMap<String, Arc<VfioFunction>>,
    upstreams: BTreeMap<String, Arc<Behind>>,
    /// Bound devices; closing them unbinds, which comes after the vSMMUs' teardown.
    cdevs: Vec<Arc<VfioCdev>>,
    ioas: Option<Arc<Ioas>>,
    /// Outlives all of them here, to count what is left.
    iommufd: Option<Iommufd>,
}

struct Vsmmu {
    plan: Expander,
    /// None without devices.
    host: Option<Arc<IommufdSmmu>>,
    /// What the guest sees; it comes last.
    model: Option<Arc<Smmuv3>>,
}

impl Assigned {
    /// Opens, binds and attaches every device of the Plan and puts the vSMMUs on the bus. What they show is decided here,
    /// and entered in the Plan, if nobody has asked their hosts before.
    pub fn new(plan: &mut Pci, ram: &GuestRam, platform: &Platform, bus: &Arc<MmioBus>) -> Result<Self, Error> {
        let mut assigned = Self {
            smmus: Vec::new(),
            functions: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            cdevs: Vec::new(),
            ioas: None,
            iommufd: None,
        };
        if plan.expanders.is_empty() {
            return Ok(assigned);
        }
        match assigned.build(plan, ram, platform, bus) {
            Ok(()) => Ok(assigned),
            Err(error) => {
                // Its vSMMUs and BARs are on the bus; nothing may hold a device when it is given back.
                bus.clear();
                assigned.give_up();
                Err(error)
            }
        }
    }

    fn build(&mut self, plan: &mut Pci, ram: &GuestRam, platform: &Platform, bus: &Arc<MmioBus>) -> Result<(), Error> {
        let iommufd = Iommufd::open()?;
        self.iommufd = Some(iommufd.clone());
        let ioas = iommufd.alloc_ioas()?;
        let window = ram.window();
        ioas.map_file(ram.file(), 0, window.size, window.base)?;
        self.ioas = Some(ioas.clone());
        let vfio = VfioHost::new(&iommufd).map_err(Error::Vfio)?;
        let routes = platform.routes();
        for expander in &mut plan.expanders {
            let devices = self.bind(&vfio, expander)?;
            let Some((first, _)) = devices.first() else {
                let features = features::freeze(expander, None, false, window).map_err(|e| smmu_error(expander, e))?;
                let model = vsmmu(expander, features, VacantSmmu::new(), ram, platform)?;
                bus.insert(registers(expander), model.clone())?;
                self.smmus.push(Vsmmu { plan: expander.clone(), host: None, model: Some(model) });
                continue;
            };
            let host = IommufdSmmu::new(&iommufd, &ioas, &**first).map_err(|e| smmu_error(expander, e))?;
            self.smmus.push(Vsmmu { plan: expander.clone(), host: Some(host.clone()), model: None });
            let mut infos = Vec::new();
            for (cdev, function) in &devices {
                infos.push(iommufd.hw_info(cdev.dev_id()).map_err(|e| device_error(&function.host, e))?);
                host.add_stream(function.stream_id as u32, cdev.clone())
                    .map_err(|e| device_error(&function.host, e))?;
            }
            let required = |((_, function), info): (&(_, AssignedFunction), _)| features::requires_ats(function, info);
            let ats_required = devices.iter().zip(&infos).any(required);
            let features =
                features::freeze(expander, Some(&host), ats_required, window).map_err(|e| smmu_error(expander, e))?;
            let model = vsmmu(expander, features, host.clone(), ram, platform)?;
            bus.insert(registers(expander), model.clone())?;
            if let Some(smmu) = self.smmus.last_mut() {
                smmu.model = Some(model.clone());
            }
            for ((cdev, function), info) in devices.into_iter().zip(infos) {
                let counters = Mutex::new(DeviceCounters::new(function.stream_id as u32));
                let behind = Behind { model: model.clone(), host: host.clone(), device: cdev.dev_id(), counters };
                let behind = Arc::new(behind);
                self.upstreams.insert(function.host.clone(), behind.clone());
                let shown = features::translation(expander, &info);
                let made = self.add_function(cdev, &function, shown, platform, bus, &routes)?;
                made.set_upstream(behind);
            }
        }
        Ok(())
    }

    fn bind(&mut self, vfio: &VfioHost, expander: &Expander) -> Result<Vec<(Arc<VfioCdev>, AssignedFunction)>, Error> {
        let mut devices = Vec::new();
        for function in expander.ports.iter().filter_map(|port| port.function.as_ref()) {
            let cdev = vfio.open(&function.host, &function.cdev).map_err(|e| device_error(&function.host, e))?;
            self.cdevs.push(cdev.clone());
            devices.push((cdev, function.clone()));
        }
        Ok(devices)
    }

    fn add_function(
        &mut self,
        cdev: Arc<VfioCdev>,
        function: &AssignedFunction,
        translation: Translation,
        platform: &Platform,
        bus: &Arc<MmioBus>,
        routes: &Arc<dyn MsiRouter>,
    ) -> Result<Arc<VfioFunction>, Error> {
        let config = VfioFunctionConfig {
            name: function.host.clone(),
            host: cdev,
            guest: Bdf::from_requester_id(function.stream_id as u16),
            bars: function.bars.iter().map(|bar| BarAddress { index: bar.index, address: bar.window.base }).collect(),
            translation,
        };
        let made = VfioFunction::new(config, bus.clone(), platform.slots.clone(), routes.clone())
            .map_err(|e| device_error(&function.host, e))?;
        self.functions.insert(function.host.clone(), made.clone());
        Ok(made)
    }

    /// The guest's side of the device that the host knows as `host`.
    pub fn function(&self, host: &str) -> Option<Arc<dyn PciFunction>> {
        self.functions.get(host).map(|function| function.clone() as Arc<dyn PciFunction>)
    }

    /// Lets the control loop forward the host's events, and tell when the host wants a device back or sees it fail.
    pub fn watch(&self, control: &mut ControlLoop) {
        for function in self.functions.values() {
            let wanted = function.clone();
            let request = move || {
                let _ = wanted.request_event().read();
                log::warn!("{}: the host wants it back; end this guest to give it back", wanted.name());
                true
            };
            control.watch(function.request_event().as_raw_fd(), Box::new(request));
            let failed = function.clone();
            let error = move || {
                let _ = failed.error_event().read();
                log::error!("{}: the host reports an uncorrectable error; reset the guest", failed.name());
                true
            };
            control.watch(function.error_event().as_raw_fd(), Box::new(error));
        }
        for model in self.models() {
            let model = model.clone();
            if let Some(fd) = model.event_fd() {
                control.watch(fd, Box::new(move || model.events_ready()));
            }
        }
    }

    /// Every vSMMU as at power-on. The devices are reset before.
    pub fn reset_smmus(&self) {
        self.models().for_each(|model| model.reset());
    }

    /// Counters of the vSMMUs, in the order of the Plan.
    pub fn stats(&self) -> Vec<VsmmuStats> {
        let stats = |smmu: &Vsmmu| {
            let stats = smmu.model.as_ref().map(|model| model.stats()).unwrap_or_default();
            let functions = smmu.plan.ports.iter().filter_map(|port| port.function.as_ref());
            let devices = functions.map(|function| self.device_stats(function));
            VsmmuStats::new(&smmu.plan.name, &smmu.plan.smmu.host, &stats, devices.collect())
        };
        self.smmus.iter().map(stats).collect()
    }

    fn device_stats(&self, plan: &AssignedFunction) -> DeviceStats {
        let Some(function) = self.functions.get(&plan.host) else { return DeviceStats::default() };
        let VfioCounters { resets, moves, errors, .. } = function.counters();
        let stream_id = function.requester_id().map(|id| id.requester_id().into());
        let stream = self.upstreams.get(&plan.host).map(|behind| behind.stats()).unwrap_or_default();
        DeviceStats { moves, resets, errors, ..DeviceStats::new(&plan.host, stream_id, &stream) }
    }

    /// Objects that the kernel holds for the machine now.
    pub fn objects(&self) -> ObjectStats {
        let LiveObjects { ioas, nest_parents, viommus, vdevices, nested_hwpts, event_queues } =
            self.iommufd.as_ref().map(Iommufd::live_objects).unwrap_or_default();
        let [ioas, nest_parents, viommus, vdevices, nested_hwpts, event_queues] =
            [ioas, nest_parents, viommus, vdevices, nested_hwpts, event_queues].map(|count| count as u64);
        ObjectStats { ioas, nest_parents, viommus, vdevices, nested_hwpts, event_queues }
    }

    /// Gives everything back: functions fall silent, vSMMUs go from the event queue down to stage 2, the devices are
    /// closed, and last the IOAS is destroyed. The control loop, which polls the event queues, and the bus are gone
    /// before. Goes on after a failure and returns the first; that something is left is one.
    pub fn shutdown(self) -> Result<(), Error> {
        let Self { smmus, functions, upstreams, cdevs, ioas, iommufd } = self;
        let mut result = Ok(());
        let mut keep = |next: Result<(), Error>| match next {
            Err(error) if result.is_err() => log::warn!("{error}"),
            Err(error) => result = Err(error),
            Ok(()) => {}
        };
        functions.values().for_each(|function| function.shutdown());
        for Vsmmu { plan, host, .. } in smmus {
            keep(host.map_or(Ok(()), |host| host.teardown()).map_err(|e| smmu_error(&plan, e)));
        }
        drop((functions, upstreams));
        for cdev in cdevs {
            // Closing a device needs its last owner.
            let name = cdev.name().to_owned();
            keep(Arc::into_inner(cdev).map(drop).ok_or(Error::DeviceStaysOpen(name)));
        }
        if let Some(ioas) = ioas {
            keep(ioas.destroy().map_err(Error::Iommufd));
        }
        let left = iommufd.as_ref().map(Iommufd::live_objects).unwrap_or_default();
        if left != LiveObjects::default() {
            keep(Err(Error::ObjectsLeft(left)));
        }
        result
    }

    /// [`Self::shutdown`] where another failure is what the user hears of.
    pub fn give_up(self) {
        if let Err(left) = self.shutdown() {
            log::warn!("{left}");
        }
    }

    fn models(&self) -> impl Iterator<Item = &Arc<Smmuv3>> {
        self.smmus.iter().filter_map(|smmu| smmu.model.as_ref())
    }
}

fn registers(expander: &Expander) -> Range<u64> {
    expander.smmu.window.base..expander.smmu.window.end()
}

fn vsmmu(
    expander: &Expander,
    features: Features,
    host: Arc<dyn PhysicalSmmu>,
    ram: &GuestRam,
    platform: &Platform,
) -> Result<Arc<Smmuv3>, Error> {
    let interrupts = Interrupts {
        event: platform.line(expander.smmu.event_gsiv)?,
        gerror: platform.line(expander.smmu.gerror_gsiv)?,
        sync: platform.line(expander.smmu.sync_gsiv)?,
        its: None,
    };
    let config = Config { name: expander.name.clone(), features };
    Ok(Smmuv3::new(config, host, ram.memory().clone(), interrupts))
}

fn device_error(host: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Device { host: host.to_owned(), source: Box::new(source) }
}

fn smmu_error(expander: &Expander, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Smmu { name: expander.name.clone(), host: expander.smmu.host.clone(), source: Box::new(source) }
}
