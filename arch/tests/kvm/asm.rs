//! As much of an A64 assembler as the guests of these tests need.

use super::machine::REPORT;

/// A system register: op0 is 3, op1 is 0, then CRn, CRm, op2.
pub type Register = (u32, u32, u32);
pub const ESR_EL1: Register = (5, 2, 0);
pub const FAR_EL1: Register = (6, 0, 0);
pub const ICC_PMR_EL1: Register = (4, 6, 0);
pub const ICC_IAR1_EL1: Register = (12, 12, 0);
pub const ICC_EOIR1_EL1: Register = (12, 12, 1);
pub const ICC_CTLR_EL1: Register = (12, 12, 4);
pub const ICC_IGRPEN1_EL1: Register = (12, 12, 7);

const ELR_EL1: Register = (4, 0, 1);
const VBAR_EL1: Register = (12, 0, 0);

/// From the start of the vectors to the one for a synchronous exception at EL1 with SP_EL1.
pub const SYNCHRONOUS: u64 = 0x200;
/// `ldp x2, x4, [x1]`, `stp x2, x4, [x1]` and `ldr w2, [x1], #4` for [`Program::access`]: ESR_EL2 describes none.
pub const LOAD_PAIR: u32 = 0xa940_1000;
pub const STORE_PAIR: u32 = 0xa900_1000;
pub const LOAD_AND_STEP: u32 = 0xb840_4400;

/// A guest: instructions that are executed once, at EL1 with the MMU off.
#[derive(Clone, Default)]
pub struct Program(Vec<u32>);

impl Program {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Stores x0 to the report window, as 64 bits.
    pub fn report_x0(self) -> Self {
        self.constant(3, REPORT).word(0xf900_0060)
    }

    /// Reports the 32-bit register at `address`.
    pub fn report_at(self, address: u64) -> Self {
        self.constant(1, address).word(0xb940_0022).report_x2()
    }

    pub fn report_register(self, register: Register) -> Self {
        self.word(0xd538_0002 | operand(register)).report_x2()
    }

    pub fn report_value(self, value: u64) -> Self {
        self.constant(2, value).report_x2()
    }

    pub fn set_register(self, register: Register, value: u64) -> Self {
        self.constant(2, value).word(0xd518_0002 | operand(register))
    }

    /// Stores 32 bits.
    pub fn write(self, address: u64, value: u32) -> Self {
        self.constant(1, address).constant(2, value.into()).word(0xb900_0022)
    }

    /// Stores 64 bits.
    pub fn write64(self, address: u64, value: u64) -> Self {
        self.constant(1, address).constant(2, value).word(0xf900_0022)
    }

    /// Executes a load or store of x2, and x4 if it takes two, at `address`.
    pub fn access(self, instruction: u32, address: u64) -> Self {
        self.constant(1, address).word(instruction | 1 << 5 | 2)
    }

    /// Takes exceptions at `address`, a multiple of 2048. Those of the guest itself arrive [`SYNCHRONOUS`] bytes later.
    pub fn vectors_at(self, address: u64) -> Self {
        self.set_register(VBAR_EL1, address).word(0xd503_3fdf)
    }

    /// Goes on after the instruction that caused the exception.
    pub fn skip_and_return(self) -> Self {
        let after = self.word(0xd538_0002 | operand(ELR_EL1)).word(0x9100_1042);
        after.word(0xd518_0002 | operand(ELR_EL1)).word(0xd69f_03e0)
    }

    /// Acknowledges, ends and reports interrupts (or the lack of them) for ever.
    pub fn report_interrupts(self) -> Self {
        let once = Self::new().word(0xd538_0002 | operand(ICC_IAR1_EL1)).word(0xd518_0002 | operand(ICC_EOIR1_EL1));
        let mut once = once.report_x2();
        let back = (once.0.len() as u32).wrapping_neg() & 0x03ff_ffff;
        once.0.push(0x1400_0000 | back);
        self.then(once)
    }

    /// PSCI SYSTEM_OFF.
    pub fn power_off(self) -> Self {
        self.constant(0, 0x8400_0008).word(0xd400_0002)
    }

    /// Stores x2.
    fn report_x2(self) -> Self {
        self.constant(3, REPORT).word(0xf900_0062)
    }

    /// movz and movk.
    fn constant(mut self, register: u32, value: u64) -> Self {
        for half in 0..4u32 {
            let bits = (value >> (16 * half)) as u32 & 0xffff;
            let opcode = if half == 0 { 0xd280_0000 } else { 0xf280_0000 };
            self.0.push(opcode | half << 21 | bits << 5 | register);
        }
        self
    }

    fn word(mut self, instruction: u32) -> Self {
        self.0.push(instruction);
        self
    }
}

fn operand((crn, crm, op2): Register) -> u32 {
    crn << 12 | crm << 8 | op2 << 5
}
