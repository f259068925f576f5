//! An SFTP server as a source, through libssh2.
//!
//! One session per thread: a session is one lock inside libssh2. The caller's buffer is the
//! depth of the read pipeline, hence 1 MiB. On the way out the TCP socket is shut down first:
//! otherwise every object dropped after a stalled server waits for a time-out of its own.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use ssh2::{
    CheckResult, ErrorCode, FileStat, HashType, KnownHostFileKind, MethodType, Session, Sftp,
};
use tracing::warn;

use super::known_hosts::KnownHosts;
use super::{DirEntry, Kind, RemoteError, RemoteFile, RemoteFs};
use crate::config::{Secret, SourceConfig};
use crate::ident::Stat;

/// Deadline for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds between SSH keepalives.
const KEEPALIVE_S: u32 = 15;

/// libssh2's codes that this module tells apart.
mod code {
    pub(super) const KEX_FAILURE: i32 = -5;
    pub(super) const FILE: i32 = -16;
    pub(super) const FX_NO_SUCH_FILE: i32 = 2;
    pub(super) const FX_PERMISSION_DENIED: i32 = 3;
}

/// How to reach and whom to trust.
#[derive(Clone, Debug)]
pub struct SftpOptions {
    host: String,
    port: u16,
    user: String,
    password: Option<Secret>,
    key_file: Option<PathBuf>,
    passphrase: Option<Secret>,
    known: KnownHosts,
    timeout: Duration,
}

impl SftpOptions {
    /// Takes the options of a source, reading the files it names.
    pub fn from_config(config: &SourceConfig) -> Result<Self, RemoteError> {
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|e| RemoteError::Auth(format!("{path}: {e}")))
        };
        let password = match (&config.password, &config.password_file) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(path)) => {
                Some(Secret(read(path)?.trim_end_matches(['\r', '\n']).to_owned()))
            }
            (None, None) => None,
        };
        let file = match &config.known_hosts {
            Some(path) => {
                std::fs::read(path).map_err(|e| RemoteError::HostKey(format!("{path}: {e}")))?
            }
            None => Vec::new(),
        };
        let file = String::from_utf8_lossy(&file);
        let own = config.host_keys.iter().map(String::as_str);
        let known = KnownHosts::parse(file.lines().chain(own));
        for line in &known.bad_lines {
            warn!(host = config.host, line, "known_hosts line cannot be read");
        }
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            user: config.user.clone(),
            password,
            key_file: config.key_file.as_ref().map(PathBuf::from),
            passphrase: config.passphrase.clone(),
            known,
            timeout: Duration::from_millis(config.timeout_ms),
        })
    }
}

/// One session.
pub struct SftpFs {
    // Field order is drop order; the socket is shut down in `drop` before any of them.
    sftp: Sftp,
    session: Session,
    socket: TcpStream,
}

impl Drop for SftpFs {
    fn drop(&mut self) {
        // It may be closed already, which is what is wanted.
        self.socket.shutdown(Shutdown::Both).ok();
    }
}

impl SftpFs {
    /// Connects, checks the host key, logs in.
    pub fn connect(options: &SftpOptions) -> Result<Self, RemoteError> {
        let socket = connect_tcp(options)?;
        let mut session = Session::new().map_err(|e| connection(&e))?;
        session.set_timeout(u32::try_from(options.timeout.as_millis()).unwrap_or(u32::MAX));
        let copy = socket.try_clone().map_err(|e| RemoteError::Connection(e.to_string()))?;
        session.set_tcp_stream(copy);
        let logged_in = prefer_known(&session, options)
            .and_then(|()| session.handshake().map_err(|e| handshake_error(&session, &e)))
            .and_then(|()| check_host(&session, options))
            .and_then(|()| login(&session, options))
            .and_then(|()| session.sftp().map_err(|e| connection(&e)));
        match logged_in {
            Ok(sftp) => {
                session.set_keepalive(true, KEEPALIVE_S);
                Ok(Self { sftp, session, socket })
            }
            Err(error) => {
                // As in `drop`: no farewell on a connection that may be stalled.
                socket.shutdown(Shutdown::Both).ok();
                Err(error)
            }
        }
    }
}

