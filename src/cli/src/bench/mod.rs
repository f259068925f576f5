//! bench

use crate::args::{BenchArgs, Output};

/// Runs.
pub fn run(_: &BenchArgs, _: Output) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
