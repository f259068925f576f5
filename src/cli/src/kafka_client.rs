//! A small blocking Kafka client: what the demo's read-back and the benchmarks need.
//!
//! Speaks fixed versions with the plain (not flexible) encoding: Metadata 4, CreateTopics 2,
//! Produce 7, Fetch 4, ListOffsets 1. No compression, no groups. Answers are read with every
//! length checked against what is there.

pub mod batch;
mod poller;
mod wire;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::kafka_client::wire::{Reader, Writer};

pub use poller::{Poll, Poller};

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 128 << 20;
/// How long a broker may be silent.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most elements of an array in an answer.
const MAX_ELEMENTS: usize = 100_000;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const CREATE_TOPICS: i16 = 19;

/// Error code of a broker that does not lead the partition, or no longer.
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
/// Error code of an existing topic.
const TOPIC_ALREADY_EXISTS: i16 = 36;
/// Timestamp that asks ListOffsets for the first offset.
const EARLIEST: i64 = -2;
/// Timestamp that asks ListOffsets for the next offset.
const LATEST: i64 = -1;

/// Where the partitions of a topic are led.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Partition to the address of its leader.
    pub leaders: BTreeMap<i32, String>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    next_id: i32,
}

/// The leader of a partition moved; a batch that is answered so was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the leader of partition {partition} moved")]
pub struct LeaderMoved {
    pub partition: i32,
}

/// The answer to a Produce of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the batch's first record.
    pub base_offset: i64,
}

/// The answer to a Fetch of one partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Offset behind the last readable record.
    pub high_watermark: i64,
    /// Whole record batches; the last may be cut.
    pub records: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn open(address: &str) -> anyhow::Result<Self> {
        let found = address.to_socket_addrs().with_context(|| address.to_owned())?.next();
        let found = found.with_context(|| format!("{address} has no address"))?;
        let stream = TcpStream::connect_timeout(&found, TIMEOUT)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, next_id: 0 })
    }

    /// A second handle, so that one thread sends and another receives.
    pub fn split(&self) -> anyhow::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, next_id: self.next_id })
    }

    /// Sends one request; answers come in the order of requests.
    fn send(&mut self, key: i16, version: i16, body: Writer) -> anyhow::Result<()> {
        let body = body.into_bytes();
        let mut frame = Writer::default();
        frame.i16(key).i16(version).i32(self.next_id).string("trine");
        self.next_id = self.next_id.wrapping_add(1);
        let head = frame.into_bytes();
        let size = i32::try_from(head.len() + body.len()).context("request too large")?;
        let mut bytes = Vec::with_capacity(4 + head.len() + body.len());
        bytes.extend(size.to_be_bytes());
        bytes.extend(head);
        bytes.extend(body);
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Receives the next answer without its correlation id.
    fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).context("the broker closed the connection")?;
        let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if !(4..=MAX_ANSWER_BYTES).contains(&size) {
            bail!("an answer of {size} bytes");
        }
        let mut bytes = vec![0; size];
        self.stream.read_exact(&mut bytes).context("the answer ends early")?;
        Ok(bytes.split_off(4))
    }

    /// Leaders of a topic's partitions; those without one are left out.
    pub fn leaders(&mut self, name: &str) -> anyhow::Result<BTreeMap<i32, String>> {
        Ok(self.describe(name)?.into_iter().filter_map(|(p, a)| Some((p, a?))).collect())
    }

    /// Leaders of a topic's partitions; fails while one has none.
    pub fn topic(&mut self, name: &str) -> anyhow::Result<Topic> {
        let found = self.describe(name)?.into_iter();
        let missing = || anyhow!("{name} has a partition without leader");
        let leaders: anyhow::Result<_> =
            found.map(|(p, address)| Ok((p, address.ok_or_else(missing)?))).collect();
        Ok(Topic { leaders: leaders? })
    }

    fn describe(&mut self, name: &str) -> anyhow::Result<Described> {
        let mut body = Writer::default();
        body.i32(1).string(name).i8(0);
        self.send(METADATA, 4, body)?;
        let bytes = self.receive()?;
        parse_topic(&mut Reader::new(&bytes), name)
    }

    /// Creates a topic unless it exists.
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> anyhow::Result<()> {
        let mut body = Writer::default();
        body.i32(1).string(name).i32(partitions).i16(3).i32(0).i32(0).i32(30_000).i8(0);
        self.send(CREATE_TOPICS, 2, body)?;
        let bytes = self.receive()?;
        let mut answer = Reader::new(&bytes);
        answer.i32()?;
        for _ in 0..answer.count(MAX_ELEMENTS)? {
            let (topic, error) = (answer.string()?, answer.i16()?);
            let text = answer.nullable_string()?.unwrap_or_default();
            if error != 0 && error != TOPIC_ALREADY_EXISTS {
                bail!("cannot create topic {topic}: error {error} {text}");
            }
        }
        Ok(())
    }

    /// Sends one batch with acks=all.
    pub fn send_produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: &[u8],
    ) -> anyhow::Result<()> {
        let mut body = Writer::default();
        body.null_string().i16(-1).i32(30_000).i32(1).string(topic);
        body.i32(1).i32(partition).bytes(batch);
        self.send(PRODUCE, 7, body)
    }

    /// Receives the answer to the oldest unanswered [`Self::send_produce`]; [`LeaderMoved`] among
    /// its errors.
    pub fn receive_produced(&mut self) -> anyhow::Result<Produced> {
        let bytes = self.receive()?;
        let mut answer = Reader::new(&bytes);
        let mut produced = None;
        for _ in 0..answer.count(MAX_ELEMENTS)? {
            answer.string()?;
            for _ in 0..answer.count(MAX_ELEMENTS)? {
                let (partition, error) = (answer.i32()?, answer.i16()?);
                let base_offset = answer.i64()?;
                answer.i64()?;
                answer.i64()?;
                if error == NOT_LEADER_OR_FOLLOWER {
                    return Err(LeaderMoved { partition }.into());
                }
                if error != 0 {
                    bail!("produce to partition {partition}: error {error}");
                }
                produced = Some(Produced { base_offset });
            }
        }
        produced.context("a produce answer without partition")
    }

    /// Fetches one partition from `offset`, waiting up to half a second for records.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
    ) -> anyhow::Result<Fetched> {
        let mut body = Writer::default();
        body.i32(-1).i32(500).i32(1).i32(max_bytes).i8(0).i32(1).string(topic);
        body.i32(1).i32(partition).i64(offset).i32(max_bytes);
        self.send(FETCH, 4, body)?;
        let bytes = self.receive()?;
        let mut answer = Reader::new(&bytes);
        answer.i32()?;
        let mut fetched = None;
        for _ in 0..answer.count(MAX_ELEMENTS)? {
            answer.string()?;
            for _ in 0..answer.count(MAX_ELEMENTS)? {
                let (partition, error) = (answer.i32()?, answer.i16()?);
                let (high_watermark, _stable) = (answer.i64()?, answer.i64()?);
                for _ in 0..answer.nullable_count(MAX_ELEMENTS)? {
                    answer.i64()?;
                    answer.i64()?;
                }
                let records = answer.nullable_bytes()?.unwrap_or_default().to_vec();
                if error != 0 {
                    bail!("fetch of partition {partition} at {offset}: error {error}");
                }
                fetched = Some(Fetched { high_watermark, records });
            }
        }
        fetched.context("a fetch answer without partition")
    }

    /// First and next offset of a partition.
    pub fn offsets(&mut self, topic: &str, partition: i32) -> anyhow::Result<(i64, i64)> {
        Ok((
            self.list_offset(topic, partition, EARLIEST)?,
            self.list_offset(topic, partition, LATEST)?,
        ))
    }

    fn list_offset(&mut self, topic: &str, partition: i32, time: i64) -> anyhow::Result<i64> {
        let mut body = Writer::default();
        body.i32(-1).i32(1).string(topic).i32(1).i32(partition).i64(time);
        self.send(LIST_OFFSETS, 1, body)?;
        let bytes = self.receive()?;
        let mut answer = Reader::new(&bytes);
        let mut found = None;
        for _ in 0..answer.count(MAX_ELEMENTS)? {
            answer.string()?;
            for _ in 0..answer.count(MAX_ELEMENTS)? {
                let (partition, error) = (answer.i32()?, answer.i16()?);
                let (_time, offset) = (answer.i64()?, answer.i64()?);
                if error != 0 {
                    bail!("offsets of partition {partition}: error {error}");
                }
                found = Some(offset);
            }
        }
        found.context("an offsets answer without partition")
    }
}

