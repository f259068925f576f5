//! Members of a group of the classic protocol.

use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use bytes::Bytes;
use log::groups::{GroupError, Heartbeat, Join, JoinReply, Leave, MemberName, Sync};

use super::owners::{Floor, Parts};
use super::{
    CLASSIC, PARTITIONS, REBALANCE_MS, SESSION_MS, Who, ask, commit, coordinator, fetch, is_lost,
    note, opened, patience, term,
};
use crate::node::Life;
use crate::world::World;

/// Longest pause between two requests of a member, in milliseconds.
const PAUSE_MS: u64 = 150;

struct Member {
    world: Arc<World>,
    random: SeededRandom,
    name: String,
    /// Static name.
    instance: Option<String>,
    /// Empty for one who is not in the group.
    id: String,
    generation: i32,
    parts: Parts,
    /// A static member's generation before it came back under no id.
    left: Option<i32>,
}

/// What to do after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Go on in this generation.
    Stay,
    /// Join, with the id that the member has.
    Join,
}

/// Joins and goes on until the world asks for quiet. Members with an even number are static.
pub async fn run_member(world: Arc<World>, number: u64) {
    let random = SeededRandom::new(world.seed ^ (number << 36) ^ 0xc1a5);
    let instance = number.is_multiple_of(2).then(|| format!("static-{number}"));
    let (name, id, parts) = (format!("member-{number}"), String::new(), Parts::new());
    opened(&world).await;
    let mut member =
        Member { world, random, name, instance, id, generation: -1, parts, left: None };
    while !member.world.is_quiet() {
        member.pause(PAUSE_MS).await;
        if let Some(reply) = member.join().await
            && member.sync(reply).await
        {
            while !member.world.is_quiet() && member.live().await == Next::Stay {
                member.pause(PAUSE_MS).await;
            }
        }
    }
}

