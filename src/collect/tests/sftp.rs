//! The SFTP source against the sample server.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use base::TaskGroup;
use collect::config::{Secret, SourceConfig};
use collect::remote::{Kind, RemoteError, RemoteFs, SftpFs, SftpOptions, join, read_stable};
use sample::{SampleFile, SampleOptions, SampleServer, write_tree};

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACCzPq7zfqLffKoBDe/eo04kH2XxtSmk9D7RQyf1xUqrYgAAAJgAIAxdACAM
XQAAAAtzc2gtZWQyNTUxOQAAACCzPq7zfqLffKoBDe/eo04kH2XxtSmk9D7RQyf1xUqrYg
AAAEC2BsIi0QwW2uFscKTUUXNHLsYX4FxlaSDSblbAj7WR7bM+rvN+ot98qgEN796jTiQf
ZfG1KaT0PtFDJ/XFSqtiAAAAEHVzZXJAZXhhbXBsZS5jb20BAgMEBQ==
-----END OPENSSH PRIVATE KEY-----
";
const PUBLIC: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

struct Ground {
    server: SampleServer,
    files: Vec<SampleFile>,
    dir: PathBuf,
    config: SourceConfig,
}

fn with_server(body: impl FnOnce(Ground) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let files = write_tree(&root, 11).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = TaskGroup::new();
        let options = SampleOptions {
            addr: "127.0.0.1:0".parse().unwrap(),
            root,
            user: "demo".into(),
            password: "secret".into(),
            authorized_keys: vec![PUBLIC.into()],
            host_key_file: None,
        };
        let server = SampleServer::start_with(options, &tasks).await.unwrap();
        let config = SourceConfig {
            host: "127.0.0.1".into(),
            port: server.addr.port(),
            user: "demo".into(),
            password: Some(Secret("secret".into())),
            host_keys: vec![server.host_key.clone()],
            timeout_ms: 20_000,
            ..Default::default()
        };
        let ground = Ground { server, files, dir: dir.path().to_path_buf(), config };
        tokio::task::spawn_blocking(move || body(ground)).await.unwrap();
        tasks.shutdown(Duration::from_secs(5)).await;
    });
}

fn connect(config: &SourceConfig) -> Result<SftpFs, RemoteError> {
    SftpFs::connect(&SftpOptions::from_config(config)?)
}

fn walk(fs: &mut SftpFs, dir: &[u8], found: &mut BTreeMap<Vec<u8>, collect::ident::Stat>) {
    let mut dirs = Vec::new();
    fs.list(dir, &mut |entry| {
        let path = join(dir, &entry.name);
        match entry.kind {
            Kind::Dir => dirs.push(path),
            _ => drop(found.insert(path, entry.stat)),
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    for dir in dirs {
        walk(fs, &dir, found);
    }
}

#[test]
fn every_file_arrives_whole_whatever_its_name() {
    with_server(|ground| {
        let mut fs = connect(&ground.config).unwrap();
        let mut found = BTreeMap::new();
        walk(&mut fs, b"/", &mut found);
        let mut buf = vec![0; 1 << 20];
        for file in &ground.files {
            let path = join(b"/", &file.path);
            let content = read_stable(&mut fs, &path, found[&path], &mut buf).unwrap();
            assert_eq!(content.sha256, file.sha256);
        }
        assert!(matches!(fs.stat(b"/none"), Err(RemoteError::NotFound)));
        fs.keepalive().unwrap();
    });
}

#[test]
fn strangers_are_refused_and_logins_are_checked() {
    with_server(|ground| {
        let with = |change: &dyn Fn(&mut SourceConfig)| {
            let mut config = ground.config.clone();
            change(&mut config);
            connect(&config).map(drop)
        };
        // Another key for the same host, of the same type.
        let (host, _) = ground.server.host_key.split_once(' ').unwrap();
        let other = format!("{host} {PUBLIC}");
        let changed = with(&|c| c.host_keys = vec![other.clone()]);
        assert!(matches!(&changed, Err(RemoteError::HostKey(t)) if t.contains("has changed")));
        let unknown = with(&|c| c.host_keys = vec![format!("elsewhere {PUBLIC}")]);
        assert!(matches!(&unknown, Err(RemoteError::HostKey(t)) if t.contains("is not known")));
        // The message names the fingerprint that would be trusted.
        let Err(RemoteError::HostKey(text)) = unknown else { panic!() };
        let print = text.split_whitespace().find(|w| w.starts_with("SHA256:")).unwrap().to_owned();
        assert_eq!(with(&|c| c.host_keys = vec![print.clone()]), Ok(()));
        let junk = vec!["junk".to_owned(), ground.server.host_key.clone()];
        assert_eq!(with(&|c| c.host_keys = junk.clone()), Ok(()), "a bad line spoils nothing");
        let wrong = with(&|c| c.password = Some(Secret("nope".into())));
        assert!(matches!(&wrong, Err(RemoteError::Auth(_))), "{wrong:?}");
        let file = ground.dir.join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let from_file = with(&|c| {
            c.password = None;
            c.password_file = Some(file.to_str().unwrap().to_owned());
        });
        assert_eq!(from_file, Ok(()));
        let key = ground.dir.join("key");
        std::fs::write(&key, KEY).unwrap();
        let by_key = with(&|c| {
            c.password = None;
            c.key_file = Some(key.to_str().unwrap().to_owned());
        });
        assert_eq!(by_key, Ok(()));
        let refused = with(&|c| c.port = 1);
        assert!(matches!(refused, Err(RemoteError::Connection(_))));
    });
}
