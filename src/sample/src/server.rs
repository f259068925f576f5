//! The SSH side of the sample server: one address, one user, password or public key.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use base::TaskGroup;
use rand::TryRngCore;
use russh::keys::ssh_key::{LineEnding, private::Ed25519Keypair};
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, info};

use crate::serve::Serve;
use crate::wire::MAX_PACKET_BYTES;

/// Connections served at the same time; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;

/// Bytes read from a client at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of requests held per session: a whole packet must fit.
const INPUT_BYTES: usize = MAX_PACKET_BYTES + 4;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The address is taken, the tree is missing, or the like.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What failed.
        error: io::Error,
    },
    /// The host key or an authorized key cannot be used.
    #[error("{what}: {error}")]
    Key {
        /// Which key.
        what: String,
        /// What is wrong with it.
        error: russh::keys::ssh_key::Error,
    },
}

/// What to serve and to whom.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// Address to listen on; port 0 takes a free one.
    pub addr: SocketAddr,
    /// The tree to serve.
    pub root: PathBuf,
    /// The one user.
    pub user: String,
    /// The user's password; an empty one switches password login off.
    pub password: String,
    /// Public keys that may log in, as lines of an `authorized_keys` file.
    pub authorized_keys: Vec<String>,
    /// Where the host key is kept, so that a restart shows the same one; made when missing.
    /// Without it every start has a new key.
    pub host_key_file: Option<PathBuf>,
}

/// A running sample server; it ends with its task group.
#[derive(Clone, Debug)]
pub struct SampleServer {
    /// The address it listens on.
    pub addr: SocketAddr,
    /// The line of a `known_hosts` file that trusts it.
    pub host_key: String,
}

impl SampleServer {
    /// Serves `root` to one user with a password, with a new host key.
    pub async fn start(
        addr: SocketAddr,
        root: PathBuf,
        user: &str,
        password: &str,
        tasks: &TaskGroup,
    ) -> Result<Self, SampleError> {
        let options = SampleOptions {
            addr,
            root,
            user: user.to_owned(),
            password: password.to_owned(),
            authorized_keys: Vec::new(),
            host_key_file: None,
        };
        Self::start_with(options, tasks).await
    }

    /// Serves as the options say.
    pub async fn start_with(
        options: SampleOptions,
        tasks: &TaskGroup,
    ) -> Result<Self, SampleError> {
        let root = fs::canonicalize(&options.root)
            .map_err(|error| io_error(&options.root.display().to_string(), error))?;
        let host_key = host_key(options.host_key_file.as_deref())?;
        let listener = TcpListener::bind(options.addr)
            .await
            .map_err(|error| io_error(&format!("listen on {}", options.addr), error))?;
        let addr = listener.local_addr().map_err(|error| io_error("listen", error))?;
        let line = known_hosts_line(addr, &host_key)?;
        let login = Arc::new(Login::new(&options)?);
        let config = Arc::new(config(host_key));
        let inner = tasks.clone();
        tasks.spawn("sample-sftp", async move {
            accept_loop(listener, config, login, root, inner).await;
        });
        info!(%addr, "sample sftp server listens");
        Ok(Self { addr, host_key: line })
    }
}

fn io_error(what: &str, error: io::Error) -> SampleError {
    SampleError::Io { what: what.to_owned(), error }
}

fn key_error(what: &str) -> impl FnOnce(russh::keys::ssh_key::Error) -> SampleError + use<'_> {
    move |error| SampleError::Key { what: what.to_owned(), error }
}

/// Loads the host key, or makes one.
fn host_key(file: Option<&Path>) -> Result<PrivateKey, SampleError> {
    if let Some(path) = file.filter(|path| path.is_file()) {
        let what = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| io_error(&what, error))?;
        return PrivateKey::from_openssh(text).map_err(key_error(&what));
    }
    let mut seed = [0; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| io_error("random numbers of the system", io::Error::other(error)))?;
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    if let Some(path) = file {
        let what = path.display().to_string();
        let text = key.to_openssh(LineEnding::LF).map_err(key_error(&what))?;
        write_secret(path, text.as_bytes()).map_err(|error| io_error(&what, error))?;
    }
    Ok(key)
}

fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    io::Write::write_all(&mut file, bytes)
}

/// OpenSSH writes a port other than 22 as `[host]:port`.
fn known_hosts_line(addr: SocketAddr, key: &PrivateKey) -> Result<String, SampleError> {
    let public = PublicKey::new(key.public_key().key_data().clone(), "");
    let public = public.to_openssh().map_err(key_error("host key"))?;
    let host = match addr.port() {
        22 => addr.ip().to_string(),
        port => format!("[{}]:{port}", addr.ip()),
    };
    Ok(format!("{host} {}", public.trim()))
}

