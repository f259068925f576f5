//! `trine topic …`.

use serde_json::json;

use crate::admin::{Admin, Ask, segment};
use crate::args::{Output, TopicCommand};
use crate::flow::{confirm, rows};
use crate::output::{say, table_of};

/// Runs one command.
pub fn run(command: TopicCommand, output: Output) -> anyhow::Result<()> {
    let (path, admin) = match &command {
        TopicCommand::List(admin) => ("/api/topics".to_owned(), admin),
        TopicCommand::Create { admin, .. } => ("/api/topics".to_owned(), admin),
        TopicCommand::Describe { name, admin } | TopicCommand::Delete { name, admin } => {
            (format!("/api/topics/{}", segment(name)), admin)
        }
    };
    let admin = Admin::of(admin);
    match command {
        TopicCommand::List(_) | TopicCommand::Describe { .. } => {
            let value = admin.call(&path, Ask::Get)?;
            match output {
                Output::Json => say(value)?,
                Output::Table => say(table_of(rows(&value)))?,
            }
            Ok(())
        }
        TopicCommand::Create { name, partitions, replication_factor, .. } => {
            let mut spec = json!({"name": name, "replication_factor": replication_factor});
            if let Some(partitions) = partitions {
                spec["partitions"] = partitions.into();
            }
            confirm(&name, "created", admin.call(&path, Ask::Put(&spec))?, output)
        }
        TopicCommand::Delete { name, .. } => {
            confirm(&name, "deleted", admin.call(&path, Ask::Delete)?, output)
        }
    }
}
