//! WebHDFS through the router, as a client sees it.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use base::env::sim_disk::SimDisk;
use base::{Env, GroupId, TaskGroup};
use blocks::{BlockOptions, BlockService, BlockShared};
use bytes::Bytes;
use consensus::solo::{SoloGroup, SoloPeers};
use consensus::tags;
use serde_json::Value;
use tower::ServiceExt;

use crate::gateway::{HdfsConfig, HdfsGateway};
use crate::handler::{App, Role, router};

struct Web {
    name_node: Router,
    data_node: Router,
    service: Arc<BlockService>,
}

struct Answer {
    status: u16,
    location: String,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> (u16, String, String) {
        let error = &self.json()["RemoteException"];
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        (self.status, text("javaClassName"), text("message"))
    }
}

fn web() -> Web {
    let env = Env { disk: Arc::new(SimDisk::new(1)), ..Env::real() };
    let options = BlockOptions { reserve_bytes: 0, ..BlockOptions::default() };
    let shared = BlockShared::new(env.clone(), Path::new("/data"), options).unwrap();
    let group = SoloGroup::new(GroupId::FS, vec![(tags::BLOCKS, shared.machine())]);
    let peers = Arc::new(SoloPeers::default());
    let service = BlockService::new(shared, group, peers, TaskGroup::new());
    let ports = ["127.0.0.1:9870", "127.0.0.1:9864"].map(|a| a.parse().unwrap());
    let config = HdfsConfig::new(ports[0], ports[1]);
    let app = Arc::new(App { config, service: service.clone(), clock: env.clock });
    let data_node = router(app.clone(), Role::DataNode);
    Web { name_node: router(app, Role::NameNode), data_node, service }
}

impl Web {
    async fn send(&self, role: Role, method: &str, uri: &str, body: &[u8]) -> Answer {
        let router = if role == Role::NameNode { &self.name_node } else { &self.data_node };
        let request = Request::builder()
            .method(method)
            .uri(uri.as_bytes())
            .header("host", "files.example:9870")
            .header("content-length", body.len())
            .body(Body::from(body.to_vec()))
            .unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let location = response.headers().get("location");
        let location = location.map_or("", |l| l.to_str().unwrap()).to_owned();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 64 << 20).await.unwrap();
        Answer { status, location, body }
    }

    async fn call(&self, method: &str, path: &str, query: &str) -> Answer {
        let uri = format!("/webhdfs/v1{path}?user.name=root&{query}");
        self.send(Role::NameNode, method, &uri, b"").await
    }

    /// Both steps.
    async fn follow(&self, method: &str, path: &str, query: &str, body: &[u8]) -> Answer {
        let first = self.call(method, path, query).await;
        assert_eq!(first.status, 307, "{:?}", first.body);
        let prefix = "http://files.example:9864";
        let second = first.location.strip_prefix(prefix).expect("under the host of the request");
        self.send(Role::DataNode, method, second, body).await
    }
}

#[tokio::test]
async fn a_korean_file_goes_in_and_comes_out() {
    let web = web();
    let text = "회의 내용\n".repeat(10);
    for path in ["/뉴스/회의 1+2%25.txt".replace(' ', "%20"), "/%EB%89%B4/a".to_owned()] {
        let made = web.follow("PUT", &path, "op=CREATE", text.as_bytes()).await;
        assert_eq!(made.status, 201);
        assert!(made.location.starts_with("webhdfs://files.example:9870/"), "{}", made.location);
        let got = web.follow("GET", &path, "op=open&offset=7&length=6", b"").await;
        assert_eq!((got.status, &got.body[..]), (200, &text.as_bytes()[7..13]));
    }
    let listing = web.call("GET", "/뉴스", "op=LISTSTATUS").await.json();
    let entry = &listing["FileStatuses"]["FileStatus"][0];
    assert_eq!(entry["pathSuffix"], "회의 1+2%.txt");
    assert_eq!(entry["length"], text.len());
    assert_eq!((&entry["type"], &entry["permission"]), (&"FILE".into(), &"644".into()));
    let status = web.call("GET", "/뉴스", "op=GETFILESTATUS").await.json();
    assert_eq!(status["FileStatus"]["type"], "DIRECTORY");
    assert_eq!(status["FileStatus"]["childrenNum"], 1);
}

