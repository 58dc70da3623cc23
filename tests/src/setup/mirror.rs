//! Where Debian packages come from: the mirror that the machine's own apt configuration names, or the one in the environment.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, io};

/// Debian's releases by name. Nobody else's suites are called so, save archives made for one of them.
const CODENAMES: &[&str] = &["sid", "bullseye", "bookworm", "trixie", "forky", "duke"];

/// Debian's releases by role. Many other archives call theirs the same.
const ROLES: &[&str] = &["oldstable", "stable", "testing", "unstable"];

/// Where Debian and Ubuntu keep the key of Debian's archive.
const KEYRINGS: &[&str] =
    &["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// A Debian mirror and the key it is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) uri: String,
    pub(super) keyring: PathBuf,
}

/// Finds this machine's mirror: `NESTLING_LAB_MIRROR` first, then apt's sources.
pub(super) fn find() -> Result<Mirror, Error> {
    let uri = match env::var("NESTLING_LAB_MIRROR").ok().filter(|uri| !uri.is_empty()) {
        Some(uri) => uri,
        None => choose(&machine_sources(Path::new("/etc/apt"))?).ok_or(Error::NoMirror)?,
    };
    Ok(Mirror { uri, keyring: keyring()? })
}

/// The keyring of Debian's archive: `NESTLING_LAB_KEYRING` first, then the distribution's.
fn keyring() -> Result<PathBuf, Error> {
    let asked = env::var_os("NESTLING_LAB_KEYRING").map(PathBuf::from);
    let candidates = asked.map_or_else(|| KEYRINGS.iter().map(PathBuf::from).collect(), |path| vec![path]);
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::NoKeyring { path: candidates[0].clone() }),
    }
}

/// One address of one suite, out of any kind of source file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
    components: Vec<String>,
}

/// All sources of apt: `sources.list` and both kinds of files in `sources.list.d`.
fn machine_sources(etc: &Path) -> Result<Vec<Source>, Error> {
    let mut files = vec![etc.join("sources.list")];
    let parts = etc.join("sources.list.d");
    if parts.is_dir() {
        for entry in fs::read_dir(&parts).map_err(io("read", &parts))? {
            files.push(entry.map_err(io("read", &parts))?.path());
        }
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).map_err(io("read", file))?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(parse_lines(&text)),
            Some("sources") => sources.extend(parse_paragraphs(&text)),
            _ => {}
        }
    }
    Ok(sources)
}

/// The address that is most likely Debian's own archive, if any can be. Archives made for a release of Debian use its
/// name too; mirrors' addresses end in `/debian`, or at least have the word in them.
fn choose(sources: &[Source]) -> Option<String> {
    let debian = |source: &&Source| {
        let suite = source.suite.as_str();
        let named = CODENAMES.contains(&suite) || (ROLES.contains(&suite) && source.uri.contains("debian"));
        named && source.components.iter().any(|component| component == "main") && !source.uri.starts_with("cdrom:")
    };
    let doubt = |source: &&Source| match source.uri.trim_end_matches('/') {
        uri if uri.ends_with("/debian") => 0,
        uri if uri.contains("debian") => 1,
        _ => 2,
    };
    // Of equals, the first.
    sources.iter().filter(debian).min_by_key(doubt).map(|source| source.uri.clone())
}

/// The one-line style: `deb [options] uri suite component...` (sources.list(5)).
fn parse_lines(text: &str) -> Vec<Source> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(line));
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source { uri: words.next()?, suite: words.next()?, components: words.collect() })
}

/// The deb822 style: paragraphs of `Field: values`, continued on indented lines (sources.list(5)).
fn parse_paragraphs(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    for line in lines.chain([""]) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if line.trim().is_empty() {
            sources.extend(paragraph(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, values)) = fields.last_mut() {
                values.extend(words(line));
            }
        } else if let Some((name, values)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), words(values)));
        }
    }
    sources
}

fn paragraph(fields: &[(String, Vec<String>)]) -> Vec<Source> {
    let get = |name: &str| fields.iter().find(|(key, _)| key == name).map_or(&[][..], |(_, values)| values);
    if !get("types").iter().any(|kind| kind == "deb") || get("enabled").iter().any(|value| value == "no") {
        return Vec::new();
    }
    let pairs = get("uris").iter().flat_map(|uri| get("suites").iter().map(move |suite| (uri, suite)));
    let source = |(uri, suite): (&String, &String)| Source {
        uri: uri.clone(),
        suite: suite.clone(),
        components: get("components").to_vec(),
    };
    pairs.map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suite: &str, components: &[&str]) -> Source {
        let components = components.iter().map(ToString::to_string).collect();
        Source { uri: uri.into(), suite: suite.into(), components }
    }

    #[test]
    fn one_line_sources_are_read_with_options_and_comments() {
        let text = "# deb http://old.invalid/debian sid main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.invalid/debian bookworm main contrib # fast\n\
                    deb-src http://mirror.invalid/debian bookworm main\n\
                    \n\
                    deb\thttp://other.invalid/x ./\n";
        let expected = [
            source("http://mirror.invalid/debian", "bookworm", &["main", "contrib"]),
            source("http://other.invalid/x", "./", &[]),
        ];
        assert_eq!(parse_lines(text), expected);
    }

    #[test]
    fn paragraphs_are_read_with_several_suites_and_continued_lines() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://mirror.invalid/debian\nSuites: trixie\n trixie-updates\n\
                    Components: main\n\nTypes: deb\nURIs: http://b.invalid/\nSuites: sid\nComponents: main\nEnabled: no\n";
        let expected = [
            source("http://mirror.invalid/debian", "trixie", &["main"]),
            source("http://mirror.invalid/debian", "trixie-updates", &["main"]),
        ];
        assert_eq!(parse_paragraphs(text), expected);
    }

    #[test]
    fn a_mirror_is_chosen_before_archives_that_only_look_like_one() {
        let sources = [
            source("http://a.invalid/apt", "cloud-sdk-bookworm", &["main"]),
            source("http://vendor.invalid/debian/12/prod", "bookworm", &["main"]),
            source("http://c.invalid/linux/debian", "bookworm", &["stable"]),
            source("http://mirror.invalid/debian-security", "bookworm-security", &["main"]),
            source("http://mirror.invalid/debian/", "bookworm", &["main"]),
        ];
        assert_eq!(choose(&sources).as_deref(), Some("http://mirror.invalid/debian/"));
        assert_eq!(choose(&sources[..2]).as_deref(), Some("http://vendor.invalid/debian/12/prod"));
    }

    #[test]
    fn a_list_of_mirrors_is_a_mirror() {
        let sources = [source("mirror+file:///etc/apt/mirrors/debian.list", "bookworm", &["main"])];
        assert_eq!(choose(&sources).as_deref(), Some("mirror+file:///etc/apt/mirrors/debian.list"));
    }

    #[test]
    fn an_ubuntu_machine_has_no_debian_mirror() {
        let sources = [
            source("http://ports.invalid/ubuntu", "noble", &["main", "universe"]),
            source("http://browser.invalid/linux/deb/", "stable", &["main"]),
        ];
        assert_eq!(choose(&sources), None);
        assert!(Error::NoMirror.to_string().contains("NESTLING_LAB_MIRROR"));
    }
}
