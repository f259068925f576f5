//! Long polls of many partitions: Fetch 11, with or without a session.

use anyhow::bail;

use super::wire::{Reader, Writer};
use super::{Connection, FETCH};

/// How long a poll waits for records, as consumers do by default.
const MAX_WAIT_MS: i32 = 500;
/// Bytes of one answer.
const MAX_BYTES: i32 = 1 << 20;
/// The epoch of a request outside any session.
const NO_SESSION: i32 = -1;

/// How a poller names its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// All in every request.
    Whole,
    /// Once, in a fetch session.
    Session,
}

/// Polls partitions of one topic at their leader, always from their first offset.
#[derive(Debug)]
pub struct Poller {
    connection: Connection,
    topic: String,
    partitions: Vec<i32>,
    session: i32,
    epoch: i32,
}

impl Connection {
    /// A poller of these partitions over this connection.
    pub fn poller(self, topic: &str, partitions: &[i32], how: Poll) -> Poller {
        Poller {
            connection: self,
            topic: topic.to_owned(),
            partitions: partitions.to_owned(),
            session: 0,
            epoch: if how == Poll::Session { 0 } else { NO_SESSION },
        }
    }
}

impl Poller {
    /// Waits for records at most half a second. Fails when the session is lost.
    pub fn poll(&mut self) -> anyhow::Result<()> {
        let mut body = Writer::default();
        body.i32(-1).i32(MAX_WAIT_MS).i32(1).i32(MAX_BYTES).i8(0);
        body.i32(self.session).i32(self.epoch);
        if self.epoch > 0 {
            body.i32(0);
        } else {
            body.i32(1).string(&self.topic);
            body.i32(i32::try_from(self.partitions.len())?);
            for partition in &self.partitions {
                body.i32(*partition).i32(-1).i64(0).i64(-1).i32(MAX_BYTES);
            }
        }
        body.i32(0).string("");
        self.connection.send(FETCH, 11, body)?;
        let bytes = self.connection.receive()?;
        let mut answer = Reader::new(&bytes);
        let (_throttled, error, session) = (answer.i32()?, answer.i16()?, answer.i32()?);
        if error != 0 {
            bail!("fetch in session {}: error {error}", self.session);
        }
        if self.epoch == 0 && session == 0 {
            bail!("the broker refused a fetch session");
        }
        if self.epoch != NO_SESSION {
            (self.session, self.epoch) = (session, self.epoch + 1);
        }
        Ok(())
    }
}
