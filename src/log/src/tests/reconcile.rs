//! `m0` and the data groups are made to agree, whoever dies between them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use consensus::{Applied, Group, Leadership, LogState, ProposeError, ReadError, TransferError};
use tokio::sync::watch;

use super::*;
use crate::command::{Control, control};

const NEVER: Duration = Duration::from_secs(3600);
const OFTEN: Duration = Duration::from_millis(20);

/// What a group does with what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// Proposals wait.
    Shut,
    /// As without a majority.
    Refuses,
}

/// A data group that may be out of reach.
struct Gated {
    group: Arc<SoloGroup>,
    gate: watch::Sender<Gate>,
}

impl Gated {
    fn all(c: &Cluster, gate: Gate) -> Vec<Arc<Self>> {
        let gated = |group: &Arc<SoloGroup>| {
            Arc::new(Self { group: group.clone(), gate: watch::Sender::new(gate) })
        };
        c.data.iter().map(gated).collect()
    }

    fn set(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    async fn pass(&self) -> Result<(), ProposeError> {
        let mut gate = self.gate.subscribe();
        let now = *gate.wait_for(|gate| *gate != Gate::Shut).await.unwrap();
        match now {
            Gate::Refuses => Err(ProposeError::Unknown { group: self.id() }),
            Gate::Open | Gate::Shut => Ok(()),
        }
    }
}

#[async_trait]
impl Group for Gated {
    fn id(&self) -> GroupId {
        self.group.id()
    }

    fn watch(&self) -> watch::Receiver<Leadership> {
        self.group.watch()
    }

    async fn propose(&self, tag: u8, command: Bytes) -> Result<Applied, ProposeError> {
        self.pass().await?;
        self.group.propose(tag, command).await
    }

    async fn propose_here(
        &self,
        tag: u8,
        command: Bytes,
        term: Option<u64>,
    ) -> Result<Applied, ProposeError> {
        self.pass().await?;
        self.group.propose_here(tag, command, term).await
    }

    async fn read_barrier(&self) -> Result<(), ReadError> {
        if *self.gate.borrow() == Gate::Refuses {
            return Err(ReadError { group: self.id() });
        }
        self.group.read_barrier().await
    }

    async fn transfer(&self, to: NodeId) -> Result<(), TransferError> {
        self.group.transfer(to).await
    }

    async fn log_state(&self) -> Result<LogState, ReadError> {
        self.group.log_state().await
    }

    fn behind(&self) -> BTreeSet<NodeId> {
        self.group.behind()
    }

    async fn reach_all(&self, index: u64) -> bool {
        self.group.reach_all(index).await
    }
}

/// A service that reaches the data groups through gates, as the only one.
fn through(c: &Cluster, gated: &[Arc<Gated>]) -> (LogService, TaskGroup) {
    c.tasks.stop();
    let groups = gated.iter().map(|group| group.clone() as GroupRef).collect();
    service_over(&c.shared, &c.m0, (&c.data, groups), NEVER)
}

/// Partitions that this node holds, with the topic each is of.
fn held(service: &LogService) -> Vec<PartKey> {
    let mut keys: Vec<_> = service.replicas().into_iter().map(|replica| replica.key).collect();
    keys.sort();
    keys
}

fn keys_of(topic: &Topic) -> Vec<PartKey> {
    let partitions = 0..u32::try_from(topic.partitions.len()).unwrap();
    partitions.map(|partition| PartKey { topic: topic.id, partition }).collect()
}

async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let checked = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), checked).await.expect(what);
}

/// The number of the data group that a partition lives in.
fn home(topic: &Topic, partition: usize) -> usize {
    usize::from(topic.partitions[partition].data_number().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_created_once_all_its_groups_have_it() {
    let c = cluster_that_reconciles(NEVER);
    let gated = Gated::all(&c, Gate::Shut);
    let (service, tasks) = through(&c, &gated);
    let spec = spec("t", &[]);
    let mut creating = Box::pin(service.create_topic(&spec, Mode::Apply));
    for ready in 0..3 {
        let waited = tokio::time::timeout(Duration::from_secs(5), &mut creating).await;
        assert!(waited.is_err(), "acknowledged with {ready} of 3 partitions");
        assert_eq!(held(&service).len(), ready);
        let topic = service.topic("t").expect("m0 has it");
        gated[home(&topic, ready)].set(Gate::Open);
    }
    let topic = creating.await.unwrap();
    assert_eq!(held(&service), keys_of(&topic));
    tasks.stop();
}

#[tokio::test(start_paused = true)]
async fn a_topic_whose_creator_died_half_way_is_completed() {
    let c = cluster_that_reconciles(NEVER);
    let gated = Gated::all(&c, Gate::Shut);
    let (service, tasks) = through(&c, &gated);
    let spec = spec("t", &[("segment.bytes", "777")]);
    let mut creating = Box::pin(service.create_topic(&spec, Mode::Apply));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut creating).await.is_err());
    let topic = service.topic("t").unwrap();
    gated[home(&topic, 1)].set(Gate::Open);
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut creating).await.is_err());
    drop(creating);
    tasks.stop();
    gated.iter().for_each(|group| group.set(Gate::Open));
    assert_eq!(held(&service).len(), 1);
    let (service, tasks) = super::service(&c.shared, &c.m0, &c.data, OFTEN);
    until("it is completed", || held(&service) == keys_of(&topic)).await;
    for partition in 0..3 {
        let key = PartKey { topic: topic.id, partition };
        let part = c.shared.view(topic.partitions[partition as usize]).get(&key).unwrap();
        assert_eq!(part.state.lock().settings.segment_bytes, 777);
        let put = service.produce(T, partition.cast_signed(), batch(&["a"], 1), Acks::All).await;
        assert_eq!(put.map(|p| p.base_offset), Ok(0));
    }
    let again = service.create_topic(&spec, Mode::Apply).await;
    assert_eq!(again, Err(LogError::TopicExists("t".to_owned())));
    tasks.stop();
}

