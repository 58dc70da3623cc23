//! The real `/dev/iommu`: the only module of this crate with unsafe code.
//!
//! Each ioctl takes one structure that starts with its own size; the kernel accepts a larger structure than it knows
//! as long as the tail is zero (`drivers/iommu/iommufd/main.c`, `copy_struct_from_user`).

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use iommufd_bindings as uapi;
use vmm_sys_util::ioctl::{_IOC_NONE, ioctl_expr, ioctl_with_mut_ref};

use crate::hw_info::{Capabilities, HwInfo, SmmuV3Flags, SmmuV3Info};
use crate::ids::{DeviceId, EventQueueId, HwptId, IoasId, VdeviceId, ViommuId};
use crate::invalidate::Command;
use crate::kernel::Kernel;

/// An open `/dev/iommu`.
#[derive(Debug)]
pub(crate) struct DevIommu(File);

impl DevIommu {
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }

    /// Issues ioctl number `nr`.
    ///
    /// # Safety
    /// `T` is the structure of that ioctl with its size in the first field, and each pointer in it is valid for what
    /// the kernel reads or writes there.
    unsafe fn call<T>(&self, nr: u32, argument: &mut T) -> io::Result<()> {
        // `_IO(';', nr)`: the size is not part of the number.
        let request = ioctl_expr(_IOC_NONE, uapi::IOMMUFD_TYPE.into(), nr, 0);
        // SAFETY: the caller vouches for the argument; the descriptor is open as long as `self`.
        match unsafe { ioctl_with_mut_ref(&self.0, request, argument) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The size of a structure for its first field.
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

impl Kernel for DevIommu {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn destroy(&self, id: u32) -> io::Result<()> {
        let mut arg = uapi::iommu_destroy { size: size::<uapi::iommu_destroy>(), id };
        // SAFETY: the structure of this ioctl; it holds no pointer.
        unsafe { self.call(uapi::IOMMUFD_CMD_DESTROY, &mut arg) }
    }

    fn ioas_alloc(&self) -> io::Result<IoasId> {
        let mut arg = uapi::iommu_ioas_alloc { size: size::<uapi::iommu_ioas_alloc>(), ..Default::default() };
        // SAFETY: the structure of this ioctl; it holds no pointer.
        unsafe { self.call(uapi::IOMMUFD_CMD_IOAS_ALLOC, &mut arg)? };
        Ok(IoasId(arg.out_ioas_id))
    }

    fn ioas_map_file(&self, ioas: IoasId, file: BorrowedFd<'_>, offset: u64, length: u64, iova: u64) -> io::Result<()> {
        let mut arg = uapi::iommu_ioas_map_file {
            size: size::<uapi::iommu_ioas_map_file>(),
            flags: uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
                | uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
                | uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
            ioas_id: ioas.0,
            fd: file.as_raw_fd(),
            start: offset,
            length,
            iova,
        };
        // SAFETY: the structure of this ioctl; it holds no pointer. The kernel pins pages of the file, not of this
        // process's address space, so nothing here can be freed under the device.
        unsafe { self.call(uapi::IOMMUFD_CMD_IOAS_MAP_FILE, &mut arg) }
    }

    fn ioas_unmap(&self, ioas: IoasId, iova: u64, length: u64) -> io::Result<u64> {
        let mut arg = uapi::iommu_ioas_unmap { size: size::<uapi::iommu_ioas_unmap>(), ioas_id: ioas.0, iova, length };
        // SAFETY: the structure of this ioctl; it holds no pointer.
        unsafe { self.call(uapi::IOMMUFD_CMD_IOAS_UNMAP, &mut arg)? };
        Ok(arg.length)
    }

    fn ioas_iova_ranges(&self, ioas: IoasId) -> io::Result<Vec<RangeInclusive<u64>>> {
        let mut ranges: Vec<uapi::iommu_iova_range> = vec![Default::default(); 16];
        loop {
            let mut arg = uapi::iommu_ioas_iova_ranges {
                size: size::<uapi::iommu_ioas_iova_ranges>(),
                ioas_id: ioas.0,
                num_iovas: ranges.len() as u32,
                allowed_iovas: ranges.as_mut_ptr() as u64,
                ..Default::default()
            };
            // SAFETY: the structure of this ioctl; `allowed_iovas` points to `num_iovas` elements of `ranges`.
            let result = unsafe { self.call(uapi::IOMMUFD_CMD_IOAS_IOVA_RANGES, &mut arg) };
            let count = arg.num_iovas as usize;
            match result {
                // Too small: the kernel says how many there are; they may grow again until the next call.
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) && count > ranges.len() => {
                    ranges.resize(count, Default::default());
                }
                Err(e) => return Err(e),
                Ok(()) => return Ok(ranges.iter().take(count).map(|r| r.start..=r.last).collect()),
            }
        }
    }

    fn nest_parent_alloc(&self, device: DeviceId, ioas: IoasId) -> io::Result<HwptId> {
        let mut arg = uapi::iommu_hwpt_alloc {
            size: size::<uapi::iommu_hwpt_alloc>(),
            flags: uapi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_NEST_PARENT,
            dev_id: device.0,
            pt_id: ioas.0,
            data_type: uapi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE,
            ..Default::default()
        };
        // SAFETY: the structure of this ioctl; `data_uptr` is null with length 0.
        unsafe { self.call(uapi::IOMMUFD_CMD_HWPT_ALLOC, &mut arg)? };
        Ok(HwptId(arg.out_hwpt_id))
    }

    fn nested_alloc(&self, device: DeviceId, viommu: ViommuId, ste: [u64; 2]) -> io::Result<HwptId> {
        let data = uapi::iommu_hwpt_arm_smmuv3 { ste: ste.map(u64::to_le) };
        let mut arg = uapi::iommu_hwpt_alloc {
            size: size::<uapi::iommu_hwpt_alloc>(),
            dev_id: device.0,
            pt_id: viommu.0,
            data_type: uapi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_ARM_SMMUV3,
            data_len: size::<uapi::iommu_hwpt_arm_smmuv3>(),
            data_uptr: &raw const data as u64,
            ..Default::default()
        };
        // SAFETY: the structure of this ioctl; the kernel reads `data_len` bytes of `data`.
        unsafe { self.call(uapi::IOMMUFD_CMD_HWPT_ALLOC, &mut arg)? };
        Ok(HwptId(arg.out_hwpt_id))
    }

    fn hw_info(&self, device: DeviceId) -> io::Result<HwInfo> {
        let mut data = uapi::iommu_hw_info_arm_smmuv3::default();
        let mut arg = uapi::iommu_hw_info {
            size: size::<uapi::iommu_hw_info>(),
            dev_id: device.0,
            data_len: size::<uapi::iommu_hw_info_arm_smmuv3>(),
            data_uptr: &raw mut data as u64,
            ..Default::default()
        };
        // SAFETY: the structure of this ioctl; the kernel writes at most `data_len` bytes to `data`.
        unsafe { self.call(uapi::IOMMUFD_CMD_GET_HW_INFO, &mut arg)? };
        // SAFETY: both members of the union are the same u32.
        let data_type = unsafe { arg.__bindgen_anon_1.out_data_type };
        let smmu = (data_type == uapi::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_ARM_SMMUV3).then(|| SmmuV3Info {
            flags: SmmuV3Flags::from_bits_retain(data.flags),
            idr: data.idr,
            iidr: data.iidr,
            aidr: data.aidr,
        });
        Ok(HwInfo {
            data_type,
            smmu,
            max_pasid_log2: arg.out_max_pasid_log2,
            capabilities: Capabilities::from_bits_retain(arg.out_capabilities),
        })
    }

    fn viommu_alloc(&self, device: DeviceId, parent: HwptId) -> io::Result<ViommuId> {
        let mut arg = uapi::iommu_viommu_alloc {
            size: size::<uapi::iommu_viommu_alloc>(),
            type_: uapi::iommu_viommu_type_IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
            dev_id: device.0,
            hwpt_id: parent.0,
            ..Default::default()
        };
        // SAFETY: the structure of this ioctl; `data_uptr` is null with length 0.
        unsafe { self.call(uapi::IOMMUFD_CMD_VIOMMU_ALLOC, &mut arg)? };
        Ok(ViommuId(arg.out_viommu_id))
    }

    fn vdevice_alloc(&self, viommu: ViommuId, device: DeviceId, virt_id: u64) -> io::Result<VdeviceId> {
        let mut arg = uapi::iommu_vdevice_alloc {
            size: size::<uapi::iommu_vdevice_alloc>(),
            viommu_id: viommu.0,
            dev_id: device.0,
            virt_id,
            ..Default::default()
        };
        // SAFETY: the structure of this ioctl; it holds no pointer.
        unsafe { self.call(uapi::IOMMUFD_CMD_VDEVICE_ALLOC, &mut arg)? };
        Ok(VdeviceId(arg.out_vdevice_id))
    }

    fn veventq_alloc(&self, viommu: ViommuId, depth: u32) -> io::Result<(EventQueueId, OwnedFd)> {
        let mut arg = uapi::iommu_veventq_alloc {
            size: size::<uapi::iommu_veventq_alloc>(),
            viommu_id: viommu.0,
            type_: uapi::iommu_veventq_type_IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
            veventq_depth: depth,
            ..Default::default()
        };
        // SAFETY: the structure of this ioctl; it holds no pointer.
        unsafe { self.call(uapi::IOMMUFD_CMD_VEVENTQ_ALLOC, &mut arg)? };
        // SAFETY: the kernel just installed this descriptor for us (close-on-exec) and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(arg.out_veventq_fd as i32) };
        Ok((EventQueueId(arg.out_veventq_id), fd))
    }

    fn invalidate(&self, viommu: ViommuId, commands: &[Command]) -> (u32, io::Result<()>) {
        let mut arg = uapi::iommu_hwpt_invalidate {
            size: size::<uapi::iommu_hwpt_invalidate>(),
            hwpt_id: viommu.0,
            // The kernel takes little-endian words, and so does a command queue in memory; both targets are.
            data_uptr: commands.as_ptr() as u64,
            data_type: uapi::iommu_hwpt_invalidate_data_type_IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
            entry_len: size::<Command>(),
            entry_num: commands.len() as u32,
            ..Default::default()
        };
        // SAFETY: the structure of this ioctl; the kernel reads `entry_num` times `entry_len` bytes of `commands`.
        let result = unsafe { self.call(uapi::IOMMUFD_CMD_HWPT_INVALIDATE, &mut arg) };
        (arg.entry_num, result)
    }
}
