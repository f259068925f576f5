//! `trine source …` and `trine pipeline …`.

use std::fs;

use anyhow::Context;
use serde_json::Value;

use crate::admin::{Admin, Ask, segment};
use crate::args::{FlowCommand, FlowName, Output};
use crate::output::{say, table_of};

/// Which of the two kinds a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where files come from.
    Source,
    /// What happens to records.
    Pipeline,
}

impl Kind {
    /// Path of the API.
    pub fn path(self) -> &'static str {
        match self {
            Self::Source => "/api/sources",
            Self::Pipeline => "/api/pipelines",
        }
    }
}

/// Runs one command.
pub fn run(kind: Kind, command: FlowCommand, output: Output) -> anyhow::Result<()> {
    let act = |name: FlowName, verb: &str, done: &str| {
        let path = format!("{}/{}/{verb}", kind.path(), segment(&name.name));
        let value = Admin::of(&name.admin).call(&path, Ask::Post)?;
        confirm(&name.name, done, value, output)
    };
    match command {
        FlowCommand::Apply { file, admin } => {
            let shown = file.display();
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {shown}"))?;
            let spec: toml::Table =
                toml::from_str(&text).with_context(|| format!("{shown} is not TOML"))?;
            let spec = serde_json::to_value(spec)?;
            let name = spec.get("name").and_then(Value::as_str).unwrap_or("it").to_owned();
            let value = Admin::of(&admin).call(kind.path(), Ask::Put(&spec))?;
            confirm(&name, "applied", value, output)
        }
        FlowCommand::List(admin) => show(Admin::of(&admin).call(kind.path(), Ask::Get)?, output),
        FlowCommand::Quarantine(name) => {
            let path = format!("{}/{}/quarantine", kind.path(), segment(&name.name));
            show(Admin::of(&name.admin).call(&path, Ask::Get)?, output)
        }
        FlowCommand::Pause(name) => act(name, "pause", "paused"),
        FlowCommand::Resume(name) => act(name, "resume", "resumed"),
        FlowCommand::Retry(name) => {
            let path = format!("{}/{}/retry", kind.path(), segment(&name.name));
            let value = Admin::of(&name.admin).call(&path, Ask::Post)?;
            confirm(&name.name, &retried(&value), value, output)
        }
        FlowCommand::Delete(name) => {
            let path = format!("{}/{}", kind.path(), segment(&name.name));
            let value = Admin::of(&name.admin).call(&path, Ask::Delete)?;
            confirm(&name.name, "deleted", value, output)
        }
    }
}

/// What a retry did, in words.
fn retried(value: &Value) -> String {
    let count = |key: &str| value[key].as_u64().unwrap_or(0);
    let mut text = format!("files to be collected again: {}", count("released"));
    if count("kept") > 0 {
        text += &format!("; records that stay in quarantine: {}", count("kept"));
    }
    text
}

fn show(value: Value, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => say(value)?,
        Output::Table => say(table_of(rows(&value)))?,
    }
    Ok(())
}

/// The rows of a list answer: an array, or the array inside an object.
pub fn rows(value: &Value) -> &[Value] {
    let inside = || value.as_object()?.values().find_map(Value::as_array);
    value.as_array().or_else(inside).map_or(&[], Vec::as_slice)
}

/// Says that a change happened.
pub fn confirm(name: &str, done: &str, value: Value, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => say(value)?,
        Output::Table => say(format!("{name}: {done}"))?,
    }
    Ok(())
}
