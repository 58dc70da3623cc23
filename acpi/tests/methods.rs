//! What the DSDT's methods answer, as ACPICA's own interpreter evaluates them.

#[allow(dead_code)]
mod common;

use std::{fs, process::Command};

use common::{grace, table};

const OSC: &str = "(5B4DDB33F71F1C4096577441C03DD766)";
const DSM: &str = "(D037C9E553357A4D9117EA4D19C3434D)";

/// Evaluates calls, each with the host bridge of the last expander, and returns one result for each: the bytes of a
/// buffer, or an integer, as acpiexec prints them. None if there is no acpiexec.
fn evaluate(calls: &[String]) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("dsdt.dat"), table(&grace(), "DSDT")).expect("a file is written");
    let commands: Vec<_> = calls.iter().map(|call| format!("evaluate \\_SB.PCF8.{call}")).collect();
    let output = Command::new("acpiexec")
        .args(["-b", &commands.join(";"), "dsdt.dat"])
        .current_dir(directory.path())
        .output()
        .inspect_err(|_| println!("skipped: no acpiexec on PATH"))
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let results: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (kind, value) = line.trim().strip_prefix('[')?.split_once(" = ")?;
            let value = value.trim().trim_start_matches("0000:").split("//").next()?.trim().to_string();
            (kind.starts_with("Integer]") || kind.starts_with("Buffer]")).then_some(value)
        })
        .collect();
    assert_eq!(results.len(), calls.len(), "{text}");
    Some(results)
}

#[test]
fn a_host_bridge_asks_to_keep_its_boot_configuration() {
    let calls = [(DSM, 1, 0), (DSM, 1, 5), (DSM, 1, 8), (DSM, 0, 5), ("(00)", 1, 5)];
    let calls = calls.map(|(uuid, revision, function)| format!("_DSM {uuid} {revision} {function} [0]"));
    let Some(results) = evaluate(&calls) else { return };
    assert_eq!(results, ["21", "0000000000000000", "00", "00", "00"]);
}

#[test]
fn a_host_bridge_grants_native_pcie_control_and_says_what_it_keeps() {
    let calls = [
        // Everything that Linux asks for, with SHPC and DPC among it.
        format!("_OSC {OSC} 1 3 (00000000 1F000000 BF000000)"),
        // What the bridge would grant.
        format!("_OSC {OSC} 1 3 (00000000 1F000000 3D000000)"),
        // An unknown revision and an unknown UUID.
        format!("_OSC {OSC} 2 3 (00000000 1F000000 3D000000)"),
        "_OSC (00) 1 3 (00000000 1F000000 3D000000)".to_string(),
    ];
    let Some(results) = evaluate(&calls) else { return };
    let expected = [
        "10 00 00 00 1F 00 00 00 3D 00 00 00",
        "00 00 00 00 1F 00 00 00 3D 00 00 00",
        "08 00 00 00 1F 00 00 00 3D 00 00 00",
        "04 00 00 00 1F 00 00 00 3D 00 00 00",
    ];
    assert_eq!(results, expected);
}
