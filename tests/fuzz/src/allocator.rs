//! Counts the bytes that the program holds, so that a target is known to give back what it takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

#[global_allocator]
static COUNTING: Counting = Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);
static LEFT: AtomicIsize = AtomicIsize::new(0);

struct Counting;

fn count(bytes: isize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(live, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the rules for `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the rules for `layout`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller got `pointer` from `alloc`, so from the system, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What a function did with memory.
pub struct Usage {
    /// The most bytes that it held at a time.
    pub most: usize,
    /// What all functions so far did not free.
    pub left_in_all: isize,
}

/// Calls a function; nothing else of the program may run meanwhile.
pub fn measure(function: impl FnOnce()) -> Usage {
    let before = LIVE.load(Relaxed);
    MOST.store(before, Relaxed);
    function();
    let left = LIVE.load(Relaxed) - before;
    let most = (MOST.load(Relaxed) - before).max(0) as usize;
    Usage { most, left_in_all: LEFT.fetch_add(left, Relaxed) + left }
}
