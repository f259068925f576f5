//! The smallest replicated thing: a list of values, and clients that append to it and read it.

use std::sync::Arc;
use std::time::Duration;

use base::GroupId;
use base::env::{Random, SeededRandom};
use bytes::Bytes;
use consensus::{ApplyAt, Fatal, Group, ProposeError, Rows, StateMachine};

use crate::history::{Append, Outcome, Sending};
use crate::node::Life;
use crate::world::World;

/// Tag of the list's commands and rows.
pub const TAG: u8 = 9;

/// Remembers every value it was given, in order: an apply that is lost, doubled or reordered
/// shows in the rows.
#[derive(Debug, Default)]
pub struct List {
    len: u64,
}

impl StateMachine for List {
    fn apply(
        &mut self,
        _at: &ApplyAt,
        command: Bytes,
        rows: &mut Rows<'_>,
    ) -> Result<Bytes, Fatal> {
        rows.put(&self.len.to_be_bytes(), command);
        self.len += 1;
        Ok(Bytes::copy_from_slice(&(self.len - 1).to_be_bytes()))
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        self.len = rows.scan(b"")?.len() as u64;
        Ok(())
    }
}

/// The name of a group's list in the history.
pub fn name(group: GroupId) -> String {
    format!("list {group}")
}

/// All values of a group's list as a node holds them.
pub fn values(life: &Life, group: GroupId) -> Result<Vec<String>, String> {
    let rows = life.cluster.reader(group, TAG).scan(b"", None, usize::MAX);
    let rows = rows.map_err(|e| e.to_string())?;
    let text = |value: Bytes| String::from_utf8_lossy(&value).into_owned();
    Ok(rows.into_iter().map(|(_, value)| text(value)).collect())
}

/// A value that no other has, of up to 4 KiB, now and then of 48 KiB.
pub(crate) fn unique(random: &SeededRandom, client: u64, number: u64) -> String {
    let most = if random.below(40) == 0 { 48 << 10 } else { 4 << 10 };
    let padding = usize::try_from(random.below(most)).unwrap_or(0);
    format!("{client}/{number}/{}", "x".repeat(padding))
}

/// Appends and reads, one after the other, until the world asks for quiet.
pub async fn run_client(world: Arc<World>, client: u64) {
    let random = SeededRandom::new(world.seed ^ (client << 32));
    let mut number = 0;
    while !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(random.below(80))).await;
        let Some(life) = world.random_life(&random) else { continue };
        let groups = life.cluster.groups();
        let Some(group) = groups.data.get(usize::from(random.below(2) == 1)) else { continue };
        if random.below(4) == 0 {
            read(&world, &life, &**group).await;
            continue;
        }
        append(&world, &life, &**group, client, number, unique(&random, client, number)).await;
        number += 1;
    }
}

async fn append(
    world: &World,
    life: &Life,
    group: &dyn Group,
    client: u64,
    number: u64,
    value: String,
) {
    let log = name(group.id());
    let floor = world.history.lock().floor(&log);
    let outcome = tokio::select! {
        () = life.ended.cancelled() => Outcome::Unknown,
        result = group.propose(TAG, value.clone().into()) => match result {
            Ok(applied) => match applied.reply[..].try_into() {
                Ok(place) => Outcome::Acked(u64::from_be_bytes(place)),
                Err(_) => return world.history.lock().violate("a reply is no place".to_owned()),
            },
            Err(ProposeError::Unknown { .. }) => Outcome::Unknown,
            Err(_) => Outcome::NotDone,
        },
    };
    let sending = Sending::Plain;
    let append = Append { log, client, number, sending, value, floor, outcome };
    world.history.lock().ended(append);
}

/// What was acknowledged before a read barrier must be there after it.
async fn read(world: &World, life: &Life, group: &dyn Group) {
    let log = name(group.id());
    let Some(floor) = world.history.lock().floor(&log) else { return };
    let confirmed = tokio::select! {
        () = life.ended.cancelled() => false,
        result = group.read_barrier() => result.is_ok(),
    };
    if !confirmed {
        return;
    }
    let found = life.cluster.reader(group.id(), TAG).get(&floor.to_be_bytes());
    let mut history = world.history.lock();
    match (found, history.acked_at(&log, floor).map(str::to_owned)) {
        (Ok(Some(found)), Some(expected)) if found == expected => {}
        (Err(e), _) => history.violate(format!("{log} cannot be read: {e}")),
        (Ok(found), expected) => {
            let node = life.node;
            history.violate(format!(
                "stale read on node {node}: {log} at {floor}: {found:?}, expected {expected:?}"
            ));
        }
    }
}
