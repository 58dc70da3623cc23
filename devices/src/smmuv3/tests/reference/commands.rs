//! The reference's command queue (IHI 0070, sections 3.5, 4 and 7.1): one command, its effect, the next.

use super::registers::{CMDQ_BASE, CMDQ_CONS, CMDQ_ERR, CMDQ_PROD};
use super::streams::Why;
use super::trouble::Fate;
use super::{Entry, Reference, bits, keep};
use crate::smmuv3::physical::{CommandWords, StreamConfig};

const ILL: u32 = 1;
const ABT: u32 = 2;
const ATC_INV_SYNC: u32 = 3;

/// A queue as its base register has it.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    pub base: u64,
    pub size: u32,
    pub entry: u64,
}

impl Ring {
    /// `limit` is the largest LOG2SIZE.
    pub fn new(register: u64, limit: u64, entry: u64) -> Self {
        let size = 1u32 << bits(register, 4, 0).min(limit);
        let bytes = (u64::from(size) * entry).max(32);
        Self { base: keep(register, 51, 5) / bytes * bytes, size, entry }
    }

    pub fn address(&self, index: u32) -> u64 {
        self.base + u64::from(index % self.size) * self.entry
    }

    pub fn next(&self, index: u32) -> u32 {
        (index % (2 * self.size) + 1) % (2 * self.size)
    }

    /// How many entries are in it; more than its size if the indices make no sense.
    pub fn used(&self, producer: u32, consumer: u32) -> u32 {
        (producer % (2 * self.size) + 2 * self.size - consumer % (2 * self.size)) % (2 * self.size)
    }
}

impl Reference {
    pub(super) fn command_ring(&self) -> Ring {
        Ring::new(self.read64(CMDQ_BASE), self.idr1(25, 21), 16)
    }

    /// Executes commands until there are none, or one fails.
    pub(super) fn consume(&mut self) {
        while self.cmdqen() && self.active_errors() & CMDQ_ERR == 0 {
            let ring = self.command_ring();
            let index = self.read(CMDQ_CONS) & 0xf_ffff;
            let used = ring.used(self.read(CMDQ_PROD), index);
            if used == 0 || used > ring.size {
                return;
            }
            let address = ring.address(index);
            let words = self.memory.read64(address).zip(self.memory.read64(address + 8));
            let done = match words {
                Some((word0, word1)) => self.execute([word0, word1]),
                None => Err(ABT),
            };
            let old = self.read(CMDQ_CONS) & !0xf_ffff;
            match done {
                Ok(()) => self.set(CMDQ_CONS, old | ring.next(index)),
                Err(code) => {
                    self.command_errors += 1;
                    let stopped = index % (2 * ring.size);
                    self.set(CMDQ_CONS, code << 24 | stopped);
                    self.global_error(CMDQ_ERR);
                }
            }
        }
    }

    fn execute(&mut self, words: CommandWords) -> Result<(), u32> {
        let [word0, word1] = words;
        let opcode = bits(word0, 7, 0);
        // SSec, which prefetches and configuration commands have.
        if (0x01..=0x06).contains(&opcode) && bits(word0, 10, 10) != 0 {
            return Err(ILL);
        }
        let stream = bits(word0, 63, 32) as u32;
        match opcode {
            0x01 | 0x02 => Ok(()),
            0x03 => self.configure_by_command(&[stream]),
            0x04 => {
                let range = bits(word1, 4, 0) as u32;
                let shift = if range == 31 { 32 } else { range + 1 };
                let named = |other: &u32| u64::from(*other) >> shift == u64::from(stream) >> shift;
                let streams: Vec<u32> = self.host.keys().copied().filter(named).collect();
                self.configure_by_command(&streams)
            }
            0x05 => {
                let substream = self.substream(word0);
                self.invalidate_stream(stream, [0x05 | substream | keep(word0, 63, 32), word1 & 1])
            }
            0x06 => self.invalidate_stream(stream, [0x06 | keep(word0, 63, 32), 0]),
            opcode @ (0x10 | 0x30) => self.invalidate([opcode, 0]),
            0x11 => self.invalidate([0x11 | self.asid(word0), 0]),
            opcode @ (0x12 | 0x13) => {
                let asid = if opcode == 0x12 { self.asid(word0) } else { 0 };
                let [range0, range1] = self.range(words)?;
                self.invalidate([opcode | asid | range0, keep(word1, 63, 12) | word1 & 1 | range1])
            }
            0x40 => self.invalidate_atc(stream, words),
            0x46 => self.sync(words),
            _ => Err(ILL),
        }
    }

