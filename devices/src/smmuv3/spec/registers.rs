//! The memory-mapped registers (IHI 0070, chapter 6): offsets and bit fields.

use bitfield_struct::bitfield;

/// Bytes of both register pages: page 0 and, 64 KiB above, page 1 (section 6.1).
pub const REGISTER_SPACE: u64 = 0x2_0000;

/// SMMU_IDR0 (section 6.3.1).
pub const IDR0: u64 = 0x000;
/// SMMU_IDR1 (section 6.3.2).
pub const IDR1: u64 = 0x004;
/// SMMU_IDR2 (section 6.3.3).
pub const IDR2: u64 = 0x008;
/// SMMU_IDR3 (section 6.3.4).
pub const IDR3: u64 = 0x00c;
/// SMMU_IDR4 (section 6.3.5).
pub const IDR4: u64 = 0x010;
/// SMMU_IDR5 (section 6.3.6).
pub const IDR5: u64 = 0x014;
/// SMMU_IIDR.
pub const IIDR: u64 = 0x018;
/// SMMU_AIDR.
pub const AIDR: u64 = 0x01c;
/// SMMU_CR0.
pub const CR0: u64 = 0x020;
/// SMMU_CR0ACK.
pub const CR0ACK: u64 = 0x024;
/// SMMU_CR1.
pub const CR1: u64 = 0x028;
/// SMMU_CR2.
pub const CR2: u64 = 0x02c;
/// SMMU_STATUSR.
pub const STATUSR: u64 = 0x040;
/// SMMU_GBPA.
pub const GBPA: u64 = 0x044;
/// SMMU_AGBPA.
pub const AGBPA: u64 = 0x048;
/// SMMU_IRQ_CTRL.
pub const IRQ_CTRL: u64 = 0x050;
/// SMMU_IRQ_CTRLACK.
pub const IRQ_CTRLACK: u64 = 0x054;
/// SMMU_GERROR.
pub const GERROR: u64 = 0x060;
/// SMMU_GERRORN.
pub const GERRORN: u64 = 0x064;
/// SMMU_GERROR_IRQ_CFG0, 64 bits.
pub const GERROR_IRQ_CFG0: u64 = 0x068;
/// SMMU_GERROR_IRQ_CFG1.
pub const GERROR_IRQ_CFG1: u64 = 0x070;
/// SMMU_GERROR_IRQ_CFG2.
pub const GERROR_IRQ_CFG2: u64 = 0x074;
/// SMMU_STRTAB_BASE, 64 bits.
pub const STRTAB_BASE: u64 = 0x080;
/// SMMU_STRTAB_BASE_CFG.
pub const STRTAB_BASE_CFG: u64 = 0x088;
/// SMMU_CMDQ_BASE, 64 bits.
pub const CMDQ_BASE: u64 = 0x090;
/// SMMU_CMDQ_PROD.
pub const CMDQ_PROD: u64 = 0x098;
/// SMMU_CMDQ_CONS.
pub const CMDQ_CONS: u64 = 0x09c;
/// SMMU_EVENTQ_BASE, 64 bits.
pub const EVENTQ_BASE: u64 = 0x0a0;
/// The page 0 alias of SMMU_EVENTQ_PROD.
pub const EVENTQ_PROD_ALIAS: u64 = 0x0a8;
/// The page 0 alias of SMMU_EVENTQ_CONS.
pub const EVENTQ_CONS_ALIAS: u64 = 0x0ac;
/// SMMU_EVENTQ_IRQ_CFG0, 64 bits.
pub const EVENTQ_IRQ_CFG0: u64 = 0x0b0;
/// SMMU_EVENTQ_IRQ_CFG1.
pub const EVENTQ_IRQ_CFG1: u64 = 0x0b8;
/// SMMU_EVENTQ_IRQ_CFG2.
pub const EVENTQ_IRQ_CFG2: u64 = 0x0bc;
/// First of the four component identification registers, SMMU_CIDR0 to SMMU_CIDR3.
pub const CIDR0: u64 = 0xff0;
/// SMMU_EVENTQ_PROD, in page 1.
pub const EVENTQ_PROD: u64 = 0x1_00a8;
/// SMMU_EVENTQ_CONS, in page 1.
pub const EVENTQ_CONS: u64 = 0x1_00ac;

/// Values of SMMU_CIDR0 to SMMU_CIDR3, one byte each.
pub const CIDR: [u32; 4] = [0x0d, 0xf0, 0x05, 0xb1];

/// SMMU_AIDR of SMMUv3.1.
pub const AIDR_SMMU_V3_1: u32 = 0x01;
/// SMMU_AIDR of SMMUv3.2 (ArchMinorRev 2, ArchMajorRev 0).
pub const AIDR_SMMU_V3_2: u32 = 0x02;

