//! `_cat`: text tables of what is there.

use std::collections::BTreeMap;

use base::NodeId;
use index::EsError;
use index::model::{IndexMeta, IndexState, ShardId};
use index::names::{IndicesOptions, wildcard_match};
use index::remote::CopyFacts;
use serde_json::Value;

use crate::app::{App, Request};
use crate::reply::Reply;
use crate::table::{Cell, Column, render};

const fn left(name: &'static str, aliases: &'static str, about: &'static str) -> Column {
    Column { name, aliases, about, right: false, default: true }
}

const fn right(name: &'static str, aliases: &'static str, about: &'static str) -> Column {
    Column { name, aliases, about, right: true, default: true }
}

const fn hidden(column: Column) -> Column {
    Column { default: false, ..column }
}

const INDICES: &[Column] = &[
    left("health", "h", "current health status"),
    left("status", "s", "open/close status"),
    left("index", "i,idx", "index name"),
    left("uuid", "id,uuid", "index uuid"),
    right("pri", "p,shards.primary,shardsPrimary", "number of primary shards"),
    right("rep", "r,shards.replica,shardsReplica", "number of replica shards"),
    right("docs.count", "dc,docsCount", "available docs"),
    right("docs.deleted", "dd,docsDeleted", "deleted docs"),
    hidden(left("creation.date", "cd", "index creation date (millisecond value)")),
    hidden(left("creation.date.string", "cds", "index creation date (as string)")),
    right("store.size", "ss,storeSize", "store size of primaries & replicas"),
    right("pri.store.size", "", "store size of primaries"),
    hidden(right("segments.count", "sc,segmentsCount", "number of segments")),
    hidden(right("translog.size", "", "size of the translog on one copy")),
];

const HEALTH: &[Column] = &[
    left("epoch", "t,time", "seconds since 1970-01-01 00:00:00"),
    left("timestamp", "ts,hms,hhmmss", "time in HH:MM:SS"),
    left("cluster", "cl", "cluster name"),
    left("status", "st", "health status"),
    right("node.total", "nt,nodeTotal", "total number of nodes"),
    right("node.data", "nd,nodeData", "number of nodes that can store data"),
    right("shards", "t,sh,shards.total,shardsTotal", "total number of shards"),
    right("pri", "p,shards.primary,shardsPrimary", "number of primary shards"),
    right("relo", "r,shards.relocating,shardsRelocating", "number of relocating nodes"),
    right("init", "i,shards.initializing,shardsInitializing", "number of initializing nodes"),
    right("unassign", "u,shards.unassigned,shardsUnassigned", "number of unassigned shards"),
    right("pending_tasks", "pt,pendingTasks", "number of pending tasks"),
    right("max_task_wait_time", "mtwt,maxTaskWaitTime", "wait time of longest task pending"),
    right("active_shards_percent", "asp,activeShardsPercent", "active number of shards in percent"),
];

const SHARDS: &[Column] = &[
    left("index", "i,idx", "index name"),
    left("shard", "s,sh", "shard name"),
    left("prirep", "p,pr,primaryOrReplica", "primary or replica"),
    left("state", "st", "shard state"),
    right("docs", "d,dc", "number of docs in shard"),
    right("store", "sto", "store size of shard (how much disk it uses)"),
    left("ip", "", "ip of node where it lives"),
    hidden(left("id", "", "unique id of node where it lives")),
    left("node", "n", "name of node where it lives"),
    hidden(right("segments.count", "sc,segmentsCount", "number of segments")),
    hidden(right("seq_no.max", "sqm,maxSeqNo", "max sequence number")),
    hidden(left("unassigned.reason", "ur", "reason shard became unassigned")),
];