    /// The SubstreamID at its place, cut to its size.
    fn substream(&self, word0: u64) -> u64 {
        match self.idr1(10, 6) as u32 {
            0 => 0,
            size => keep(word0, 11 + size, 12),
        }
    }

    fn asid(&self, word0: u64) -> u64 {
        if self.idr0(12, 12) != 0 { keep(word0, 63, 48) } else { keep(word0, 55, 48) }
    }

    /// TG, TTL, NUM and SCALE of a TLBI by address (section 4.4.1.1): nothing, or a legal range.
    fn range(&self, [word0, word1]: CommandWords) -> Result<CommandWords, u32> {
        if self.idr3(10, 10) == 0 || bits(word1, 11, 10) == 0 {
            return Ok([0, 0]);
        }
        let ds = self.idr5(7, 7) != 0;
        // Without DS there are no blocks at level 1 of 16 KiB pages, and a hint for them counts as none.
        let no_hint = bits(word1, 11, 8) == 0b1001 && !ds;
        let scale = if ds { keep(word0, 25, 20) } else { keep(word0, 24, 20) };
        let num = keep(word0, 16, 12);
        let ttl = if no_hint { 0 } else { keep(word1, 9, 8) };
        if scale | num | ttl == 0 {
            return Err(ILL);
        }
        Ok([num | scale, keep(word1, 11, 10) | ttl])
    }

    /// Has the host execute one invalidation.
    pub(super) fn invalidate(&mut self, command: CommandWords) -> Result<(), u32> {
        if self.troubles.down {
            return Err(ABT);
        }
        match self.troubles.fate(command) {
            Fate::Refused => Err(ILL),
            Fate::NeverCompletes => Err(ABT),
            Fate::Executed => {
                self.log.push(Entry::Execute(command));
                Ok(())
            }
        }
    }

    /// Streams without a device have nothing cached.
    fn invalidate_stream(&mut self, stream: u32, command: CommandWords) -> Result<(), u32> {
        if self.host.contains_key(&stream) { self.invalidate(command) } else { Ok(()) }
    }

    fn invalidate_atc(&mut self, stream: u32, [word0, word1]: CommandWords) -> Result<(), u32> {
        if self.idr0(10, 10) == 0 || bits(word1, 5, 0) > 52 {
            return Err(ILL);
        }
        let useless = self.streams.get(&stream).is_some_and(|known| known.busy || known.dead_atc);
        if !self.smmuen() || useless || !self.host.contains_key(&stream) {
            return Ok(());
        }
        let flags = if self.idr1(10, 6) != 0 { keep(word0, 11, 11) | keep(word0, 9, 9) } else { 0 };
        let substream = self.substream(word0) | flags;
        let command = [0x40 | substream | keep(word0, 63, 32), keep(word1, 63, 12) | keep(word1, 5, 0)];
        if !self.troubles.down && self.troubles.fate(command) == Fate::NeverCompletes {
            self.give_up_atc(stream);
            self.atc_timeout = true;
            return Ok(());
        }
        self.invalidate(command)
    }

    /// CMD_CFGI_STE and its relatives: the entry is read again, and context descriptors are forgotten.
    fn configure_by_command(&mut self, streams: &[u32]) -> Result<(), u32> {
        let mut unchanged = Vec::new();
        for &stream in streams {
            if self.configure(stream, Why::Command) {
                unchanged.push(stream);
            }
        }
        // Another entry forgets them by itself.
        unchanged.into_iter().try_for_each(|stream| self.invalidate([0x06 | u64::from(stream) << 32, 0]))
    }

    fn sync(&mut self, [word0, word1]: CommandWords) -> Result<(), u32> {
        if bits(word0, 13, 12) == 3 {
            return Err(ILL);
        }
        let busy: Vec<(u32, StreamConfig)> = self
            .streams
            .iter()
            .filter(|(_, known)| known.busy)
            .map(|(&stream, known)| (stream, known.wanted))
            .collect();
        for (stream, wanted) in busy {
            let dead_atc = self.streams[&stream].dead_atc;
            self.install(stream, wanted, dead_atc);
        }
        if std::mem::take(&mut self.atc_timeout) {
            return Err(ATC_INV_SYNC);
        }
        if bits(word0, 13, 12) == 1 {
            match keep(word1, 51, 2) {
                0 => self.log.push(Entry::Sync),
                address => {
                    if !self.message(keep(address, self.oas() - 1, 2), (word0 >> 32) as u32) {
                        self.global_error(1 << 4);
                    }
                }
            }
        }
        Ok(())
    }
}
