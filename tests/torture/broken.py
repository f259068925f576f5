"""Which anomalies a node with a fault built in (src/base/src/broken.rs) must be convicted of."""

EXPECTED = {
    "skip-dedup": {"duplicate", "nonmonotonic-send"},
    "begin-anywhere": {"lost-write"},
    "ack-unknown": {"lost-write"},
    "ack-before-write": {"lost-write", "inconsistent-offsets"},
    "lose-commit": {"lost-commit"},
    "any-generation": {"zombie-commit"},
    "aborted-visible": {"aborted-txn-read", "precommitted-read"},
    "early-lso": {"precommitted-read"},
    "oldest-by-key": {"compacted-away"},
}
