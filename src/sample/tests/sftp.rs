//! The sample server as libssh2, the collector's own client library, sees it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base::TaskGroup;
use sample::{SampleOptions, SampleServer, write_tree};
use sha2::{Digest, Sha256};
use ssh2::{ErrorCode, OpenFlags, OpenType, Session, Sftp};

const USER: &str = "demo";
const PASSWORD: &str = "pass word";

fn connect(addr: SocketAddr) -> Session {
    let mut session = Session::new().unwrap();
    session.set_tcp_stream(TcpStream::connect(addr).unwrap());
    session.set_timeout(20_000);
    session.handshake().unwrap();
    session
}

fn login(addr: SocketAddr) -> Sftp {
    let session = connect(addr);
    session.userauth_password(USER, PASSWORD).unwrap();
    session.sftp().unwrap()
}

/// Runs a server over a new sample tree and `body` on a thread that may block.
fn with_server(body: impl FnOnce(SampleServer, PathBuf) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = TaskGroup::new();
        let addr = "127.0.0.1:0".parse().unwrap();
        let server = SampleServer::start(addr, root.clone(), USER, PASSWORD, &tasks).await.unwrap();
        tokio::task::spawn_blocking(move || body(server, root)).await.unwrap();
        tasks.shutdown(std::time::Duration::from_secs(5)).await;
    });
}

fn walk(sftp: &Sftp, dir: &Path, found: &mut BTreeMap<Vec<u8>, u64>) {
    let mut handle = sftp.opendir(dir).unwrap();
    while let Ok((name, stat)) = handle.readdir() {
        let path = dir.join(name);
        if stat.is_dir() {
            walk(sftp, &path, found);
        } else {
            found.insert(path.as_os_str().as_bytes().to_vec(), stat.size.unwrap());
        }
    }
}

#[test]
fn every_file_is_listed_and_read_byte_for_byte() {
    with_server(|server, root| {
        let files = write_tree(&root, 3).unwrap();
        let sftp = login(server.addr);
        let mut found = BTreeMap::new();
        walk(&sftp, Path::new("/"), &mut found);
        found.retain(|path, _| path.ends_with(b".txt") && !path.ends_with(b"/.hidden.txt"));
        assert_eq!(found.len(), files.len());
        for file in &files {
            let path = [b"/", &file.path[..]].concat();
            assert_eq!(found.get(&path), Some(&file.len));
            let mut remote = sftp.open(Path::new(OsStr::from_bytes(&path))).unwrap();
            assert_eq!(remote.stat().unwrap().mtime, Some(file.mtime));
            let mut bytes = Vec::new();
            let mut buf = vec![0; 1 << 20];
            loop {
                match remote.read(&mut buf).unwrap() {
                    0 => break,
                    n => bytes.extend(&buf[..n]),
                }
            }
            assert_eq!(<[u8; 32]>::from(Sha256::digest(&bytes)), file.sha256);
        }
    });
}

#[test]
fn the_tree_cannot_be_changed() {
    with_server(|server, root| {
        std::fs::write(root.join("a.txt"), "0123456789").unwrap();
        let sftp = login(server.addr);
        let refused = |r: Result<(), ssh2::Error>| {
            assert_eq!(r.unwrap_err().code(), ErrorCode::SFTP(3));
        };
        refused(sftp.unlink(Path::new("/a.txt")));
        refused(sftp.mkdir(Path::new("/d"), 0o755));
        refused(sftp.rename(Path::new("/a.txt"), Path::new("/b.txt"), None));
        refused(sftp.create(Path::new("/c.txt")).map(drop));
        let flags = OpenFlags::WRITE | OpenFlags::READ;
        refused(sftp.open_mode("/a.txt", flags, 0o644, OpenType::File).map(drop));
        assert_eq!(sftp.stat(Path::new("/none")).unwrap_err().code(), ErrorCode::SFTP(2));
        assert_eq!(sftp.realpath(Path::new("x/../y")).unwrap(), Path::new("/y"));
        let mut file = sftp.open(Path::new("a.txt")).unwrap();
        file.seek(SeekFrom::Start(7)).unwrap();
        let mut tail = String::new();
        file.read_to_string(&mut tail).unwrap();
        assert_eq!(tail, "789");
    });
}

#[test]
fn wrong_passwords_and_users_are_refused() {
    with_server(|server, _| {
        let session = connect(server.addr);
        assert!(session.userauth_password(USER, "wrong").is_err());
        assert!(session.userauth_password("other", PASSWORD).is_err());
        assert!(session.userauth_password(USER, PASSWORD).is_ok());
    });
}

#[test]
fn the_host_key_line_is_what_known_hosts_needs_and_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let options = SampleOptions {
        addr: "127.0.0.1:0".parse().unwrap(),
        root: dir.path().to_path_buf(),
        user: USER.into(),
        password: PASSWORD.into(),
        authorized_keys: Vec::new(),
        host_key_file: Some(dir.path().join("host.key")),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key_of = |line: &str| line.split_once(' ').map(|(_, key)| key.to_owned()).unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let options = options.clone();
        keys.push(runtime.block_on(async {
            let tasks = TaskGroup::new();
            let server = SampleServer::start_with(options, &tasks).await.unwrap();
            let check = server.clone();
            tokio::task::spawn_blocking(move || {
                let session = connect(check.addr);
                let mut hosts = session.known_hosts().unwrap();
                hosts.read_str(&check.host_key, ssh2::KnownHostFileKind::OpenSSH).unwrap();
                let (key, _) = session.host_key().unwrap();
                let result = hosts.check_port("127.0.0.1", check.addr.port(), key);
                assert!(matches!(result, ssh2::CheckResult::Match));
            })
            .await
            .unwrap();
            tasks.shutdown(std::time::Duration::from_secs(5)).await;
            key_of(&server.host_key)
        }));
    }
    assert!(keys[0].starts_with("ssh-ed25519 "));
    assert_eq!(keys[0], keys[1]);
}