fn connect_tcp(options: &SftpOptions) -> Result<TcpStream, RemoteError> {
    let name = format!("{}:{}", options.host, options.port);
    let failed = |e: io::Error| RemoteError::Connection(format!("{name}: {e}"));
    let addrs = (options.host.as_str(), options.port).to_socket_addrs().map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for addr in addrs {
        match TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT.min(options.timeout)) {
            Ok(stream) => {
                let socket = SockRef::from(&stream);
                let keepalive = TcpKeepalive::new()
                    .with_time(Duration::from_secs(15))
                    .with_interval(Duration::from_secs(5));
                socket.set_tcp_keepalive(&keepalive).map_err(failed)?;
                socket.set_tcp_user_timeout(Some(options.timeout)).map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(failed(last))
}

fn prefer_known(session: &Session, options: &SftpOptions) -> Result<(), RemoteError> {
    let wanted = options.known.algorithms(&options.host, options.port);
    if wanted.is_empty() || !options.known.fingerprints.is_empty() {
        return Ok(());
    }
    let supported = session.supported_algs(MethodType::HostKey).map_err(|e| connection(&e))?;
    let usable: Vec<&str> = wanted.into_iter().filter(|name| supported.contains(name)).collect();
    if usable.is_empty() {
        return Err(RemoteError::HostKey("no known key type is supported".to_owned()));
    }
    session.method_pref(MethodType::HostKey, &usable.join(",")).map_err(|e| connection(&e))
}

fn handshake_error(session: &Session, error: &ssh2::Error) -> RemoteError {
    if error.code() != ErrorCode::Session(code::KEX_FAILURE) {
        return connection(error);
    }
    let offered = |kind, name: &str| {
        let list = session.supported_algs(kind).unwrap_or_default();
        format!("{name} {}", list.join(","))
    };
    RemoteError::HostKey(format!(
        "no algorithm in common; the server may be too old (only SHA-1 or DSA). Ours: {}; {}",
        offered(MethodType::Kex, "key exchange"),
        offered(MethodType::HostKey, "host keys"),
    ))
}

fn check_host(session: &Session, options: &SftpOptions) -> Result<(), RemoteError> {
    let (host, port) = (&options.host, options.port);
    let failed = |text: String| Err(RemoteError::HostKey(format!("{host}:{port}: {text}")));
    let Some(hash) = session.host_key_hash(HashType::Sha256) else {
        return failed("the server showed no key".to_owned());
    };
    let print = base64_of(hash);
    if options.known.fingerprints.iter().any(|known| known == hash) {
        return Ok(());
    }
    let mut known = session.known_hosts().map_err(|e| connection(&e))?;
    for line in &options.known.lines {
        if let Err(error) = known.read_str(line, KnownHostFileKind::OpenSSH) {
            warn!(%host, line, %error, "known_hosts line cannot be used");
        }
    }
    let Some((key, _)) = session.host_key() else {
        return failed("the server showed no key".to_owned());
    };
    match known.check_port(host, port, key) {
        CheckResult::Match => Ok(()),
        CheckResult::Mismatch => failed(format!(
            "has changed to SHA256:{print}; someone may be in between, or the server is new"
        )),
        CheckResult::NotFound => failed(format!("SHA256:{print} is not known")),
        CheckResult::Failure => failed("cannot be checked".to_owned()),
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

fn login(session: &Session, options: &SftpOptions) -> Result<(), RemoteError> {
    let mut refused = Vec::new();
    if let Some(key) = &options.key_file {
        let phrase = options.passphrase.as_ref().map(|p| p.0.as_str());
        match session.userauth_pubkey_file(&options.user, None, key, phrase) {
            Ok(()) => return Ok(()),
            Err(e) => refused.push(format!("key {}: {}", key.display(), e.message())),
        }
    }
    if let Some(password) = &options.password {
        match session.userauth_password(&options.user, &password.0) {
            Ok(()) => return Ok(()),
            Err(e) => refused.push(format!("password: {}", e.message())),
        }
    }
    Err(RemoteError::Auth(format!("user {}: {}", options.user, refused.join("; "))))
}

fn connection(error: &ssh2::Error) -> RemoteError {
    RemoteError::Connection(error.to_string())
}

/// Errors of single files come with SFTP codes; everything else means the connection.
fn file_error(error: &ssh2::Error) -> RemoteError {
    match error.code() {
        ErrorCode::SFTP(code::FX_NO_SUCH_FILE) => RemoteError::NotFound,
        ErrorCode::SFTP(code::FX_PERMISSION_DENIED) => RemoteError::PermissionDenied,
        ErrorCode::SFTP(_) => RemoteError::File(error.to_string()),
        ErrorCode::Session(_) => connection(error),
    }
}

fn path_of(raw: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(raw))
}

fn stat_of(stat: &FileStat) -> Stat {
    let mtime = stat.mtime.unwrap_or_default();
    Stat { size: stat.size.unwrap_or_default(), mtime_s: i64::try_from(mtime).unwrap_or(i64::MAX) }
}

fn kind_of(stat: &FileStat) -> Option<Kind> {
    stat.perm?;
    let kind = stat.file_type();
    Some(match kind {
        _ if kind.is_symlink() => Kind::Symlink,
        _ if kind.is_dir() => Kind::Dir,
        _ if kind.is_file() => Kind::File,
        _ => Kind::Other,
    })
}

impl RemoteFs for SftpFs {
    fn list(
        &mut self,
        dir: &[u8],
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<(), RemoteError> {
        let mut handle = self.sftp.opendir(path_of(dir)).map_err(|e| file_error(&e))?;
        loop {
            let (name, stat) = match handle.readdir() {
                Ok(entry) => entry,
                Err(e) if e.code() == ErrorCode::Session(code::FILE) => return Ok(()),
                Err(e) => return Err(file_error(&e)),
            };
            let name = name.as_os_str().as_bytes().to_vec();
            if matches!(name.as_slice(), b"." | b"..") || name.contains(&b'/') {
                continue;
            }
            // Some servers list names without attributes.
            let (kind, stat) = match kind_of(&stat) {
                Some(kind) => (kind, stat_of(&stat)),
                None => match self.sftp.lstat(path_of(&super::join(dir, &name))) {
                    Ok(stat) => (kind_of(&stat).unwrap_or(Kind::Other), stat_of(&stat)),
                    Err(_) => continue,
                },
            };
            if each(DirEntry { name, kind, stat }).is_break() {
                return Ok(());
            }
        }
    }

    fn open(&mut self, path: &[u8]) -> Result<Box<dyn RemoteFile + '_>, RemoteError> {
        let file = self.sftp.open(path_of(path)).map_err(|e| file_error(&e))?;
        Ok(Box::new(SftpFile(file)))
    }

    fn stat(&mut self, path: &[u8]) -> Result<Stat, RemoteError> {
        self.sftp.stat(path_of(path)).map(|s| stat_of(&s)).map_err(|e| file_error(&e))
    }

    fn keepalive(&mut self) -> Result<(), RemoteError> {
        self.session.keepalive_send().map(drop).map_err(|e| connection(&e))
    }
}

struct SftpFile(ssh2::File);

impl RemoteFile for SftpFile {
    fn stat(&mut self) -> Result<Stat, RemoteError> {
        self.0.stat().map(|s| stat_of(&s)).map_err(|e| file_error(&e))
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, RemoteError> {
        self.0.read(buf).map_err(|e| match e.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::BrokenPipe => {
                RemoteError::Connection(e.to_string())
            }
            // A short answer in the middle of the pipeline raises all sorts of errors: the file
            // is most likely being written.
            _ => RemoteError::Changed(None),
        })
    }
}
