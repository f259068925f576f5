//! What members of groups were told to own and what they were allowed to do, held against the
//! rules of both protocols. This module knows neither nodes nor time, other than numbers.
//!
//! An answer that a coordinator gives from memory is as old as its term: one that was deposed
//! without knowing says what was true before. So answers are compared with those of the same
//! term and of earlier ones, while commits, which are replicated, are compared with all.

use std::collections::{BTreeMap, BTreeSet};

/// Partitions by number.
pub type Parts = BTreeSet<u32>;

/// Generations of a group of the classic protocol.
#[derive(Debug, Default)]
pub struct Generations {
    /// By generation, and by static name or member id.
    assigned: BTreeMap<(i32, String), Parts>,
    told: Epochs,
    /// The newest generation that was told or in which something was committed.
    newest: i32,
    /// Static members that came back into the generation that they had left.
    pub kept: usize,
}

impl Generations {
    /// How far the group is known to be for everybody, and for a coordinator of a term. Ask when
    /// a request begins.
    pub fn floor(&self, term: Option<u64>) -> Floor {
        Floor { newest: self.newest, of_term: self.told.floor(term) }
    }

    /// A member was told its partitions of a generation; it has a static name, or an id.
    pub fn told(
        &mut self,
        floor: Floor,
        term: Option<u64>,
        generation: i32,
        owner: &str,
        parts: &Parts,
    ) -> Result<(), String> {
        let mut of_generation = self.assigned.range((generation, String::new())..);
        let same =
            |((at, other), _): &(&(i32, String), &Parts)| *at == generation && other != owner;
        let shares = |(_, theirs): &(&(i32, String), &Parts)| !theirs.is_disjoint(parts);
        if let Some(((_, other), theirs)) = of_generation.find(|e| same(e) && shares(e)) {
            return Err(format!(
                "generation {generation}: {owner} owns {parts:?} and {other} owns {theirs:?}"
            ));
        }
        let before = self.assigned.insert((generation, owner.to_owned()), parts.clone());
        if let Some(before) = before.filter(|before| before != parts) {
            return Err(format!(
                "generation {generation}: {owner} owned {before:?} and later {parts:?}"
            ));
        }
        self.told.told(floor.of_term, term, generation)?;
        self.newest = self.newest.max(generation);
        Ok(())
    }

    /// A heartbeat of a generation was accepted.
    pub fn accepted(&self, floor: Floor, generation: i32) -> Result<(), String> {
        if generation < floor.of_term {
            return Err(format!(
                "a heartbeat of generation {generation} was accepted after {}",
                floor.of_term
            ));
        }
        Ok(())
    }

    /// A commit of a generation was acknowledged.
    pub fn committed(&mut self, floor: Floor, generation: i32) -> Result<(), String> {
        if generation < floor.newest {
            return Err(format!(
                "a commit of generation {generation} was taken after {}",
                floor.newest
            ));
        }
        self.newest = self.newest.max(generation);
        Ok(())
    }

    /// The newest generation.
    pub fn newest(&self) -> i32 {
        self.newest
    }
}

/// How far a group was when a request began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// As anybody was told.
    pub newest: i32,
    /// As a coordinator of the request's term, or of an earlier one, told.
    pub of_term: i32,
}

/// Epochs, or generations, that coordinators told: lowest and highest of each term.
#[derive(Debug, Default)]
pub struct Epochs(BTreeMap<u64, (i32, i32)>);

impl Epochs {
    /// The highest that was told in a term, or before.
    pub fn floor(&self, term: Option<u64>) -> i32 {
        let Some(term) = term else { return 0 };
        self.0.range(..=term).map(|(_, (_, high))| *high).max().unwrap_or(0)
    }

    /// Notes what was told, and checks it as an epoch of the whole group.
    fn told(&mut self, floor: i32, term: Option<u64>, epoch: i32) -> Result<(), String> {
        let Some(term) = term else { return Ok(()) };
        if epoch < floor {
            return Err(format!("{epoch} was told in term {term}, after {floor}"));
        }
        let later = self.0.range(term + 1..).find(|(_, (low, _))| *low < epoch);
        if let Some((later, (low, _))) = later {
            return Err(format!("{epoch} was told in term {term}, and {low} in term {later}"));
        }
        self.note(term, epoch);
        Ok(())
    }

