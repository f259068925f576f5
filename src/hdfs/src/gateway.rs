//! The two listening ports.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use base::{Env, TaskGroup};
use blocks::BlockService;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::handler::{App, Role, router};
use crate::limits::{ACCEPT_PAUSE, HEAD_PATIENCE, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_HEADERS};

/// Settings of the gateway.
#[derive(Clone, Debug)]
pub struct HdfsConfig {
    /// Where the name node's port listens.
    pub name_node: SocketAddr,
    /// Where the data node's port listens.
    pub data_node: SocketAddr,
    /// The name node's address as clients reach it, `host:port`.
    pub advertised_name_node: String,
    /// The data node's address as clients reach it, `host:port`. Its host is used only when a
    /// request names none.
    pub advertised_data_node: String,
    /// Whether permissions are checked.
    pub permissions: bool,
    /// Users for whom they are not.
    pub superusers: Vec<String>,
    /// Connections served at once by each of the two ports; further ones wait.
    pub max_connections: usize,
}

impl HdfsConfig {
    /// Settings for these addresses: permissions are checked, with Hadoop's usual superusers.
    pub fn new(name_node: SocketAddr, data_node: SocketAddr) -> Self {
        Self {
            name_node,
            data_node,
            advertised_name_node: name_node.to_string(),
            advertised_data_node: data_node.to_string(),
            permissions: true,
            max_connections: MAX_CONNECTIONS,
            superusers: ["root", "hdfs", "hadoop", "spark"].map(str::to_owned).into(),
        }
    }
}

/// The running gateway.
#[derive(Clone, Copy, Debug)]
pub struct HdfsGateway {
    /// Where the name node's port is bound.
    pub name_node: SocketAddr,
    /// Where the data node's port is bound.
    pub data_node: SocketAddr,
}

impl HdfsGateway {
    /// Binds both ports and serves until the tasks are stopped.
    pub async fn start(
        config: HdfsConfig,
        service: Arc<BlockService>,
        tasks: TaskGroup,
        env: Env,
    ) -> io::Result<Self> {
        let name_node = bind(config.name_node).await?;
        let data_node = bind(config.data_node).await?;
        Self::serve((name_node, data_node), config, service, tasks, env)
    }

    /// Serves on two listeners, the name node's and the data node's, that are bound already.
    pub fn serve(
        (name_node, data_node): (TcpListener, TcpListener),
        config: HdfsConfig,
        service: Arc<BlockService>,
        tasks: TaskGroup,
        env: Env,
    ) -> io::Result<Self> {
        let bound = Self { name_node: name_node.local_addr()?, data_node: data_node.local_addr()? };
        let connections = config.max_connections;
        let app = Arc::new(App { config, service, clock: env.clock.clone() });
        for (listener, role) in [(name_node, Role::NameNode), (data_node, Role::DataNode)] {
            let router = router(app.clone(), role);
            tasks.spawn("webhdfs-accept", accept(listener, router, connections, tasks.clone()));
        }
        Ok(bound)
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{address}: {e}"));
    TcpListener::bind(address).await.map_err(named)
}

async fn accept(listener: TcpListener, router: Router, connections: usize, tasks: TaskGroup) {
    let slots = Arc::new(Semaphore::new(connections));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        tasks.spawn("webhdfs", async move {
            serve(stream, client, router).await;
            drop(slot);
        });
    }
}

async fn serve(stream: TcpStream, client: SocketAddr, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%client, %error, "the connection is gone already");
    }
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(client);
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%client, %error, "a connection ended early");
    }
}