const NODES: &[Column] = &[
    hidden(left("id", "id,nodeId", "unique node id")),
    hidden(left("pid", "p", "process id")),
    left("ip", "i", "ip address"),
    hidden(left("port", "po", "bound transport port")),
    hidden(left("http_address", "http", "bound http address")),
    hidden(left("version", "v", "es version")),
    right("heap.percent", "hp,heapPercent", "used heap ratio"),
    right("ram.percent", "rp,ramPercent", "used machine memory ratio"),
    right("cpu", "cpu", "recent cpu usage"),
    right("load_1m", "l", "1m load avg"),
    right("load_5m", "l", "5m load avg"),
    right("load_15m", "l", "15m load avg"),
    left(
        "node.role",
        "r,role,nodeRole",
        "m:master eligible node, d:data node, i:ingest node, -:coordinating node only",
    ),
    left("master", "m", "*:current master"),
    left("name", "n", "node name"),
];

const COUNT: &[Column] = &[
    left("epoch", "t,time", "seconds since 1970-01-01 00:00:00"),
    left("timestamp", "ts,hms,hhmmss", "time in HH:MM:SS"),
    left("count", "dc,docs.count,docsCount", "the document count"),
];

const ALIASES: &[Column] = &[
    left("alias", "a", "alias name"),
    left("index", "i,idx", "index alias points to"),
    left("filter", "f,fi", "filter"),
    left("routing.index", "ri,routingIndex", "index routing"),
    left("routing.search", "rs,routingSearch", "search routing"),
    left("is_write_index", "w,isWriteIndex", "write index"),
];

const MASTER: &[Column] = &[
    left("id", "", "node id"),
    left("host", "h", "host name"),
    left("ip", "", "ip address "),
    left("node", "n", "node name"),
];

const TEMPLATES: &[Column] = &[
    left("name", "n", "template name"),
    left("index_patterns", "t", "template index patterns"),
    left("order", "o,p", "template application order/priority number"),
    left("version", "v", "version"),
    left("composed_of", "c", "component templates comprising index template"),
];

const ALLOCATION: &[Column] = &[
    right("shards", "s", "number of shards on node"),
    right("disk.indices", "di,diskIndices", "disk used by ES indices"),
    left("host", "h", "host of node"),
    left("ip", "", "ip of node"),
    left("node", "n", "name of node"),
];

const CAT_HELP: &str = "=^.^=\n/_cat/allocation\n/_cat/shards\n/_cat/shards/{index}\n/_cat/master\n\
    /_cat/nodes\n/_cat/indices\n/_cat/indices/{index}\n/_cat/count\n/_cat/count/{index}\n\
    /_cat/health\n/_cat/aliases\n/_cat/aliases/{alias}\n/_cat/templates\n";

/// A copy of a shard: which node has it and what it says.
pub(crate) type ShardCopy = (NodeId, Option<CopyFacts>);

/// Copies of shards as they are reported.
pub struct Copies {
    /// By shard, the first copy first; `None` where no node has it.
    pub by_shard: BTreeMap<ShardId, Vec<Option<ShardCopy>>>,
}

impl App {
    /// Gathers facts of the copies of indices: the group's leader is the first copy, further
    /// nodes follow in order, up to the number of copies that the index asks for.
    pub async fn copies(&self, indices: &[std::sync::Arc<IndexMeta>]) -> Copies {
        let shards: Vec<ShardId> =
            indices.iter().flat_map(|m| m.shards().map(|(id, _)| id).collect::<Vec<_>>()).collect();
        let facts = self.service.facts(&shards).await;
        let of = |node: NodeId, shard: ShardId| {
            let (_, list) = facts.iter().find(|(n, _)| *n == node)?;
            list.iter().find(|f| f.shard == shard).cloned()
        };
        let nodes = self.service.nodes();
        let mut by_shard = BTreeMap::new();
        for meta in indices {
            for (id, group) in meta.shards() {
                let leader = self.service.leadership(group).leader;
                let mut order: Vec<NodeId> =
                    nodes.iter().filter(|(_, alive)| *alive).map(|(node, _)| *node).collect();
                order.sort_by_key(|node| (Some(*node) != leader, *node));
                let mut copies: Vec<_> =
                    order.into_iter().map(|node| Some((node, of(node, id)))).collect();
                let wanted = usize::try_from(meta.row.replicas).unwrap_or(2).min(99) + 1;
                copies.resize_with(wanted, || None);
                by_shard.insert(id, copies);
            }
        }
        Copies { by_shard }
    }

