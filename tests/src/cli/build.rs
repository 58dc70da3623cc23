//! What cargo builds for the host: nestling and the test binaries.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use super::error::file;
use super::{Error, supervise};

/// The target of everything that runs in the host: static, and linked without a C toolchain.
pub const TARGET: &str = "aarch64-unknown-linux-musl";

/// The workspace that this lab was built from.
#[must_use]
pub fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Something that cargo has built, as `--message-format=json` tells it.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
    package_id: Option<String>,
    profile: Option<CompiledAs>,
}

/// How cargo compiled it.
#[derive(Debug, Deserialize)]
struct CompiledAs {
    test: bool,
}

/// A target of a package.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// `lib`, `bin`, `test`, ...
    pub kind: Vec<String>,
}

/// An executable made by cargo.
#[derive(Clone, Debug)]
pub struct Executable {
    /// Where it is.
    pub path: PathBuf,
    /// What it was made from.
    pub target: Target,
    /// Folder of its package: where cargo runs tests.
    pub package: PathBuf,
    /// Whether it runs tests; the programs that tests start are built along with them.
    pub is_test: bool,
}

impl Executable {
    /// Whether this is a file of a package's `tests` folder, and not the unit tests of a crate.
    #[must_use]
    pub fn is_test_file(&self) -> bool {
        self.target.kind.iter().any(|kind| kind == "test")
    }
}

/// Runs cargo with these arguments and returns what executables it has made.
pub fn executables(what: &str, arguments: &[&str], interrupted: &AtomicBool) -> Result<Vec<Executable>, Error> {
    let mut command = cargo();
    command.args(arguments).args(["--quiet", "--message-format=json-render-diagnostics"]);
    let waited_for = format!("cargo to build {what}");
    let (status, built) = supervise::run(&waited_for, &mut command, supervise::LIMIT, interrupted, |stdout| {
        let messages = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        messages.filter_map(|line| serde_json::from_slice(&line).ok()).filter_map(executable).collect()
    })?;
    if status.success() { Ok(built) } else { Err(Error::Build(what.to_owned())) }
}

fn executable(message: Message) -> Option<Executable> {
    if message.reason != "compiler-artifact" {
        return None;
    }
    // path+file:///work/nestling/devices#nestling-devices@0.1.0
    let id = message.package_id?;
    let (_, path) = id.split_once("file://")?;
    let package = path.split_once('#').map_or(path, |(path, _)| path).into();
    let is_test = message.profile.is_some_and(|profile| profile.test);
    Some(Executable { path: message.executable?, target: message.target?, package, is_test })
}

/// Builds `nestling` for the host and says where it is. `$NESTLING_BIN` is taken instead if it is set.
pub fn nestling(interrupted: &AtomicBool) -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os("NESTLING_BIN").filter(|path| !path.is_empty()) {
        return Path::new(&path).canonicalize().map_err(file("finding $NESTLING_BIN,", path));
    }
    let arguments = ["build", "--package", "nestling", "--bin", "nestling", "--target", TARGET, "--profile", "lab"];
    let built = executables("nestling", &arguments, interrupted)?;
    built.into_iter().map(|built| built.path).next_back().ok_or_else(|| Error::Build("nestling".to_owned()))
}

/// Whether a program is one of the integration tests, which need nestling and a guest.
pub fn is_integration_test(program: &Path) -> bool {
    let Some(name) = test_name(program) else { return false };
    workspace().join("tests/tests").join(name).with_extension("rs").is_file()
}

/// `grace` of `target/.../deps/grace-0123456789abcdef`.
pub fn test_name(program: &Path) -> Option<&str> {
    let name = program.file_name().and_then(OsStr::to_str)?;
    let (name, hash) = name.rsplit_once('-')?;
    (hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// cargo in the workspace, with the environment of the user and not of the `cargo run` that started the lab.
pub fn cargo() -> Command {
    in_the_workspace(&[std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())])
}

/// The same of another toolchain.
pub fn cargo_of_toolchain(toolchain: &str) -> Command {
    in_the_workspace(&["rustup", "run", toolchain, "cargo"])
}

fn in_the_workspace(program: &[impl AsRef<OsStr>]) -> Command {
    // the kernel ends cargo if the lab is killed
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).args(program).current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" || name == "CARGO_MANIFEST_PATH" {
            command.env_remove(name.as_ref());
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_is_known_by_its_hash() {
        assert_eq!(test_name(Path::new("/t/deps/two_nvme-0123456789abcdef")), Some("two_nvme"));
        assert_eq!(test_name(Path::new("/usr/bin/dpkg-deb")), None);
        assert_eq!(test_name(Path::new("lspci")), None);
    }

    #[test]
    fn an_artifact_message_names_executable_and_package() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/devices#nestling-devices@0.1.0",
            "target":{"kind":["lib"],"name":"nestling_devices"},"profile":{"test":true},"executable":"/t/deps/nestling_devices-1"}"#;
        let built = executable(serde_json::from_str(line).expect("it is JSON")).expect("it is an executable");
        assert_eq!(built.package, Path::new("/w/devices"));
        assert_eq!(built.target.name, "nestling_devices");
        assert!(built.is_test);
        assert_eq!(built.path, Path::new("/t/deps/nestling_devices-1"));
    }

    #[test]
    fn messages_about_anything_else_are_passed_over() {
        let finished = r#"{"reason":"build-finished","success":true}"#;
        assert!(executable(serde_json::from_str(finished).expect("it is JSON")).is_none());
    }
}