/// What an earlier topic of the name left may stand in any group, home of the new one or not.
#[tokio::test(start_paused = true)]
async fn no_topic_is_acknowledged_while_a_data_group_does_not_answer() {
    let c = cluster_that_reconciles(NEVER);
    let gated = Gated::all(&c, Gate::Open);
    let (service, tasks) = through(&c, &gated);
    for (number, group) in gated.iter().enumerate() {
        group.set(Gate::Refuses);
        let name = format!("t{number}");
        let made = service.create_topic(&spec(&name, &[]), Mode::Apply).await;
        assert!(made.is_err(), "{number}: {made:?}");
        // Nor is it said to exist: whoever is told so produces to it.
        let again = service.create_topic(&spec(&name, &[]), Mode::Apply).await;
        assert!(!matches!(again, Ok(_) | Err(LogError::TopicExists(_))), "{number}: {again:?}");
        group.set(Gate::Open);
        let again = service.create_topic(&spec(&name, &[]), Mode::Apply).await;
        assert_eq!(again, Err(LogError::TopicExists(name)));
    }
    tasks.stop();
}

#[tokio::test(start_paused = true)]
async fn replicas_become_those_that_topics_ask_for() {
    let c = cluster_that_reconciles(NEVER);
    let topic = c.topic(&[]).await;
    c.put(2, batch(&["kept"], 1)).await.unwrap();
    c.tasks.stop();
    let settings = topic.settings.replica;
    let orphan = PartKey { topic: uuid::Uuid::from_u128(7), partition: 0 };
    let [first, second, third] = [0, 1, 2].map(|partition| PartKey { topic: topic.id, partition });
    let other = configs::ReplicaSettings { segment_bytes: 1, segment_ms: 1 };
    for (number, command) in [
        (4, Control::CreateReplica { key: orphan, settings }),
        (home(&topic, 0), Control::ConfigureReplica { key: first, settings: other }),
        (home(&topic, 1), Control::DeleteReplica { key: second }),
        // In another group than its own.
        ((home(&topic, 2) + 1) % 6, Control::CreateReplica { key: third, settings }),
    ] {
        c.data[number].apply(tags::LOG, control(&command).unwrap());
    }
    assert_eq!(held(&c.service).len(), 4);
    let (service, tasks) = service(&c.shared, &c.m0, &c.data, OFTEN);
    let part = |key: &PartKey| {
        let view = c.shared.view(topic.partitions[key.partition as usize]);
        view.get(key).map(|part| part.state.lock().settings)
    };
    let agree = || {
        held(&service) == [first, second, third]
            && [first, second, third].iter().all(|key| part(key) == Some(settings))
    };
    until("they agree", agree).await;
    assert_eq!(c.values(2, 0).await, [(0, "kept".to_owned())]);
    tasks.stop();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_not_heard_of_a_topic_deletes_none_of_its_replicas() {
    let c = cluster_that_reconciles(NEVER);
    let topic = c.topic(&[]).await;
    c.put(0, batch(&["kept"], 1)).await.unwrap();
    let env = env();
    env.disk.create_dir_all(Path::new("/data")).unwrap();
    let writer = SegmentWriter::start(&env, WriterOptions::default());
    let shared = LogShared::new(env.clone(), Path::new("/data"), writer).unwrap();
    let m0 = SoloGroup::behind(&c.m0, vec![(tags::LOG, shared.machine_m0())]);
    let follow = |group: &Arc<SoloGroup>| {
        SoloGroup::behind(group, vec![(tags::LOG, shared.machine_data(group.id()))])
    };
    let data: Vec<_> = c.data.iter().map(follow).collect();
    for group in &data {
        group.read_barrier().await.unwrap();
    }
    let parts = || -> Vec<_> {
        let all = topic.partitions.iter().flat_map(|home| shared.view(*home).all());
        all.map(|part| (part.key, part.dir.clone(), part.bounds())).collect()
    };
    let before = parts();
    assert_eq!(before.len(), 3);
    let (service, tasks) = service(&shared, &m0, &data, OFTEN);
    assert!(service.topic("t").is_none());
    until("it hears of the topic", || service.topic("t").is_some()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(parts(), before);
    tasks.stop();
    c.tasks.stop();
}
