//! What a dynamically linked program needs: its loader and its libraries; and a kernel module: other modules.

use goblin::elf::Elf;

/// Names that an ELF file asks the loader for; empty for a static program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Absolute path of the dynamic loader (`PT_INTERP`).
    pub(super) interpreter: Option<String>,
    /// File names of the libraries (`DT_NEEDED`).
    pub(super) libraries: Vec<String>,
}

/// Reads them; `None` if `bytes` is no ELF file, as a script is not.
pub(super) fn needs(bytes: &[u8]) -> Option<Needs> {
    let elf = Elf::parse(bytes).ok()?;
    let libraries = elf.libraries.iter().map(ToString::to_string).collect();
    Some(Needs { interpreter: elf.interpreter.map(str::to_owned), libraries })
}

/// The names of the modules that a kernel module wants loaded before it. `None` if it does not say.
pub(super) fn module_needs(bytes: &[u8]) -> Option<Vec<String>> {
    let elf = Elf::parse(bytes).ok()?;
    let section = elf.section_headers.iter().find(|it| elf.shdr_strtab.get_at(it.sh_name) == Some(".modinfo"))?;
    modules_in(bytes.get(section.file_range()?)?)
}

/// `.modinfo` is a list of `name=value`, each ended by a zero byte.
fn modules_in(modinfo: &[u8]) -> Option<Vec<String>> {
    let mut fields = modinfo.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
    let depends = fields.find_map(|field| field.strip_prefix("depends="))?;
    Some(depends.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_which_modules_come_before_it() {
        let modinfo = b"license=GPL\0depends=jbd2,mbcache\0name=ext4\0";
        assert_eq!(modules_in(modinfo).unwrap(), ["jbd2", "mbcache"]);
        assert_eq!(modules_in(b"depends=\0name=crc16\0").unwrap(), <[String; 0]>::default());
        assert_eq!(modules_in(b"name=vmlinux\0"), None);
        assert_eq!(module_needs(b"no ELF"), None);
    }

    #[test]
    fn this_very_test_needs_a_c_library_or_is_static() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&bytes).unwrap();
        assert!(needs.interpreter.is_none() || needs.libraries.iter().any(|name| name.starts_with("libc.")));
    }

    #[test]
    fn a_script_is_not_a_program_of_this_kind() {
        assert_eq!(needs(b"#!/bin/sh\n"), None);
    }
}