#[tokio::test]
async fn large_bodies_stream_through() {
    let web = web();
    let data: Vec<u8> = (0..5_000_000u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    assert_eq!(web.follow("PUT", "/big", "op=CREATE", &data).await.status, 201);
    assert_eq!(web.follow("POST", "/big", "op=APPEND", b"tail").await.status, 200);
    let got = web.follow("GET", "/big", "op=OPEN", b"").await;
    assert_eq!(got.body.len(), 5_000_004);
    assert_eq!(got.body[..5_000_000], data[..]);
    let over = web.call("GET", "/big", "op=OPEN&offset=5000005").await.error();
    assert_eq!(
        over,
        (
            403,
            "java.io.IOException".into(),
            "Offset=5000005 out of the range [0, 5000004); OPEN, path=/big".into()
        )
    );
    let summary = web.call("GET", "/", "op=GETCONTENTSUMMARY").await.json();
    assert_eq!(summary["ContentSummary"]["length"], 5_000_004);
    assert_eq!(summary["ContentSummary"]["spaceConsumed"], 15_000_012);
}

#[tokio::test]
async fn errors_are_remote_exceptions() {
    let web = web();
    web.follow("PUT", "/d/f", "op=CREATE", b"x").await;
    let check = async |method: &str, path: &str, query: &str, status, class: &str, text: &str| {
        let (got, java, message) = web.call(method, path, query).await.error();
        assert_eq!((got, &*java), (status, class), "{message}");
        assert_eq!(message, text);
    };
    let missing = "java.io.FileNotFoundException";
    check("GET", "/zz", "op=GETFILESTATUS", 404, missing, "File does not exist: /zz").await;
    check("GET", "/zz", "op=LISTSTATUS", 404, missing, "File /zz does not exist.").await;
    check("GET", "/zz", "op=OPEN", 404, missing, "File /zz not found.").await;
    check("GET", "/d", "op=OPEN", 404, missing, "Path is not a file: /d").await;
    let exists = "org.apache.hadoop.fs.FileAlreadyExistsException";
    let text = "/d/f for client unknown already exists";
    check("PUT", "/d/f", "op=CREATE", 403, exists, text).await;
    let not_empty = "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException";
    let text = "`/d is non empty': Directory is not empty";
    check("DELETE", "/d", "op=DELETE", 403, not_empty, text).await;
    let unsupported = "java.lang.UnsupportedOperationException";
    check("POST", "/d/f", "op=TRUNCATE", 400, unsupported, "op=TRUNCATE is not supported").await;
    let denied = "/webhdfs/v1/x?op=MKDIRS&user.name=bob";
    let denied = web.send(Role::NameNode, "PUT", denied, b"").await.error();
    assert_eq!(denied.1, "org.apache.hadoop.security.AccessControlException");
    let odd = web.call("PUT", "/a:b", "op=MKDIRS").await.error();
    assert_eq!((odd.0, &*odd.1), (400, "org.apache.hadoop.fs.InvalidPathException"));
    let long = format!("/{}", "x".repeat(256));
    let long = web.call("PUT", &long, "op=MKDIRS").await.json();
    assert_eq!(long["RemoteException"]["exception"], "PathComponentTooLongException");
}

#[tokio::test]
async fn attributes_are_set_and_shown() {
    let web = web();
    web.follow("PUT", "/f", "op=CREATE&permission=600&replication=2", b"0123456789").await;
    assert_eq!(web.call("PUT", "/f", "op=SETOWNER&owner=alice&group=users").await.status, 200);
    web.call("PUT", "/f", "op=SETTIMES&modificationtime=1000").await;
    let reply = web.call("PUT", "/f", "op=SETREPLICATION&replication=1").await.json();
    assert_eq!(reply["boolean"], true);
    let status = web.call("GET", "/f", "op=GETFILESTATUS").await.json();
    let status = &status["FileStatus"];
    assert_eq!((&status["owner"], &status["group"]), (&"alice".into(), &"users".into()));
    assert_eq!((&status["permission"], &status["replication"]), (&"600".into(), &1.into()));
    assert_eq!(status["modificationTime"], 1000);
    web.call("PUT", "/f", "op=SETPERMISSION&permission=1777").await;
    let acl = web.call("GET", "/f", "op=GETACLSTATUS").await.json();
    assert_eq!(acl["AclStatus"]["stickyBit"], true);
    let sum = web.follow("GET", "/f", "op=GETFILECHECKSUM", b"").await.json();
    assert_eq!(sum["FileChecksum"]["algorithm"], "MD5-of-0MD5-of-512CRC32C");
    assert_eq!(sum["FileChecksum"]["bytes"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn rename_and_delete_answer_booleans() {
    let web = web();
    web.follow("PUT", "/a", "op=CREATE", b"x").await;
    let rename = |query: &'static str| web.call("PUT", "/a", query);
    assert_eq!(rename("op=RENAME&destination=/no/b").await.json()["boolean"], false);
    assert_eq!(rename("op=RENAME&destination=b").await.status, 400);
    web.follow("PUT", "/b", "op=CREATE", b"y").await;
    let refused = rename("op=RENAME&destination=/b&renameoptions=NONE").await;
    assert_eq!(refused.error().2, "rename destination /b already exists");
    let done = rename("op=RENAME&destination=/b&renameoptions=OVERWRITE").await;
    assert_eq!((done.status, done.body.len()), (200, 0));
    assert_eq!(web.call("DELETE", "/b", "op=DELETE").await.json()["boolean"], true);
    assert_eq!(web.call("DELETE", "/b", "op=DELETE").await.json()["boolean"], false);
}

#[tokio::test]
async fn noredirect_and_direct_bodies() {
    let web = web();
    let told = web.call("PUT", "/a", "op=CREATE&noredirect=true").await;
    assert_eq!(told.status, 200);
    let location = told.json()["Location"].as_str().unwrap().to_owned();
    assert!(location.contains("&namenoderpcaddress=127.0.0.1:9870&overwrite=false"));
    let uri = "/webhdfs/v1/a?op=CREATE&user.name=root";
    assert_eq!(web.send(Role::NameNode, "PUT", uri, b"at once").await.status, 201);
    let uri = "/webhdfs/v1/a?op=OPEN&user.name=root";
    assert_eq!(&web.send(Role::DataNode, "GET", uri, b"").await.body[..], b"at once");
    let home = web.send(Role::NameNode, "GET", "/webhdfs/v1?op=GETHOMEDIRECTORY", b"").await;
    assert_eq!(home.json()["Path"], "/user/dr.who");
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_no_file() {
    let web = web();
    let parts = (0..3).map(|_| Ok(Bytes::from(vec![1u8; 1 << 20])));
    let broken = parts.chain([Err(std::io::Error::other("gone"))]);
    let request = Request::builder()
        .method("PUT")
        .uri("/webhdfs/v1/broken?op=CREATE&user.name=root")
        .body(Body::from_stream(futures::stream::iter(broken)))
        .unwrap();
    let response = web.data_node.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(web.call("GET", "/broken", "op=GETFILESTATUS").await.status, 404);
}

#[tokio::test]
async fn pages_of_a_directory() {
    let web = web();
    for n in 0..1_050 {
        web.call("PUT", &format!("/many/{n:04}"), "op=MKDIRS").await;
    }
    let all = web.call("GET", "/many", "op=LISTSTATUS").await.json();
    assert_eq!(all["FileStatuses"]["FileStatus"].as_array().unwrap().len(), 1_050);
    let page = web.call("GET", "/many", "op=LISTSTATUS_BATCH&startAfter=0009").await.json();
    let listing = &page["DirectoryListing"];
    assert_eq!(listing["remainingEntries"], 40);
    let first = &listing["partialListing"]["FileStatuses"]["FileStatus"][0];
    assert_eq!(first["pathSuffix"], "0010");
}

#[tokio::test]
async fn the_ports_speak_http_and_survive_garbage() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let web = web();
    let any = "127.0.0.1:0".parse().unwrap();
    let tasks = TaskGroup::new();
    let config = HdfsConfig::new(any, any);
    let gateway =
        HdfsGateway::start(config, web.service.clone(), tasks.clone(), Env::real()).await.unwrap();
    let talk = async |bytes: &[u8]| {
        let mut stream = tokio::net::TcpStream::connect(gateway.name_node).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A connection that is reset is an answer, too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    talk(b"\x00\x01\x02 garbage\r\n\r\n").await;
    talk(&vec![b'a'; 200_000]).await;
    talk("GET /webhdfs/v1/x HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n".as_bytes())
        .await;
    let korean = "PUT /webhdfs/v1/회의?op=MKDIRS&user.name=root HTTP/1.1\r\nhost: a\r\n\
                  content-length: 0\r\n\r\n";
    let answer = talk(korean.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"boolean\":true}"));
    tasks.shutdown(std::time::Duration::from_secs(5)).await;
}
