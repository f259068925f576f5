//! Addresses that the nodes tell their clients, replicated in `m0`: any node can name any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use base::codec;
use bytes::Bytes;
use consensus::{ApplyAt, Fatal, GroupRef, Rows, StateMachine, tags};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tracing::debug;

/// What a node tells clients, as host and port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Advertised {
    pub(crate) kafka: (String, u16),
    pub(crate) webhdfs: (String, u16),
    pub(crate) datanode_http: (String, u16),
    pub(crate) elastic: (String, u16),
    pub(crate) console: (String, u16),
    /// The encrypted Kafka listener, where there is one.
    pub(crate) kafka_tls: Option<(String, u16)>,
}

/// [`Advertised`] as rows and commands had it before there were encrypted listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FirstAdvertised {
    kafka: (String, u16),
    webhdfs: (String, u16),
    datanode_http: (String, u16),
    elastic: (String, u16),
    console: (String, u16),
}

impl From<FirstAdvertised> for Advertised {
    fn from(first: FirstAdvertised) -> Self {
        let FirstAdvertised { kafka, webhdfs, datanode_http, elastic, console } = first;
        Self { kafka, webhdfs, datanode_http, elastic, console, kafka_tls: None }
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Command {
    Register { node: NodeId, advertised: FirstAdvertised },
    RegisterAll { node: NodeId, advertised: Advertised },
}

/// Known addresses by node.
#[derive(Clone, Default)]
pub(crate) struct Registry(Arc<RwLock<BTreeMap<NodeId, Advertised>>>);

impl Registry {
    pub(crate) fn machine(&self) -> Box<dyn StateMachine> {
        Box::new(Machine(self.clone()))
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<Advertised> {
        self.0.read().get(&node).cloned()
    }

    pub(crate) fn all(&self) -> BTreeMap<NodeId, Advertised> {
        self.0.read().clone()
    }

    /// Registers this node, again whenever the cluster holds something else.
    pub(crate) async fn keep(self, m0: GroupRef, node: NodeId, advertised: Advertised) {
        loop {
            if self.get(node).as_ref() != Some(&advertised) {
                let command = Command::RegisterAll { node, advertised: advertised.clone() };
                let proposed = m0.propose(tags::CLUSTER, codec::encode(&command).into()).await;
                if let Err(e) = proposed {
                    debug!("cannot register this node yet: {e}");
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

struct Machine(Registry);

impl StateMachine for Machine {
    fn apply(
        &mut self,
        _at: &ApplyAt,
        command: Bytes,
        rows: &mut Rows<'_>,
    ) -> Result<Bytes, Fatal> {
        let (node, advertised) = match codec::decode(&command)? {
            Command::Register { node, advertised } => (node, advertised.into()),
            Command::RegisterAll { node, advertised } => (node, advertised),
        };
        rows.put(&node.0.to_be_bytes(), codec::encode(&advertised));
        self.0.0.write().insert(node, advertised);
        Ok(Bytes::new())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        let mut nodes = BTreeMap::new();
        for (key, value) in rows.scan(b"")? {
            let key =
                key[..].try_into().map_err(|_| Fatal("bad key of a node's row".to_owned()))?;
            let advertised = match codec::decode::<Advertised>(&value) {
                Ok(advertised) => advertised,
                Err(_) => codec::decode::<FirstAdvertised>(&value)?.into(),
            };
            nodes.insert(NodeId(u16::from_be_bytes(key)), advertised);
        }
        *self.0.0.write() = nodes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::GroupId;
    use consensus::solo::SoloGroup;

    #[tokio::test]
    async fn a_registered_node_is_known() {
        let registry = Registry::default();
        let m0 = SoloGroup::new(GroupId::M0, vec![(tags::CLUSTER, registry.machine())]);
        let advertised = Advertised { kafka: ("h".to_owned(), 9092), ..Advertised::default() };
        let keeping = registry.clone().keep(m0, NodeId(2), advertised.clone());
        let known = async {
            while registry.get(NodeId(2)).is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = keeping => {}
            () = known => {}
        }
        assert_eq!(registry.all(), BTreeMap::from([(NodeId(2), advertised)]));
    }
    #[test]
    fn rows_and_commands_of_the_first_version_are_understood() {
        let pair = |name: &str| (name.to_owned(), 1);
        let first = FirstAdvertised {
            kafka: pair("k"),
            webhdfs: pair("w"),
            datanode_http: pair("d"),
            elastic: pair("e"),
            console: pair("c"),
        };
        let registry = Registry::default();
        let mut machine = registry.machine();
        let (store, mut pending) = (consensus::MemStore::default(), BTreeMap::new());
        let mut rows = Rows::new(&store, &mut pending, tags::CLUSTER);
        let at = ApplyAt { group: GroupId::M0, index: 1, term: 1, time_ms: 0 };
        let command = Command::Register { node: NodeId(1), advertised: first.clone() };
        machine.apply(&at, codec::encode(&command).into(), &mut rows).unwrap();
        let expected = Advertised::from(first.clone());
        assert_eq!(registry.get(NodeId(1)).as_ref(), Some(&expected));
        rows.put(&2u16.to_be_bytes(), codec::encode(&first));
        machine.restore(&rows).unwrap();
        assert_eq!(registry.all().into_values().collect::<Vec<_>>(), [expected.clone(), expected]);
    }
}
