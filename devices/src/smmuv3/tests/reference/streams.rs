//! The reference's stream table (IHI 0070, sections 3.3.1, 3.11, 5.1 and 5.2).

use super::registers::{CR2, GBPA, STRTAB_BASE, STRTAB_BASE_CFG};
use super::trouble::Answer;
use super::{Entry, Known, Reference, bits, keep};
use crate::smmuv3::physical::{Stage1, StreamConfig};

/// An entry that means nothing, and the event that says so: number and address.
enum Bad {
    /// V = 0: silent, as every stream is that is not in use.
    Silent,
    /// C_BAD_STREAMID: only if the guest named the stream, and wants to know.
    StreamId,
    Event(u64, u64),
}

/// Why a stream is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Command,
    Register,
    /// Its device came, or was reset.
    Device,
}

impl Reference {
    /// Every device gets what registers and table say.
    pub(super) fn configure_all(&mut self) {
        let streams: Vec<u32> = self.host.keys().copied().collect();
        for stream in streams {
            self.configure(stream, Why::Register);
        }
    }

    /// Returns whether the stream has the same stage 1 as before.
    pub(super) fn configure(&mut self, stream: u32, why: Why) -> bool {
        if !self.host.contains_key(&stream) {
            self.streams.remove(&stream);
            return false;
        }
        let wanted = self.wanted(stream, why == Why::Command);
        let dead = self.streams.get(&stream).is_some_and(|known| known.dead_atc) && why != Why::Device;
        // Another try needs a stage 1, and that the guest was told of the last one.
        match wanted {
            StreamConfig::Stage1(_) if !dead || !self.atc_timeout => self.install(stream, wanted, false),
            _ if dead => self.install(stream, without_ats(wanted), true),
            _ => self.install(stream, wanted, false),
        }
    }

    /// Returns whether the stream has the same stage 1 as before.
    pub(super) fn install(&mut self, stream: u32, wanted: StreamConfig, dead_atc: bool) -> bool {
        if self.stale && matches!(wanted, StreamConfig::Stage1(_)) {
            self.stale = self.invalidate([0x30, 0]).is_err();
        }
        let Some(now) = self.host.get_mut(&stream) else {
            self.streams.remove(&stream);
            return false;
        };
        let answer = self.troubles.answer(stream, *now, wanted);
        *now = if matches!(answer, Answer::Busy | Answer::Failed) { StreamConfig::Abort } else { wanted };
        if answer == Answer::Replaced {
            self.log.push(Entry::Install(stream, wanted));
        }
        self.streams.insert(stream, Known { wanted, busy: answer == Answer::Busy, dead_atc });
        answer == Answer::Unchanged && matches!(wanted, StreamConfig::Stage1(_))
    }

    /// No ATS for a device whose ATC does not answer, until it is configured again.
    pub(super) fn give_up_atc(&mut self, stream: u32) {
        let Some(known) = self.streams.get(&stream).copied() else { return };
        self.install(stream, without_ats(known.wanted), true);
    }

    fn wanted(&mut self, stream: u32, by_command: bool) -> StreamConfig {
        if !self.smmuen() {
            return if self.read(GBPA) >> 20 & 1 != 0 { StreamConfig::Abort } else { StreamConfig::Bypass };
        }
        let event = match self.entry(stream) {
            Ok(config) => return config,
            Err(Bad::Silent) => None,
            Err(Bad::StreamId) => (by_command && self.read(CR2) & 2 != 0).then_some((0x02, 0)),
            Err(Bad::Event(number, address)) => Some((number, address)),
        };
        if let Some((number, address)) = event {
            self.record([number | u64::from(stream) << 32, 0, 0, address]);
        }
        StreamConfig::Abort
    }

