//! Which shard a document belongs to: murmur3 of the routing value's UTF-16 code units, modulo
//! the number of routing shards, as Elasticsearch since 5.0, so that shard numbers in answers
//! agree with it.

/// The shard of a routing value (the `_id` when no routing was given).
pub fn shard_of(routing: &str, shards: u16) -> u16 {
    let shards = u32::from(shards.max(1));
    let routing_shards = routing_shards(shards);
    let hash = murmur3(routing).cast_signed();
    let slot = i64::from(hash).rem_euclid(i64::from(routing_shards));
    let shard = slot / i64::from(routing_shards / shards);
    u16::try_from(shard).expect("the slot is below the number of shards")
}

/// `index.number_of_routing_shards` as Elasticsearch 7 chooses it: up to 1,024, so that an index
/// could be split.
fn routing_shards(shards: u32) -> u32 {
    let log2 = 32 - (shards - 1).leading_zeros();
    shards << 10u32.saturating_sub(log2).max(1)
}

fn murmur3(text: &str) -> u32 {
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut hash = 0u32;
    let mut blocks = bytes.chunks_exact(4);
    for block in &mut blocks {
        let word = block.iter().rev().fold(0u32, |word, b| word << 8 | u32::from(*b));
        hash ^= scramble(word);
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let tail = blocks.remainder().iter().rev().fold(0u32, |word, b| word << 8 | u32::from(*b));
    hash ^= scramble(tail);
    hash ^= u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

fn scramble(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Elasticsearch's own `Murmur3HashFunctionTests`.
    #[test]
    fn hashes_are_those_of_elasticsearch() {
        assert_eq!(murmur3("hell"), 0x5a0c_b7c3);
        assert_eq!(murmur3("hello"), 0xd7c3_1989);
        assert_eq!(murmur3("hello w"), 0x22ab_2984);
        assert_eq!(murmur3("hello wo"), 0xdf0c_a123);
        assert_eq!(murmur3("hello wor"), 0xe7744d61);
        assert_eq!(murmur3("The quick brown fox jumps over the lazy dog"), 0xe07db09c);
    }

    #[test]
    fn shards_are_in_range_and_all_used() {
        let mut seen = [0; 5];
        for i in 0..1000 {
            seen[usize::from(shard_of(&format!("doc{i}"), 5))] += 1;
        }
        assert!(seen.iter().all(|n| *n > 100), "{seen:?}");
        assert_eq!(shard_of("x", 1), 0);
    }
}