    /// `_cat`.
    pub fn cat_help(&self) -> Reply {
        Reply::text(CAT_HELP.to_owned())
    }

    /// `_cat/indices`.
    pub async fn cat_indices(&self, request: &Request) -> Result<Reply, EsError> {
        if request.params.flag("help", false)? {
            return render(INDICES, Vec::new(), &request.params);
        }
        let options = IndicesOptions {
            expand_closed: true,
            expand_hidden: true,
            ..IndicesOptions::READ_META
        };
        let options = match request.params.get("expand_wildcards") {
            Some(_) => request.indices_options(options)?,
            None => IndicesOptions { expand_hidden: request.part("index").is_empty(), ..options },
        };
        let indices = self.service.resolve(request.part("index"), options).await?;
        let copies = self.copies(&indices).await;
        let only_primaries = request.params.flag("pri", false)?;
        let mut rows = Vec::new();
        for meta in &indices {
            let health = self.service.health(meta).as_str();
            if request.params.get("health").is_some_and(|wanted| wanted != health) {
                continue;
            }
            rows.push(index_row(meta, health, &copies, only_primaries));
        }
        render(INDICES, rows, &request.params)
    }

    /// `_cat/health`.
    pub async fn cat_health(&self, request: &Request) -> Result<Reply, EsError> {
        let health = self.cluster_health_facts(
            &self.service.catalog().indices.values().cloned().collect::<Vec<_>>(),
        );
        let (epoch, time) = self.now();
        let mut row = vec![
            Cell::int(epoch),
            Cell::text(time),
            Cell::text(&self.cluster_name),
            Cell::text(health.status.as_str()),
            Cell::int(health.nodes),
            Cell::int(health.nodes),
            Cell::int(health.active),
            Cell::int(health.primaries),
            Cell::int(0),
            Cell::int(health.initializing),
            Cell::int(health.unassigned),
            Cell::int(0),
            Cell::text("-"),
            Cell::text(format!("{:.1}%", health.percent())),
        ];
        let mut columns = HEALTH.to_vec();
        if !request.params.flag("ts", true)? {
            columns.drain(..2);
            row.drain(..2);
        }
        render(&columns, vec![row], &request.params)
    }

    fn now(&self) -> (u64, String) {
        let ms = self.env.clock.unix_ms();
        let seconds = u64::try_from(ms / 1000).unwrap_or(0);
        let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        (seconds, format!("{h:02}:{m:02}:{s:02}"))
    }

    /// `_cat/shards`.
    pub async fn cat_shards(&self, request: &Request) -> Result<Reply, EsError> {
        if request.params.flag("help", false)? {
            return render(SHARDS, Vec::new(), &request.params);
        }
        let options = IndicesOptions { expand_hidden: true, ..IndicesOptions::READ_META };
        let indices = self.service.resolve(request.part("index"), options).await?;
        let copies = self.copies(&indices).await;
        let mut rows = Vec::new();
        for meta in &indices {
            for (id, _) in meta.shards() {
                let list = copies.by_shard.get(&id).map_or(&[][..], Vec::as_slice);
                for (nth, copy) in list.iter().enumerate() {
                    rows.push(self.shard_row(meta, id, nth == 0, copy.as_ref()));
                }
            }
        }
        render(SHARDS, rows, &request.params)
    }