/// Partition to the address of its leader, where it has one.
type Described = BTreeMap<i32, Option<String>>;

fn parse_topic(answer: &mut Reader<'_>, name: &str) -> anyhow::Result<Described> {
    answer.i32()?;
    let mut brokers = BTreeMap::new();
    for _ in 0..answer.count(MAX_ELEMENTS)? {
        let (id, host, port) = (answer.i32()?, answer.string()?, answer.i32()?);
        answer.nullable_string()?;
        brokers.insert(id, format!("{host}:{port}"));
    }
    answer.nullable_string()?;
    answer.i32()?;
    let mut leaders = BTreeMap::new();
    for _ in 0..answer.count(MAX_ELEMENTS)? {
        let (error, found) = (answer.i16()?, answer.string()?);
        answer.i8()?;
        if error != 0 {
            bail!("topic {found}: error {error}");
        }
        for _ in 0..answer.count(MAX_ELEMENTS)? {
            let (_error, partition, leader) = (answer.i16()?, answer.i32()?, answer.i32()?);
            for _ in 0..2 {
                for _ in 0..answer.count(MAX_ELEMENTS)? {
                    answer.i32()?;
                }
            }
            leaders.insert(partition, brokers.get(&leader).cloned());
        }
    }
    if leaders.is_empty() {
        bail!("topic {name} has no partitions");
    }
    Ok(leaders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(leader: i32) -> Vec<u8> {
        let mut w = Writer::default();
        w.i32(0).i32(1).i32(2).string("h").i32(9).null_string().null_string().i32(2);
        w.i32(1).i16(0).string("t").i8(0).i32(1).i16(0).i32(0).i32(leader);
        w.i32(1).i32(2).i32(1).i32(2);
        w.into_bytes()
    }

    #[test]
    fn metadata_names_the_leader() {
        let named = |leader| parse_topic(&mut Reader::new(&metadata(leader)), "t").unwrap();
        assert_eq!(named(2), BTreeMap::from([(0, Some("h:9".to_owned()))]));
        assert_eq!(named(-1), BTreeMap::from([(0, None)]));
    }

    #[test]
    fn cut_metadata_is_an_error() {
        let bytes = metadata(2);
        for end in 0..bytes.len() {
            assert!(parse_topic(&mut Reader::new(&bytes[..end]), "t").is_err(), "{end}");
        }
    }
}
