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
//! they are done. No DMA passes through here.
//!
//! # What is there
//! The non-secure register map of a stage 1 only SMMUv3.2; linear and 2-level stream tables; abort, bypass and stage 1
//! entries; CMD_CFGI_*, CMD_TLBI_NH_*, CMD_TLBI_NSNH_ALL, CMD_ATC_INV, CMD_PREFETCH_*, CMD_SYNC with all completion
//! signals; CERROR_ILL, CERROR_ABT and CERROR_ATC_INV_SYNC; event queue with overflow; wired interrupts and MSIs.
//!
//! # What is not, and why
//! Stage 2 and VMIDs (the kernel's), EL2 contexts (STE.STRW cannot be nested), stalls and page requests (the kernel
//! forwards neither, so CMD_RESUME, CMD_STALL_TERM and CMD_PRI_RESP are illegal here), HTTU, MPAM, ATOS, ECMDQ.
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
pub use stats::{Errors, Events, Installs, Latency, Opcodes, Stats, StreamStats};
pub use vacant::VacantSmmu;
pub use walker::{DmaError, DmaPort, WalkerSmmu};
