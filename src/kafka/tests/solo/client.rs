//! A client of one connection.

use std::net::SocketAddr;
use std::time::Duration;

use base::TaskGroup;
use bytes::Bytes;
use kafka::codec::messages::*;
use kafka::codec::{ApiKey, Request, RequestBody, ResponseBody, decode_response, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an answer may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) next: i32,
}

impl Client {
    pub(crate) async fn start(tasks: &TaskGroup) -> Self {
        Self::connect(super::start("127.0.0.1:0".parse().unwrap(), tasks).await).await
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), next: 0 }
    }

    pub(crate) async fn send(&mut self, version: i16, body: impl Into<RequestBody>) -> ApiKey {
        self.next += 1;
        let body = body.into();
        let key = body.key();
        let client_id = Some("test".to_owned());
        let request = Request { version, correlation_id: self.next, client_id, body };
        let bytes = encode_request(&request).unwrap().concat();
        self.stream.write_all(&bytes).await.unwrap();
        key
    }

    pub(crate) async fn frame(&mut self) -> std::io::Result<Bytes> {
        let read = async {
            let size = self.stream.read_i32().await?;
            let mut frame = vec![0; usize::try_from(size).unwrap()];
            self.stream.read_exact(&mut frame).await?;
            Ok(Bytes::from(frame))
        };
        tokio::time::timeout(DEADLINE, read).await.expect("an answer in time")
    }

    pub(crate) async fn receive(&mut self, key: ApiKey, version: i16) -> (i32, ResponseBody) {
        let mut frame = self.frame().await.unwrap();
        decode_response(&mut frame, key, version).unwrap()
    }

    pub(crate) async fn ask(&mut self, version: i16, body: impl Into<RequestBody>) -> ResponseBody {
        let key = self.send(version, body).await;
        let (id, body) = self.receive(key, version).await;
        assert_eq!(id, self.next);
        body
    }

    pub(crate) async fn topic(&mut self, name: &str) {
        let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let ResponseBody::Metadata(answer) = self.ask(9, request).await else { panic!() };
        assert_eq!(answer.topics[0].error_code, 0);
        assert_eq!(answer.topics[0].partitions.len(), 3);
    }

    pub(crate) async fn closed(&mut self) {
        assert!(self.frame().await.is_err(), "the connection is closed without an answer");
    }
}
