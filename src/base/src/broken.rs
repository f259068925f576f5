//! Faults built in on purpose, to see that the checkers notice them.
//!
//! They exist only with the cargo feature `broken`, which no ordinary build has; there the
//! environment variable `TRINE_BROKEN` chooses one. Without the feature [`is`] is a constant
//! `false`. `scripts/torture --broken KIND` builds and runs such a node.

/// A fault that can be built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// `skip-dedup`: batches of idempotent producers are appended whatever their sequence.
    SkipDedup,
    /// `begin-anywhere`: producers that a partition has never seen begin at any sequence.
    BeginAnywhere,
    /// `ack-unknown`: a produce whose outcome is unknown is acknowledged.
    AckUnknown,
    /// `ack-before-write`: the write-ahead log reports entries as durable, then writes them.
    AckBeforeWrite,
    /// `lose-commit`: some offset commits are acknowledged and not replicated.
    LoseCommit,
    /// `any-generation`: offset commits are taken from members of past generations.
    AnyGeneration,
    /// `aborted-visible`: readers of committed records are not told what was aborted.
    AbortedVisible,
    /// `early-lso`: readers of committed records get those of open transactions.
    EarlyLso,
    /// `oldest-by-key`: compaction keeps the oldest record of a key instead of the newest.
    OldestByKey,
}

/// Whether this process has this fault.
#[cfg(feature = "broken")]
pub fn is(fault: Broken) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<Broken>> = std::sync::LazyLock::new(chosen);
    *CHOSEN == Some(fault)
}

/// Whether this process has this fault.
#[cfg(not(feature = "broken"))]
pub const fn is(_fault: Broken) -> bool {
    false
}

#[cfg(feature = "broken")]
fn chosen() -> Option<Broken> {
    let name = std::env::var("TRINE_BROKEN").unwrap_or_default();
    let found = match name.as_str() {
        "skip-dedup" => Broken::SkipDedup,
        "begin-anywhere" => Broken::BeginAnywhere,
        "ack-unknown" => Broken::AckUnknown,
        "ack-before-write" => Broken::AckBeforeWrite,
        "lose-commit" => Broken::LoseCommit,
        "any-generation" => Broken::AnyGeneration,
        "aborted-visible" => Broken::AbortedVisible,
        "early-lso" => Broken::EarlyLso,
        "oldest-by-key" => Broken::OldestByKey,
        "" => return None,
        _ => panic!("TRINE_BROKEN={name} is no fault that can be built in"),
    };
    tracing::warn!(fault = %name, "this node is broken on purpose");
    Some(found)
}
