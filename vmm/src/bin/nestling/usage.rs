//! A command line that cannot be understood gets one line that lists what can.

use std::ffi::OsString;

use clap::error::{ContextKind, ErrorKind};
use clap::{Command, CommandFactory};

use crate::args::Args;
use crate::failure::Failure;

/// Prints help and version; says what is wrong with anything else.
pub fn explain(error: clap::Error, words: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody reads what cannot be printed.
            let _ = error.print();
            Ok(())
        }
        _ => Err(Failure::message(line(&error, words))),
    }
}

fn line(error: &clap::Error, words: impl Iterator<Item = OsString>) -> String {
    let mut top = Args::command();
    top.build();
    let named = words.skip(1).find_map(|word| top.find_subcommand(word.to_str()?));
    let command = named.unwrap_or(&top);
    let name = command.get_bin_name().unwrap_or("nestling");
    let given = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let argument = given(ContextKind::InvalidArg);
            format!("unknown option '{argument}'; valid options of '{name}': {}", options(command))
        }
        ErrorKind::InvalidSubcommand => {
            format!("unknown command '{}'; valid commands: {}", given(ContextKind::InvalidSubcommand), commands(&top))
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("no command; valid commands: {} ('nestling --help' says more)", commands(&top))
        }
        _ => {
            // The first paragraph is the message; the others are hints that `--help` has as well.
            let text = error.to_string();
            let message: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
            let message = message.join(" ");
            format!("{}; see '{name} --help'", message.strip_prefix("error: ").unwrap_or(&message))
        }
    }
}

fn options(command: &Command) -> String {
    let long =
        command.get_arguments().filter(|argument| !argument.is_hide_set()).filter_map(|argument| argument.get_long());
    long.map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ")
}

fn commands(top: &Command) -> String {
    let names = top.get_subcommands().map(Command::get_name).filter(|name| *name != "help");
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// What is said about `nestling` with these words behind it.
    fn said(words: &str) -> String {
        let words: Vec<OsString> = ["nestling"].into_iter().chain(words.split_whitespace()).map(Into::into).collect();
        let error = Args::try_parse_from(&words).unwrap_err();
        let line = line(&error, words.into_iter());
        assert!(!line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn unknown_options_list_the_valid_ones() {
        let run = said("run --kernal Image");
        assert!(
            run.starts_with("unknown option '--kernal'; valid options of 'nestling run': --config, --kernel, "),
            "{run}"
        );
        assert!(run.contains("--plan") && !run.contains("--format"), "{run}");
        let plan = said("plan --plan x");
        assert!(plan.contains("valid options of 'nestling plan'") && plan.contains("--format"), "{plan}");
        assert!(said("--quiet run").starts_with("unknown option '--quiet'; valid options of 'nestling"));
    }

    #[test]
    fn unknown_commands_list_the_valid_ones() {
        assert_eq!(said("start"), "unknown command 'start'; valid commands: run, plan");
        assert_eq!(said(""), "no command; valid commands: run, plan ('nestling --help' says more)");
    }

    #[test]
    fn bad_values_are_one_line_that_names_the_option() {
        for (words, start) in [
            ("run --memory 1X", "invalid value '1X' for '--memory <SIZE>': '1X' is not a size; write a whole number"),
            ("run --cpus many", "invalid value 'many' for '--cpus <N>'"),
            ("run --cpus 70000", "invalid value '70000' for '--cpus <N>'"),
            (
                "run --on-reset halt",
                "invalid value 'halt' for '--on-reset <reboot|exit>': valid values: reboot, exit; see",
            ),
            ("run --device nvme0", "invalid value 'nvme0' for '--device <BDF[,KEY=VALUE...]>': 'nvme0' is not a PCI"),
            (
                "run --device 1:0.0,x",
                "invalid value '1:0.0,x' for '--device <BDF[,KEY=VALUE...]>': unknown key 'x'; valid",
            ),
            (
                "plan --format xml",
                "invalid value 'xml' for '--format <FORMAT>' [possible values: text, json, toml]; see",
            ),
            (
                "run --kernel",
                "a value is required for '--kernel <IMAGE>' but none was supplied; see 'nestling run --help'",
            ),
            ("run --plan p --cpus 2", "the argument '--plan <FILE>' cannot be used with '--cpus <N>'"),
        ] {
            let said = said(words);
            assert!(said.starts_with(start), "{words}: {said}");
        }
    }
}
