//! What a dynamically linked program needs: its loader and its libraries.

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

#[cfg(test)]
mod tests {
    use super::*;

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
