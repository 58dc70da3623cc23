//! The nested vSMMUv3: the register interface, queues and stream table of Arm IHI 0070 in software, translation in
//! the host's SMMU.
//!
//! ```text
//! guest writes CMDQ_PROD -> commands from guest memory -> ordered batch -> PhysicalSmmu::invalidate -> CMD_SYNC
//! guest writes CFGI_STE  -> entry of the stream table  -> StreamConfig  -> PhysicalSmmu::install
//! host event             -> PhysicalSmmu::drain_events -> event queue in guest memory -> interrupt
//! ```
//!
//! Commands are executed on the vCPU thread that wrote CMDQ_PROD, under the lock of the vSMMU; when the write returns,
//! they are done, unless another vCPU is at it already, which does them in their order then: between two commands it gives
//! the lock to others now and then. No DMA passes through here.
//!
//! # What is there
//! A stage 1 only, non-secure SMMUv3.2, by the sections of IHI 0070 G.b:
//!
//! | section | what | where |
//! | --- | --- | --- |
//! | 3.3, 5.1, 5.2 | linear and 2-level stream tables, their entries and what makes them ILLEGAL | `stream_table` |
//! | 3.4.3 | addresses cut to, or checked against, IDR5.OAS | `registers`, `stream_table`, `interrupts` |
//! | 3.5, 6.3.26 to 6.3.29 | circular queues of every size | `queue` |
//! | 3.9, 4.5 | ATS: EATS, CMD_ATC_INV, invalidations that time out (3.9.1.4) | `stream_table`, `command_queue` |
//! | 3.18, 4.7.3 | wired interrupts, messages to memory and to the ITS | `interrupts` |
//! | 4.1 to 4.4 | CMD_PREFETCH_*, CMD_CFGI_*, CMD_TLBI_NH_* with ranges and level hints, CMD_TLBI_NSNH_ALL | `decode` |
//! | 4.7.3 | CMD_SYNC with every completion signal | `command_queue` |
//! | 6.2, 6.3 | both register pages; guarded registers; CR0, IRQ_CTRL and GBPA with their handshakes | `registers` |
//! | 6.3.9.6, 6.3.14 | SMMUEN and GBPA configure every stream again | `streams` |
//! | 7.1, 7.5 | CERROR_ILL, CERROR_ABT, CERROR_ATC_INV_SYNC; GERROR and GERRORN | `command_queue`, `registers` |
//! | 7.2 to 7.4 | the event queue, its aborts and overflows; C_BAD_STREAMID, F_STE_FETCH, C_BAD_STE | `event_queue` |
//!
//! # What is not, and why
//! - Stage 2, VMIDs and EL2 contexts: stage 2 is the host kernel's, and STE.STRW cannot be nested. Their commands are
//!   CERROR_ILL as sections 4.4.2 and 4.4.3 want it without IDR0.S2P and IDR0.HYP.
//! - Stalls and page requests: the kernel forwards neither, so IDR0.STALL_MODEL is 1 and IDR0.PRI 0. CMD_RESUME,
//!   CMD_STALL_TERM (4.7.1, 4.7.2) and CMD_PRI_RESP (4.5.2) are CERROR_ILL then.
//! - HTTU, BTM, MPAM, ATOS, ECMDQ, DPT and the secure and realm worlds: not nested by the kernel. Their registers are RES0.
//! - Context descriptors and translation tables are not read here but by who translates: the hardware, which reports
//!   C_BAD_CD, F_TRANSLATION and the others by itself, or [`WalkerSmmu`].
//!
//! # Where an implementation may choose
//! - An interrupt is a message if the guest gave it an address, else a wire, never both (3.18.2 allows any of these; 4.7.3
//!   would pulse the wire of a CMD_SYNC too, which costs a system call that no guest asks for).
//! - One event interrupt comes with each batch of records, also while the queue is not empty.
//! - Configuration errors are recorded when the entry is read, not at a transaction (7.2): the stream is on abort then,
//!   which is silent. An entry with V = 0 is what every unused stream has, and is not recorded at all.
//! - Records that the host loses show as an overflow although the guest's queue was not full (7.4).
//! - Reserved fields of commands are ignored; those of registers are not stored; ignored register accesses are counted.
//!
//! The commands of a batch reach [`PhysicalSmmu`]; its implementations are [`IommufdSmmu`], [`WalkerSmmu`] for emulated
//! devices (a stage 1 in software), and a fake for tests.

#![forbid(unsafe_code)]

mod batch;
pub mod capabilities;
mod command_queue;
mod decode;
mod event_queue;
#[cfg(test)]
mod fake;
mod interrupts;
mod iommufd;
mod limit;
mod model;
pub mod physical;
mod queue;
mod registers;
pub mod spec;
mod stats;
mod stream_table;
mod streams;
#[cfg(test)]
mod tests;
mod vacant;
pub mod walker;

pub use interrupts::{Interrupts, ItsDoorbell};
pub use iommufd::{Error as IommufdError, IommufdSmmu};
pub use model::{Config, Smmuv3};
pub use physical::PhysicalSmmu;
pub use spec::registers::REGISTER_SPACE;
pub use stats::{DeviceCounters, Errors, Events, Installs, Latency, Opcodes, Stats, StreamStats};
pub use vacant::VacantSmmu;
pub use walker::{DmaError, DmaPort, EmulatedUpstream, WalkerSmmu};