    fn entry(&self, stream: u32) -> Result<StreamConfig, Bad> {
        let config = u64::from(self.read(STRTAB_BASE_CFG));
        let base = keep(self.read64(STRTAB_BASE), 51, 6);
        let written = bits(config, 5, 0);
        let log2size = written.min(self.idr1(5, 0));
        // The base is aligned to the size that was written, in full.
        let aligned = |base: u64, entry: u64, log2: u64| {
            let size = u128::from(entry) << log2;
            (u128::from(base) / size * size) as u64
        };
        let stream = u64::from(stream);
        if stream >= 1 << log2size {
            return Err(Bad::StreamId);
        }
        let two_levels = bits(config, 17, 16) == 1 && self.idr0(28, 27) != 0;
        let address = if two_levels {
            let split = match bits(config, 10, 6) {
                split @ (8 | 10) => split,
                _ => 6,
            };
            // Level 1 has one descriptor of 8 bytes for each 2^split streams.
            let at = aligned(base, 8, written.saturating_sub(split)) + 8 * (stream >> split);
            let descriptor = self.memory.read64(at).ok_or(Bad::Event(0x03, at))?;
            let span = bits(descriptor, 4, 0);
            if span == 0 || span > split + 1 {
                return Err(Bad::StreamId);
            }
            let entries = 1 << (span - 1);
            let index = stream % (1 << split);
            if index >= entries {
                return Err(Bad::StreamId);
            }
            let size = 64 * entries;
            keep(descriptor, 51, 6) / size * size + 64 * index
        } else {
            aligned(base, 64, written) + 64 * stream
        };
        let words = self.memory.read64(address).zip(self.memory.read64(address + 8));
        let (word0, word1) = words.ok_or(Bad::Event(0x03, address))?;
        self.decode(word0, word1)
    }

    fn decode(&self, word0: u64, word1: u64) -> Result<StreamConfig, Bad> {
        let bad = || Bad::Event(0x04, 0);
        if bits(word0, 0, 0) == 0 {
            return Err(Bad::Silent);
        }
        match bits(word0, 3, 1) {
            0b000..=0b011 => return Ok(StreamConfig::Abort),
            0b100 => return Ok(StreamConfig::Bypass),
            0b101 => {}
            // Stage 2.
            _ => return Err(bad()),
        }
        if keep(word0, 51, 6) >> self.oas() != 0 {
            return Err(bad());
        }
        // S1ContextPtr, S1CIR, S1COR and S1CSH always count.
        let mut masked = [0b1011 | keep(word0, 51, 6), keep(word1, 7, 2)];
        let ssidsize = self.idr1(10, 6);
        let contexts = bits(word0, 63, 59);
        if ssidsize != 0 && contexts != 0 {
            let format = bits(word0, 5, 4);
            if contexts > ssidsize || format != 0 && self.idr0(19, 19) == 0 {
                return Err(bad());
            }
            // 3 counts as 0.
            masked[0] |= keep(word0, 63, 59) | ((format % 3) << 4);
            masked[1] |= bits(word1, 1, 0) % 3;
        }
        if self.idr0(10, 10) != 0 {
            // EATS, where 3 counts as 0 and 2 needs stage 2.
            match bits(word1, 29, 28) {
                2 => return Err(bad()),
                eats => masked[1] |= (eats % 3) << 28,
            }
        }
        // S1STALLD, which nobody may set who sees STALL_MODEL 1.
        if bits(word1, 27, 27) != 0 {
            return Err(bad());
        }
        masked[1] |= u64::from(self.features.disable_stall) << 27;
        Ok(StreamConfig::Stage1(Stage1(masked)))
    }
}

/// Bypass would have ATS on.
fn without_ats(wanted: StreamConfig) -> StreamConfig {
    match wanted {
        StreamConfig::Stage1(Stage1([word0, word1])) => StreamConfig::Stage1(Stage1([word0, word1 & !(0b11 << 28)])),
        StreamConfig::Bypass | StreamConfig::Abort => StreamConfig::Abort,
    }
}
