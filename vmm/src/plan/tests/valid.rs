//! Plans from files.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::host::*;
use crate::plan::spec::Plan;
use crate::plan::{Format, plan, read, validate, write};

fn grace() -> Plan {
    let devices =
        [(0, vec![low(0, 16 * KIB)]), (1, vec![high(0, 16 * GIB)]), (1, vec![low(0, 128 * KIB), low(3, 16 * KIB)])];
    plan(&request(3), &host(&devices)).unwrap()
}

fn read_text(text: &str) -> Result<Plan, String> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("plan");
    std::fs::write(&path, text).unwrap();
    read(&path).map_err(|error| error.to_string())
}

#[test]
fn a_plan_is_the_same_after_json_and_toml() {
    let plan = grace();
    assert_eq!(validate(&plan), Ok(()));
    for format in [Format::Json, Format::Toml] {
        let text = write(&plan, format).unwrap();
        assert!(text.contains("0xc000000"), "addresses are hexadecimal: {text}");
        assert_eq!(read_text(&text), Ok(plan.clone()));
    }
}

#[test]
fn a_path_that_is_no_text_is_named_instead_of_written() {
    let odd = || OsString::from_vec(b"Im\xffage".to_vec());
    for format in [Format::Json, Format::Toml] {
        let refusal = |edit: &dyn Fn(&mut Plan)| {
            let mut plan = grace();
            edit(&mut plan);
            write(&plan, format).unwrap_err().to_string().replace("TOML", "JSON")
        };
        assert_eq!(
            refusal(&|plan| plan.boot.kernel = odd().into()),
            r#"kernel "Im\xFFage" cannot be written as JSON; give --format text, or rename it"#
        );
        let initrd = refusal(&|plan| plan.boot.initrd = Some(odd().into()));
        assert!(initrd.starts_with(r#"initrd "Im\xFFage" cannot be written"#), "{initrd}");
    }
}

#[test]
fn a_file_that_is_no_plan_says_where() {
    let toml = write(&grace(), Format::Toml).unwrap();
    let refused = read_text(&toml.replacen("cpus = 1", "cpus = 1\nmemorry = 3", 1)).unwrap_err();
    assert!(refused.contains("line 2: unknown field `memorry`, expected one of"), "{refused}");
    assert!(refused.contains("make it with 'nestling plan --format json' or 'toml'"), "{refused}");
    assert!(read_text("{}").unwrap_err().contains("missing field"));
    let json = write(&grace(), Format::Json).unwrap();
    assert!(read_text(&json.replace("0xc000000", "c000000")).unwrap_err().contains("does not start with 0x"));
    assert!(read(&PathBuf::from("/nonexistent")).unwrap_err().to_string().contains("'/nonexistent' cannot be read"));
}

#[test]
fn an_edited_plan_that_contradicts_itself_is_refused() {
    type Edit = fn(&mut Plan);
    let edits: &[(Edit, &str)] = &[
        (|p| p.cpus = 0, "cpus is 0, but must be at least 1"),
        (|p| p.cpus = 2, "size of the redistributors is 131072, but must be at least 262144"),
        (|p| p.ipa_bits = 64, "ipa-bits is 64, but must be 32 to 52"),
        (|p| p.ipa_bits = 38, "ECAM (0x4010000000..=0x401fffffff) does not fit 38 address bits"),
        (|p| p.memory.size = u64::MAX, "memory (0x40000000..=0xfffffffffffffffe) does not fit"),
        (|p| p.memory.base = 0x1000_0000, "overlap"),
        (|p| p.memory.base = 0, "memory (0x0..=0x3fffffff) and GIC ITS"),
        (|p| p.serial.window.base = p.rtc.window.base, "serial (0x9010000..=0x9010fff) and rtc"),
        (|p| p.gic.interrupts = 100, "interrupts is 100, but must be a multiple of 32"),
        (|p| p.serial.gsiv = 31, "a gsiv is 31, but must be an SPI"),
        (|p| p.rtc.gsiv = p.serial.gsiv, "gsiv 33 is there twice"),
        (
            |p| p.gic.distributor.size = 0x2_0000,
            "GIC distributor (0x8080000..=0x809ffff) has 0x20000 bytes, but must have 0x10000",
        ),
        (|p| p.gic.its.base += 0x8_0000, "GIC ITS (0x8070000..=0x808ffff) and GIC distributor"),
        (|p| p.gic.its.size = 0x1_0000, "GIC ITS (0x7ff0000..=0x7ffffff) has 0x10000 bytes, but must have 0x20000"),
        (|p| p.gic.distributor.base += 0x1000, "GIC distributor (0x8081000..=0x8090fff) is not aligned to 0x10000"),
        (
            |p| p.gic.redistributors.base += 0x1000,
            "GIC redistributors (0x80a1000..=0x80c0fff) is not aligned to 0x10000",
        ),
        (|p| p.serial.window.size = 0x800, "serial (0x9000000..=0x90007ff) has 0x800 bytes, but must have 0x1000"),
        (|p| p.rtc.window.size = 0x2000, "rtc (0x9010000..=0x9011fff) has 0x2000 bytes, but must have 0x1000"),
        (|p| p.ged.window.base += 4, "ged (0x9080004..=0x9081003) is not aligned to 0x1000"),
        (
            |p| p.pci.ecam.size = 1 << 20,
            "ECAM (0x4010000000..=0x40100fffff) has 0x100000 bytes, but must have 0x10000000",
        ),
        (|p| p.pci.ecam.base += 1 << 20, "ECAM (0x4010100000..=0x40200fffff) is not aligned to 0x10000000"),
        (|p| p.pci.msi_window.size = 0, "size of msi-window is 0, but must be at least 65536"),
        (|p| p.pci.msi_window.base = u64::MAX, "MSI window (0xffffffffffffffff..=0xfffffffffffffffe) does not fit"),
        (|p| p.pci.msi_window.base += 0x1000, "MSI window (0x8001000..=0x8100fff) is not aligned to 0x10000"),
        (|p| p.pci.msi_window.base = 0x4000_0000, "and the host kernel's MSI window (0x40000000..=0x400fffff) overlap"),
        (|p| p.pci.root.bus = 1, "bus of pcie.0 is 1, but must be 0"),
        (|p| p.pci.root.last_bus = 255, "bus of vsmmu0 is"),
        (|p| p.pci.expanders[1].root.bus = 255, "secondary-bus of port 00 of vsmmu1 is 253, but must be 256 to 255"),
        (|p| p.pci.expanders[1].root.last_bus = 0, "last-bus of vsmmu1 is 0, but must be at least"),
        (|p| p.pci.expanders[1].name = "vsmmu0".into(), "vSMMU name vsmmu0 is there twice"),
        (|p| p.pci.expanders[1].device = 30, "pcie.0 device 30 is there twice"),
        (|p| p.pci.expanders[1].device = 32, "device of vsmmu1 is 32, but must be 1 to 31"),
        (|p| p.pci.expanders[1].smmu.host = smmu(0), "host SMMU smmu3.0x000000000c000000 is there twice"),
        (|p| p.pci.expanders[1].smmu.iort_identifier = 1, "iort-identifier 1 is there twice"),
        (|p| p.pci.expanders[1].smmu.window.base = 0x0c01_0000, "vsmmu0 (0xc000000..=0xc01ffff) and vsmmu1"),
        (
            |p| p.pci.expanders[1].smmu.window.size = 0x1_0000,
            "vsmmu1 (0xc020000..=0xc02ffff) has 0x10000 bytes, but must",
        ),
        (|p| p.pci.expanders[1].smmu.window.base += 0x1000, "vsmmu1 (0xc021000..=0xc040fff) is not aligned to 0x10000"),
        (|p| p.pci.expanders[0].root.mmio32.base = 0x1_0000_0000, "is not inside the first 4 GiB"),
        (|p| p.pci.expanders[0].ports[0].secondary_bus = 3, "secondary-bus of port 00 of vsmmu0 is 3"),
        (|p| p.pci.expanders[0].ports[0].subordinate_bus = 255, "subordinate-bus of port 00 of vsmmu0 is 255"),
        (|p| p.pci.expanders[0].ports[0].subordinate_bus += 1, "buses of port 00"),
        (
            |p| p.pci.expanders[0].ports[1].device = 0,
            "device of port 00 of vsmmu0 is 0, but must be 0 to 31, each once",
        ),
        (|p| p.pci.expanders[0].ports[1].slot = 1, "slot 1 is there twice"),
        (|p| p.pci.expanders[0].ports[0].mmio32.size += 1, "is not aligned to 0x100000"),
        (|p| p.pci.expanders[1].ports[0].mmio64.base = 0, "mmio64 of port 00 of vsmmu1"),
        (|p| p.pci.expanders[0].ports[0].bar0.base += 1, "bar0 of port 00 of vsmmu0"),
        (|p| p.pci.expanders[0].ports[0].bar0.size = 0x2000, "has 0x2000 bytes, but must have 0x1000"),
        (|p| p.function(0).stream_id = 1, "stream-id of 0000:10:00.0 is 1, but must be"),
        (|p| p.function(1).host = "0000:10:00.0".into(), "device 0000:10:00.0 is there twice"),
        (|p| p.function(0).bars[0].window.size = 0x3000, "size of BAR 0 of 0000:10:00.0 is 12288, but must be a power"),
        (|p| p.function(0).bars[0].window.base += 0x1000, "is not aligned to 0x4000"),
        (
            |p| p.function(0).bars[0].window.base = 0,
            "BAR 0 of 0000:10:00.0 (0x0..=0x3fff) is not inside mmio32 of port",
        ),
        (|p| p.function(0).bars[0].index = 6, "a BAR number of 0000:10:00.0 is 6"),
        (|p| p.function(1).bars[0].index = 5, "a BAR number of 0000:11:00.0 is 5"),
        (|p| p.function(1).bars[0].prefetchable = false, "is not inside mmio32"),
        (|p| p.function(2).bars[1].window.base = p.function(2).bars[0].window.base, "overlap"),
    ];
    for (number, (edit, message)) in edits.iter().enumerate() {
        let mut plan = grace();
        edit(&mut plan);
        let refused = read_text(&write(&plan, Format::Json).unwrap()).expect_err(&format!("edit {number}: {message}"));
        assert!(refused.contains(message), "edit {number}: '{refused}' does not say '{message}'");
        assert!(refused.ends_with("make it again with 'nestling plan'"), "{refused}");
    }
}

impl Plan {
    /// The function with this number, counted over all expanders.
    fn function(&mut self, number: usize) -> &mut crate::plan::spec::AssignedFunction {
        let ports = self.pci.expanders.iter_mut().flat_map(|expander| &mut expander.ports);
        ports.filter_map(|port| port.function.as_mut()).nth(number).unwrap()
    }
}
