//! The Plan as a person would draw it.

use std::fmt::Write;

use super::spec::{AssignedFunction, Expander, Plan, RootPort, Window};
use crate::config::Size;

/// A few lines about the machine, then the PCI tree with each vSMMU at its host SMMU, then what the vSMMUs show.
pub fn tree(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_tree(&mut text, plan);
    text
}

fn write_tree(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let vcpus = if plan.cpus == 1 { "vCPU" } else { "vCPUs" };
    let (cpus, memory) = (plan.cpus, size(plan.memory.size));
    writeln!(out, "guest: {cpus} {vcpus}, {memory} at {:#x}, {} address bits", plan.memory.base, plan.ipa_bits)?;
    write!(out, "boot:  {}", plan.boot.kernel.display())?;
    if let Some(initrd) = &plan.boot.initrd {
        write!(out, ", initrd {}", initrd.display())?;
    }
    if !plan.boot.cmdline.is_empty() {
        write!(out, ", \"{}\"", plan.boot.cmdline)?;
    }
    let root = &plan.pci.root;
    writeln!(out, "\n\npcie.0  buses {:02x}-{:02x}, behind no vSMMU", root.bus, root.last_bus)?;
    let expanders = &plan.pci.expanders;
    for (i, expander) in expanders.iter().enumerate() {
        write_expander(out, expander, i + 1 == expanders.len())?;
    }
    write_features(out, expanders)
}

/// What the vSMMUs show, as far as it is decided: one table for all that show the same for the same reasons.
fn write_features(out: &mut String, expanders: &[Expander]) -> std::fmt::Result {
    let same = |a: &Expander, b: &Expander| (&a.smmu.report, &a.smmu.unknown) == (&b.smmu.report, &b.smmu.unknown);
    for (i, expander) in expanders.iter().enumerate() {
        if expanders[..i].iter().any(|before| same(before, expander)) {
            continue;
        }
        let alike = expanders[i..].iter().filter(|other| same(expander, other)).map(|other| other.name.as_str());
        let names = alike.collect::<Vec<_>>().join(", ");
        let decided = !expander.smmu.report.is_empty();
        match &expander.smmu.unknown {
            Some(why) if decided => writeln!(out, "\n{names}: the host cannot be asked: {why}")?,
            Some(why) => {
                writeln!(
                    out,
                    "\n{names}: features are decided when the guest starts; the host cannot be asked now: {why}"
                )?;
            }
            None if decided => writeln!(out, "\n{names}:")?,
            None => {}
        }
        if decided {
            expander.smmu.table().lines().try_for_each(|line| writeln!(out, "  {line}"))?;
        }
    }
    Ok(())
}

/// The lines before a child, and before what is below it.
fn branch(last: bool) -> (&'static str, &'static str) {
    if last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}

fn write_expander(out: &mut String, expander: &Expander, last: bool) -> std::fmt::Result {
    let (here, below) = branch(last);
    let (root, smmu) = (&expander.root, &expander.smmu);
    writeln!(
        out,
        "{here}{:02x}.0 {}  buses {:02x}-{:02x}  == host {}",
        expander.device, expander.name, root.bus, root.last_bus, smmu.host
    )?;
    writeln!(
        out,
        "{below}│  registers at {:#x}, interrupts {} event, {} gerror, {} sync",
        smmu.window.base, smmu.event_gsiv, smmu.gerror_gsiv, smmu.sync_gsiv
    )?;
    for (i, port) in expander.ports.iter().enumerate() {
        write_port(out, expander, port, below, i + 1 == expander.ports.len())?;
    }
    Ok(())
}

fn write_port(out: &mut String, expander: &Expander, port: &RootPort, above: &str, last: bool) -> std::fmt::Result {
    let (here, below) = branch(last);
    let address = format!("{:02x}:{:02x}.0", expander.root.bus, port.device);
    write!(out, "{above}{here}{address} root port, slot {}", port.slot)?;
    match &port.function {
        None => writeln!(out, ", free (bus {:02x})", port.secondary_bus),
        Some(function) => {
            writeln!(out)?;
            write_function(out, function, port.secondary_bus, &format!("{above}{below}"))
        }
    }
}

fn write_function(out: &mut String, function: &AssignedFunction, bus: u8, above: &str) -> std::fmt::Result {
    let AssignedFunction { host, id, stream_id, .. } = function;
    write!(out, "{above}└─ {bus:02x}:00.0 host {host} [{id}]  StreamID {stream_id:#x}")?;
    if let Some(node) = function.numa_node {
        write!(out, ", host NUMA node {node}")?;
    }
    writeln!(out)?;
    for bar in &function.bars {
        let kind = match (bar.wide, bar.prefetchable) {
            (true, true) => ", 64-bit, prefetchable",
            (true, false) => ", 64-bit",
            (false, true) => ", prefetchable",
            (false, false) => "",
        };
        let Window { base, size: bytes } = bar.window;
        writeln!(out, "{above}      BAR {} {} at {base:#x}{kind}", bar.index, size(bytes))?;
    }
    Ok(())
}

/// `16K` as people read it in a sentence.
fn size(bytes: u64) -> String {
    let text = Size(bytes).to_string();
    match text.chars().last() {
        Some(unit) if unit.is_ascii_alphabetic() => format!("{} {unit}iB", &text[..text.len() - 1]),
        _ => format!("{text} bytes"),
    }
}
