//! `trine user …`. Passwords stay in this process: the cluster is sent only what it keeps.

use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secure::scram::{Hash, Verifier};
use serde_json::{Value, json};

use crate::Usage;
use crate::admin::{Admin, Ask, segment};
use crate::args::{Output, UserCommand};
use crate::flow::{confirm, rows};
use crate::output::{note, say, table_of};

/// Where `create` takes the password from when no file is given.
const VARIABLE: &str = "TRINE_USER_PASSWORD";
/// Longest password with its line end, in bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// Runs one command.
pub fn run(command: UserCommand, output: Output) -> anyhow::Result<()> {
    match command {
        UserCommand::List(admin) => {
            let value = Admin::of(&admin).call("/api/users", Ask::Get)?;
            match output {
                Output::Json => say(value)?,
                Output::Table => say(table_of(rows(&value)))?,
            }
            Ok(())
        }
        UserCommand::Create { name, password_file, admin } => {
            let password = password(password_file.as_deref())?;
            let spec = spec(&name, &password);
            let done = Admin::of(&admin).call("/api/users", Ask::Put(&spec))?;
            confirm(&name, "created", done, output)
        }
        UserCommand::Delete { name, admin } => {
            let path = format!("/api/users/{}", segment(&name));
            confirm(&name, "deleted", Admin::of(&admin).call(&path, Ask::Delete)?, output)
        }
    }
}

/// The first line of the file, else the environment variable, else the first line of stdin.
fn password(file: Option<&Path>) -> anyhow::Result<String> {
    let text = match (file, std::env::var(VARIABLE)) {
        (Some(path), _) => {
            let shown = path.display();
            let file = std::fs::File::open(path);
            read(file.with_context(|| Usage(format!("cannot read {shown}")))?)?
        }
        (None, Ok(text)) => text,
        (None, Err(_)) => {
            if std::io::stdin().is_terminal() {
                note("password (will be shown; --password-file or a pipe hides it):");
                let mut line = String::new();
                std::io::stdin().read_line(&mut line)?;
                line
            } else {
                read(std::io::stdin())?
            }
        }
    };
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!(Usage("the password is empty".to_owned())),
    }
}

fn read(from: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_PASSWORD_BYTES).read_to_string(&mut text).context("cannot read the password")?;
    Ok(text)
}

fn spec(name: &str, password: &str) -> Value {
    let credential = |hash: Hash| {
        let verifier = Verifier::of_password(hash, password);
        let (salt, stored, server) = verifier.parts();
        json!({
            "mechanism": hash.mechanism(),
            "iterations": verifier.iterations(),
            "salt": STANDARD.encode(salt),
            "stored_key": STANDARD.encode(stored),
            "server_key": STANDARD.encode(server),
        })
    };
    json!({"name": name, "credentials": Hash::ALL.map(credential)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_does_not_hold_the_password() {
        let spec = spec("alice", "wonderland");
        assert!(!spec.to_string().contains("wonderland"));
        assert_eq!(spec["credentials"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn a_password_is_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, "secret word\nrest\n").unwrap();
        assert_eq!(password(Some(&path)).unwrap(), "secret word");
        std::fs::write(&path, "\n").unwrap();
        assert!(password(Some(&path)).unwrap_err().is::<Usage>());
    }
}
