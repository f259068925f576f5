//! The Kafka port over a log whose groups have one node.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod client;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::env::sim_disk::SimDisk;
use base::{Env, GroupId, NodeId, TaskGroup};
use consensus::solo::{SoloGroup, SoloPeers};
use consensus::{Groups, tags};
use kafka::{Advertised, Backend, KafkaConfig, KafkaGateway};
use log::groups::{GroupConfig, GroupService};
use log::{LogOptions, LogService, LogShared};
use secure::{Security, Store};
use segment::{SegmentWriter, WriterOptions};
use tokio::net::TcpListener;

/// Starts the port on `listen`.
pub(crate) async fn start(listen: SocketAddr, tasks: &TaskGroup) -> SocketAddr {
    start_over(listen, tasks).await.0
}

/// The same, with the data groups below it.
pub(crate) async fn start_over(
    listen: SocketAddr,
    tasks: &TaskGroup,
) -> (SocketAddr, Vec<Arc<SoloGroup>>) {
    let env = Env { disk: Arc::new(SimDisk::new(5)), ..Env::real() };
    env.disk.create_dir_all(Path::new("/data")).unwrap();
    let writer = SegmentWriter::start(&env, WriterOptions::default());
    let shared = LogShared::new(env.clone(), Path::new("/data"), writer).unwrap();
    let store = Store::default();
    let machines = vec![(tags::LOG, shared.machine_m0()), (tags::SECURITY, store.machine_m0())];
    let m0 = SoloGroup::new(GroupId::M0, machines);
    let security = Security::new(store, m0.clone(), None);
    let group = |n| {
        let id = GroupId::data(n);
        SoloGroup::new(id, vec![(tags::LOG, shared.machine_data(id))])
    };
    let data: Vec<_> = (0..6).map(group).collect();
    let readers = data.iter().map(|group| group.reader(tags::LOG)).collect();
    let groups = Groups {
        m0,
        fs: SoloGroup::new(GroupId::FS, vec![]),
        data: data.iter().map(|g| g.clone() as consensus::GroupRef).collect(),
    };
    let options = LogOptions { reconcile_every: Duration::from_millis(20), ..Default::default() };
    let peers = Arc::new(SoloPeers::default());
    let service = LogService::start(shared, groups.clone(), peers.clone(), readers, tasks, options);
    let store = Arc::new(service.clone());
    let consumer_groups = GroupService::start(store, GroupConfig::default(), env.clone(), tasks);
    let backend = Backend { log: Arc::new(service), consumer_groups, groups, peers, security };
    let listener = TcpListener::bind(listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let advertised = BTreeMap::from([(NodeId(1), (address.ip().to_string(), address.port()))]);
    let config = KafkaConfig::new(address, Advertised::by(move || advertised.clone()));
    (KafkaGateway::serve(listener, config, backend, tasks.clone(), env).unwrap(), data)
}
