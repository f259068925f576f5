//! Port 5600: health, metrics and the admin API. The console's pages come to this port later.
//!
//! The gateway owns no state: everything it says or does goes through [`Admin`], which the node
//! implements.
#![cfg_attr(not(test), warn(missing_docs))]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base::TaskGroup;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::ServiceExt as _;

/// Largest body of an admin request, in bytes; a pipeline's declaration is a few KB.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Open connections; further ones are closed at once.
const MAX_CONNECTIONS: usize = 256;
/// Time to send the head of a request, and for the next one on an open connection to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Time to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// An admin request that takes longer is given up; creating a topic waits for every group.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why an admin request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminError {
    /// HTTP status.
    pub status: u16,
    /// For the person who asked: what is wrong and what to do.
    pub message: String,
}

impl AdminError {
    /// The request is wrong.
    pub fn bad_request(message: impl ToString) -> Self {
        Self { status: 400, message: message.to_string() }
    }

    /// What the request names does not exist.
    pub fn not_found(message: impl ToString) -> Self {
        Self { status: 404, message: message.to_string() }
    }

    /// The cluster cannot do it now.
    pub fn unavailable(message: impl ToString) -> Self {
        Self { status: 503, message: message.to_string() }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "error": self.message }))).into_response()
    }
}

/// Answer of an admin request.
pub type Answer = Result<Value, AdminError>;

/// What an operator can do to a running source or pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Stop working until resumed.
    Pause,
    /// Go on.
    Resume,
    /// Try what failed once more.
    Retry,
}

/// Which of the two kinds of flow declarations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where files come from.
    Source,
    /// What happens to records.
    Pipeline,
}

/// What the node lets its operators see and do.
#[async_trait]
pub trait Admin: Send + Sync {
    /// `None` when every gateway serves and every group has a leader, else what is missing.
    fn not_ready(&self) -> Option<String>;
    /// Metrics in the Prometheus text format.
    fn metrics(&self) -> String;
    /// Nodes, groups, disk and flow of the whole cluster.
    async fn status(&self) -> Answer;
    /// The same of this node alone, for the other nodes' `status`.
    async fn node_status(&self) -> Answer;
    /// Digest of every group on this node: applied index and checksum.
    async fn digest(&self) -> Answer;
    /// Makes this node the leader of every group for a minute.
    async fn lead(&self) -> Answer;
    /// All topics.
    async fn topics(&self) -> Answer;
    /// One topic.
    async fn topic(&self, name: &str) -> Answer;
    /// Creates a topic from `{name, partitions?, replication_factor?}`.
    async fn create_topic(&self, spec: Value) -> Answer;
    /// Deletes a topic.
    async fn delete_topic(&self, name: &str) -> Answer;
    /// All users and their mechanisms.
    async fn users(&self) -> Answer;
    /// Makes a user or changes its credentials from `{name, credentials}`.
    async fn put_user(&self, spec: Value) -> Answer;
    /// Removes a user.
    async fn delete_user(&self, name: &str) -> Answer;
    /// Sources or pipelines with their counts.
    async fn flows(&self, kind: Kind) -> Answer;
    /// What a pipeline has given up.
    async fn quarantine(&self, name: &str) -> Answer;
    /// Declares or replaces a pipeline, or gives one another source.
    async fn apply_flow(&self, kind: Kind, spec: Value) -> Answer;
    /// Removes one.
    async fn delete_flow(&self, kind: Kind, name: &str) -> Answer;
    /// Pauses, resumes or retries one.
    async fn act_on_flow(&self, kind: Kind, name: &str, verb: Verb) -> Answer;
}

type Shared = Arc<dyn Admin>;

/// Serves on `listener` until the tasks stop.
pub fn serve(listener: TcpListener, admin: Shared, tasks: &TaskGroup) {
    tasks.spawn("console-accept", accept(listener, router(admin), tasks.clone()));
}

async fn accept(listener: TcpListener, router: Router, tasks: TaskGroup) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others will close.
                tracing::warn!("the console cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let router = router.clone();
        tasks.spawn("console", async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let answer = router.clone().oneshot(request.map(Body::new));
                async move {
                    // The body included: who is slow to send holds a place as long as others.
                    let answer = timeout(BODY_TIMEOUT + REQUEST_TIMEOUT, answer).await;
                    answer.unwrap_or_else(|_| Ok(StatusCode::REQUEST_TIMEOUT.into_response()))
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%client, "a console connection ended: {error}");
            }
            drop(place);
        });
    }
}