    fn note(&mut self, term: u64, epoch: i32) {
        let (low, high) = self.0.entry(term).or_insert((epoch, epoch));
        (*low, *high) = (epoch.min(*low), epoch.max(*high));
    }

    /// The highest of all.
    pub fn highest(&self) -> i32 {
        self.0.values().map(|(_, high)| *high).max().unwrap_or(0)
    }
}

/// Members of a group of the consumer protocol: their epochs, and who owned what when.
#[derive(Debug, Default)]
pub struct Members {
    epochs: Epochs,
    by_member: BTreeMap<String, i32>,
    /// By partition: who owned it, from when until when, in milliseconds.
    held: BTreeMap<u32, Vec<Held>>,
    /// Static members that came back to what they had.
    pub kept: usize,
}

#[derive(Clone, Debug)]
struct Held {
    member: String,
    from_ms: u64,
    to_ms: u64,
}

/// Whether a member joined with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is new in the group.
    Joined,
    /// It was in the group, and said it was in this epoch, or 0.
    Stayed(i32),
}

impl Members {
    /// How far the group is known to be for a coordinator of a term. Ask when a request begins.
    pub fn floor(&self, term: u64) -> i32 {
        self.epochs.floor(Some(term))
    }

    /// A member was told that it is in an epoch.
    pub fn told(
        &mut self,
        floor: i32,
        term: u64,
        member: &str,
        step: Step,
        epoch: i32,
    ) -> Result<(), String> {
        match step {
            // Whoever joins makes the group's epoch a new one.
            Step::Joined if epoch < floor => {
                return Err(format!("{member} joined in epoch {epoch}, after {floor}"));
            }
            Step::Stayed(said) if epoch < said => {
                return Err(format!("{member} was in epoch {said} and was told {epoch}"));
            }
            Step::Joined | Step::Stayed(_) => {}
        }
        let before = self.by_member.insert(member.to_owned(), epoch);
        if let Some(before) = before.filter(|before| epoch < *before) {
            return Err(format!("{member} was in epoch {before} and is in {epoch}"));
        }
        self.epochs.note(term, epoch);
        Ok(())
    }

    /// A member owned a partition for some time.
    pub fn held(
        &mut self,
        partition: u32,
        member: &str,
        (from_ms, to_ms): (u64, u64),
    ) -> Result<(), String> {
        let all = self.held.entry(partition).or_default();
        let clashes = |h: &&Held| h.member != member && h.from_ms < to_ms && from_ms < h.to_ms;
        if let Some(other) = all.iter().rev().find(clashes) {
            return Err(format!(
                "partition {partition} was owned by {member} from {from_ms} to {to_ms} ms, and by \
                 {} from {} to {}",
                other.member, other.from_ms, other.to_ms
            ));
        }
        all.push(Held { member: member.to_owned(), from_ms, to_ms });
        Ok(())
    }

    /// A static member came back under another id, in an epoch, with partitions; before it was in
    /// an epoch with partitions.
    pub fn returned(
        &mut self,
        name: &str,
        (epoch_before, before): (i32, &Parts),
        (epoch, now): (i32, &Parts),
    ) -> Result<(), String> {
        if epoch != epoch_before {
            return Ok(());
        }
        if !before.is_subset(now) {
            return Err(format!("{name} had {before:?} in epoch {epoch} and came back to {now:?}"));
        }
        self.kept += 1;
        Ok(())
    }

    /// The highest epoch that was told.
    pub fn highest(&self) -> i32 {
        self.epochs.highest()
    }

    /// How often a partition was taken.
    pub fn takes(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &[u32]) -> Parts {
        of.iter().copied().collect()
    }

    /// Members are told of generations, one after the other: term, generation, owner, partitions.
    fn check(told: &[(u64, i32, &str, &[u32])]) -> String {
        let mut group = Generations::default();
        for (term, generation, owner, of) in told {
            let term = Some(*term);
            let floor = group.floor(term);
            if let Err(what) = group.told(floor, term, *generation, owner, &parts(of)) {
                return what;
            }
        }
        String::new()
    }

