//! Payloads that do not compress.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

/// Random bytes.
pub(super) fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A text of about `len` bytes: random words of lower-case letters, a few of them common.
pub(super) fn text(len: usize, random: &mut SmallRng) -> String {
    const COMMON: [&str; 8] = ["회의", "news", "report", "서울", "market", "the", "of", "발표"];
    let mut text = String::with_capacity(len + 16);
    while text.len() < len {
        if random.random_ratio(1, 8) {
            text.push_str(COMMON.get(random.random_range(0..COMMON.len())).unwrap_or(&"the"));
        } else {
            for _ in 0..random.random_range(4..10) {
                text.push(char::from(random.random_range(b'a'..=b'z')));
            }
        }
        text.push(' ');
    }
    text
}

/// A generator for [`text`].
pub(super) fn generator(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
