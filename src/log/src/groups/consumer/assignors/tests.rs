//! Assignors over random members, topics and histories.

use super::*;

fn topic(n: u64) -> Uuid {
    Uuid::from_u64_pair(0, n)
}

/// Random numbers from a seed (splitmix64).
pub(in crate::groups::consumer) struct Random(pub(in crate::groups::consumer) u64);

impl Random {
    pub(in crate::groups::consumer) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[derive(Clone)]
struct Someone {
    id: String,
    topics: BTreeSet<Uuid>,
    holds: BTreeSet<PartKey>,
}

fn someone(id: u64, topics: &[u64]) -> Someone {
    let topics = topics.iter().map(|n| topic(*n)).collect();
    Someone { id: format!("m{id:03}"), topics, holds: BTreeSet::new() }
}

/// Assigns anew, checks what every assignor owes, and returns how many partitions moved from one
/// member to another.
fn assign(kind: Assignor, members: &mut [Someone], topics: &BTreeMap<Uuid, u32>) -> usize {
    let subjects: Vec<Subject<'_>> = members
        .iter()
        .map(|member| Subject {
            id: &member.id,
            instance: None,
            topics: member.topics.clone(),
            holds: &member.holds,
        })
        .collect();
    let given = kind.assign(&subjects, topics);
    assert_eq!(given, kind.assign(&subjects, topics), "it is not deterministic");
    assert_eq!(given.len(), members.len());
    let mut owners: BTreeMap<PartKey, usize> = BTreeMap::new();
    for (at, parts) in given.iter().enumerate() {
        for key in parts {
            assert_eq!(owners.insert(*key, at), None, "{key:?} is given twice");
            assert!(members[at].topics.contains(&key.topic), "nobody asked for {key:?}");
        }
    }
    let read = |topic: &Uuid| members.iter().any(|m| m.topics.contains(topic));
    let wanted: BTreeSet<PartKey> = topics
        .iter()
        .filter(|(topic, _)| read(topic))
        .flat_map(|(topic, count)| partitions(*topic, *count))
        .collect();
    assert_eq!(owners.keys().copied().collect::<BTreeSet<_>>(), wanted, "not everything is given");
    let mut moved = 0;
    for (at, member) in members.iter().enumerate() {
        moved +=
            member.holds.iter().filter(|key| owners.get(key).is_some_and(|to| *to != at)).count();
    }
    for (member, parts) in members.iter_mut().zip(given) {
        member.holds = parts;
    }
    moved
}

fn spread(members: &[Someone]) -> usize {
    let loads = members.iter().map(|m| m.holds.len());
    loads.clone().max().unwrap_or(0) - loads.min().unwrap_or(0)
}

fn topics(counts: &[u32]) -> BTreeMap<Uuid, u32> {
    counts.iter().zip(0..).map(|(count, n)| (topic(n), *count)).collect()
}

#[test]
fn uniform_is_balanced_within_one_and_moves_no_more_than_it_must() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let mut counts: Vec<u32> =
            (0..1 + random.below(4)).map(|_| u32::try_from(random.below(20)).unwrap()).collect();
        let all: Vec<u64> = (0..10).collect();
        let mut members: Vec<Someone> = Vec::new();
        let mut next_id = 0;
        for _ in 0..20 {
            // A change, and how many partitions it sets free or needs for a newcomer.
            let total = usize::try_from(counts.iter().sum::<u32>()).unwrap();
            let mut must_move = 0;
            match random.below(4) {
                0 if members.len() > 1 => {
                    let at = usize::try_from(random.below(members.len() as u64)).unwrap();
                    members.remove(at);
                }
                1 => counts.push(u32::try_from(random.below(10)).unwrap()),
                2 => counts[0] += 1,
                _ => {
                    next_id += 1;
                    members.push(someone(next_id, &all));
                    must_move = total / members.len();
                }
            }
            if members.is_empty() {
                continue;
            }
            let moved = assign(Assignor::Uniform, &mut members, &topics(&counts));
            assert!(spread(&members) <= 1, "seed {seed}");
            assert!(moved <= must_move, "seed {seed}: {moved} moved, {must_move} had to");
            assert_eq!(assign(Assignor::Uniform, &mut members, &topics(&counts)), 0, "seed {seed}");
        }
    }
}

#[test]
fn uniform_levels_what_different_subscriptions_allow() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let counts: Vec<u32> =
            (0..1 + random.below(6)).map(|_| u32::try_from(random.below(12)).unwrap()).collect();
        let mut members: Vec<Someone> = (0..1 + random.below(8))
            .map(|id| {
                let reads = (0..counts.len() as u64).filter(|_| random.below(2) == 0);
                someone(id, &reads.collect::<Vec<_>>())
            })
            .collect();
        let topics = topics(&counts);
        for _ in 0..5 {
            assign(Assignor::Uniform, &mut members, &topics);
            // Nobody could hand a partition to somebody who has two less.
            for giver in &members {
                for key in &giver.holds {
                    let takers = members.iter().filter(|m| m.topics.contains(&key.topic));
                    let least = takers.map(|m| m.holds.len()).min().unwrap();
                    assert!(giver.holds.len() <= least + 1, "seed {seed}: {key:?}");
                }
            }
            let at = usize::try_from(random.below(members.len() as u64)).unwrap();
            members[at].topics =
                (0..counts.len() as u64).filter(|_| random.below(2) == 0).map(topic).collect();
        }
    }
}

#[test]
fn range_gives_runs_and_the_same_of_all_topics_to_the_same_member() {
    let mut members = [someone(0, &[0, 1]), someone(1, &[0, 1]), someone(2, &[0])];
    assign(Assignor::Range, &mut members, &topics(&[7, 4]));
    let of = |member: &Someone, n: u64| -> Vec<u32> {
        member.holds.iter().filter(|k| k.topic == topic(n)).map(|k| k.partition).collect()
    };
    let found: Vec<_> = members.iter().map(|m| (of(m, 0), of(m, 1))).collect();
    let expected = [(vec![0, 1, 2], vec![0, 1]), (vec![3, 4], vec![2, 3]), (vec![5, 6], vec![])];
    assert_eq!(found, expected);
    for seed in 0..100 {
        let random = &mut Random(seed);
        let mut members: Vec<Someone> = (0..1 + random.below(5))
            .map(|id| {
                let reads = (0..3).filter(|_| random.below(3) > 0).collect::<Vec<_>>();
                someone(id, &reads)
            })
            .collect();
        let counts = [0; 3].map(|_| u32::try_from(random.below(10)).unwrap());
        assign(Assignor::Range, &mut members, &topics(&counts));
        for member in &members {
            for n in 0..3 {
                let run = of(member, n);
                assert!(run.windows(2).all(|pair| pair[0] + 1 == pair[1]), "seed {seed}: {run:?}");
            }
        }
    }
}

#[test]
fn a_static_member_has_its_range_under_any_id() {
    let holds = BTreeSet::new();
    let subject = |id, instance| Subject { id, instance, topics: [topic(0)].into(), holds: &holds };
    let sizes = topics(&[4]);
    let one = Assignor::Range.assign(&[subject("a", Some("x")), subject("b", Some("y"))], &sizes);
    let two = Assignor::Range.assign(&[subject("b", Some("y")), subject("z", Some("x"))], &sizes);
    assert_eq!((&one[0], &one[1]), (&two[1], &two[0]));
}

#[test]
fn assignors_are_found_by_name() {
    for assignor in Assignor::ALL {
        assert_eq!(Assignor::by_name(assignor.name()), Some(assignor));
    }
    assert_eq!(Assignor::by_name("sticky"), None);
}
