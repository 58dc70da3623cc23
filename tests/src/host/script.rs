//! Shell scripts for the host, with every word quoted so that it arrives as it is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A script for the host's `sh`. It is made of bytes: paths and arguments need not be text.
#[derive(Clone, Debug, Default)]
pub struct Script(Vec<u8>);

impl Script {
    /// Adds shell text as it is.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'\n');
        self
    }

    /// Sets a variable for all that follows.
    #[must_use]
    pub fn export(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.extend_from_slice(format!("export {name}=").as_bytes());
        self.quote(value.as_ref());
        self.0.push(b'\n');
        self
    }

    /// Runs a command with these words after shell text, for example `exec`.
    #[must_use]
    pub fn words<W: AsRef<OsStr>>(mut self, text: &str, words: impl IntoIterator<Item = W>) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        for word in words {
            self.0.push(b' ');
            self.quote(word.as_ref());
        }
        self.0.push(b'\n');
        self
    }

    /// The script's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn quote(&mut self, word: &OsStr) {
        self.0.push(b'\'');
        for byte in word.as_bytes() {
            match byte {
                b'\'' => self.0.extend_from_slice(br"'\''"),
                _ => self.0.push(*byte),
            }
        }
        self.0.push(b'\'');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_arrives_as_it_is() {
        let words = ["plain", "", "two words", "it's", "$HOME `id` \\ \"", "*", "new\nline"];
        let script = Script::default().words("printf '<%s>'", words);
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(OsStr::from_bytes(script.bytes()))
            .output()
            .expect("there is a shell");
        let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }

    #[test]
    fn variables_are_quoted_as_well() {
        let script = Script::default().export("A", "b c").text("echo $A");
        assert_eq!(script.bytes(), b"export A='b c'\necho $A\n");
    }
}
