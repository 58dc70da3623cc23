//! Why there is no Plan for a request, or why a Plan cannot be run here.

use std::path::PathBuf;

use nestling_arch::boot::{BootError, COMMAND_LINE_SIZE};
use nestling_devices::smmuv3::capabilities::{self, Mismatch};

use super::features::Narrow;
use super::spec::Window;
use super::validate::Invalid;
use crate::config::{HostAddress, Size};
use crate::host;

/// What is wrong, with its name and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A device or file of the host is not as it must be.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// There is nothing to boot.
    #[error("no kernel is given; add --kernel IMAGE, or 'kernel' in the configuration file")]
    NoKernel,
    /// No vCPU.
    #[error("0 vCPUs cannot run anything; give --cpus 1 or more")]
    NoCpus,
    /// More vCPUs than can be had.
    #[error("{cpus} vCPUs are more than {by} gives to one guest; give --cpus {most} or less")]
    TooManyCpus {
        /// What was asked for.
        cpus: u16,
        /// Who limits it.
        by: &'static str,
        /// The most that there may be.
        most: u16,
    },
    /// No memory.
    #[error("a guest cannot run in 0 bytes of memory; give --memory a size such as 1G")]
    NoMemory,
    /// A size that cannot be mapped.
    #[error("memory of {size} bytes is no multiple of the host's page size of {page}; give --memory a size such as 1G")]
    MemoryNotAligned {
        /// What was asked for.
        size: u64,
        /// Page size.
        page: u64,
    },
    /// More memory than the host has.
    #[error("guest memory of {size} is more than the {total} that this host has; give --memory less")]
    MemoryTooLarge {
        /// What was asked for.
        size: Size,
        /// All memory of the host.
        total: Size,
    },
    /// More memory than can be pinned now.
    #[error(
        "the guest's {size} of memory are pinned for its devices, but only {available} of this host's {total} are free; \
         give --memory less, or end something on the host (free huge pages count as used)"
    )]
    MemoryNotFree {
        /// What was asked for.
        size: Size,
        /// What can be had without swapping.
        available: Size,
        /// All memory of the host.
        total: Size,
    },
    /// More memory than there are addresses.
    #[error("guest memory of {0} and the devices' windows do not fit 52 address bits; give --memory less")]
    AddressSpace(Size),
    /// KVM's guest physical addresses are too narrow.
    #[error(
        "the guest's memory and windows need {needed} address bits, but KVM on this host gives a guest {most}; \
         give --memory less, or assign fewer devices with large BARs"
    )]
    IpaTooNarrow {
        /// Bits needed.
        needed: u8,
        /// Bits that there are.
        most: u8,
    },
    /// The same device twice.
    #[error("{0} is given twice; remove one --device {0}")]
    DeviceTwice(HostAddress),
    /// The host keeps addresses for a device where the guest has memory.
    #[error(
        "the host reserves {start:#x}..={last:#x} for DMA of {address}, where the guest's memory is ({memory}); \
         the device cannot be assigned"
    )]
    Reserved {
        /// The device.
        address: HostAddress,
        /// First reserved address.
        start: u64,
        /// Last reserved address.
        last: u64,
        /// Guest memory.
        memory: String,
    },
    /// A slot number that cannot be.
    #[error("slot {slot} of {address} is out of range; give slot=1 to slot={most}")]
    SlotRange {
        /// The device.
        address: HostAddress,
        /// Its slot.
        slot: u16,
        /// The highest slot.
        most: u16,
    },
    /// Two devices in one slot.
    #[error("{first} and {second} are both in slot {slot}; give one of them another slot=N")]
    SlotTwice {
        /// The first of the two.
        first: HostAddress,
        /// The second.
        second: HostAddress,
        /// Their slot.
        slot: u16,
    },
    /// An expander has no more root ports.
    #[error(
        "{count} devices are behind host SMMU {smmu}, but its expander has {most} root ports; assign fewer of them"
    )]
    TooManyPorts {
        /// The host SMMU.
        smmu: String,
        /// Its devices.
        count: usize,
        /// Root ports.
        most: usize,
    },
    /// pcie.0 has no more room.
    #[error("the devices are behind {count} host SMMUs, but a guest has at most {most} vSMMUs; assign fewer devices")]
    TooManySmmus {
        /// Host SMMUs.
        count: usize,
        /// Most vSMMUs.
        most: usize,
    },
    /// There is no such SMMU.
    #[error("there is no host SMMU '{name}'; this host has: {}", if .smmus.is_empty() { "none" } else { .smmus.as_str() })]
    NoSmmu {
        /// What was asked for.
        name: String,
        /// The SMMUs that there are.
        smmus: String,
    },
    /// There is nobody to show what is wished for.
    #[error("--vsmmu is given without host=, but there is no vSMMU; give --device, or --vsmmu host=NAME")]
    NoVsmmu,
    /// A vSMMU cannot be what it is to be.
    #[error("vSMMU of host SMMU {smmu}")]
    Features {
        /// The host SMMU.
        smmu: String,
        /// Why.
        source: capabilities::Error,
    },
    /// A vSMMU does not reach all memory.
    #[error("vSMMU of host SMMU {smmu}: {narrow}")]
    Narrow {
        /// The host SMMU.
        smmu: String,
        /// What it reaches.
        narrow: Narrow,
    },
    /// The host has less than the Plan says.
    #[error("plan: {name} of host SMMU {smmu}: {mismatch}; make it again with 'nestling plan'")]
    FeaturesChanged {
        /// The vSMMU.
        name: String,
        /// The host SMMU.
        smmu: String,
        /// What is different.
        mismatch: Mismatch,
    },
    /// Bus numbers are used up.
    #[error("the devices need {buses} PCI buses, but a guest has 256; assign fewer devices")]
    TooManyBuses {
        /// Buses needed.
        buses: usize,
    },
    /// BARs that must be below 4 GiB do not fit there.
    #[error(
        "BARs that are not prefetchable must be below 4 GiB, but do not fit the {room} there; the largest is BAR \
         {bar} of {address} ({size}): assign fewer such devices"
    )]
    NoRoomBelow4G {
        /// Size of the window.
        room: Size,
        /// The device with the largest BAR.
        address: HostAddress,
        /// The number of that BAR.
        bar: u8,
        /// Its size.
        size: Size,
    },
    /// The file of a Plan cannot be read.
    #[error("plan '{}' cannot be read", .path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The format cannot say what is in the Plan.
    #[error("{what} cannot be written as {format}; give --format text, or rename it")]
    NotWritable {
        /// What cannot be written, with its name.
        what: String,
        /// The format.
        format: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is no Plan.
    #[error("plan '{}': {message}; make it with 'nestling plan --format json' or 'toml'", .path.display())]
    NotAPlan {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        message: String,
    },
    /// The Plan contradicts itself.
    #[error("plan: {0}; make it again with 'nestling plan'")]
    Invalid(#[from] Invalid),
    /// A function of the Plan has no address.
    #[error("plan: {0}")]
    NotAnAddress(String),
    /// The host is not the one that the Plan was made on.
    #[error("plan: {address} {change}; make it again with 'nestling plan'")]
    HostChanged {
        /// The device.
        address: HostAddress,
        /// What is different.
        change: HostChange,
    },
    /// The kernel or the initrd is not there.
    #[error("{what} '{}' cannot be opened", .path.display())]
    OpenBootFile {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel would not get its command line as it is.
    #[error("the command line cannot be passed to a kernel whose COMMAND_LINE_SIZE is {COMMAND_LINE_SIZE}")]
    Cmdline(#[source] BootError),
    /// The kernel or the initrd is not what a guest can boot.
    #[error("{what} cannot be booted")]
    Boot {
        /// The files.
        what: String,
        /// Why.
        source: BootError,
    },
    /// KVM cannot be used.
    #[error("/dev/kvm does not exist; nestling needs an arm64 host whose kernel has KVM and was started at EL2")]
    NoKvm,
    /// KVM may not be used.
    #[error("no permission to open /dev/kvm; add your user to its group (usermod -aG kvm USER), or run as root")]
    KvmDenied,
    /// iommufd cannot be used.
    #[error("/dev/iommu does not exist; load the module (modprobe iommufd), or use a host kernel with CONFIG_IOMMUFD")]
    NoIommufd,
    /// iommufd may not be used.
    #[error("no permission to open /dev/iommu; give it to your user (chown), or run as root")]
    IommufdDenied,
    /// The guest's memory may not be pinned.
    #[error(
        "RLIMIT_MEMLOCK is {limit} bytes, but the guest's {needed} bytes of memory are pinned for its devices; \
         raise it to at least {needed} (ulimit -l {kib}), or give the process CAP_IPC_LOCK"
    )]
    Memlock {
        /// The limit.
        limit: u64,
        /// What is needed.
        needed: u64,
        /// What is needed, as `ulimit -l` counts.
        kib: u64,
    },
}

/// What is different from the host that a Plan was made on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HostChange {
    /// Another device is at the address.
    #[error("was {was} and is {is} now")]
    Id {
        /// In the Plan.
        was: String,
        /// On the host.
        is: String,
    },
    /// The device is behind another SMMU.
    #[error("was behind {was} and is behind {is} now")]
    Smmu {
        /// In the Plan.
        was: String,
        /// On the host.
        is: String,
    },
    /// MSIs of the device go through other addresses.
    #[error("had its MSI window at {was} and has it at {is} now")]
    MsiWindow {
        /// In the Plan.
        was: Window,
        /// On the host.
        is: Window,
    },
    /// The device has other BARs.
    #[error("has other BARs now")]
    Bars,
}
