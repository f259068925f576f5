//! A small blocking HTTP client for the ports of a cluster.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// An answer: status, the `Location` header, body.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("no JSON in the answer: {}", self.text()))
    }

    /// The body as text, cut to what fits a message.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(500).collect()
    }

    /// Fails for a status of 300 and above.
    pub fn ok(self, what: &str) -> anyhow::Result<Self> {
        if self.status >= 300 {
            bail!("{what}: status {}: {}", self.status, self.text());
        }
        Ok(self)
    }
}

/// A client whose calls end after `timeout`. Redirects are answers, not followed.
#[derive(Clone, Debug)]
pub struct Http {
    agent: Agent,
}

impl Http {
    /// A client.
    pub fn new(timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        Self { agent: config.into() }
    }

    /// GET.
    pub fn get(&self, url: &str) -> anyhow::Result<Answer> {
        answer(url, self.agent.get(url).call())
    }

    /// DELETE.
    pub fn delete(&self, url: &str) -> anyhow::Result<Answer> {
        answer(url, self.agent.delete(url).call())
    }

    /// PUT.
    pub fn put(&self, url: &str, kind: &str, body: &[u8]) -> anyhow::Result<Answer> {
        answer(url, self.agent.put(url).header("content-type", kind).send(body))
    }

    /// POST.
    pub fn post(&self, url: &str, kind: &str, body: &[u8]) -> anyhow::Result<Answer> {
        answer(url, self.agent.post(url).header("content-type", kind).send(body))
    }
}

fn answer(
    url: &str,
    response: Result<Response<ureq::Body>, ureq::Error>,
) -> anyhow::Result<Answer> {
    let mut response = response.with_context(|| url.to_owned())?;
    let location = response.headers().get("location").and_then(|v| v.to_str().ok());
    let location = location.map(ToOwned::to_owned);
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
    Ok(Answer { status, location, body: body.with_context(|| url.to_owned())? })
}
