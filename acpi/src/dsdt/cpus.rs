//! Processors (ACPI 6.5, 8.4): one container for the package that PPTT describes, and in it a device for each vCPU.

use acpi_tables::{
    Aml, AmlSink,
    aml::{Device, Name, Path},
};

use crate::{pptt, sdt};

/// Appends the processors with the `_UID`s 0 to `count` - 1, as MADT and PPTT name them.
pub(super) fn append(sink: &mut Vec<u8>, count: usize) {
    let processors: Vec<Vec<u8>> = (0u16..=u16::MAX).take(count).map(processor).collect();
    let children: Vec<Raw<'_>> = processors.iter().map(|bytes| Raw(bytes)).collect();
    let hid = Name::new(Path::new("_HID"), &"ACPI0010");
    let uid = Name::new(Path::new("_UID"), &pptt::PACKAGE_UID);
    let mut contents: Vec<&dyn Aml> = vec![&hid, &uid];
    contents.extend(children.iter().map(|child| child as &dyn Aml));
    Device::new(Path::new("CPUS"), contents).to_aml_bytes(sink);
}

fn processor(uid: u16) -> Vec<u8> {
    // A letter from C on and three digits: C000, C001, ..., CFFF, D000, ...
    let letter = char::from(b'C' + (uid >> 12) as u8);
    sdt::bytes(&Device::new(
        Path::new(&format!("{letter}{:03X}", uid & 0xfff)),
        vec![&Name::new(Path::new("_HID"), &"ACPI0007"), &Name::new(Path::new("_UID"), &uid)],
    ))
}

/// Finished AML.
struct Raw<'a>(&'a [u8]);

impl Aml for Raw<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.0);
    }
}
