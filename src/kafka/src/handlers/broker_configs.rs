//! Settings of a Kafka 4.0 broker that have no other meaning here than to be reported: tools and
//! clients list them and look single ones up.

/// Type of a value, as Kafka numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean = 1,
    Str = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

use Kind::{Boolean, Class, Double, Int, List, Long, Password, Short, Str};

/// Name, type and default; `None` where Kafka's default is null.
pub(crate) type Row = (&'static str, Kind, Option<&'static str>);

const fn row(name: &'static str, kind: Kind, default: &'static str) -> Row {
    (name, kind, Some(default))
}

const fn unset(name: &'static str, kind: Kind) -> Row {
    (name, kind, None)
}

/// Settings with Kafka's defaults, by name. Those that give topic settings their default, and
/// those that this node has a value of its own for, are not among them.
pub(crate) const BROKER_SETTINGS: &[Row] = &[
    unset("alter.config.policy.class.name", Class),
    row("alter.log.dirs.replication.quota.window.num", Int, "11"),
    row("alter.log.dirs.replication.quota.window.size.seconds", Int, "1"),
    row("authorizer.class.name", Str, ""),
    row("auto.include.jmx.reporter", Boolean, "true"),
    row("auto.leader.rebalance.enable", Boolean, "true"),
    row("background.threads", Int, "10"),
    row("broker.heartbeat.interval.ms", Int, "2000"),
    unset("broker.rack", Str),
    unset("client.quota.callback.class", Class),
    row("connection.failed.authentication.delay.ms", Int, "100"),
    row("connections.max.idle.ms", Long, "600000"),
    row("connections.max.reauth.ms", Long, "0"),
    row("controlled.shutdown.enable", Boolean, "true"),
    unset("controller.listener.names", Str),
    row("controller.performance.always.log.threshold.ms", Long, "2000"),
    row("controller.performance.sample.period.ms", Long, "60000"),
    row("controller.quorum.append.linger.ms", Int, "25"),
    row("controller.quorum.bootstrap.servers", List, ""),
    row("controller.quorum.election.backoff.max.ms", Int, "1000"),
    row("controller.quorum.election.timeout.ms", Int, "1000"),
    row("controller.quorum.fetch.timeout.ms", Int, "2000"),
    row("controller.quorum.request.timeout.ms", Int, "2000"),
    row("controller.quorum.retry.backoff.ms", Int, "20"),
    row("controller.quorum.voters", List, ""),
    row("controller.quota.window.num", Int, "11"),
    row("controller.quota.window.size.seconds", Int, "1"),
    row("controller.socket.timeout.ms", Int, "30000"),
    unset("create.topic.policy.class.name", Class),
    row("default.replication.factor", Int, "3"),
    row("delegation.token.expiry.check.interval.ms", Long, "3600000"),
    row("delegation.token.expiry.time.ms", Long, "86400000"),
    row("delegation.token.max.lifetime.ms", Long, "604800000"),
    unset("delegation.token.secret.key", Password),
    row("delete.records.purgatory.purge.interval.requests", Int, "1"),
    row("delete.topic.enable", Boolean, "true"),
    row("early.start.listeners", Str, ""),
    row("fetch.max.bytes", Int, "57671680"),
    row("fetch.purgatory.purge.interval.requests", Int, "1000"),
    row("group.consumer.assignors", List, "uniform,range"),
    row("group.consumer.migration.policy", Str, "disabled"),
    row("group.coordinator.append.linger.ms", Int, "5"),
    row("group.coordinator.rebalance.protocols", List, "classic,consumer"),
    row("group.coordinator.threads", Int, "4"),
    row("initial.broker.registration.timeout.ms", Int, "60000"),
    unset("inter.broker.listener.name", Str),
    row("kafka.metrics.polling.interval.secs", Int, "10"),
    row("kafka.metrics.reporters", List, ""),
    row("leader.imbalance.check.interval.seconds", Long, "300"),
    row("leader.imbalance.per.broker.percentage", Int, "10"),
    row(
        "listener.security.protocol.map",
        Str,
        "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,\
        SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
    ),
    row("log.cleaner.backoff.ms", Long, "15000"),
    row("log.cleaner.dedupe.buffer.size", Long, "134217728"),
    row("log.cleaner.enable", Boolean, "true"),
    row("log.cleaner.io.buffer.load.factor", Double, "0.9"),
    row("log.cleaner.io.buffer.size", Int, "524288"),
    row("log.cleaner.threads", Int, "1"),
    row("log.dir.failure.timeout.ms", Long, "30000"),
    row("log.flush.offset.checkpoint.interval.ms", Int, "60000"),
    row("log.flush.scheduler.interval.ms", Long, "9223372036854775807"),
    row("log.flush.start.offset.checkpoint.interval.ms", Int, "60000"),
    row("log.initial.task.delay.ms", Long, "30000"),
    row("log.retention.hours", Int, "168"),
    unset("log.retention.minutes", Int),
    row("log.roll.hours", Int, "168"),
    row("log.roll.jitter.hours", Int, "0"),
    row("max.connection.creation.rate", Int, "2147483647"),
    row("max.connections.per.ip", Int, "2147483647"),
    row("max.connections.per.ip.overrides", Str, ""),
    row("max.incremental.fetch.session.cache.slots", Int, "1000"),
    row("max.request.partition.size.limit", Int, "2000"),
    row("metadata.log.dir", Str, ""),
    row("metadata.log.max.record.bytes.between.snapshots", Long, "20971520"),
    row("metadata.log.max.snapshot.interval.ms", Long, "3600000"),
    row("metadata.log.segment.bytes", Int, "1073741824"),
    row("metadata.log.segment.ms", Long, "604800000"),
    row("metadata.max.idle.interval.ms", Int, "500"),
    row("metadata.max.retention.bytes", Long, "104857600"),
    row("metadata.max.retention.ms", Long, "604800000"),
    row("metric.reporters", List, "org.apache.kafka.common.metrics.JmxReporter"),
    row("metrics.num.samples", Int, "2"),
    row("metrics.recording.level", Str, "INFO"),
    row("metrics.sample.window.ms", Long, "30000"),
    row("num.alter.log.dirs.threads", Int, "1"),
    row("num.io.threads", Int, "8"),
    row("num.network.threads", Int, "3"),
    row("num.recovery.threads.per.data.dir", Int, "2"),
    row("num.replica.fetchers", Int, "1"),
    row("offset.metadata.max.bytes", Int, "4096"),
    row("offsets.commit.timeout.ms", Int, "5000"),
    row("offsets.load.buffer.size", Int, "5242880"),
    row("offsets.topic.compression.codec", Int, "0"),
    row("offsets.topic.num.partitions", Int, "50"),
    row("offsets.topic.replication.factor", Short, "3"),
    row("offsets.topic.segment.bytes", Int, "104857600"),
    unset("password.encoder.secret", Password),
    unset("principal.builder.class", Class),
    row("process.roles", List, "broker,controller"),
    row("producer.id.expiration.check.interval.ms", Int, "600000"),
    row("producer.id.expiration.ms", Int, "86400000"),
    row("producer.purgatory.purge.interval.requests", Int, "1000"),
    row("queued.max.request.bytes", Long, "-1"),
    row("queued.max.requests", Int, "500"),
    row("quota.window.num", Int, "11"),
    row("quota.window.size.seconds", Int, "1"),
    row("remote.log.storage.system.enable", Boolean, "false"),
    row("replica.fetch.backoff.ms", Int, "1000"),
    row("replica.fetch.max.bytes", Int, "1048576"),
    row("replica.fetch.min.bytes", Int, "1"),
    row("replica.fetch.response.max.bytes", Int, "10485760"),
    row("replica.fetch.wait.max.ms", Int, "500"),
    row("replica.high.watermark.checkpoint.interval.ms", Long, "5000"),
    row("replica.lag.time.max.ms", Long, "30000"),
    unset("replica.selector.class", Str),
    row("replica.socket.receive.buffer.bytes", Int, "65536"),
    row("replica.socket.timeout.ms", Int, "30000"),
    row("replication.quota.window.num", Int, "11"),
    row("replication.quota.window.size.seconds", Int, "1"),
    row("request.timeout.ms", Int, "30000"),
    row("sasl.enabled.mechanisms", List, "GSSAPI"),
    row("sasl.kerberos.min.time.before.relogin", Long, "60000"),
    row("sasl.kerberos.ticket.renew.jitter", Double, "0.05"),
    row("sasl.kerberos.ticket.renew.window.factor", Double, "0.8"),
    row("sasl.mechanism.controller.protocol", Str, "GSSAPI"),
    row("sasl.mechanism.inter.broker.protocol", Str, "GSSAPI"),
    row("sasl.server.max.receive.size", Int, "524288"),
    row("security.inter.broker.protocol", Str, "PLAINTEXT"),
    unset("security.providers", Str),
    row("server.max.startup.time.ms", Long, "9223372036854775807"),
    row("socket.connection.setup.timeout.max.ms", Long, "30000"),
    row("socket.connection.setup.timeout.ms", Long, "10000"),
    row("socket.listen.backlog.size", Int, "50"),
    row("socket.receive.buffer.bytes", Int, "102400"),
    row("socket.send.buffer.bytes", Int, "102400"),
    row("ssl.cipher.suites", List, ""),
    row("ssl.client.auth", Str, "none"),
    row("ssl.enabled.protocols", List, "TLSv1.2,TLSv1.3"),
    row("ssl.endpoint.identification.algorithm", Str, "https"),
    unset("ssl.key.password", Password),
    unset("ssl.keystore.location", Str),
    unset("ssl.keystore.password", Password),
    row("ssl.keystore.type", Str, "JKS"),
    row("ssl.protocol", Str, "TLSv1.3"),
    unset("ssl.truststore.location", Str),
    unset("ssl.truststore.password", Password),
    row("ssl.truststore.type", Str, "JKS"),
    row("telemetry.max.bytes", Int, "1048576"),
    row("transaction.abort.timed.out.transaction.cleanup.interval.ms", Int, "10000"),
    row("transaction.max.timeout.ms", Int, "900000"),
    row("transaction.partition.verification.enable", Boolean, "true"),
    row("transaction.remove.expired.transaction.cleanup.interval.ms", Int, "3600000"),
    row("transaction.state.log.load.buffer.size", Int, "5242880"),
    row("transaction.state.log.min.isr", Int, "2"),
    row("transaction.state.log.num.partitions", Int, "50"),
    row("transaction.state.log.replication.factor", Short, "3"),
    row("transaction.state.log.segment.bytes", Int, "104857600"),
    row("transactional.id.expiration.ms", Int, "604800000"),
    row("unstable.api.versions.enable", Boolean, "false"),
    row("unstable.feature.versions.enable", Boolean, "false"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_in_order_and_once() {
        for pair in BROKER_SETTINGS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} and {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn defaults_have_their_type() {
        for (name, kind, default) in BROKER_SETTINGS {
            let Some(default) = default else { continue };
            let good = match kind {
                Boolean => default.parse::<bool>().is_ok(),
                Int | Long | Short => default.parse::<i64>().is_ok(),
                Double => default.parse::<f64>().is_ok(),
                Str | List | Class => true,
                Password => false,
            };
            assert!(good, "{name}");
        }
    }
}
