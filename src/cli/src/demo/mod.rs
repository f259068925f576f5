//! demo

use crate::args::{DemoArgs, Output};

/// Runs.
pub fn run(_: &DemoArgs, _: Output) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
