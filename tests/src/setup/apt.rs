//! A private apt: its own sources, lists and archives in one folder, nothing installed, no root needed.

use std::fs;
use std::path::{Path, PathBuf};

use super::command::Tool;
use super::error::{Error, io};
use super::mirror::Mirror;
use super::packages::{Package, SUITES};

/// Name of apt's configuration file in the private folder.
const CONFIG: &str = "apt.conf";

/// A private apt for the packages of one architecture.
#[derive(Debug)]
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Sets it up in an empty folder. How to reach mirrors (proxies, retries, certificates, passwords) is taken from the
    /// machine's configuration; its sources, hooks and preferences are not.
    pub(super) fn create(folder: &Path, arch: &str, mirror: &Mirror) -> Result<Self, Error> {
        for sub in ["state/lists/partial", "cache/archives/partial", "sources", "empty"] {
            let path = folder.join(sub);
            fs::create_dir_all(&path).map_err(io("create", &path))?;
        }
        let machine = Tool::new("reading apt's configuration", "apt-config").arg("dump").output()?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(io("write", &path))
        };
        write("state/status", String::new())?;
        write("sources/lab.sources", sources(mirror, arch))?;
        write(CONFIG, config(folder, arch, &machine))?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn get(&self, what: String) -> Tool {
        Tool::new(what, "apt-get").env("APT_CONFIG", self.folder.join(CONFIG)).arg("-q")
    }

    /// Fetches the lists of packages.
    pub(super) fn update(&self, log: &Path) -> Result<(), Error> {
        // Without the option, apt takes an unreachable mirror for a warning.
        self.get("fetching the lists of packages".into())
            .args(["-o", "APT::Update::Error-Mode=any", "update"])
            .run(log, || 0)
    }

    fn install(&self, names: &[&str]) -> Tool {
        let newest = SUITES[SUITES.len() - 1];
        self.get(format!("fetching {}", names.join(", "))).args(["install", "-y", "-t", newest]).args(names)
    }

    /// Which files stand for these packages and all that they need, newest first choice.
    pub(super) fn resolve(&self, names: &[&str]) -> Result<Vec<Package>, Error> {
        let output = self.install(names).arg("--print-uris").output()?;
        let packages: Vec<Package> = output.lines().filter_map(parse_uri).collect();
        if packages.is_empty() {
            return Err(Error::Resolution { packages: names.join(", "), output });
        }
        Ok(packages)
    }

    /// Fetches the packages and all that they need, checked against the archive's signature; `look` gets the bytes so far.
    pub(super) fn download(&self, names: &[&str], log: &Path, mut look: impl FnMut(u64) -> u64) -> Result<(), Error> {
        let archives = self.archives();
        let so_far = || folder_size(&archives) + folder_size(&archives.join("partial"));
        self.install(names).arg("--download-only").run(log, || look(so_far()))
    }

    /// Where the fetched packages are.
    pub(super) fn archives(&self) -> PathBuf {
        self.folder.join("cache/archives")
    }
}

fn sources(mirror: &Mirror, arch: &str) -> String {
    format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nArchitectures: {arch}\nSigned-By: {}\n",
        mirror.uri,
        SUITES.join(" "),
        mirror.keyring.display()
    )
}

fn config(folder: &Path, arch: &str, machine: &str) -> String {
    let folder = folder.display();
    let reach: Vec<&str> =
        machine.lines().filter(|line| line.starts_with("Acquire::") && line.ends_with("\";")).collect();
    format!(
        r#"{}
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/sources";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "{folder}/empty";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{folder}/empty";
"#,
        reach.join("\n")
    )
}

/// A line of `--print-uris`: `'address' file size algorithm:digest`. The address is left out: it names a mirror.
fn parse_uri(line: &str) -> Option<Package> {
    let (_, rest) = line.strip_prefix('\'')?.split_once('\'')?;
    let mut words = rest.split_whitespace();
    let (file, size, digest) = (words.next()?, words.next()?, words.next().unwrap_or_default());
    Some(Package { file: file.to_owned(), size: size.parse().ok()?, digest: digest.to_owned() })
}

/// Bytes of the files in a folder; what vanishes meanwhile counts nothing.
fn folder_size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_line_gives_file_size_and_digest_but_no_mirror() {
        let line = "'http://mirror.invalid/pool/q.deb' qemu_1%3a11.1_amd64.deb 123 SHA256:abcd";
        let package = Package { file: "qemu_1%3a11.1_amd64.deb".into(), size: 123, digest: "SHA256:abcd".into() };
        assert_eq!(parse_uri(line), Some(package));
        assert_eq!(parse_uri("Reading package lists..."), None);
    }

    #[test]
    fn the_machine_gives_its_proxy_but_neither_its_hooks_nor_its_sources() {
        let machine = "Acquire::http::Proxy \"http://proxy.invalid:1\";\nAPT::Update::Post-Invoke:: \"echo hook\";\n\
                       Dir::Etc::sourceparts \"sources.list.d\";\n";
        let text = config(Path::new("/private"), "arm64", machine);
        assert!(text.contains("proxy.invalid"));
        assert!(!text.contains("hook") && !text.contains("\"sources.list.d\""));
        assert!(text.contains("Dir::Etc::sourceparts \"/private/sources\""));
    }

    #[test]
    fn both_suites_are_signed_by_the_given_key() {
        let mirror = Mirror { uri: "http://mirror.invalid/debian".into(), keyring: "/k.gpg".into() };
        let text = sources(&mirror, "amd64");
        assert!(text.contains("Suites: trixie trixie-backports\n") && text.ends_with("Signed-By: /k.gpg\n"));
    }
}
