//! What the machine itself must have: tools to fetch and build with, and the Rust target of the emulated host.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::command::{Tool, find};
use super::error::Error;
use super::progress::{Progress, Unit};

/// The target that everything in the emulated host is built for.
pub(super) const RUST_TARGET: &str = "aarch64-unknown-linux-musl";

/// Programs that no package of ours can bring, since packages are fetched and unpacked with them.
const PACKAGE_TOOLS: &[&str] = &["apt-get", "apt-config", "dpkg-deb", "dpkg-query"];

/// What the kernel build runs; a base system lacks most of it.
const BUILD_PACKAGES: &[&str] =
    &["make", "gcc", "libc6-dev", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "xz-utils"];

/// The C compiler for aarch64, where that is not the machine's own.
const CROSS_COMPILER: Option<&str> = if cfg!(target_arch = "aarch64") { None } else { Some("gcc-aarch64-linux-gnu") };

/// Checks that Debian packages can be fetched at all.
pub(super) fn package_tools() -> Result<(), Error> {
    match PACKAGE_TOOLS.iter().find(|program| find(program).is_none()) {
        Some(program) => Err(Error::NoPackageTools { program }),
        None => Ok(()),
    }
}

/// Installs what the kernel build needs; without the right to do so, says what to type.
pub(super) fn build_packages(progress: &Progress, log: &Path) -> Result<(), Error> {
    let missing = missing_packages()?;
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::MachinePackages { command: format!("sudo {}", install_command(&missing)) });
    }
    let apt = |what: &str| Tool::new(what, "apt-get").env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    let names = missing.join(", ");
    progress.say(&format!("this machine needs {names}; updating its lists of packages"));
    apt("updating this machine's lists of packages").arg("update").run(log, || 0)?;
    let install = ["install", "-y", "--no-install-recommends"];
    let plan = apt("planning an installation").args(install).arg("--simulate").args(&missing).output()?;
    let total = plan.lines().filter(|line| line.starts_with("Inst ")).count() as u64;
    let mut step = progress.step("installing packages on this machine", Unit::Things("packages"), total);
    apt("installing packages on this machine")
        .args(install)
        .args(&missing)
        .run(log, || step.set(configured(&fs::read_to_string(log).unwrap_or_default())))?;
    step.done();
    Ok(())
}

/// How many packages dpkg has finished with, by what it prints.
fn configured(log: &str) -> u64 {
    log.lines().filter(|line| line.starts_with("Setting up ")).count() as u64
}

fn missing_packages() -> Result<Vec<&'static str>, Error> {
    let wanted: Vec<&str> = BUILD_PACKAGES.iter().copied().chain(CROSS_COMPILER).collect();
    // It fails when it does not know a package, so its status says nothing.
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(&wanted)
        .output()
        .map_err(|source| Error::Start {
            program: "dpkg-query".into(),
            what: "looking for build tools".into(),
            source,
        })?;
    Ok(missing(&wanted, &String::from_utf8_lossy(&query.stdout)))
}

fn missing(wanted: &[&'static str], status: &str) -> Vec<&'static str> {
    let installed = |name: &&str| status.lines().any(|line| line.split_once(' ') == Some((name, "installed")));
    wanted.iter().copied().filter(|name| !installed(name)).collect()
}

fn install_command(packages: &[&str]) -> String {
    format!("apt-get install --no-install-recommends {}", packages.join(" "))
}

/// Makes sure that Rust can build for the emulated host. Whoever has no `rustc` runs a ready binary and builds nothing.
pub(super) fn rust_target(progress: &Progress) -> Result<(), Error> {
    let Some(rustc) = find("rustc") else { return Ok(()) };
    let sysroot = Tool::new("asking rustc where it lives", rustc).args(["--print", "sysroot"]).output()?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(RUST_TARGET).is_dir() {
        return Ok(());
    }
    let rustup = find("rustup").ok_or(Error::RustTarget { target: RUST_TARGET })?;
    progress.say(&format!("adding the Rust target {RUST_TARGET}"));
    Tool::new("adding a Rust target", rustup).args(["target", "add", RUST_TARGET]).output().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_is_as_missing_as_an_unknown_one() {
        let status = "make installed\nflex config-files\n";
        assert_eq!(missing(&["make", "flex", "bison"], status), ["flex", "bison"]);
    }

    #[test]
    fn a_package_counts_when_it_is_configured() {
        assert_eq!(configured("Unpacking flex\nSetting up bc (1.07)\nSetting up flex (2.6)\n"), 2);
    }

    #[test]
    fn the_remedy_is_one_command() {
        assert_eq!(install_command(&["flex", "bc"]), "apt-get install --no-install-recommends flex bc");
    }
}