    #[test]
    fn two_owners_in_a_generation_and_changed_assignments_are_found() {
        assert_eq!(check(&[(1, 1, "a", &[0]), (1, 1, "b", &[1]), (1, 2, "b", &[0, 1])]), "");
        assert_eq!(check(&[(1, 1, "a", &[0]), (2, 1, "a", &[0])]), "");
        assert!(check(&[(1, 1, "a", &[0]), (1, 1, "b", &[0, 1])]).contains("a owns"));
        assert!(check(&[(1, 1, "b", &[0]), (1, 1, "a", &[0, 1])]).contains("b owns"));
        assert!(check(&[(1, 1, "a", &[0]), (2, 1, "a", &[1])]).contains("and later"));
    }

    #[test]
    fn generations_that_go_back_are_found_whoever_answered_first() {
        assert!(check(&[(1, 2, "a", &[0]), (1, 1, "a", &[0])]).contains("after 2"));
        assert!(check(&[(1, 2, "a", &[0]), (2, 1, "a", &[0])]).contains("after 2"));
        // A deposed coordinator answers late.
        assert_eq!(check(&[(2, 2, "a", &[0]), (1, 1, "b", &[0])]), "");
        assert!(check(&[(2, 2, "a", &[0]), (1, 3, "b", &[0])]).contains("in term 2"));
    }

    #[test]
    fn what_is_accepted_of_an_old_generation_is_found() {
        let mut group = Generations::default();
        group.told(group.floor(Some(1)), Some(1), 1, "a", &parts(&[0])).unwrap();
        let early = group.floor(Some(1));
        assert_eq!((group.committed(early, 1), group.accepted(early, 1)), (Ok(()), Ok(())));
        group.told(group.floor(Some(2)), Some(2), 2, "b", &parts(&[0])).unwrap();
        assert_eq!(group.committed(early, 1), Ok(()), "it began before");
        assert!(group.committed(group.floor(Some(1)), 1).is_err());
        assert_eq!(group.accepted(group.floor(Some(1)), 1), Ok(()), "it does not know");
        assert!(group.accepted(group.floor(Some(2)), 1).is_err());
        assert_eq!(group.newest(), 2);
        group.committed(group.floor(None), 3).unwrap();
        assert!(group.committed(group.floor(None), 2).is_err());
    }

    #[test]
    fn epochs_of_members_do_not_go_back() {
        let mut group = Members::default();
        let told = |group: &mut Members, term, member: &str, step, epoch| {
            let floor = group.floor(term);
            group.told(floor, term, member, step, epoch).err().unwrap_or_default()
        };
        assert_eq!(told(&mut group, 1, "a", Step::Joined, 3), "");
        assert_eq!(told(&mut group, 1, "a", Step::Stayed(3), 4), "");
        assert_eq!(told(&mut group, 2, "a", Step::Stayed(0), 4), "");
        assert!(told(&mut group, 2, "b", Step::Joined, 3).contains("after 4"));
        assert!(told(&mut group, 2, "a", Step::Stayed(4), 3).contains("was told 3"));
        assert!(told(&mut group, 2, "a", Step::Stayed(0), 3).contains("and is in 3"));
        assert_eq!(group.highest(), 4);
    }

    #[test]
    fn two_owners_at_once_are_found() {
        let mut group = Members::default();
        assert_eq!(group.held(0, "a", (10, 20)), Ok(()));
        assert_eq!(group.held(0, "b", (20, 30)), Ok(()));
        assert_eq!(group.held(1, "b", (15, 30)), Ok(()));
        assert_eq!(group.held(0, "b", (5, 10)), Ok(()));
        assert!(group.held(0, "b", (19, 20)).is_err());
        assert!(group.held(0, "c", (0, 100)).is_err());
        assert_eq!(group.takes(), 4);
    }

    #[test]
    fn a_static_member_that_lost_its_partitions_is_found() {
        let mut group = Members::default();
        let (two, one) = (parts(&[0, 1]), parts(&[0]));
        assert_eq!(group.returned("s", (4, &two), (5, &one)), Ok(()), "another target");
        assert_eq!(group.returned("s", (4, &one), (4, &two)), Ok(()));
        assert_eq!(group.kept, 1);
        assert!(group.returned("s", (4, &two), (4, &one)).is_err());
    }
}