fn router(admin: Shared) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(
            "/api/status",
            get(|State(a): State<Shared>| async move { answer(a.status()).await }),
        )
        .route(
            "/api/node",
            get(|State(a): State<Shared>| async move { answer(a.node_status()).await }),
        )
        .route(
            "/api/digest",
            get(|State(a): State<Shared>| async move { answer(a.digest()).await }),
        )
        .route("/api/lead", post(|State(a): State<Shared>| async move { answer(a.lead()).await }))
        .route("/api/topics", get(topics).put(create_topic))
        .route("/api/topics/{name}", get(topic).delete(delete_topic))
        .route("/api/users", get(users).put(put_user))
        .route("/api/users/{name}", axum::routing::delete(delete_user))
        .route("/api/{kind}", put(apply_flow).get(flows))
        .route("/api/{kind}/{name}", axum::routing::delete(delete_flow))
        .route("/api/{kind}/{name}/{verb}", post(act_on_flow).get(look_at_flow))
        .fallback(|| async { AdminError::not_found("no such page") })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(admin)
}

async fn answer(asked: impl Future<Output = Answer>) -> Response {
    match timeout(REQUEST_TIMEOUT, asked).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(error)) => error.into_response(),
        Err(_) => {
            let text = format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
            AdminError::unavailable(text).into_response()
        }
    }
}

async fn ready(State(admin): State<Shared>) -> Response {
    match admin.not_ready() {
        None => "ready\n".into_response(),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing + "\n").into_response(),
    }
}

async fn metrics(State(admin): State<Shared>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics()).into_response()
}

fn json_body(body: &Bytes) -> Answer {
    serde_json::from_slice(body).map_err(|e| AdminError::bad_request(format!("not JSON: {e}")))
}

async fn topics(State(admin): State<Shared>) -> Response {
    answer(admin.topics()).await
}

async fn topic(State(admin): State<Shared>, Path(name): Path<String>) -> Response {
    answer(admin.topic(&name)).await
}

async fn create_topic(State(admin): State<Shared>, body: Bytes) -> Response {
    match json_body(&body) {
        Ok(spec) => answer(admin.create_topic(spec)).await,
        Err(error) => error.into_response(),
    }
}

async fn delete_topic(State(admin): State<Shared>, Path(name): Path<String>) -> Response {
    answer(admin.delete_topic(&name)).await
}

async fn users(State(admin): State<Shared>) -> Response {
    answer(admin.users()).await
}

async fn put_user(State(admin): State<Shared>, body: Bytes) -> Response {
    match json_body(&body) {
        Ok(spec) => answer(admin.put_user(spec)).await,
        Err(error) => error.into_response(),
    }
}

async fn delete_user(State(admin): State<Shared>, Path(name): Path<String>) -> Response {
    answer(admin.delete_user(&name)).await
}

fn kind_of(word: &str) -> Result<Kind, AdminError> {
    match word {
        "sources" => Ok(Kind::Source),
        "pipelines" => Ok(Kind::Pipeline),
        _ => Err(AdminError::not_found("no such page")),
    }
}

async fn flows(State(admin): State<Shared>, Path(kind): Path<String>) -> Response {
    match kind_of(&kind) {
        Ok(kind) => answer(admin.flows(kind)).await,
        Err(error) => error.into_response(),
    }
}

async fn apply_flow(
    State(admin): State<Shared>,
    Path(kind): Path<String>,
    body: Bytes,
) -> Response {
    match kind_of(&kind).and_then(|kind| Ok((kind, json_body(&body)?))) {
        Ok((kind, spec)) => answer(admin.apply_flow(kind, spec)).await,
        Err(error) => error.into_response(),
    }
}

async fn delete_flow(
    State(admin): State<Shared>,
    Path((kind, name)): Path<(String, String)>,
) -> Response {
    match kind_of(&kind) {
        Ok(kind) => answer(admin.delete_flow(kind, &name)).await,
        Err(error) => error.into_response(),
    }
}

/// What there is to read of one source or pipeline.
async fn look_at_flow(
    State(admin): State<Shared>,
    Path((kind, name, page)): Path<(String, String, String)>,
) -> Response {
    match (kind_of(&kind), page.as_str()) {
        (Ok(_), "quarantine") => answer(admin.quarantine(&name)).await,
        _ => AdminError::not_found("no such page").into_response(),
    }
}

