//! What every handler works with, and what the node tells about the cluster.

use std::sync::Arc;

use base::{Env, NodeId};
use bytes::Bytes;
use index::names::IndicesOptions;
use index::{EsError, IndexService};
use serde_json::Value;

use crate::params::Params;

/// One node as clients see it.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Its name, such as `trine-1`.
    pub name: String,
    /// Host or address that clients reach it under.
    pub host: String,
    /// Address of its Elasticsearch port, `host:port`.
    pub http_address: String,
    /// Address of its peer port, `host:port`.
    pub transport_address: String,
    /// Whether it answers.
    pub alive: bool,
    /// Memory of the process, in bytes; only known of this node.
    pub rss_bytes: Option<u64>,
    /// Memory of the machine, in bytes; only known of this node.
    pub memory_bytes: Option<u64>,
    /// Load averages over 1, 5 and 15 minutes; only known of this node.
    pub load: Option<[f64; 3]>,
}

/// What only the node knows.
pub trait ClusterFacts: Send + Sync {
    /// Identity of the cluster, 16 bytes.
    fn cluster_uuid(&self) -> [u8; 16];
    /// Facts about a node.
    fn node(&self, node: NodeId) -> NodeFacts;
}

/// Everything behind the port.
pub struct App {
    /// The index service.
    pub service: Arc<IndexService>,
    /// Facts about the cluster.
    pub facts: Arc<dyn ClusterFacts>,
    /// The cluster's name.
    pub cluster_name: String,
    /// The version shown to clients that do not show theirs.
    pub version: String,
    /// Clock and randomness.
    pub env: Env,
}

/// A request, taken apart.
pub struct Request {
    /// Method, with HEAD as it came.
    pub method: String,
    /// Path as it came, for error texts.
    pub path: String,
    /// Parameters of the URL and of the path.
    pub params: Params,
    /// Body, decompressed.
    pub body: Bytes,
    /// Version that the client shows to expect.
    pub client: Client,
}

/// Who asks, by what its requests look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// Asks for compatibility with version 8.
    Eight,
    /// Asks for compatibility with version 9.
    Nine,
    /// A client of the fork.
    Fork,
    /// Anything else.
    #[default]
    Plain,
}

impl Request {
    /// A parameter of the path or URL, empty when absent.
    pub fn part(&self, name: &str) -> &str {
        self.params.get(name).unwrap_or("")
    }

    /// The body as JSON; `None` when empty. `?source=` stands for a body.
    pub fn json(&self) -> Result<Option<Value>, EsError> {
        let source = self.params.get("source").filter(|_| self.body.is_empty());
        let bytes = source.map_or(self.body.as_ref(), str::as_bytes);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        serde_json::from_slice(bytes).map(Some).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            EsError::new(400, "json_parse_exception", e.to_string())
                .with("line", line)
                .with("col", column)
        })
    }

    /// The body as a JSON object, `{}` when empty.
    pub fn object(&self) -> Result<serde_json::Map<String, Value>, EsError> {
        match self.json()? {
            None => Ok(serde_json::Map::new()),
            Some(Value::Object(map)) => Ok(map),
            Some(_) => Err(EsError::new(400, "parse_exception", "request body must be an object")),
        }
    }

    /// The body as it is; an error when there is none.
    pub fn required_body(&self) -> Result<Bytes, EsError> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Err(EsError::new(400, "parse_exception", "request body is required"));
        }
        Ok(self.body.clone())
    }

    /// `ignore_unavailable`, `allow_no_indices` and `expand_wildcards` over a default.
    pub fn indices_options(&self, default: IndicesOptions) -> Result<IndicesOptions, EsError> {
        let mut options = default;
        options.ignore_unavailable =
            self.params.flag("ignore_unavailable", default.ignore_unavailable)?;
        options.allow_no_indices =
            self.params.flag("allow_no_indices", default.allow_no_indices)?;
        let Some(list) = self.params.list("expand_wildcards") else { return Ok(options) };
        (options.expand_open, options.expand_closed, options.expand_hidden) = (false, false, false);
        for word in list {
            match word {
                "open" => options.expand_open = true,
                "closed" => options.expand_closed = true,
                "hidden" => options.expand_hidden = true,
                "all" => {
                    options.expand_open = true;
                    options.expand_closed = true;
                    options.expand_hidden = true;
                }
                "none" => {}
                other => {
                    return Err(EsError::illegal(format!(
                        "No valid expand wildcard value [{other}]"
                    )));
                }
            }
        }
        Ok(options)
    }
}

impl App {
    /// The version to show to a client.
    pub fn version_for(&self, client: Client) -> &str {
        match client {
            Client::Eight => "8.19.0",
            Client::Nine => "9.1.0",
            Client::Fork => "7.10.2",
            Client::Plain => &self.version,
        }
    }

    /// A node's identity as clients see it: 22 characters that never change.
    pub fn node_id(&self, node: NodeId) -> String {
        use base64::Engine as _;
        let mut bytes = self.facts.cluster_uuid();
        for (byte, add) in bytes.iter_mut().rev().zip(node.0.to_le_bytes()) {
            *byte ^= add;
        }
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cluster's identity as clients see it.
    pub fn cluster_uuid(&self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.facts.cluster_uuid())
    }
}
