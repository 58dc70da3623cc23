//! Direct boot: puts an arm64 Linux kernel, its initrd and a synthesised EFI hand-over into guest RAM.
#![forbid(unsafe_code)]

/// Where the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Address of the first instruction.
    pub pc: u64,
    /// Address of the FDT.
    pub x0: u64,
}
