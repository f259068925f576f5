//! Requests on their way into the log: those that wait while one proposal is in flight travel
//! together in the next one.

use std::sync::Arc;
use std::time::Duration;

use base::{TaskGroup, codec};
use consensus::{GroupRef, ProposeError, tags};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::warn;

use crate::command::{Outcome, Reply, Request};
use crate::error::BlockError;
use crate::limits::{MAX_BATCH_BYTES, MAX_BATCH_REQUESTS, PROPOSE_PATIENCE, PROPOSE_QUEUE};

/// Proposals in flight at once.
const IN_FLIGHT: usize = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

struct Waiting {
    request: Request,
    done: oneshot::Sender<Result<Reply, BlockError>>,
}

/// Hands requests to group `fs`.
pub(crate) struct Proposer {
    queue: mpsc::Sender<Waiting>,
}

impl Proposer {
    pub(crate) fn start(fs: GroupRef, tasks: &TaskGroup) -> Self {
        let (queue, waiting) = mpsc::channel(PROPOSE_QUEUE);
        tasks.spawn("fs-propose", run(fs, waiting, tasks.clone()));
        Self { queue }
    }

    /// Proposes a request and waits for its reply. Retried while there is no leader; a request
    /// without an operation id must be one that may act twice.
    pub(crate) async fn propose(&self, request: Request) -> Result<Outcome, BlockError> {
        let (done, reply) = oneshot::channel();
        let stopped = || BlockError::Unavailable("the node is stopping".to_owned());
        self.queue.send(Waiting { request, done }).await.map_err(|_| stopped())?;
        Ok(reply.await.map_err(|_| stopped())???)
    }
}

async fn run(fs: GroupRef, mut waiting: mpsc::Receiver<Waiting>, tasks: TaskGroup) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(first) = waiting.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let mut bytes = size(&first.request);
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH_REQUESTS
            && bytes < MAX_BATCH_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            bytes += size(&next.request);
            batch.push(next);
        }
        let fs = fs.clone();
        tasks.spawn("fs-proposal", async move {
            propose_batch(&fs, batch).await;
            drop(slot);
        });
    }
}

fn size(request: &Request) -> usize {
    codec::encode(request).len()
}

async fn propose_batch(fs: &GroupRef, batch: Vec<Waiting>) {
    let requests: Vec<&Request> = batch.iter().map(|waiting| &waiting.request).collect();
    let command = bytes::Bytes::from(codec::encode(&requests));
    let result = propose_patiently(fs, command).await;
    let replies = result.and_then(|bytes| {
        let replies = codec::decode::<Vec<Reply>>(&bytes);
        let replies = replies.map_err(|e| BlockError::Unavailable(e.to_string()))?;
        if replies.len() == batch.len() {
            return Ok(replies);
        }
        let text = replies.into_iter().find_map(Result::err).map(|e| e.message);
        Err(BlockError::Unavailable(text.unwrap_or_else(|| "replies are missing".to_owned())))
    });
    match replies {
        Ok(replies) => {
            for (waiting, reply) in batch.into_iter().zip(replies) {
                // A caller that went away does not need the answer.
                let _ = waiting.done.send(Ok(reply));
            }
        }
        Err(error) => {
            for waiting in batch {
                let _ = waiting.done.send(Err(copy(&error)));
            }
        }
    }
}

fn copy(error: &BlockError) -> BlockError {
    match error {
        BlockError::NoSpace(text) => BlockError::NoSpace(text.clone()),
        other => BlockError::Unavailable(other.to_string()),
    }
}

async fn propose_patiently(
    fs: &GroupRef,
    command: bytes::Bytes,
) -> Result<bytes::Bytes, BlockError> {
    let deadline = tokio::time::Instant::now() + PROPOSE_PATIENCE;
    loop {
        let error = match fs.propose(tags::BLOCKS, command.clone()).await {
            Ok(applied) => return Ok(applied.reply),
            Err(error) => error,
        };
        let retry = matches!(error, ProposeError::NotLeader { .. } | ProposeError::Unknown { .. });
        if !retry || tokio::time::Instant::now() >= deadline {
            warn!(%error, "a namespace command failed");
            return Err(error.into());
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
