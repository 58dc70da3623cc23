//! Loads kernels into plain memory and reads back what a kernel would read.

use std::io::Write;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;

const RAM: Region = Region::new(0x4000_0000, 64 << 20);
const SEED: Seed = Seed { kaslr: 0x0123_4567_89ab_cdef, rng: [0x5a; 32] };

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM.base), RAM.size as usize)]).unwrap()
}

/// An Image whose .bss makes it `image_size` bytes in memory.
fn kernel(image_size: u64) -> Vec<u8> {
    let mut bytes = vec![0xc3; 3 << 20];
    bytes[8..16].fill(0);
    bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
    bytes[24..32].copy_from_slice(&0b1010u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

fn tables(base: u64) -> AcpiTables {
    AcpiTables { bytes: vec![0xac; 70_000], rsdp: base + 0x40 }
}

fn request<'a>(kernel: &'a [u8], initrd: Option<&'a [u8]>) -> BootRequest<'a> {
    BootRequest {
        ram: RAM,
        kernel: Source::Bytes(kernel),
        initrd: initrd.map(Source::Bytes),
        cmdline: "console=ttyAMA0 quiet",
        seed: SEED,
    }
}

fn bytes(memory: &GuestMemoryMmap, address: u64, size: usize) -> Vec<u8> {
    let mut buffer = vec![0; size];
    memory.read_slice(&mut buffer, GuestAddress(address)).unwrap();
    buffer
}

fn u32_at(memory: &GuestMemoryMmap, address: u64) -> u32 {
    u32::from_le_bytes(bytes(memory, address, 4).try_into().unwrap())
}

fn u64_at(memory: &GuestMemoryMmap, address: u64) -> u64 {
    u64::from_le_bytes(bytes(memory, address, 8).try_into().unwrap())
}

/// The nodes and properties of an FDT in order: (path of the node, property, value); a node itself has an empty
/// property (Devicetree Specification 0.4, section 5).
fn read_fdt(blob: &[u8]) -> Vec<(String, String, Vec<u8>)> {
    let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap()) as usize;
    let text = |at: usize| {
        let end = blob[at..].iter().position(|&byte| byte == 0).unwrap();
        String::from_utf8(blob[at..at + end].to_vec()).unwrap()
    };
    assert_eq!(word(0), 0xd00d_feed);
    let (mut at, strings) = (word(8), word(12));
    let (mut path, mut found) = (Vec::new(), Vec::new());
    loop {
        let token = word(at);
        at += 4;
        match token {
            1 => {
                let name = text(at);
                at += (name.len() + 1).next_multiple_of(4);
                path.push(name);
                found.push((path.join("/"), String::new(), Vec::new()));
            }
            2 => drop(path.pop()),
            3 => {
                let (length, name) = (word(at), text(strings + word(at + 4)));
                found.push((path.join("/"), name, blob[at + 8..at + 8 + length].to_vec()));
                at += 8 + length.next_multiple_of(4);
            }
            4 => {}
            9 => return found,
            other => panic!("FDT token {other}"),
        }
    }
}

struct Guest {
    memory: GuestMemoryMmap,
    loaded: Loaded,
    fdt: Vec<(String, String, Vec<u8>)>,
}

impl Guest {
    fn boot(kernel: &[u8], initrd: Option<&[u8]>) -> Self {
        let memory = memory();
        let loaded = load(&memory, &request(kernel, initrd), tables).unwrap();
        let fdt = read_fdt(&bytes(&memory, loaded.entry.x0, loaded.fdt.size as usize));
        Self { memory, loaded, fdt }
    }

    fn chosen(&self, name: &str) -> Option<&[u8]> {
        self.fdt.iter().find(|(path, found, _)| path == "/chosen" && found == name).map(|(_, _, value)| &value[..])
    }

    fn number(&self, name: &str) -> u64 {
        self.chosen(name).unwrap().iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// EFI memory map: type, start, end, attribute.
    fn memory_map(&self) -> Vec<(u32, u64, u64, u64)> {
        let (start, size) = (self.number("linux,uefi-mmap-start"), self.number("linux,uefi-mmap-size"));
        let step = self.number("linux,uefi-mmap-desc-size");
        assert_eq!(size % step, 0);
        (start..start + size)
            .step_by(step as usize)
            .map(|at| {
                let physical = u64_at(&self.memory, at + 8);
                let end = physical + u64_at(&self.memory, at + 24) * 4096;
                (u32_at(&self.memory, at), physical, end, u64_at(&self.memory, at + 32))
            })
            .collect()
    }

    /// Address of the configuration table with this GUID.
    fn configuration_table(&self, guid_start: [u8; 4]) -> u64 {
        let system_table = self.number("linux,uefi-system-table");
        let (count, array) = (u64_at(&self.memory, system_table + 104), u64_at(&self.memory, system_table + 112));
        (0..count)
            .map(|n| array + n * 24)
            .find(|&at| bytes(&self.memory, at, 4) == guid_start)
            .map(|at| u64_at(&self.memory, at + 16))
            .unwrap()
    }
}

#[test]
fn the_kernel_is_copied_to_the_start_of_ram_and_entered_there() {
    let kernel = kernel(8 << 20);
    let guest = Guest::boot(&kernel, None);
    assert_eq!(guest.loaded.entry.pc, RAM.base);
    assert_eq!(guest.loaded.kernel, Region::new(RAM.base, 8 << 20));
    assert_eq!(bytes(&guest.memory, RAM.base, kernel.len()), kernel);
}

#[test]
fn nothing_overlaps_the_bss_or_anything_else() {
    let guest = Guest::boot(&kernel(8 << 20), Some(&[7; 100_000]));
    let Loaded { kernel, handover, fdt, initrd, .. } = guest.loaded;
    let all = [kernel, handover, fdt, initrd.unwrap()];
    for pair in all.windows(2) {
        assert!(pair[0].end() <= pair[1].base, "{pair:x?}");
        assert_eq!(pair[1].base % GRANULE, 0);
    }
    assert!(all.iter().all(|region| RAM.contains(region)));
}

#[test]
fn an_old_text_offset_is_honoured() {
    let mut kernel = kernel(8 << 20);
    kernel[8..16].copy_from_slice(&0x8_0000u64.to_le_bytes());
    let guest = Guest::boot(&kernel, None);
    assert_eq!(guest.loaded.entry.pc, RAM.base + 0x8_0000);
}

#[test]
fn the_tree_has_nothing_but_chosen() {
    let guest = Guest::boot(&kernel(8 << 20), None);
    let nodes: Vec<_> =
        guest.fdt.iter().filter(|(_, property, _)| property.is_empty()).map(|(path, ..)| path.as_str()).collect();
    assert_eq!(nodes, ["", "/chosen"]);
    assert_eq!(guest.chosen("bootargs"), Some(&b"console=ttyAMA0 quiet\0"[..]));
    assert_eq!(guest.number("linux,uefi-mmap-desc-ver"), 1);
    assert_eq!(guest.number("linux,uefi-secure-boot"), 2);
    assert_eq!(guest.number("kaslr-seed"), SEED.kaslr);
    assert_eq!(guest.chosen("rng-seed"), Some(&SEED.rng[..]));
    assert_eq!(guest.chosen("linux,initrd-start"), None);
}

#[test]
fn the_initrd_is_where_the_tree_says_byte_for_byte() {
    let content: Vec<u8> = (0..300_001u32).map(|n| n as u8).collect();
    let guest = Guest::boot(&kernel(8 << 20), Some(&content));
    let (start, end) = (guest.number("linux,initrd-start"), guest.number("linux,initrd-end"));
    assert_eq!(Some(Region::new(start, end - start)), guest.loaded.initrd);
    assert_eq!(bytes(&guest.memory, start, (end - start) as usize), content);
}

#[test]
fn the_memory_map_covers_all_ram_once_and_without_gaps() {
    let guest = Guest::boot(&kernel(8 << 20), Some(&[1; 10]));
    let map = guest.memory_map();
    assert_eq!(map.first().unwrap().1, RAM.base);
    assert_eq!(map.last().unwrap().2, RAM.end());
    for pair in map.windows(2) {
        assert_eq!(pair[0].2, pair[1].1);
        assert_eq!(pair[1].1 % GRANULE, 0);
    }
    assert!(map.iter().all(|&(_, start, end, attribute)| start < end && attribute == 8));
    let reclaim: Vec<_> = map.iter().filter(|entry| entry.0 == 9).map(|&(_, start, end, _)| (start, end)).collect();
    assert_eq!(reclaim, [(guest.loaded.handover.base, guest.loaded.handover.end())]);
}

#[test]
fn efi_and_acpi_tables_lie_in_reclaim_memory() {
    let guest = Guest::boot(&kernel(8 << 20), None);
    let system_table = guest.number("linux,uefi-system-table");
    assert_eq!(bytes(&guest.memory, system_table, 8), *b"IBI SYST");
    let vendor = u64_at(&guest.memory, system_table + 24);
    assert_eq!(bytes(&guest.memory, vendor, 4), *b"n\0e\0");
    assert_eq!(u64_at(&guest.memory, system_table + 88), 0, "no runtime services");

    let rsdp = guest.configuration_table([0x71, 0xe8, 0x68, 0x88]);
    assert_eq!(bytes(&guest.memory, rsdp, 4), [0xac; 4]);
    let properties = guest.configuration_table([0x8a, 0x91, 0x66, 0xeb]);
    assert_eq!(bytes(&guest.memory, properties, 8), [1, 0, 8, 0, 0, 0, 0, 0]);
    let memreserve = guest.configuration_table([0xc6, 0xb0, 0x8e, 0x88]);
    assert_eq!(bytes(&guest.memory, memreserve, 16), [0; 16]);
    for address in [system_table, vendor, rsdp, properties, memreserve, guest.number("linux,uefi-mmap-start")] {
        assert!(guest.loaded.handover.contains(&Region::new(address, 16)), "{address:#x}");
    }
}

#[test]
fn the_last_byte_of_the_acpi_tables_is_kept() {
    let memory = memory();
    // Exactly as many as fill the granules: the FDT must not come one byte too early.
    let size = 2 * GRANULE as usize - efi::ACPI_OFFSET as usize;
    let loaded =
        load(&memory, &request(&kernel(8 << 20), None), |base| AcpiTables { bytes: vec![0xac; size], rsdp: base })
            .unwrap();
    assert_eq!(loaded.handover.size, 2 * GRANULE);
    assert_eq!(bytes(&memory, loaded.handover.end() - 1, 1), [0xac]);
}

#[test]
fn files_and_bytes_load_the_same_and_twice() {
    let content = kernel(8 << 20);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let memory = memory();
    for _ in 0..2 {
        let request = BootRequest { kernel: Source::File(&file), ..request(&[], None) };
        let loaded = load(&memory, &request, tables).unwrap();
        assert_eq!(bytes(&memory, loaded.entry.pc, content.len()), content);
        memory.write_slice(&[0; 4096], GuestAddress(loaded.entry.pc)).unwrap();
    }
}

/// What both the check and the load say.
fn failure(request: &BootRequest<'_>) -> String {
    let text = load(&memory(), request, tables).unwrap_err().to_string();
    assert_eq!(request.check().unwrap_err().to_string(), text);
    text
}

#[test]
fn what_does_not_fit_is_refused_with_the_size_that_would() {
    assert_eq!(
        failure(&request(&kernel(65 << 20), None)),
        "the kernel does not fit in 64 MiB of guest memory: give the guest at least 65 MiB"
    );
    let initrd = vec![0; 60 << 20];
    assert_eq!(
        failure(&request(&kernel(8 << 20), Some(&initrd))),
        "the initrd does not fit in 64 MiB of guest memory: give the guest at least 69 MiB"
    );
    let request = request(&[], None);
    let huge = load(&memory(), &BootRequest { kernel: Source::Bytes(&kernel(63 << 20)), ..request }, |base| {
        AcpiTables { bytes: vec![0; 2 << 20], rsdp: base }
    });
    assert!(huge.unwrap_err().to_string().starts_with("the set of ACPI tables does not fit"));
}

#[test]
fn bad_command_lines_are_refused() {
    let kernel = kernel(8 << 20);
    let with = |cmdline: &str| load(&memory(), &BootRequest { cmdline, ..request(&kernel, None) }, tables);
    assert!(with(&"x".repeat(2047)).is_ok());
    assert_eq!(
        with(&"x".repeat(2048)).unwrap_err().to_string(),
        "the kernel command line has 2048 bytes, and Linux on arm64 takes 2047: shorten it"
    );
    assert!(with("").is_ok());
    assert!(matches!(with("a\0b"), Err(BootError::Cmdline(_))));
}

#[test]
fn empty_initrds_and_odd_memory_sizes_are_refused() {
    let kernel = kernel(8 << 20);
    assert!(matches!(load(&memory(), &request(&kernel, Some(&[])), tables), Err(BootError::EmptyInitrd)));
    for ram in [Region::new(RAM.base, 4097), Region::new(u64::MAX - 4095, 4096)] {
        let request = BootRequest { ram, ..request(&kernel, None) };
        assert!(matches!(load(&memory(), &request, tables), Err(BootError::Unaligned(_))));
    }
}

#[test]
fn memory_that_is_not_there_is_an_error_and_no_panic() {
    let kernel = kernel(8 << 20);
    let request = BootRequest { ram: Region::new(0x8000_0000, 64 << 20), ..request(&kernel, None) };
    request.check().unwrap();
    let error = load(&memory(), &request, tables).unwrap_err().to_string();
    assert!(error.contains("cannot be written to guest memory at 0x80000000"));
}