    fn shard_row(
        &self,
        meta: &IndexMeta,
        id: ShardId,
        primary: bool,
        copy: Option<&(NodeId, Option<CopyFacts>)>,
    ) -> Vec<Cell> {
        let mut row = vec![
            Cell::text(meta.name()),
            Cell::int(u64::from(id.number)),
            Cell::text(if primary { "p" } else { "r" }),
        ];
        let facts = copy.and_then(|(_, facts)| facts.as_ref());
        row.push(Cell::text(match (copy, facts) {
            (None, _) => "UNASSIGNED",
            (Some(_), Some(facts)) if facts.started => "STARTED",
            (Some(_), _) => "INITIALIZING",
        }));
        row.push(facts.map_or(Cell::None, |f| Cell::int(f.docs)));
        row.push(facts.map_or(Cell::None, |f| Cell::Bytes(f.store_bytes)));
        match copy {
            Some((node, _)) => {
                let known = self.facts.node(*node);
                row.push(Cell::text(known.host));
                row.push(Cell::text(self.node_id(*node)));
                row.push(Cell::text(known.name));
            }
            None => row.extend([Cell::None, Cell::None, Cell::None]),
        }
        row.push(facts.map_or(Cell::None, |f| Cell::int(f.segments)));
        row.push(facts.map_or(Cell::None, |f| match f.next_seq_no.checked_sub(1) {
            Some(max) => Cell::int(max),
            None => Cell::text("-1"),
        }));
        row.push(if copy.is_none() { Cell::text("REPLICA_ADDED") } else { Cell::None });
        row
    }

    /// `_cat/nodes`.
    pub async fn cat_nodes(&self, request: &Request) -> Result<Reply, EsError> {
        let master = self.service.master();
        let id_len = if request.params.flag("full_id", false)? { usize::MAX } else { 4 };
        let mut rows = Vec::new();
        for (node, alive) in self.service.nodes() {
            if !alive {
                continue;
            }
            let facts = self.facts.node(node);
            let percent = facts.rss_bytes.zip(facts.memory_bytes).filter(|(_, all)| *all > 0);
            let percent = percent.map_or(Cell::None, |(used, all)| Cell::int(used * 100 / all));
            let load = |i: usize| {
                let value = facts.load.and_then(|load| load.get(i).copied());
                value.map_or(Cell::None, |v| Cell::Number(v, format!("{v:.2}")))
            };
            let port = facts.transport_address.rsplit(':').next().unwrap_or("").to_owned();
            rows.push(vec![
                Cell::text(self.node_id(node).chars().take(id_len).collect::<String>()),
                Cell::None,
                Cell::text(&facts.host),
                Cell::text(port),
                Cell::text(&facts.http_address),
                Cell::text(self.version_for(request.client)),
                percent.clone(),
                percent,
                // Elasticsearch's own mark of a load that is not known.
                Cell::Number(-1.0, "-1".to_owned()),
                load(0),
                load(1),
                load(2),
                Cell::text("dim"),
                Cell::text(if Some(node) == master { "*" } else { "-" }),
                Cell::text(&facts.name),
            ]);
        }
        render(NODES, rows, &request.params)
    }

    /// `_cat/count`.
    pub async fn cat_count(&self, request: &Request) -> Result<Reply, EsError> {
        if request.params.flag("help", false)? {
            return render(COUNT, Vec::new(), &request.params);
        }
        let indices = self.service.resolve(request.part("index"), IndicesOptions::SEARCH).await?;
        let (shards, _) = self.service.search_shards(&indices);
        let count = shards.iter().map(|shard| shard.snapshot.docs()).sum();
        let (epoch, time) = self.now();
        let row = vec![Cell::int(epoch), Cell::text(time), Cell::int(count)];
        render(COUNT, vec![row], &request.params)
    }

    /// `_cat/aliases`.
    pub async fn cat_aliases(&self, request: &Request) -> Result<Reply, EsError> {
        let patterns = request.params.list("name").unwrap_or_default();
        let mut rows = Vec::new();
        for meta in self.service.catalog().indices.values() {
            for (alias, definition) in &meta.aliases {
                let asked =
                    patterns.is_empty() || patterns.iter().any(|p| wildcard_match(p, alias));
                if !asked {
                    continue;
                }
                let dash = |name: &str| match definition.get(name) {
                    Some(Value::String(text)) => Cell::text(text),
                    Some(Value::Bool(flag)) => Cell::text(flag.to_string()),
                    Some(Value::Object(_)) => Cell::text("*"),
                    _ => Cell::text("-"),
                };
                rows.push(vec![
                    Cell::text(alias),
                    Cell::text(meta.name()),
                    dash("filter"),
                    dash("index_routing"),
                    dash("search_routing"),
                    dash("is_write_index"),
                ]);
            }
        }
        render(ALIASES, rows, &request.params)
    }

