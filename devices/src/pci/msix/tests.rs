use super::*;
use crate::pci::fakes::FakeIts;

const ENABLE: u16 = MsixControl::ENABLE.bits();
const MASK: u16 = MsixControl::FUNCTION_MASK.bits();

/// A function with an MSI-X capability and two vectors, and what its driver would do.
struct Function {
    msix: Msix,
    its: Arc<FakeIts>,
    config: ConfigSpace,
    at: u16,
}

impl Function {
    fn new() -> Self {
        let its = Arc::new(FakeIts::default());
        let msix = Msix::new(2, its.clone());
        msix.set_requester_id(Bdf::new(0x60, 1, 0));
        let mut config = ConfigBuilder::new();
        config.u16(header::COMMAND, 0, 0x6);
        let at = msix.capability(&mut config, 0);
        Self { msix, its, config: config.build(), at }
    }

    fn enabled() -> Self {
        let mut function = Self::new();
        function.write_command(Command::BUS_MASTER);
        function.write_control(ENABLE);
        function
    }

    fn write_command(&mut self, command: Command) {
        self.config.write(header::COMMAND, &command.bits().to_le_bytes());
        self.msix.follow(&self.config, self.at);
    }

    fn write_control(&mut self, control: u16) {
        self.config.write(self.at + 2, &control.to_le_bytes());
        self.msix.follow(&self.config, self.at);
    }

    fn write_vector(&self, vector: u64, data: u32, control: u32) {
        self.msix.write(vector * 16, &0x0808_0040_u64.to_le_bytes());
        self.msix.write(vector * 16 + 8, &data.to_le_bytes());
        self.msix.write(vector * 16 + 12, &control.to_le_bytes());
    }

    fn word(&self, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        self.msix.read(offset, &mut data);
        u32::from_le_bytes(data)
    }
}

#[test]
fn the_capability_says_where_table_and_pending_bits_are() {
    let function = Function::new();
    assert_eq!(function.config.get_u16(function.at + 2), 1, "table size less one (7.7.2.2)");
    assert_eq!(function.config.get_u32(function.at + 4), 0);
    assert_eq!(function.config.get_u32(function.at + 8), 0x800);
}

#[test]
fn every_vector_is_masked_after_reset() {
    let function = Function::enabled();
    function.write_vector(0, 5, 0);
    function.msix.reset();
    assert_eq!(function.word(12), 1, "7.7.2.9");
    assert_eq!(function.word(8), 0);
}

#[test]
fn an_unmasked_vector_sends_its_data_from_the_requester_id() {
    let function = Function::enabled();
    function.write_vector(1, 7, 0);
    function.msix.notify(1);
    assert_eq!(function.its.messages(), [(0x6008, 7)]);
    function.msix.set_requester_id(Bdf::new(0x61, 2, 0));
    function.msix.notify(1);
    assert_eq!(function.its.messages(), [(0x6110, 7)]);
}

#[test]
fn a_masked_vector_stays_pending_and_is_sent_once_when_unmasked() {
    let function = Function::enabled();
    function.write_vector(1, 7, 1);
    function.msix.notify(1);
    function.msix.notify(1);
    assert_eq!(function.word(PBA), 0b10);
    assert_eq!(function.its.messages(), []);
    function.write_vector(1, 7, 0);
    assert_eq!(function.its.messages(), [(0x6008, 7)]);
    assert_eq!(function.word(PBA), 0);
}

#[test]
fn the_function_mask_holds_every_vector_back() {
    let mut function = Function::enabled();
    function.write_vector(0, 1, 0);
    function.write_vector(1, 2, 0);
    function.write_control(ENABLE | MASK);
    function.msix.notify(1);
    function.msix.notify(0);
    assert_eq!(function.its.messages(), []);
    assert_eq!(function.word(PBA), 0b11);
    function.write_control(ENABLE);
    assert_eq!(function.its.messages(), [(0x6008, 1), (0x6008, 2)]);
}

#[test]
fn without_bus_mastering_nothing_is_sent() {
    let mut function = Function::enabled();
    function.write_vector(0, 1, 0);
    function.write_command(Command::empty());
    function.msix.notify(0);
    assert_eq!(function.its.messages(), []);
    function.write_command(Command::BUS_MASTER);
    assert_eq!(function.its.messages(), [(0x6008, 1)]);
}

#[test]
fn reserved_bits_of_vector_control_stay_zero() {
    let function = Function::new();
    function.write_vector(0, 0, u32::MAX);
    assert_eq!(function.word(12), 1);
}

#[test]
fn the_table_takes_quadwords_and_the_pending_bits_no_writes() {
    let function = Function::new();
    function.msix.write(8, &0x0000_0000_dead_beef_u64.to_le_bytes());
    let mut data = [0; 8];
    function.msix.read(8, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0xdead_beef);
    function.msix.write(PBA, &[0xff; 8]);
    assert_eq!(function.word(PBA), 0);
}

#[test]
fn accesses_that_fit_nowhere_read_zero_and_change_nothing() {
    let function = Function::new();
    for offset in [1, 2, 32, PBA - 4, BAR_SIZE - 4, u64::MAX - 3] {
        function.msix.write(offset, &[0xff; 4]);
        assert_eq!(function.word(offset), 0, "{offset:#x}");
    }
    function.msix.notify(2);
    function.msix.notify(u16::MAX);
    assert_eq!(function.word(PBA), 0);
}
