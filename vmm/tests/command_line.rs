//! The command as a user meets it on any machine.

use std::process::{Command, Output};

fn nestling(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nestling")).args(arguments).output().expect("nestling starts")
}

fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn help_has_examples_and_exit_statuses() {
    let help = nestling(&["run", "--help"]);
    assert!(help.status.success());
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(text.contains("Examples:") && text.contains("Exit status"), "{text}");
}

#[test]
fn an_unknown_option_lists_the_valid_ones() {
    let output = nestling(&["run", "--krenel", "Image"]);
    assert_eq!(output.status.code(), Some(2));
    let text = complaint(&output);
    assert!(text.contains("'--krenel'") && text.contains("--kernel, --initrd"), "{text}");
}

#[test]
fn a_device_that_is_not_there_is_named_with_what_lists_them() {
    let output = nestling(&["plan", "--kernel", "Image", "--device", "ffff:ff:1f.7"]);
    assert_eq!(output.status.code(), Some(2));
    let text = complaint(&output);
    assert!(text.contains("ffff:ff:1f.7") && text.contains("lspci -D"), "{text}");
}
