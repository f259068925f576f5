//! The allocator of this crate's test binary: what decoding takes is measured, not reckoned.
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait; it is of tests alone")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

/// The system's allocator, which also counts what each thread takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountingAlloc;

#[global_allocator]
static COUNTING: CountingAlloc = CountingAlloc;

thread_local! {
    /// Bytes that this thread has taken and not given back, and the most of them at one time.
    /// Below zero where it gives back what another took.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

impl CountingAlloc {
    /// Does `work`, and says how many more bytes than before this thread held at most meanwhile.
    /// Memory that is moved into a larger place counts twice at that moment.
    pub(crate) fn most_held<T>(work: impl FnOnce() -> T) -> (T, usize) {
        let before = HELD.get().0;
        HELD.set((before, before));
        let result = work();
        (result, HELD.get().1.saturating_sub(before).unsigned_abs())
    }

    fn note(taken: usize, given_back: usize) {
        // A thread that ends counts no more.
        let _ = HELD.try_with(|held| {
            let (now, most) = held.get();
            let both = now.wrapping_add_unsigned(taken);
            held.set((both.wrapping_sub_unsigned(given_back), most.max(both)));
        });
    }
}

// SAFETY: every call is the system allocator's, with the same arguments; counting allocates
// nothing, as the cell is const and needs no destructor.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size(), 0);
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size(), 0);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note(size, layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        Self::note(0, layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(place, layout) }
    }
}

#[test]
fn what_a_thread_holds_at_most_is_counted() {
    // An allocation that nobody looks at may be left out.
    let some = |capacity| black_box(Vec::<u8>::with_capacity(black_box(capacity)));
    let most = |work: &dyn Fn()| CountingAlloc::most_held(work).1;
    assert_eq!(most(&|| {}), 0);
    assert_eq!(most(&|| drop(some(1000))), 1000);
    assert_eq!(most(&|| (0..3).for_each(|_| drop(some(500)))), 500);
    let grown = || {
        let mut bytes = some(100);
        bytes.push(1);
        bytes.reserve_exact(299);
        black_box(bytes);
    };
    assert_eq!(most(&grown), 400, "the old place and the new one");
    let held = some(700);
    assert_eq!(CountingAlloc::most_held(|| drop((held, some(100)))).1, 100);
}