    /// `_cat/master`.
    pub fn cat_master(&self, request: &Request) -> Result<Reply, EsError> {
        let rows = self.service.master().map(|node| {
            let facts = self.facts.node(node);
            vec![
                Cell::text(self.node_id(node)),
                Cell::text(&facts.host),
                Cell::text(&facts.host),
                Cell::text(facts.name),
            ]
        });
        render(MASTER, rows.into_iter().collect(), &request.params)
    }

    /// `_cat/templates`: there are none yet.
    pub fn cat_templates(&self, request: &Request) -> Result<Reply, EsError> {
        render(TEMPLATES, Vec::new(), &request.params)
    }

    /// `_cat/allocation`.
    pub async fn cat_allocation(&self, request: &Request) -> Result<Reply, EsError> {
        let all: Vec<_> = self.service.catalog().indices.values().cloned().collect();
        let copies = self.copies(&all).await;
        let mut per_node: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for (node, facts) in copies.by_shard.values().flatten().flatten() {
            let slot = per_node.entry(*node).or_default();
            slot.0 += 1;
            slot.1 += facts.as_ref().map_or(0, |f| f.store_bytes);
        }
        let alive = self.service.nodes().into_iter().filter(|(_, alive)| *alive);
        let rows = alive.map(|(node, _)| {
            let (shards, bytes) = per_node.get(&node).copied().unwrap_or_default();
            let facts = self.facts.node(node);
            vec![
                Cell::int(shards),
                Cell::Bytes(bytes),
                Cell::text(&facts.host),
                Cell::text(&facts.host),
                Cell::text(facts.name),
            ]
        });
        render(ALLOCATION, rows.collect(), &request.params)
    }
}

fn index_row(meta: &IndexMeta, health: &str, copies: &Copies, only_primaries: bool) -> Vec<Cell> {
    let open = meta.row.state == IndexState::Open;
    let (mut docs, mut deleted, mut primary, mut all) = (0, 0, 0, 0);
    let (mut segments, mut translog, mut known) = (0, 0, false);
    for (id, _) in meta.shards() {
        let list = copies.by_shard.get(&id).map_or(&[][..], Vec::as_slice);
        let facts = list.iter().flatten().filter_map(|(_, facts)| facts.as_ref());
        for (nth, facts) in facts.take(if only_primaries { 1 } else { usize::MAX }).enumerate() {
            known = true;
            all += facts.store_bytes;
            segments += facts.segments;
            if nth == 0 {
                docs += facts.docs;
                deleted += facts.deleted;
                primary += facts.store_bytes;
                translog += facts.translog_bytes;
            }
        }
    }
    let when = |cell: Cell| if open && known { cell } else { Cell::None };
    let date = jiff::Timestamp::from_millisecond(meta.row.created_ms).ok();
    vec![
        Cell::text(health),
        Cell::text(if open { "open" } else { "close" }),
        Cell::text(meta.name()),
        Cell::text(meta.uuid().to_string()),
        Cell::int(u64::from(meta.shard_count())),
        Cell::int(u64::from(meta.row.replicas)),
        when(Cell::int(docs)),
        when(Cell::int(deleted)),
        Cell::text(meta.row.created_ms.to_string()),
        date.map_or(Cell::None, |date| Cell::text(format!("{date:.3}"))),
        when(Cell::Bytes(all)),
        when(Cell::Bytes(primary)),
        when(Cell::int(segments)),
        when(Cell::Bytes(translog)),
    ]
}
