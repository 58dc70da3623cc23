//! Tables through Intel's ACPI compiler, where there is one that knows the tables' revisions.

use std::{fs, path::Path, process::Command};

use nestling_acpi::Tables;

/// The first version that knows IORT E.d.
const OLDEST: u32 = 20220331;

/// Says why, if `iasl` cannot judge the tables.
pub fn is_missing() -> Option<String> {
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

/// Decodes every table, and compiles the DSDT again: neither may say a word about them.
pub fn check(tables: &Tables) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // iasl reads no RSDP from a file: it lacks the header that tables have.
    for table in tables.iter().filter(|table| table.signature != "RSDP") {
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
