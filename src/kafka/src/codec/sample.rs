//! Messages with random contents, for tests.

use bytes::Bytes;
use uuid::Uuid;

use super::wire::{Ctx, Double, Nullable, Records};

/// Random numbers from a seed (splitmix64), or values that take the fewest bytes.
pub(crate) struct Gen {
    state: u64,
    wide: Option<Wide>,
}

/// A message of the smallest values, with one long array.
struct Wide {
    /// Arrays before the long one, of one element each; those behind it are empty.
    before: u64,
    len: u64,
}

impl Gen {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, wide: None }
    }

    /// The smallest values; the array number `before` has `len` elements.
    pub(crate) fn wide(before: u64, len: u64) -> Self {
        Self { state: 0, wide: Some(Wide { before, len }) }
    }

    /// Elements of the next array.
    fn count(&mut self) -> u64 {
        match &mut self.wide {
            None => self.below(4),
            Some(wide) => match wide.before.checked_sub(1) {
                Some(before) => {
                    wide.before = before;
                    1
                }
                None => std::mem::take(&mut wide.len),
            },
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        if self.wide.is_some() {
            return 0;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A type that can be made up.
pub(crate) trait Sample: Sized {
    fn sample(g: &mut Gen, ctx: Ctx) -> Self;
}

macro_rules! numbers {
    ($($t:ty)*) => {$(
        impl Sample for $t {
            fn sample(g: &mut Gen, _ctx: Ctx) -> Self {
                match g.below(8) {
                    0 => 0,
                    1 => <$t>::MAX,
                    2 => <$t>::MIN,
                    // The low bits of a random number.
                    _ => g.next() as $t,
                }
            }
        }
    )*};
}

numbers! { i8 i16 u16 i32 i64 }

impl Sample for Double {
    fn sample(g: &mut Gen, _ctx: Ctx) -> Self {
        // The low bits of a random number.
        (f64::from(g.next() as i32) / 8.0).into()
    }
}

impl Sample for bool {
    fn sample(g: &mut Gen, _ctx: Ctx) -> Self {
        g.below(2) == 0
    }
}

impl Sample for Uuid {
    fn sample(g: &mut Gen, _ctx: Ctx) -> Self {
        Self::from_u64_pair(g.next(), g.next())
    }
}

impl Sample for String {
    fn sample(g: &mut Gen, _ctx: Ctx) -> Self {
        match g.below(6) {
            0 => Self::new(),
            1 => "회의-\u{1f409}\0\"".to_owned(),
            // Longer than one byte of a compact length.
            2 => "x".repeat(127 + usize::try_from(g.below(200)).unwrap()),
            n => format!("text-{n}-{}", g.below(1000)),
        }
    }
}

impl Sample for Bytes {
    fn sample(g: &mut Gen, _ctx: Ctx) -> Self {
        let len = [0, 1, 60, 200, 5000][usize::try_from(g.below(5)).unwrap()];
        (0..len).map(|_| g.next() as u8).collect()
    }
}

impl Sample for Records {
    fn sample(g: &mut Gen, ctx: Ctx) -> Self {
        Self(vec![Bytes::sample(g, ctx)])
    }
}

fn some<T: Sample>(g: &mut Gen, ctx: Ctx) -> Option<T> {
    // Null takes as many bytes as what is empty, and not every field may be null.
    (g.wide.is_some() || g.below(4) != 0).then(|| T::sample(g, ctx))
}

impl Sample for Option<String> {
    fn sample(g: &mut Gen, ctx: Ctx) -> Self {
        some(g, ctx)
    }
}

impl Sample for Option<Bytes> {
    fn sample(g: &mut Gen, ctx: Ctx) -> Self {
        some(g, ctx)
    }
}

impl<T: Sample> Sample for Nullable<T> {
    fn sample(g: &mut Gen, ctx: Ctx) -> Self {
        Self(some(g, ctx))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(g: &mut Gen, ctx: Ctx) -> Self {
        (0..g.count()).map(|_| T::sample(g, ctx)).collect()
    }
}

impl<T: Sample> Sample for Option<Vec<T>> {
    fn sample(g: &mut Gen, ctx: Ctx) -> Self {
        some(g, ctx)
    }
}
