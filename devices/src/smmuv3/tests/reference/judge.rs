//! What the host's kernel takes from a guest: `arm_smmu_validate_vste`, `arm_vsmmu_validate_user_cmd` and
//! `arm_vsmmu_validate_range` of Linux 7.3, and what the model promises beyond (reserved bits are 0).

use super::bits;
use crate::smmuv3::physical::{CommandWords, HostCapabilities, StreamConfig};

/// Judges what reaches the host, by the host's identification registers.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    host: HostCapabilities,
}

impl Judge {
    pub fn new(host: HostCapabilities) -> Self {
        Self { host }
    }

    fn idr(&self, register: usize, high: u32, low: u32) -> u64 {
        bits(self.host.idr[register].into(), high, low)
    }

    /// `STRTAB_STE_0_NESTING_ALLOWED` and `STRTAB_STE_1_NESTING_ALLOWED`.
    pub fn config(&self, config: StreamConfig) {
        let StreamConfig::Stage1(ste) = config else { return };
        let [word0, word1] = ste.0;
        assert_eq!(bits(word0, 3, 0), 0b1011, "V and stage 1: {config:x?}");
        assert_eq!(word0 & !0xf80f_ffff_ffff_ffff, 0, "word 0 of {config:x?}");
        // S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS.
        assert_eq!(word1 & !0x3800_00ff, 0, "word 1 of {config:x?}");
        assert!(bits(word1, 29, 28) <= u64::from(self.host.ats), "EATS of {config:x?}");
        let substreams = bits(word0, 63, 59);
        assert!(substreams <= self.idr(1, 10, 6), "S1CDMax of {config:x?}");
        if substreams == 0 {
            assert_eq!(bits(word0, 5, 4), 0, "S1Fmt without substreams of {config:x?}");
            assert_eq!(bits(word1, 1, 0), 0, "S1DSS without substreams of {config:x?}");
        }
        assert!(bits(word0, 5, 4) == 0 || self.idr(0, 19, 19) == 1, "S1Fmt without CD2L of {config:x?}");
        assert!(bits(word0, 5, 4) != 3 && bits(word1, 1, 0) != 3, "reserved in {config:x?}");
        assert!(bits(word1, 27, 27) == 1 || self.idr(0, 25, 24) == 1, "a guest that can stall: {config:x?}");
    }

    /// Returns the stream that a legal command names.
    pub fn command(&self, command: CommandWords) -> Option<u32> {
        let [word0, word1] = command;
        let asid = if self.idr(0, 12, 12) == 1 { 0xffff << 48 } else { 0xff << 48 };
        let substreams = self.idr(1, 10, 6) > 0;
        let stream = 0xffff_ffff << 32;
        let (allowed0, allowed1) = match word0 & 0xff {
            0x10 | 0x30 => (0, 0),
            0x11 => (asid, 0),
            opcode @ (0x12 | 0x13) => {
                let asid = if opcode == 0x12 { asid } else { 0 };
                if self.idr(3, 10, 10) == 1 {
                    self.range(command);
                    let scale = if self.idr(5, 7, 7) == 1 { 0x3f << 20 } else { 0x1f << 20 };
                    (asid | 0x1f << 12 | scale, !0xfff | 0xf01)
                } else {
                    (asid, !0xfff | 1)
                }
            }
            0x05 => (stream | if substreams { 0xf_ffff << 12 } else { 0 }, 1),
            0x06 => (stream, 0),
            0x40 => {
                assert!(self.host.ats, "CMD_ATC_INV without ATS");
                assert!(word1 & 0x3f <= 52, "Size of {command:x?}");
                (stream | if substreams { 0xf_ffff << 12 | 1 << 11 | 1 << 9 } else { 0 }, !0xfff | 0x3f)
            }
            _ => panic!("the kernel knows no such command: {command:x?}"),
        };
        assert_eq!(word0 & !(allowed0 | 0xff), 0, "reserved bits in {command:x?}");
        assert_eq!(word1 & !allowed1, 0, "reserved bits in {command:x?}");
        matches!(word0 & 0xff, 0x05 | 0x06 | 0x40).then_some((word0 >> 32) as u32)
    }

    fn range(&self, command: CommandWords) {
        let [word0, word1] = command;
        let range = bits(word0, 16, 12) | bits(word0, 25, 20);
        let (ttl, granule) = (bits(word1, 9, 8), bits(word1, 11, 10));
        if granule == 0 {
            assert_eq!((range, ttl), (0, 0), "a range without TG: {command:x?}");
        } else {
            assert!(range | ttl != 0, "TG without a range: {command:x?}");
            assert!(granule != 2 || ttl != 1 || self.idr(5, 7, 7) == 1, "TTL 1 with 16 KiB: {command:x?}");
        }
    }
}