async fn act_on_flow(
    State(admin): State<Shared>,
    Path((kind, name, verb)): Path<(String, String, String)>,
) -> Response {
    let verb = match verb.as_str() {
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        "retry" => Verb::Retry,
        _ => return AdminError::not_found("no such page").into_response(),
    };
    match kind_of(&kind) {
        Ok(kind) => answer(admin.act_on_flow(kind, &name, verb)).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    struct Fake;

    #[async_trait]
    impl Admin for Fake {
        fn not_ready(&self) -> Option<String> {
            Some("group d1 has no leader".to_owned())
        }
        fn metrics(&self) -> String {
            "trine_up 1\n".to_owned()
        }
        async fn status(&self) -> Answer {
            Ok(json!({"cluster": "c"}))
        }
        async fn node_status(&self) -> Answer {
            Ok(json!({}))
        }
        async fn digest(&self) -> Answer {
            Err(AdminError::unavailable("no leader"))
        }
        async fn lead(&self) -> Answer {
            Err(AdminError::unavailable("no leader"))
        }
        async fn topics(&self) -> Answer {
            Ok(json!([]))
        }
        async fn topic(&self, name: &str) -> Answer {
            Err(AdminError::not_found(format!("topic {name} does not exist")))
        }
        async fn create_topic(&self, spec: Value) -> Answer {
            Ok(spec)
        }
        async fn delete_topic(&self, _name: &str) -> Answer {
            Ok(Value::Null)
        }
        async fn users(&self) -> Answer {
            Ok(json!([]))
        }
        async fn put_user(&self, spec: Value) -> Answer {
            Ok(spec)
        }
        async fn delete_user(&self, name: &str) -> Answer {
            Ok(json!(name))
        }
        async fn flows(&self, kind: Kind) -> Answer {
            Ok(json!(format!("{kind:?}")))
        }
        async fn quarantine(&self, name: &str) -> Answer {
            Ok(json!([{"what": name}]))
        }
        async fn apply_flow(&self, _kind: Kind, spec: Value) -> Answer {
            Ok(spec)
        }
        async fn delete_flow(&self, _kind: Kind, _name: &str) -> Answer {
            Ok(Value::Null)
        }
        async fn act_on_flow(&self, kind: Kind, name: &str, verb: Verb) -> Answer {
            Ok(json!(format!("{kind:?} {name} {verb:?}")))
        }
    }

    async fn check(method: &str, path: &str, body: &str, status: u16, text: &str) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned()));
        let response = router(Arc::new(Fake)).oneshot(request.unwrap()).await.unwrap();
        let got = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert_eq!((got, String::from_utf8_lossy(&bytes).as_ref()), (status, text), "{path}");
    }

    #[tokio::test]
    async fn answers_are_json_and_errors_say_why() {
        check("GET", "/healthz", "", 200, "ok\n").await;
        check("GET", "/readyz", "", 503, "group d1 has no leader\n").await;
        check("GET", "/metrics", "", 200, "trine_up 1\n").await;
        check("GET", "/api/status", "", 200, r#"{"cluster":"c"}"#).await;
        check("GET", "/api/digest", "", 503, r#"{"error":"no leader"}"#).await;
        check("POST", "/api/lead", "", 503, r#"{"error":"no leader"}"#).await;
        let missing = r#"{"error":"topic 뉴스 does not exist"}"#;
        check("GET", "/api/topics/%EB%89%B4%EC%8A%A4", "", 404, missing).await;
        check("PUT", "/api/topics", "{", 400, &not_json()).await;
        check("PUT", "/api/users", r#"{"name":"a"}"#, 200, r#"{"name":"a"}"#).await;
        check("DELETE", "/api/users/a%20b", "", 200, r#""a b""#).await;
        check("GET", "/api/sources", "", 200, r#""Source""#).await;
        check("POST", "/api/pipelines/a%20b/retry", "", 200, r#""Pipeline a b Retry""#).await;
        check("GET", "/api/pipelines/a/quarantine", "", 200, r#"[{"what":"a"}]"#).await;
        check("GET", "/api/pipelines/a/other", "", 404, r#"{"error":"no such page"}"#).await;
        check("POST", "/api/pipelines/a/jump", "", 404, r#"{"error":"no such page"}"#).await;
        check("GET", "/api/other", "", 404, r#"{"error":"no such page"}"#).await;
    }

    fn not_json() -> String {
        let error = serde_json::from_str::<Value>("{").unwrap_err();
        json!({"error": format!("not JSON: {error}")}).to_string()
    }
}
