//! From a request to the block service and back.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use base::Clock;
use blocks::{Access, BlockService, Caller, CreateOptions, FileKind, FsErrorKind, Listing};
use serde_json::{Value, json};

use crate::data;
use crate::error::Refusal;
use crate::gateway::HdfsConfig;
use crate::json;
use crate::ops::Op;
use crate::params::{Call, PREFIX};

/// Which of the two ports a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    NameNode,
    DataNode,
}

pub(crate) struct App {
    pub(crate) config: HdfsConfig,
    pub(crate) service: Arc<BlockService>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl App {
    fn is_superuser(&self, user: &str) -> bool {
        self.config.superusers.iter().any(|name| name == user)
    }

    fn caller(&self, call: &Call, client: Option<SocketAddr>) -> Result<Caller, Refusal> {
        let user = call.user(|user| self.is_superuser(user))?;
        let superuser = !self.config.permissions || self.is_superuser(&user);
        let client = client.map_or_else(|| "unknown".to_owned(), |c| c.ip().to_string());
        Ok(Caller { user, superuser, client })
    }
}

pub(crate) fn router(app: Arc<App>, role: Role) -> Router {
    Router::new().fallback(answer).with_state((app, role))
}

async fn answer(State((app, role)): State<(Arc<App>, Role)>, request: Request) -> Response {
    let uri = request.uri().clone();
    let below = uri.path().strip_prefix(PREFIX);
    if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return beside(uri.path());
    }
    if request.method().as_str() == "OPTIONS" {
        return (StatusCode::OK, [(header::ALLOW, "GET,HEAD,PUT,POST,DELETE,OPTIONS")])
            .into_response();
    }
    match serve(&app, role, &uri, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

/// Paths that are not WebHDFS.
fn beside(path: &str) -> Response {
    match path {
        "/" | "/index.html" | "/dfshealth.html" => Html(
            "<!doctype html><title>trine</title><h1>Block store</h1>\
             <p><a href=\"/webhdfs/v1/?op=LISTSTATUS\">/webhdfs/v1/?op=LISTSTATUS</a></p>",
        )
        .into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn serve(
    app: &Arc<App>,
    role: Role,
    uri: &Uri,
    request: Request,
) -> Result<Response, Refusal> {
    let call = Call::parse(request.method(), uri.path(), uri.query())?;
    let client = request.extensions().get::<SocketAddr>().copied();
    let who = app.caller(&call, client)?;
    let headers = request.headers().clone();
    if !call.op.is_redirected() {
        return small(app, &who, &call).await;
    }
    let brings_body = has_body(&headers) && matches!(call.op, Op::Create | Op::Append);
    if role == Role::NameNode && !brings_body {
        check_first(app, &who, &call).await?;
        return redirect(app, uri, &headers, &call);
    }
    data::serve(app, &who, &call, &headers, request.into_body()).await
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).map(|value| value.as_bytes());
    length.is_some_and(|value| value != b"0") || headers.contains_key(header::TRANSFER_ENCODING)
}

/// What can be refused before the client sends or expects bytes.
async fn check_first(app: &App, who: &Caller, call: &Call) -> Result<(), Refusal> {
    match call.op {
        Op::Create => {
            let options = create_options(call)?;
            app.service.check_create(who, &call.path, &options).await?;
        }
        Op::Append => {
            let path = &call.path;
            existing_file(app, who, path).await?;
            app.service.check_access(who, path, Access::WRITE).await?;
        }
        Op::Open => {
            let len = existing_file(app, who, &call.path).await?;
            app.service.check_access(who, &call.path, Access::READ).await?;
            data::range(call, len)?;
        }
        _ => {
            existing_file(app, who, &call.path).await?;
        }
    }
    Ok(())
}

/// Length of a file that must exist.
async fn existing_file(app: &App, who: &Caller, path: &str) -> Result<u64, Refusal> {
    let status = app.service.status(who, path).await.map_err(|e| not_found(e, path))?;
    match status.kind {
        FileKind::File => Ok(status.len),
        FileKind::Directory => Err(Refusal {
            status: StatusCode::NOT_FOUND,
            class: FsErrorKind::FileNotFound.java_class(),
            message: format!("Path is not a file: {path}"),
        }),
    }
}

/// The name node says it in other words before a redirect.
pub(crate) fn not_found(error: blocks::BlockError, path: &str) -> Refusal {
    let mut refusal = Refusal::from(error);
    if refusal.status == StatusCode::NOT_FOUND && refusal.message.starts_with("File does not") {
        refusal.message = format!("File {path} not found.");
    }
    refusal
}

/// Sends the client to this node's data port, under the host name that it used.
fn redirect(app: &App, uri: &Uri, headers: &HeaderMap, call: &Call) -> Result<Response, Refusal> {
    let data_node = authority(headers, &app.config.advertised_data_node);
    let location = location(uri, call, &data_node, &app.config.advertised_name_node);
    if call.boolean("noredirect", false)? {
        return Ok(axum::Json(json!({"Location": location})).into_response());
    }
    let octets = (header::CONTENT_TYPE, "application/octet-stream".to_owned());
    let headers = [(header::LOCATION, location), octets];
    Ok((StatusCode::TEMPORARY_REDIRECT, headers, Body::empty()).into_response())
}

/// The URL of step two.
pub(crate) fn location(uri: &Uri, call: &Call, data_node: &str, name_node: &str) -> String {
    let query = ascii(uri.query().unwrap_or_default());
    let path = ascii(uri.path());
    let mut location = format!("http://{data_node}{path}?{query}&namenoderpcaddress={name_node}");
    if call.op == Op::Create && call.get("overwrite").is_none() {
        location.push_str("&overwrite=false");
    }
    location
}

/// The host that the client used with the port of `advertised`.
pub(crate) fn authority(headers: &HeaderMap, advertised: &str) -> String {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let host = host.map(host_of).filter(|host| {
        let sound = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c);
        !host.is_empty() && host.chars().all(sound)
    });
    match (host, advertised.rsplit_once(':')) {
        (Some(host), Some((_, port))) => format!("{host}:{port}"),
        _ => advertised.to_owned(),
    }
}

/// A `Host` header without its port.
fn host_of(header: &str) -> &str {
    match header.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => header,
    }
}

/// Percent-encodes what may not stand in a header; leaves what is encoded already.
pub(crate) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub(crate) fn create_options(call: &Call) -> Result<CreateOptions, Refusal> {
    let defaults = CreateOptions::default();
    let replication = match call.unsigned("replication")? {
        None => defaults.replication,
        Some(asked) => u16::try_from(asked)
            .map_err(|_| Refusal::io(format!("Requested replication factor of {asked} exceeds")))?,
    };
    Ok(CreateOptions {
        mode: call.permission()?.unwrap_or(defaults.mode),
        replication,
        block_size: call.unsigned("blocksize")?.filter(|b| *b > 0).unwrap_or(defaults.block_size),
        overwrite: call.boolean("overwrite", false)?,
        create_parent: call.boolean("createparent", true)?,
    })
}

fn boolean(answer: bool) -> Response {
    axum::Json(json!({"boolean": answer})).into_response()
}

fn body(value: Value) -> Response {
    axum::Json(value).into_response()
}

fn empty() -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/octet-stream")], Body::empty())
        .into_response()
}

