//! The streams of emulated devices: configuration and cached context descriptors of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::physical::StreamConfig;
use super::access::Fault;
use super::context::Context;

/// Most context descriptors kept of one stream.
pub(super) const CONTEXTS: usize = 256;

/// [`Name`] of a stream that is gone; StreamIDs have 32 bits.
const NOBODY: u64 = u64::MAX;

/// The StreamID of a device, shared with its ports: it may be renumbered, and go.
#[derive(Clone, Debug)]
pub(super) struct Name(Arc<AtomicU64>);

impl Name {
    pub(super) fn new(stream_id: u32) -> Self {
        Self(Arc::new(AtomicU64::new(stream_id.into())))
    }

    pub(super) fn get(&self) -> Option<u32> {
        u32::try_from(self.0.load(Ordering::Relaxed)).ok()
    }

    fn set(&self, stream_id: Option<u32>) {
        self.0.store(stream_id.map_or(NOBODY, u64::from), Ordering::Relaxed);
    }
}

/// One stream.
pub(super) struct Stream {
    name: Name,
    pub(super) config: StreamConfig,
    contexts: BTreeMap<u32, Context>,
}

impl Stream {
    pub(super) fn new(name: Name) -> Self {
        // Fail closed: the model gives it its configuration next.
        Self { name, config: StreamConfig::Abort, contexts: BTreeMap::new() }
    }

    /// Takes a configuration; what was cached of the old one goes.
    pub(super) fn configure(&mut self, config: StreamConfig) {
        self.config = config;
        self.contexts.clear();
    }

    /// Descriptor `index`, from the cache or by `fetch`. Illegal ones are not kept.
    pub(super) fn context(
        &mut self,
        index: u32,
        fetch: impl FnOnce() -> Result<Context, Fault>,
    ) -> Result<Context, Fault> {
        if let Some(&context) = self.contexts.get(&index) {
            return Ok(context);
        }
        let context = fetch()?;
        if self.contexts.len() >= CONTEXTS {
            self.contexts.pop_first();
        }
        self.contexts.insert(index, context);
        Ok(context)
    }
}

/// All streams by StreamID.
#[derive(Default)]
pub(super) struct Streams(BTreeMap<u32, Stream>);

impl Streams {
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.keys().copied()
    }

    pub(super) fn contains(&self, stream_id: u32) -> bool {
        self.0.contains_key(&stream_id)
    }

    pub(super) fn get_mut(&mut self, stream_id: u32) -> Option<&mut Stream> {
        self.0.get_mut(&stream_id)
    }

    pub(super) fn insert(&mut self, stream_id: u32, stream: Stream) {
        stream.name.set(Some(stream_id));
        self.0.insert(stream_id, stream);
    }

    /// Takes a stream out; from now on its ports abort.
    pub(super) fn remove(&mut self, stream_id: u32) -> Option<()> {
        self.0.remove(&stream_id)?.name.set(None);
        Some(())
    }

    /// CMD_CFGI_CD.
    pub(super) fn forget_context(&mut self, stream_id: u32, index: u32) {
        if let Some(stream) = self.0.get_mut(&stream_id) {
            stream.contexts.remove(&index);
        }
    }

    /// CMD_CFGI_CD_ALL.
    pub(super) fn forget_contexts(&mut self, stream_id: u32) {
        if let Some(stream) = self.0.get_mut(&stream_id) {
            stream.contexts.clear();
        }
    }
}
