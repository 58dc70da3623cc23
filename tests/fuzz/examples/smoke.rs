//! Runs the fuzz targets for a few seconds without a fuzzer: the kept corpus first, then mutations of it.
//!
//! `smoke [SECONDS [TARGET]]` shares the seconds among all targets; `smoke TARGET FILE...` runs files as they are.
//! Mutations come from a generator with a fixed seed, so that a run can be repeated.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use nestling_fuzz::{TARGETS, run};

const DEFAULT_SECONDS: u64 = 30;
const LONGEST_INPUT: usize = 4096;
/// Far more than any input needs.
const LONGEST_TIME: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match smoke(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smoke: {error}");
            ExitCode::FAILURE
        }
    }
}

fn smoke(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    if let [target, files @ ..] = arguments
        && target.parse::<u64>().is_err()
    {
        for file in files {
            run(target, &fs::read(file)?);
            println!("{target}: {file} passes");
        }
        return Ok(());
    }
    let seconds = arguments.first().map_or(Ok(DEFAULT_SECONDS), |seconds| seconds.parse())?;
    let wanted = arguments.get(1);
    let names: Vec<&str> =
        TARGETS.iter().map(|target| target.name).filter(|name| wanted.is_none_or(|wanted| wanted == name)).collect();
    if names.is_empty() {
        return Err("there is no such target".into());
    }
    let share = Duration::from_secs(seconds) / names.len() as u32;
    for name in names {
        drive(name, share)?;
    }
    Ok(())
}

/// Runs one target on its corpus, then on mutations until the time is over.
fn drive(name: &'static str, share: Duration) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let corpus = corpus(name)?;
    for input in &corpus {
        guarded(name, input)?;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut inputs = 0u64;
    while begun.elapsed() < share {
        guarded(name, &random.mutation(&corpus))?;
        inputs += 1;
    }
    println!(
        "{name}: {} inputs of the corpus, {inputs} mutations, {:.1} s",
        corpus.len(),
        begun.elapsed().as_secs_f32()
    );
    Ok(())
}

fn folder(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(name)
}

/// The kept inputs in the order of their names, so that every machine mutates them the same way.
fn corpus(name: &str) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let folder = folder("corpus", name);
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths.iter().map(fs::read).collect::<Result<_, _>>()?)
}

/// Runs one input and keeps it if it fails.
fn guarded(name: &'static str, input: &[u8]) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let result = catch_unwind(|| run(name, input));
    let why = match result {
        Err(_) => "failed",
        Ok(()) if begun.elapsed() > LONGEST_TIME => "took too long",
        Ok(()) => return Ok(()),
    };
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let folder = folder("artifacts", name);
    let file = folder.join(format!("smoke-{:016x}", hasher.finish()));
    fs::create_dir_all(&folder)?;
    fs::write(&file, input)?;
    Err(format!("{name} {why}; again with: cargo lab fuzz {name} {}", file.display()).into())
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }

    fn part<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        let start = self.below(input.len());
        let length = self.below(input.len() - start.min(input.len()) + 1);
        input.get(start..start + length).unwrap_or_default()
    }

    /// An input of the corpus with a few changes, or something new.
    fn mutation(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if corpus.is_empty() || self.below(8) == 0 {
            let length = 1 + self.below(600);
            return self.bytes(length);
        }
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..1 + self.below(4) {
            let at = self.below(input.len() + 1).min(input.len());
            match self.below(6) {
                0 => {
                    let end = at + self.below(input.len() - at + 1);
                    input.drain(at..end);
                }
                1 => {
                    let length = 1 + self.below(16);
                    let new = self.bytes(length);
                    input.splice(at..at, new);
                }
                2 | 3 => {
                    let other = self.below(corpus.len());
                    let part = self.part(&corpus[other]).to_vec();
                    input.splice(at..at, part);
                }
                _ => {
                    let new = self.below(256) as u8;
                    if let Some(byte) = input.get_mut(at) {
                        *byte = new;
                    }
                }
            }
        }
        input.truncate(LONGEST_INPUT);
        input
    }
}
