//! The admin API of a cluster: any node answers for all.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

use crate::args::AdminArgs;
use crate::http::{Answer, Http};

/// How long a node may take to answer; creating a topic waits for every group.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    http: Http,
    consoles: Vec<String>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// Read.
    Get,
    /// Create or replace.
    Put(&'a Value),
    /// Do.
    Post,
    /// Remove.
    Delete,
}

impl Admin {
    /// A client of the nodes with these console addresses.
    pub fn new(consoles: Vec<String>) -> Self {
        Self { http: Http::new(TIMEOUT), consoles }
    }

    /// A client by command line.
    pub fn of(args: &AdminArgs) -> Self {
        Self::new(args.console.clone())
    }

    /// Asks the first node that can be reached. A refusal is an error with the node's own text.
    pub fn call(&self, path: &str, ask: Ask<'_>) -> anyhow::Result<Value> {
        let mut last = anyhow!("no console address is given");
        for console in &self.consoles {
            match self.call_at(console, path, ask) {
                Ok(answer) => return read(path, &answer),
                Err(e) => last = e,
            }
        }
        Err(last).with_context(|| {
            format!("no node answers at {}; is the cluster running?", self.consoles.join(", "))
        })
    }

    /// Asks every node; `None` for one that cannot be reached.
    pub fn get_all(&self, path: &str) -> Vec<(String, Option<Value>)> {
        let ask = |console: &String| {
            let answer = self.call_at(console, path, Ask::Get).ok();
            (console.clone(), answer.and_then(|a| read(path, &a).ok()))
        };
        self.consoles.iter().map(ask).collect()
    }

    fn call_at(&self, console: &str, path: &str, ask: Ask<'_>) -> anyhow::Result<Answer> {
        let url = format!("http://{console}{path}");
        let json = "application/json";
        match ask {
            Ask::Get => self.http.get(&url),
            Ask::Put(value) => self.http.put(&url, json, &serde_json::to_vec(value)?),
            Ask::Post => self.http.post(&url, json, b"{}"),
            Ask::Delete => self.http.delete(&url),
        }
    }
}

fn read(path: &str, answer: &Answer) -> anyhow::Result<Value> {
    if answer.status >= 300 {
        let error = answer.json().ok().and_then(|j| Some(j.get("error")?.as_str()?.to_owned()));
        bail!("{}", error.unwrap_or_else(|| format!("{path}: status {}", answer.status)));
    }
    if answer.body.is_empty() { Ok(Value::Null) } else { answer.json() }
}

/// A name as one segment of a URL path.
pub fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}
