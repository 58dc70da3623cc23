//! Reads from a pipe, socket or terminal in the background, so that whoever waits for several can wait for all of them.

use std::io::Read;
use std::sync::mpsc::Sender;

/// Sends what `from` gives, as `event` wraps it, until one of the two ends. It blocks, so it is for a thread of its own.
pub fn pump<E>(mut from: impl Read, to: &Sender<E>, event: impl Fn(Vec<u8>) -> E) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        if to.send(event(bytes.to_vec())).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn it_ends_with_its_source() {
        let (sender, receiver) = channel();
        pump(&b"all of it"[..], &sender, |bytes| bytes.len());
        drop(sender);
        assert_eq!(receiver.iter().sum::<usize>(), 9);
    }

    #[test]
    fn it_ends_with_its_listener() {
        let (sender, receiver) = channel();
        drop(receiver);
        pump(std::io::repeat(b'x'), &sender, |bytes| bytes);
    }
}
