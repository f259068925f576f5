//! The state machine of group `fs`, and what it shares with the service.

use std::path::Path;
use std::sync::Arc;

use base::{Env, codec};
use bytes::Bytes;
use consensus::{ApplyAt, Fatal, Rows, StateMachine};
use parking_lot::RwLock;

use crate::command::{Reply, Request};
use crate::error::{BlockError, FsError, FsErrorKind};
use crate::limits::ORPHAN_AGE;
use crate::namespace::Namespace;
use crate::store::Store;

/// Settings of the block store.
#[derive(Clone, Debug)]
pub struct BlockOptions {
    /// Free bytes below which block writes are refused.
    pub reserve_bytes: u64,
    /// Age at which bytes that nothing claims are removed.
    pub orphan_age: std::time::Duration,
    /// How long a deleted block stays readable for those who read it now.
    pub delete_grace: std::time::Duration,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            reserve_bytes: 256 << 20,
            orphan_age: ORPHAN_AGE,
            delete_grace: std::time::Duration::from_secs(5),
        }
    }
}

/// The namespace and the local blocks; made before the groups exist.
pub struct BlockShared {
    pub(crate) env: Env,
    pub(crate) options: BlockOptions,
    pub(crate) namespace: Arc<RwLock<Namespace>>,
    pub(crate) store: Store,
}

impl BlockShared {
    /// Opens the local blocks below `data_dir/blocks`. Blocks the thread while it reads indices.
    pub fn new(env: Env, data_dir: &Path, options: BlockOptions) -> Result<Arc<Self>, BlockError> {
        let dir = data_dir.join("blocks");
        env.disk.create_dir_all(&dir)?;
        env.disk.sync_dir(data_dir)?;
        let store = Store::open(&env, &dir, options.reserve_bytes)?;
        let namespace = Arc::new(RwLock::new(Namespace::new()));
        Ok(Arc::new(Self { env, options, namespace, store }))
    }

    /// The machine for tag [`consensus::tags::BLOCKS`] in group `fs`.
    pub fn machine(self: &Arc<Self>) -> Box<dyn StateMachine> {
        Box::new(Machine(self.clone()))
    }
}

struct Machine(Arc<BlockShared>);

impl StateMachine for Machine {
    fn apply(&mut self, at: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        let requests: Vec<Request> = match codec::decode(&command) {
            Ok(requests) => requests,
            Err(error) => {
                let refused = FsError::new(FsErrorKind::IllegalArgument, error.to_string());
                return Ok(codec::encode(&vec![Reply::Err(refused)]).into());
            }
        };
        let mut namespace = self.0.namespace.write();
        let replies: Vec<Reply> =
            requests.into_iter().map(|request| namespace.run(at.time_ms, request)).collect();
        namespace.flush(rows);
        Ok(codec::encode(&replies).into())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        *self.0.namespace.write() = Namespace::load(rows)?;
        Ok(())
    }
}