impl Member {
    async fn pause(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.below(most_ms))).await;
    }

    fn owner(&self) -> &str {
        self.instance.as_deref().unwrap_or(&self.id)
    }

    fn coordinator(&self) -> Option<(Arc<Life>, Option<u64>, Floor)> {
        let life = coordinator(&self.world, &self.random, CLASSIC)?;
        let term = term(&life, CLASSIC);
        let floor = self.world.groups.lock().classic.floor(term);
        Some((life, term, floor))
    }

    /// What follows from a refusal.
    fn refused(&mut self, error: GroupError) -> Next {
        match error {
            GroupError::NotCoordinator | GroupError::CoordinatorNotAvailable => Next::Stay,
            GroupError::RebalanceInProgress | GroupError::IllegalGeneration => Next::Join,
            GroupError::UnknownMemberId | GroupError::FencedInstanceId => {
                self.id.clear();
                self.left = None;
                Next::Join
            }
            other => {
                note(&self.world, CLASSIC, Err(format!("{} was told {other}", self.name)));
                Next::Join
            }
        }
    }

    async fn join(&mut self) -> Option<JoinReply> {
        let (life, _, _) = self.coordinator()?;
        let join = Join {
            group: CLASSIC.to_owned(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            client_id: self.name.clone(),
            client_host: "/sim".to_owned(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"all"))],
            require_known_id: self.random.below(2) == 0,
            can_skip_assignment: self.random.below(2) == 0,
        };
        let patience = patience(&self.world, &self.random);
        let reply = ask(&life, patience, life.groups.join(join)).await?;
        if is_lost(&self.world, &self.random) {
            return None;
        }
        match reply.error {
            None => {
                self.id.clone_from(&reply.member);
                return Some(reply);
            }
            Some(GroupError::MemberIdRequired) => self.id.clone_from(&reply.member),
            Some(error) => {
                self.refused(error);
            }
        }
        None
    }

    /// Asks for the assignment, with everybody's when this member leads; whether it got it.
    async fn sync(&mut self, joined: JoinReply) -> bool {
        let leads = joined.leader == self.id && !joined.skip_assignment;
        let members: Vec<&str> = joined.members.iter().map(|m| &m.id[..]).collect();
        let sync = Sync {
            group: CLASSIC.to_owned(),
            generation: joined.generation,
            member: self.id.clone(),
            instance: self.instance.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol: joined.protocol.clone(),
            assignments: if leads { self.assign(&members) } else { Vec::new() },
        };
        for _ in 0..3 {
            let Some((life, begun, floor)) = self.coordinator() else { continue };
            let patience = patience(&self.world, &self.random);
            let answer = ask(&life, patience, life.groups.sync(sync.clone())).await;
            match answer.filter(|_| !is_lost(&self.world, &self.random)) {
                Some(Ok(reply)) => {
                    self.parts = reply.assignment.iter().map(|n| u32::from(*n)).collect();
                    self.generation = joined.generation;
                    let same = begun.filter(|_| begun == term(&life, CLASSIC));
                    self.told(floor, same);
                    return true;
                }
                Some(Err(error)) if self.refused(error) == Next::Join => return false,
                Some(Err(_)) | None => self.pause(PAUSE_MS).await,
            }
        }
        false
    }

    /// Deals the partitions out.
    fn assign(&self, members: &[&str]) -> Vec<(String, Bytes)> {
        let first = self.random.below(members.len() as u64);
        let mut dealt = vec![Vec::new(); members.len()];
        let turns = (0..members.len()).cycle().skip(usize::try_from(first).unwrap_or(0));
        for (turn, partition) in turns.zip(0..PARTITIONS.0) {
            if let Some(hand) = dealt.get_mut(turn) {
                hand.push(u8::try_from(partition).unwrap_or(u8::MAX));
            }
        }
        let each = members.iter().zip(dealt);
        each.map(|(id, hand)| ((*id).to_owned(), Bytes::from(hand))).collect()
    }

    fn told(&mut self, floor: Floor, term: Option<u64>) {
        let mut record = self.world.groups.lock();
        let owner = self.owner().to_owned();
        let told = record.classic.told(floor, term, self.generation, &owner, &self.parts);
        if self.left.take() == Some(self.generation) {
            record.classic.kept += 1;
        }
        drop(record);
        note(&self.world, CLASSIC, told);
    }

    /// One step of a member that has its assignment.
    async fn live(&mut self) -> Next {
        match self.random.below(200) {
            0 if !self.world.is_calm() => self.go(),
            1 if !self.world.is_calm() => {
                // It falls silent, for less or more than a session.
                self.pause(2 * SESSION_MS.unsigned_abs()).await;
                self.come_back();
                Next::Join
            }
            2..30 => {
                fetch(&self.world, &self.random, CLASSIC).await;
                Next::Stay
            }
            30..110 => {
                self.commit().await;
                Next::Stay
            }
            _ => self.beat().await,
        }
    }

    async fn commit(&self) {
        let number = usize::try_from(self.random.below(self.parts.len() as u64)).unwrap_or(0);
        if let Some(partition) = self.parts.iter().nth(number) {
            let who = Who {
                group: CLASSIC,
                member: self.id.clone(),
                instance: self.instance.clone(),
                epoch: self.generation,
            };
            commit(&self.world, &self.random, &who, *partition).await;
        }
    }

    async fn beat(&mut self) -> Next {
        let Some((life, _, floor)) = self.coordinator() else { return Next::Stay };
        let beat = Heartbeat {
            group: CLASSIC.to_owned(),
            generation: self.generation,
            member: self.id.clone(),
            instance: self.instance.clone(),
        };
        let answer = life.groups.heartbeat(&beat);
        if is_lost(&self.world, &self.random) {
            return Next::Stay;
        }
        match answer {
            Ok(()) => {
                let accepted = self.world.groups.lock().classic.accepted(floor, self.generation);
                note(&self.world, CLASSIC, accepted);
                Next::Stay
            }
            Err(GroupError::RebalanceInProgress) => {
                // As clients do, it commits before it gives its partitions up.
                self.commit().await;
                Next::Join
            }
            Err(error) => self.refused(error),
        }
    }

    /// Leaves for good; whoever comes next is new. A static member goes without a word.
    fn go(&mut self) -> Next {
        if self.instance.is_none()
            && let Some((life, _, _)) = self.coordinator()
        {
            let member = MemberName { id: self.id.clone(), instance: None };
            let leave = Leave { group: CLASSIC.to_owned(), members: vec![member] };
            // A member that leaves does not care.
            drop(life.groups.leave(&leave));
        }
        self.come_back();
        Next::Join
    }

    /// It begins anew, with nothing but its static name.
    fn come_back(&mut self) {
        self.id.clear();
        self.left = self.instance.as_ref().map(|_| self.generation);
    }
}
