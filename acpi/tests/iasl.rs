//! Every table through Intel's ACPI compiler, where there is one that knows the tables' revisions.

#[allow(dead_code)]
mod common;

use std::{fs, path::Path, process::Command};

use common::{BASE, grace, plain};
use nestling_acpi::{Description, build};

/// The first version that knows IORT E.d.
const OLDEST: u32 = 20220331;

/// Says why, if `iasl` cannot judge the tables.
fn iasl_is_missing() -> Option<String> {
    let Ok(output) = Command::new("iasl").arg("-v").output() else {
        return Some("no iasl on PATH".into());
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1)?.parse().unwrap_or(0);
    (version < OLDEST).then(|| format!("iasl {version} is older than {OLDEST}"))
}

/// Runs iasl and returns what it said; an exit status other than 0 is a failure.
fn iasl(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("iasl").args(arguments).current_dir(directory).output().expect("iasl runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "iasl {arguments:?}: {text}");
    text
}

fn assert_quiet(text: &str, what: &str) {
    for word in ["warning", "error", "invalid", "unknown", "****"] {
        assert!(!text.to_lowercase().contains(word), "{what}: {text}");
    }
}

fn check(description: &Description) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // iasl reads no RSDP from a file: it lacks the header that tables have.
    for table in build(description, BASE).iter().filter(|table| table.signature != "RSDP") {
        let name = table.signature.to_lowercase();
        fs::write(directory.path().join(format!("{name}.dat")), table.bytes).expect("a file is written");
        assert_quiet(&iasl(directory.path(), &["-d", &format!("{name}.dat")]), &name);
        if name != "dsdt" {
            // The decoded text has the compiler's complaints about fields in it.
            let text = fs::read_to_string(directory.path().join(format!("{name}.dsl"))).expect("a decoded table");
            for complaint in ["****", "Invalid", "Unknown", "/* Warning", "/* Error"] {
                assert!(!text.contains(complaint), "{name}: {text}");
            }
        }
    }
    let text = iasl(directory.path(), &["-p", "again", "dsdt.dsl"]);
    assert!(text.contains(" 0 Errors, 0 Warnings, 0 Remarks"), "{text}");
}

#[test]
fn iasl_decodes_every_table_and_recompiles_the_dsdt_without_a_word() {
    if let Some(reason) = iasl_is_missing() {
        println!("skipped: {reason}");
        return;
    }
    check(&grace());
    check(&plain());
}