fn config(host_key: PrivateKey) -> russh::server::Config {
    russh::server::Config {
        methods: MethodSet::from(&[MethodKind::Password, MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(500),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        inactivity_timeout: Some(Duration::from_secs(600)),
        keepalive_interval: Some(Duration::from_secs(30)),
        max_auth_attempts: 4,
        nodelay: true,
        ..Default::default()
    }
}

/// Who may log in.
struct Login {
    user: String,
    password: String,
    keys: Vec<PublicKey>,
}

impl Login {
    fn new(options: &SampleOptions) -> Result<Self, SampleError> {
        let parse = |line: &String| PublicKey::from_openssh(line).map_err(key_error("login key"));
        let keys = options.authorized_keys.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { user: options.user.clone(), password: options.password.clone(), keys })
    }

    fn password(&self, user: &str, password: &str) -> Auth {
        let right = !self.password.is_empty() && user == self.user && password == self.password;
        if right { Auth::Accept } else { Auth::reject() }
    }

    fn key(&self, user: &str, key: &PublicKey) -> Auth {
        let known = self.keys.iter().any(|k| k.key_data() == key.key_data());
        if user == self.user && known { Auth::Accept } else { Auth::reject() }
    }
}

async fn accept_loop(
    listener: TcpListener,
    config: Arc<russh::server::Config>,
    login: Arc<Login>,
    root: PathBuf,
    tasks: TaskGroup,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let client = Client {
            login: login.clone(),
            root: root.clone(),
            tasks: tasks.clone(),
            channels: HashMap::new(),
        };
        let config = config.clone();
        tasks.spawn("sample-ssh", async move {
            serve_connection(stream, config, client).await;
            drop(slot);
        });
    }
}

async fn serve_connection(stream: TcpStream, config: Arc<russh::server::Config>, client: Client) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "nodelay refused");
    }
    let running = match russh::server::run_stream(config, stream, client).await {
        Ok(running) => running,
        Err(error) => {
            debug!(%error, "no ssh session");
            return;
        }
    };
    let guard = Disconnect(running.handle());
    if let Err(error) = running.await {
        debug!(%error, "ssh session ended");
    }
    drop(guard);
}

/// Russh runs a session in a task of its own; when ours is dropped on shutdown, this tells it to
/// end instead of leaving the connection open.
struct Disconnect(russh::server::Handle);

impl Drop for Disconnect {
    fn drop(&mut self) {
        let handle = self.0.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let bye = russh::Disconnect::ByApplication;
                // The session may be over already: then there is nobody left to tell.
                handle.disconnect(bye, "bye".to_owned(), "en".to_owned()).await.ok();
            });
        }
    }
}

/// One connection's handler.
struct Client {
    login: Arc<Login>,
    root: PathBuf,
    tasks: TaskGroup,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(self.login.password(user, password))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.login.key(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(channel) = self.channels.remove(&id).filter(|_| name == "sftp") else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let serve = Serve::new(self.root.clone());
        let handle = session.handle();
        self.tasks.spawn("sample-sftp-ses", async move {
            if let Err(error) = sftp_loop(channel, serve).await {
                debug!(%error, "sftp session ended");
            }
            // The connection may be gone already: then the channel is closed.
            handle.close(id).await.ok();
        });
        Ok(())
    }
}

/// Reads requests as they come; answers those that arrived together on a blocking thread.
async fn sftp_loop(channel: Channel<Msg>, mut serve: Serve) -> io::Result<()> {
    let mut stream = channel.into_stream();
    let mut input: Vec<u8> = Vec::with_capacity(CHUNK_BYTES);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let room = (INPUT_BYTES - input.len()).min(chunk.len());
        let space = chunk.get_mut(..room).unwrap_or_default();
        let n = stream.read(space).await?;
        if n == 0 {
            return Ok(());
        }
        input.extend_from_slice(space.get(..n).unwrap_or_default());
        loop {
            let job = tokio::task::spawn_blocking(move || {
                let mut out = Vec::new();
                let used = serve.answer_all(&input, &mut out);
                (serve, input, out, used)
            });
            let (out, used);
            (serve, input, out, used) = job.await.map_err(io::Error::other)?;
            stream.write_all(&out).await?;
            stream.flush().await?;
            let used = used.map_err(|_| io::Error::other("client broke the protocol"))?;
            input.drain(..used);
            if used == 0 || input.is_empty() {
                break;
            }
        }
    }
}