/// Operations without file content.
async fn small(app: &App, who: &Caller, call: &Call) -> Result<Response, Refusal> {
    let (fs, path) = (&app.service, call.path.as_str());
    match call.op {
        Op::GetFileStatus => {
            let status = fs.status(who, path).await?;
            Ok(body(json!({"FileStatus": json::status(&status, "")})))
        }
        Op::ListStatus => list_all(app, who, path).await,
        Op::ListStatusBatch => {
            let listing = fs.list(who, path, call.get("startafter")).await?;
            Ok(body(json::page(&listing)))
        }
        Op::GetContentSummary => Ok(body(json::summary(&fs.content_summary(who, path).await?))),
        Op::GetQuotaUsage => Ok(body(json::quota_usage(&fs.content_summary(who, path).await?))),
        Op::GetHomeDirectory => Ok(body(json!({"Path": format!("/user/{}", who.user)}))),
        Op::GetTrashRoot => Ok(body(json!({"Path": format!("/user/{}/.Trash", who.user)}))),
        Op::GetServerDefaults => Ok(body(json::server_defaults())),
        Op::CheckAccess => {
            let access = access_of(call.required("fsaction")?)?;
            fs.check_access(who, path, access).await?;
            Ok(empty())
        }
        Op::GetAclStatus => Ok(body(json::acl(&fs.status(who, path).await?))),
        Op::GetDelegationToken => Ok(body(json!({"Token": null}))),
        Op::Mkdirs => {
            let mode = call.permission()?.unwrap_or(0o755);
            Ok(boolean(fs.mkdirs(who, path, mode).await?))
        }
        Op::Rename | Op::Delete => rename_or_delete(app, who, call).await,
        Op::SetPermission | Op::SetOwner | Op::SetTimes | Op::SetReplication => {
            set(app, who, call).await
        }
        Op::Open | Op::Create | Op::Append | Op::GetFileChecksum => {
            Err(Refusal::io("file content is served by the data node"))
        }
    }
}

