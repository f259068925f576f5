//! Counting distinct values: exact while they are few, then HyperLogLog.

use serde::{Deserialize, Serialize};

const BITS: u32 = 14;
const REGISTERS: usize = 1 << BITS;

/// Distinct values seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sketch {
    /// Hashes of all values, up to a number.
    Exact {
        /// Hashes.
        hashes: std::collections::BTreeSet<u64>,
        /// Most hashes before registers take over.
        limit: usize,
    },
    /// HyperLogLog registers.
    Registers(Vec<u8>),
}

/// A well-mixed hash of a value; the same on every node.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The finaliser of splitmix64 spreads what FNV leaves in the low bits.
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

impl Sketch {
    /// An empty one that is exact up to `limit` values.
    pub fn new(limit: usize) -> Self {
        Self::Exact { hashes: Default::default(), limit }
    }

    pub(crate) fn insert(&mut self, hash: u64) {
        match self {
            Self::Exact { hashes, limit } => {
                hashes.insert(hash);
                if hashes.len() > *limit {
                    self.densify();
                }
            }
            Self::Registers(registers) => set(registers, hash),
        }
    }

    fn densify(&mut self) {
        if let Self::Exact { hashes, .. } = self {
            let mut registers = vec![0; REGISTERS];
            hashes.iter().for_each(|hash| set(&mut registers, *hash));
            *self = Self::Registers(registers);
        }
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: Self) {
        match other {
            Self::Exact { hashes, .. } => hashes.into_iter().for_each(|hash| self.insert(hash)),
            Self::Registers(theirs) => {
                self.densify();
                if let Self::Registers(ours) = self {
                    for (our, their) in ours.iter_mut().zip(theirs) {
                        *our = (*our).max(their);
                    }
                }
            }
        }
    }

    /// Number of distinct values.
    pub fn count(&self) -> u64 {
        match self {
            Self::Exact { hashes, .. } => hashes.len() as u64,
            Self::Registers(registers) => estimate(registers),
        }
    }
}

fn set(registers: &mut [u8], hash: u64) {
    let index = (hash >> (64 - BITS)) as usize;
    let rank = ((hash << BITS) | (1 << (BITS - 1))).leading_zeros() as u8 + 1;
    if let Some(register) = registers.get_mut(index) {
        *register = (*register).max(rank);
    }
}

fn estimate(registers: &[u8]) -> u64 {
    let size = REGISTERS as f64;
    let sum: f64 = registers.iter().map(|rank| 2_f64.powi(-i32::from(*rank))).sum();
    let raw = 0.7213 / (1.0 + 1.079 / size) * size * size / sum;
    let zeros = registers.iter().filter(|rank| **rank == 0).count();
    let estimate =
        if raw <= 2.5 * size && zeros > 0 { size * (size / zeros as f64).ln() } else { raw };
    estimate.round() as u64
}