/// SMMU_IDR0: which features there are.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr0 {
    /// Stage 2 translation.
    pub s2p: bool,
    /// Stage 1 translation.
    pub s1p: bool,
    /// Translation table formats; bit 1 is VMSAv8-64.
    #[bits(2)]
    pub ttf: u8,
    /// Coherent access to tables and queues.
    pub cohacc: bool,
    /// Broadcast TLB maintenance.
    pub btm: bool,
    /// Hardware update of access flag and dirty state.
    #[bits(2)]
    pub httu: u8,
    /// Whether there is a dormant hint.
    pub dormhint: bool,
    /// EL2 and E2H stage 1 contexts.
    pub hyp: bool,
    /// PCIe ATS.
    pub ats: bool,
    /// ATS with stage 1 only.
    pub ns1ats: bool,
    /// 16-bit ASIDs.
    pub asid16: bool,
    /// Message-signalled interrupts.
    pub msi: bool,
    /// WFE wake-up events.
    pub sev: bool,
    /// Address translation operations.
    pub atos: bool,
    /// PCIe page requests.
    pub pri: bool,
    /// VMID wildcard matching.
    pub vmw: bool,
    /// 16-bit VMIDs.
    pub vmid16: bool,
    /// 2-level context descriptor tables.
    pub cd2l: bool,
    /// Address translation operations by VM.
    pub vatos: bool,
    /// Endianness of translation tables: 0 mixed, 2 little.
    #[bits(2)]
    pub ttendian: u8,
    /// Base ATS translation errors are recorded.
    pub atsrecerr: bool,
    /// Stall model: 0 stall and terminate, 1 terminate only, 2 stall only.
    #[bits(2)]
    pub stall_model: u8,
    /// Terminate model: 1 means that CD.A is always 1.
    pub term_model: bool,
    /// Stream table levels: 1 means that 2-level tables are supported.
    #[bits(2)]
    pub st_level: u8,
    #[bits(3)]
    __: u8,
}

/// SMMU_IDR1: sizes of tables and queues.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr1 {
    /// Bits of a StreamID.
    #[bits(6)]
    pub sidsize: u8,
    /// Bits of a SubstreamID.
    #[bits(5)]
    pub ssidsize: u8,
    /// log2 of the most page request queue entries.
    #[bits(5)]
    pub priqs: u8,
    /// log2 of the most event queue entries.
    #[bits(5)]
    pub eventqs: u8,
    /// log2 of the most command queue entries.
    #[bits(5)]
    pub cmdqs: u8,
    /// Whether incoming permissions can be overridden.
    pub attr_perms_ovr: bool,
    /// Whether incoming memory attributes can be overridden.
    pub attr_types_ovr: bool,
    /// Whether preset base addresses are relative.
    pub rel: bool,
    /// Whether queue addresses are fixed.
    pub queues_preset: bool,
    /// Whether table addresses are fixed.
    pub tables_preset: bool,
    /// Whether there is an enhanced command queue.
    pub ecmdq: bool,
}

/// SMMU_IDR3: features since SMMUv3.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr3 {
    #[bits(2)]
    __: u8,
    /// Hierarchical attribute disables.
    pub had: bool,
    /// Page-based hardware attributes.
    pub pbha: bool,
    /// Execute-never for unprivileged.
    pub xnx: bool,
    /// Unprivileged-access-never support for data.
    pub pps: bool,
    __: bool,
    /// Memory partitioning and monitoring.
    pub mpam: bool,
    /// Stage 2 forced write-back.
    pub fwb: bool,
    /// Small translation tables.
    pub stt: bool,
    /// Range-based invalidation.
    pub ril: bool,
    /// Break-before-make level.
    #[bits(2)]
    pub bbml: u8,
    #[bits(19)]
    __: u32,
}

/// SMMU_IDR5: address sizes and granules.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr5 {
    /// Output address size: 0 to 6 stand for 32, 36, 40, 42, 44, 48 and 52 bits.
    #[bits(3)]
    pub oas: u8,
    __: bool,
    /// 4 KiB granule.
    pub gran4k: bool,
    /// 16 KiB granule.
    pub gran16k: bool,
    /// 64 KiB granule.
    pub gran64k: bool,
    /// 52-bit addresses with 4 KiB and 16 KiB granules.
    pub ds: bool,
    #[bits(2)]
    __: u8,
    /// Virtual address extension: 1 means 52 bits.
    #[bits(2)]
    pub vax: u8,
    #[bits(4)]
    __: u8,
    /// Most stalled transactions.
    pub stall_max: u16,
}

/// SMMU_CR0 and SMMU_CR0ACK: what is enabled.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr0 {
    /// Translation.
    pub smmuen: bool,
    /// Page request queue.
    pub priqen: bool,
    /// Event queue.
    pub eventqen: bool,
    /// Command queue.
    pub cmdqen: bool,
    /// Checks of translated ATS traffic.
    pub atschk: bool,
    #[bits(27)]
    __: u32,
}