/// A whole directory. Hadoop's answer has no pages here, so it is put together from them.
async fn list_all(app: &App, who: &Caller, path: &str) -> Result<Response, Refusal> {
    let mut all = Listing::default();
    loop {
        let after = all.entries.last().map(|entry| entry.name.clone());
        let page = app.service.list(who, path, after.as_deref()).await?;
        all.entries.extend(page.entries);
        if page.remaining == 0 {
            return Ok(body(json::statuses(&all.entries)));
        }
    }
}

async fn rename_or_delete(app: &App, who: &Caller, call: &Call) -> Result<Response, Refusal> {
    let (fs, path) = (&app.service, call.path.as_str());
    if call.op == Op::Delete {
        let recursive = call.boolean("recursive", false)?;
        return Ok(boolean(fs.delete(who, path, recursive).await?));
    }
    match rename_options(call)? {
        (destination, None) => Ok(boolean(fs.rename(who, path, destination).await?)),
        (destination, Some(overwrite)) => {
            fs.rename2(who, path, destination, overwrite).await?;
            Ok(empty())
        }
    }
}

/// Where to, and with `renameoptions` whether what is there goes.
pub(crate) fn rename_options(call: &Call) -> Result<(&str, Option<bool>), Refusal> {
    let destination = call.required("destination")?;
    if !destination.starts_with('/') {
        return Err(Refusal::illegal(format!(
            "Invalid value for webhdfs parameter \"destination\": \
             Invalid parameter value: destination = \"{destination}\" is not an absolute path."
        )));
    }
    let Some(options) = call.get("renameoptions") else { return Ok((destination, None)) };
    let mut overwrite = false;
    for option in options.split(',') {
        match option.trim().to_ascii_uppercase().as_str() {
            "NONE" | "TO_TRASH" => {}
            "OVERWRITE" => overwrite = true,
            other => {
                return Err(Refusal::illegal(format!(
                    "Invalid value for webhdfs parameter \"renameoptions\": No enum constant \
                     org.apache.hadoop.fs.Options.Rename.{other}"
                )));
            }
        }
    }
    Ok((destination, Some(overwrite)))
}

async fn set(app: &App, who: &Caller, call: &Call) -> Result<Response, Refusal> {
    let (fs, path) = (&app.service, call.path.as_str());
    match call.op {
        Op::SetPermission => {
            let mode = call.permission()?.unwrap_or(0o755);
            fs.set_permission(who, path, mode).await?;
        }
        Op::SetOwner => {
            let (owner, group) = (call.get("owner"), call.get("group"));
            if owner.is_none() && group.is_none() {
                return Err(Refusal::illegal("Both owner and group are empty."));
            }
            let owned = |name: Option<&str>| name.map(str::to_owned);
            fs.set_owner(who, path, owned(owner), owned(group)).await?;
        }
        Op::SetTimes => {
            let time = |name| Ok::<_, Refusal>(call.number(name)?.filter(|ms| *ms >= 0));
            fs.set_times(who, path, time("modificationtime")?, time("accesstime")?).await?;
        }
        _ => {
            let asked = call.unsigned("replication")?.unwrap_or(3);
            let replication = u16::try_from(asked).unwrap_or(u16::MAX);
            return Ok(boolean(fs.set_replication(who, path, replication).await?));
        }
    }
    Ok(empty())
}

/// The bits of an action such as `r-x`.
pub(crate) fn access_of(text: &str) -> Result<Access, Refusal> {
    let bits: Option<Vec<u8>> = text
        .chars()
        .zip(['r', 'w', 'x'])
        .map(|(got, letter)| match got {
            '-' => Some(0),
            _ if got == letter => Some(1),
            _ => None,
        })
        .collect();
    match bits.as_deref() {
        Some([r, w, x]) if text.len() == 3 => Ok(Access(r * 4 + w * 2 + x)),
        _ => Err(Refusal::illegal(format!(
            "Invalid value for webhdfs parameter \"fsaction\": Invalid value: \"{text}\" does not \
             belong to the domain [r-][w-][x-]"
        ))),
    }
}
