use super::*;

const GOOD: &str = r#"cluster = "news"
node_id = 2
data_dir = "/data"
insecure = true

[listen]
kafka = "0.0.0.0:9092"
webhdfs = "0.0.0.0:9870"

[advertise]
elastic = "search.example:443"

[[peers]]
id = 2
host = "10.0.0.2"
[[peers]]
id = 1
host = "10.0.0.1"
[[peers]]
id = 3
host = "10.0.0.3"
"#;

fn parse_with(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, String> {
    let env: Vec<_> = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let sets: Vec<_> = sets.iter().map(ToString::to_string).collect();
    let sources = Sources { file: "n.toml", text, env: &env, sets: &sets };
    Config::parse(&sources).map_err(|e| e.to_string())
}

/// `GOOD` with one text replaced by another must fail with exactly this message.
fn check(from: &str, to: &str, message: &str) {
    assert!(GOOD.contains(from), "{from}");
    let error = parse_with(&GOOD.replacen(from, to, 1), &[], &[]).expect_err(message);
    assert_eq!(error, message);
}

#[test]
fn reads_a_file_and_fills_defaults() {
    let config = parse_with(GOOD, &[], &[]).unwrap();
    assert_eq!(config.cluster, "news");
    assert_eq!(config.node_id, NodeId(2));
    assert_eq!(config.peers.iter().map(|p| p.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(config.peers[0].raft_port, 7400);
    assert_eq!(config.listen.console.to_string(), "127.0.0.1:5600");
    assert_eq!(config.advertise.kafka.to_string(), "10.0.0.2:9092");
    assert_eq!(config.advertise.console.to_string(), "127.0.0.1:5600");
    assert_eq!(config.advertise.elastic.to_string(), "search.example:443");
    let wal =
        WalConfig { sync: WalSync::Always, sync_interval_ms: 200, file_bytes: 64 * 1024 * 1024 };
    assert_eq!(config.wal, wal);
    assert_eq!(config.raft.data_groups, 6);
    assert!(config.log.auto_create_topics);
    assert_eq!(config.log.default_partitions, 3);
}

#[test]
fn later_sources_win() {
    let env = [("TRINE_WAL_SYNC", "interval"), ("TRINE_LOG_DEFAULT_PARTITIONS", "7")];
    let config = parse_with(GOOD, &env, &["log.default_partitions=9"]).unwrap();
    assert_eq!(config.wal.sync, WalSync::Interval);
    assert_eq!(config.log.default_partitions, 9);
    assert_eq!(parse_with(GOOD, &[("TRINE_CLUSTER", "x")], &[]).unwrap().cluster, "x");
    assert!(parse_with(GOOD, &[("TRINE_LOGLEVEL", "x"), ("TRINE_X", "y")], &[]).is_ok());
}

#[test]
fn mistakes_are_named_with_their_place() {
    check(
        "webhdfs =",
        "webhdsf =",
        "n.toml:8: unknown key \"listen.webhdsf\"; did you mean \"listen.webhdfs\"?",
    );
    check("cluster =", "clutser =", "n.toml:1: unknown key \"clutser\"; did you mean \"cluster\"?");
    check("[listen]", "[lisen]", "n.toml:6: unknown section \"lisen\"; did you mean \"listen\"?");
    check(
        "id = 1\nhost",
        "id = 1\nhots",
        "n.toml:18: unknown key of a peer \"hots\"; did you mean \"host\"?",
    );
    check(
        "0.0.0.0:9870",
        "0.0.0.0",
        "n.toml:8: listen.webhdfs must be IP:port, such as 0.0.0.0:9092, not \"0.0.0.0\"",
    );
    check(
        "search.example:443",
        "search example:443",
        "n.toml:11: advertise.elastic must be host:port, not \"search example:443\"",
    );
    check("10.0.0.1", "10.0 .0.1", "n.toml:18: \"10.0 .0.1\" is not a host name or IP address");
    check(
        "node_id = 2",
        "node_id = 4",
        "n.toml:2: node_id must be a whole number from 1 to 3, not 4",
    );
    check("node_id = 2", "node_id = \"2\"", "n.toml:2: node_id must be a whole number from 1 to 3");
    check("node_id = 2\n", "", "n.toml: node_id is missing");
    check("id = 3", "id = 1", "n.toml:20: peer 1 is given twice");
    check(
        "0.0.0.0:9870",
        "0.0.0.0:9092",
        "n.toml:8: listen.webhdfs and listen.kafka share port 9092",
    );
    check(
        "0.0.0.0:9870",
        "127.0.0.1:9200",
        "n.toml: listen.elastic and listen.webhdfs share port 9200",
    );
    check(
        "insecure = true\n",
        "insecure = true\nwal = 1\n",
        "n.toml:5: unknown key \"wal\"; known are cluster, node_id, data_dir, insecure, \
         listen.kafka, listen.kafka_tls, listen.webhdfs, listen.datanode_http, listen.elastic, \
         listen.console, listen.raft, listen.bulk, advertise.kafka, advertise.kafka_tls, \
         advertise.webhdfs, advertise.datanode_http, advertise.elastic, advertise.console, \
         wal.sync, wal.sync_interval_ms, wal.file_bytes, log.auto_create_topics, \
         log.default_partitions, groups.min_session_timeout_ms, groups.max_session_timeout_ms, \
         groups.initial_rebalance_delay_ms, groups.max_size, \
         groups.consumer_session_timeout_ms, groups.consumer_heartbeat_interval_ms, \
         log.retention_check_ms, log.compaction_check_ms, log.compaction_bytes_per_second, \
         log.offsets_retention_minutes, log.offsets_check_ms, disk.reserve_bytes, \
         raft.data_groups, raft.heartbeat_ms, raft.election_min_ms, raft.election_max_ms, \
         raft.keep_log_bytes, limits.connections, limits.request_bytes, limits.inflight_bytes, \
         kafka.security_protocol, kafka.tls_listener, kafka.client_auth, \
         kafka.sasl_mechanisms, kafka.max_reauth_ms, kafka.failed_authentication_delay_ms, \
         kafka.authorizer, kafka.super_users, kafka.allow_everyone_if_no_acl_found, \
         kafka.broker_session_timeout_ms, tls.certificate_file, tls.key_file, \
         tls.client_ca_file, security.admin_user, security.admin_password_file, \
         security.admin_password, peers",
    );
    check(
        "insecure = true\n",
        "insecure = true\ngroups.consumer_session_timeout_ms = 5000\n",
        "n.toml: groups.consumer_heartbeat_interval_ms must be below \
         groups.consumer_session_timeout_ms",
    );
    check(
        "host = \"10.0.0.2\"",
        "host = \"10.0.0.2\"\nraft_port = 7500",
        "n.toml:16: the other nodes are told raft_port = 7500 of this node, \
         but listen.raft binds 7400",
    );
}

#[test]
fn the_network_needs_a_word() {
    let text = GOOD.replace("insecure = true", "insecure = false");
    let error = parse_with(&text, &[], &[]).expect_err("open to the network");
    assert_eq!(
        error.lines().next(),
        Some(
            "n.toml:7: listen.kafka = 0.0.0.0:9092 is open to the network without TLS and \
             passwords; say insecure = true to allow it, or bind 127.0.0.1"
        )
    );
    assert_eq!(error.lines().count(), 2);
}

#[test]
fn texts_that_are_no_toml_or_no_cluster() {
    let error = parse_with("a = 1\nb = = 2\n", &[], &[]).expect_err("not TOML");
    assert!(error.starts_with("n.toml:2: "), "{error}");
    let two = GOOD.rsplit_once("[[peers]]").unwrap().0;
    let error = parse_with(two, &[], &[]).expect_err("two peers");
    assert!(error.starts_with("n.toml: 3 peers are needed, 2 are given"), "{error}");
}

#[test]
fn words_of_the_command_line_and_environment_are_checked() {
    /// Environment, words of the command line, the message.
    type Case = (&'static [(&'static str, &'static str)], &'static [&'static str], &'static str);
    let cases: [Case; 7] = [
        (&[], &["wal.snyc=always"], "--set: unknown key \"wal.snyc\"; did you mean \"wal.sync\"?"),
        (&[], &["wal.sync"], "--set: \"wal.sync\" is not key=value"),
        (
            &[],
            &["wal.sync=never"],
            "--set wal.sync: wal.sync must be \"always\" or \"interval\", not \"never\"",
        ),
        (
            &[],
            &["wal.file_bytes=1048577"],
            "--set wal.file_bytes: wal.file_bytes must be a multiple of 4096, not 1048577",
        ),
        (
            &[],
            &["raft.election_max_ms=400"],
            "--set raft.election_max_ms: raft.election_max_ms must be above raft.election_min_ms",
        ),
        (
            &[("TRINE_WAL_SINC", "x")],
            &[],
            "environment: unknown variable \"TRINE_WAL_SINC\"; did you mean \"TRINE_WAL_SYNC\"?",
        ),
        (
            &[("TRINE_INSECURE", "yes")],
            &[],
            "environment variable TRINE_INSECURE: insecure must be true or false, not yes",
        ),
    ];
    for (env, sets, message) in cases {
        let error = parse_with(GOOD, env, sets).expect_err(message);
        assert_eq!(error.lines().next(), Some(message));
    }
}

#[test]
fn the_shipped_files_are_valid() {
    let files = [
        include_str!("../../../../cluster-config/node1.toml"),
        include_str!("../../../../cluster-config/node2.toml"),
        include_str!("../../../../cluster-config/node3.toml"),
    ];
    for (text, id) in files.into_iter().zip(1..) {
        let config = parse_with(text, &[], &[]).unwrap();
        assert_eq!(config.node_id, NodeId(id));
        assert_eq!(config.advertise.kafka.to_string(), format!("10.0.0.{id}:9092"));
    }
}

const SECURED: &str = r#"node_id = 1
data_dir = "/data"
[listen]
kafka = "0.0.0.0:9092"
[kafka]
security_protocol = "sasl_ssl"
tls_listener = "ssl"
client_auth = "required"
authorizer = true
super_users = "User:root; User:CN=ops,O=x"
[tls]
certificate_file = "/tls/node.pem"
key_file = "/tls/node.key"
client_ca_file = "/tls/ca.pem"
[security]
admin_user = "admin"
admin_password_file = "/tls/password"
[[peers]]
id = 1
host = "127.0.0.1"
[[peers]]
id = 2
host = "127.0.0.2"
[[peers]]
id = 3
host = "127.0.0.3"
"#;

fn check_secured(from: &str, to: &str, message: &str) {
    assert!(SECURED.contains(from), "{from}");
    let error = parse_with(&SECURED.replacen(from, to, 1), &[], &[]).expect_err(message);
    assert_eq!(error, message);
}

#[test]
fn a_secured_port_needs_no_word_of_insecurity() {
    let config = parse_with(SECURED, &[], &[]).unwrap();
    assert_eq!(config.kafka.protocol.name(), "SASL_SSL");
    let second = config.kafka.tls_listener.clone().unwrap();
    assert_eq!((second.listen.port(), second.protocol.name()), (9093, "SSL"));
    assert_eq!(second.advertise.to_string(), "127.0.0.1:9093");
    let rules = config.kafka.rules.unwrap();
    let users: Vec<_> = rules.super_users.iter().map(String::as_str).collect();
    assert_eq!(users, ["User:CN=ops,O=x", "User:admin", "User:root"]);
    assert_eq!(config.kafka.mechanisms.len(), 3);
    assert!(config.security.tls.is_some());
    let env = [("TRINE_SECURITY_ADMIN_PASSWORD", "geheim")];
    let text = SECURED.replace("admin_password_file = \"/tls/password\"\n", "");
    let config = parse_with(&text, &env, &[]).unwrap();
    assert!(config.security.admin.is_some());
    assert!(!format!("{config:?}").contains("geheim"));
}

#[test]
fn mistakes_in_security_are_named_with_their_place() {
    check_secured(
        "certificate_file = \"/tls/node.pem\"\nkey_file = \"/tls/node.key\"\n",
        "",
        "n.toml:6: kafka.security_protocol = \"sasl_ssl\" needs tls.certificate_file\n\
         n.toml:6: kafka.security_protocol = \"sasl_ssl\" needs tls.key_file",
    );
    check_secured(
        "client_ca_file = \"/tls/ca.pem\"\n",
        "",
        "n.toml:8: kafka.client_auth = \"required\" needs tls.client_ca_file",
    );
    check_secured(
        "\"sasl_ssl\"",
        "\"sasl\"",
        "n.toml:6: kafka.security_protocol must be one of \"plaintext\", \"ssl\", \
         \"sasl_plaintext\", \"sasl_ssl\", not \"sasl\"\n\
         n.toml:4: listen.kafka = 0.0.0.0:9092 is open to the network without TLS and passwords; \
         say insecure = true to allow it, or bind 127.0.0.1",
    );
    check_secured(
        "authorizer = true",
        "sasl_mechanisms = \"PLAIN,GSSAPI\"",
        "n.toml:9: kafka.sasl_mechanisms: \"GSSAPI\" is not known; known are \
         PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    );
    check_secured(
        "User:root;",
        "root;",
        "n.toml:10: kafka.super_users: \"root\" is not like User:admin; separate several by ;",
    );
    check_secured(
        "admin_password_file = \"/tls/password\"\n",
        "",
        "n.toml:16: security.admin_user needs security.admin_password_file or \
         TRINE_SECURITY_ADMIN_PASSWORD",
    );
    check_secured(
        "\"sasl_ssl\"",
        "\"sasl_plaintext\"",
        "n.toml:4: listen.kafka = 0.0.0.0:9092 is open to the network without TLS and passwords; \
         say insecure = true to allow it, or bind 127.0.0.1",
    );
}