/// SMMU_CR1: attributes of the accesses to tables and queues.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr1 {
    /// QUEUE_IC, QUEUE_OC and QUEUE_SH.
    #[bits(6)]
    pub queue: u8,
    /// TABLE_IC, TABLE_OC and TABLE_SH.
    #[bits(6)]
    pub table: u8,
    #[bits(20)]
    __: u32,
}

/// SMMU_CR2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr2 {
    /// EL2-E2H translation regime.
    pub e2h: bool,
    /// Whether C_BAD_STREAMID is recorded.
    pub recinvsid: bool,
    /// Private TLB maintenance.
    pub ptm: bool,
    #[bits(29)]
    __: u32,
}

/// SMMU_GBPA: what happens to transactions while SMMUEN is 0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gbpa {
    #[bits(20)]
    __: u32,
    /// Terminate instead of bypass.
    pub abort: bool,
    #[bits(10)]
    __: u16,
    /// Written as 1 to change the register, reads as 1 until the change is made.
    pub update: bool,
}

/// SMMU_IRQ_CTRL and SMMU_IRQ_CTRLACK.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IrqCtrl {
    /// Global errors.
    pub gerror_irqen: bool,
    /// Page request queue.
    pub priq_irqen: bool,
    /// Event queue.
    pub eventq_irqen: bool,
    #[bits(29)]
    __: u32,
}

/// SMMU_GERROR and SMMU_GERRORN: an error is active while its bits differ (section 7.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gerror {
    /// The command queue stopped; the reason is in CMDQ_CONS.ERR.
    pub cmdq_err: bool,
    __: bool,
    /// An event could not be written.
    pub eventq_abt_err: bool,
    /// A page request could not be written.
    pub priq_abt_err: bool,
    /// The MSI of a CMD_SYNC was aborted.
    pub msi_cmdq_abt_err: bool,
    /// The MSI of the event queue was aborted.
    pub msi_eventq_abt_err: bool,
    /// The MSI of the page request queue was aborted.
    pub msi_priq_abt_err: bool,
    /// The MSI of a global error was aborted.
    pub msi_gerror_abt_err: bool,
    /// Service failure mode.
    pub sfm_err: bool,
    #[bits(23)]
    __: u32,
}

/// SMMU_STRTAB_BASE.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StrtabBase {
    #[bits(6)]
    __: u8,
    /// Address bits 51:6.
    #[bits(46)]
    pub addr: u64,
    #[bits(10)]
    __: u16,
    /// Read-allocate hint.
    pub ra: bool,
    __: bool,
}

/// SMMU_STRTAB_BASE_CFG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct StrtabBaseCfg {
    /// log2 of the number of StreamIDs.
    #[bits(6)]
    pub log2size: u8,
    /// StreamID bits resolved by a level 2 table: 6, 8 or 10.
    #[bits(5)]
    pub split: u8,
    #[bits(5)]
    __: u8,
    /// Format: 0 linear, 1 two levels.
    #[bits(2)]
    pub fmt: u8,
    #[bits(14)]
    __: u16,
}

/// SMMU_CMDQ_BASE and SMMU_EVENTQ_BASE.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueBase {
    /// log2 of the number of entries.
    #[bits(5)]
    pub log2size: u8,
    /// Address bits 51:5.
    #[bits(47)]
    pub addr: u64,
    #[bits(10)]
    __: u16,
    /// Allocation hint (RA of CMDQ_BASE, WA of EVENTQ_BASE).
    pub allocate: bool,
    __: bool,
}

/// SMMU_CMDQ_CONS.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CmdqCons {
    /// Read index with its wrap bit.
    #[bits(20)]
    pub rd: u32,
    #[bits(4)]
    __: u8,
    /// Reason of the error, valid while GERROR.CMDQ_ERR is active: a [`CmdqError`].
    #[bits(7)]
    pub err: u8,
    __: bool,
}

/// SMMU_EVENTQ_PROD and SMMU_EVENTQ_CONS.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EventqPointer {
    /// Index with its wrap bit.
    #[bits(20)]
    pub index: u32,
    #[bits(11)]
    __: u16,
    /// OVFLG in PROD, OVACKFLG in CONS: an overflow is pending while they differ (section 7.4).
    pub overflow: bool,
}

/// SMMU_*_IRQ_CFG0: address of a message.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IrqCfg0 {
    #[bits(2)]
    __: u8,
    /// Address bits 51:2; 0 means that no message is sent.
    #[bits(50)]
    pub addr: u64,
    #[bits(12)]
    __: u16,
}

/// Command queue errors in CMDQ_CONS.ERR (section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CmdqError {
    /// CERROR_NONE.
    None = 0,
    /// CERROR_ILL: the command is illegal.
    Ill = 1,
    /// CERROR_ABT: the command could not be fetched.
    Abt = 2,
    /// CERROR_ATC_INV_SYNC: a CMD_SYNC waited for an ATC invalidation that timed out.
    AtcInvSync = 3,
}
