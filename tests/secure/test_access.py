"""What those who are let in may do."""

import struct

import kafka.errors
import pytest
from confluent_kafka import KafkaException, Producer, TopicCollection
from confluent_kafka.admin import (
    AclBindingFilter, AclOperation, AclPermissionType, AdminClient, ConfigResource, NewTopic,
    ResourcePatternType, ResourceType, ScramCredentialInfo, ScramMechanism,
    UserScramCredentialUpsertion,
)
from support.secured import DEADLINE, RawSasl, consume, every_entry, produce
from support.wait import wait_until

SCRAM = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)


@pytest.fixture
def user(secured, name):
    """Settings of a fresh user, and its principal."""
    client = secured.user(f"user-{name}")
    wait_until(lambda: AdminClient(client).list_topics(timeout=5), DEADLINE, "the user")
    return client, f"User:user-{name}"


def make(secured, *topics):
    for future in secured.admin.create_topics([NewTopic(t, 3, 3) for t in topics]).values():
        future.result(DEADLINE)


def test_producing_needs_write(secured, user, name):
    client, principal = user
    make(secured, name)
    denied = produce(client, name)
    assert denied.name() == "TOPIC_AUTHORIZATION_FAILED"
    secured.allow(principal, ("WRITE", "TOPIC", name))
    assert produce(client, name, **{"enable.idempotence": True}) is None
    # DENY goes before ALLOW.
    acl = secured.acl(principal, "WRITE", "TOPIC", name, allow=False)
    secured.admin.create_acls([acl])[acl].result(DEADLINE)
    wait_until(lambda: produce(client, name) is not None, DEADLINE, "the denial")


def test_consuming_needs_topic_and_group(secured, user, name):
    client, principal = user
    make(secured, name)
    secured.allow(principal, ("WRITE", "TOPIC", name), ("READ", "TOPIC", name))
    assert produce(client, name) is None
    error = consume(client, name, f"group-{name}")
    assert error.name() == "GROUP_AUTHORIZATION_FAILED"
    secured.allow(principal, ("READ", "GROUP", "group-.."))
    assert consume(client, name, f"group-{name}") == [b"record 0"]


def test_reading_stops_when_the_right_goes(secured, user, name):
    from confluent_kafka import Consumer, TopicPartition
    client, principal = user
    make(secured, name)
    secured.allow(principal, ("WRITE", "TOPIC", name), ("READ", "TOPIC", name),
                  ("READ", "GROUP", name))
    for _ in range(10):
        assert produce(client, name) is None
    consumer = Consumer({**client, "group.id": name, "auto.offset.reset": "earliest",
                         "enable.auto.commit": False})
    consumer.assign([TopicPartition(name, p, 0) for p in range(3)])
    wait_until(lambda: consumer.poll(0.2), DEADLINE, "a record", pause=0)
    chosen = AclBindingFilter(ResourceType.TOPIC, name, ResourcePatternType.LITERAL, principal,
                              None, AclOperation.READ, AclPermissionType.ALLOW)
    removed = secured.admin.delete_acls([chosen])[chosen].result(DEADLINE)
    assert len(removed) == 1

    def refused():
        message = consumer.poll(0.2)
        error = message and message.error()
        return error and error.name() == "TOPIC_AUTHORIZATION_FAILED"

    wait_until(refused, DEADLINE, "the denial in the middle of a session", pause=0)
    consumer.close()


def test_prefixes_and_wildcards(secured, user, name):
    client, principal = user
    make(secured, f"team-{name}", f"other-{name}")
    secured.allow(principal, ("WRITE", "TOPIC", f"team-{name[:6]}.."))
    assert produce(client, f"team-{name}") is None
    assert produce(client, f"other-{name}").name() == "TOPIC_AUTHORIZATION_FAILED"
    listed = AdminClient(client).list_topics(timeout=DEADLINE).topics
    assert f"team-{name}" in listed and f"other-{name}" not in listed
    hidden = AdminClient(client).list_topics(f"other-{name}", timeout=DEADLINE)
    missing = AdminClient(client).list_topics(f"missing-{name}", timeout=DEADLINE)
    errors = {t.error.name() for answer in (hidden, missing) for t in answer.topics.values()}
    assert errors == {"TOPIC_AUTHORIZATION_FAILED"}, "nothing tells which of them exists"


def test_administration_needs_rights(secured, user, name):
    client, principal = user
    admin = AdminClient(client)
    make(secured, name)

    def only(futures):
        return list(futures.values())[0].result(DEADLINE)

    tries = {
        "create": lambda: only(admin.create_topics([NewTopic(f"new-{name}", 1, 1)])),
        "describe": lambda: only(admin.describe_configs([ConfigResource("topic", name)])),
        "delete": lambda: only(admin.delete_topics([name])),
        "users": lambda: only(admin.alter_user_scram_credentials([
            UserScramCredentialUpsertion(f"new-{name}", SCRAM, b"secret")])),
    }
    for what, attempt in tries.items():
        with pytest.raises(KafkaException, match="AUTHORIZATION_FAILED"):
            attempt()
            pytest.fail(f"{what} was allowed")
    with pytest.raises(kafka.errors.ClusterAuthorizationFailedError):
        every_entry(client)
    assert name in secured.admin.list_topics(timeout=DEADLINE).topics
    secured.allow(principal, ("CREATE", "TOPIC", f"new-{name}"), ("DELETE", "TOPIC", name),
                  ("DESCRIBE_CONFIGS", "TOPIC", name), ("DESCRIBE", "BROKER", "kafka-cluster"),
                  ("ALTER", "BROKER", "kafka-cluster"))
    for attempt in [tries["describe"], tries["create"], tries["delete"], tries["users"],
                    lambda: every_entry(client)]:
        wait_until(lambda: attempt() or True, DEADLINE, "the right on all nodes")


def delete_by_id(raw, topic_id):
    """DeleteTopics, version 6, of one topic; its name as it is told, and the error code."""
    timeout = struct.pack(">i", DEADLINE * 1000)
    told = raw.ask(20, 6, b"\x02\0" + topic_id + b"\0" + timeout + b"\0", flexible=True)
    # A tag list, the throttle time, one topic: its name, its id, the code.
    length = told[6]
    name = told[7:6 + length].decode() if length else None
    at = 7 + max(length - 1, 0)
    assert told[5] == 2 and told[at:at + 16] == topic_id
    return name, struct.unpack_from(">h", told, at + 16)[0]


def test_who_may_only_describe_a_topic_deletes_none_by_any_name(secured, user, name):
    client, principal = user
    make(secured, name)
    secured.known_everywhere()
    admin = AdminClient(client)
    topics = TopicCollection([name])
    found = secured.admin.describe_topics(topics)[name].result(DEADLINE).topic_id
    topic_id = struct.pack(">qq", found.get_most_significant_bits(),
                           found.get_least_significant_bits())
    raw = RawSasl(secured.cluster.kafka[0], client["sasl.username"], client["sasl.password"],
                  secured.certificates)
    denied, unknown_id = 29, 100
    assert delete_by_id(raw, topic_id) == (None, denied), "its name is not told"
    secured.allow(principal, ("DESCRIBE", "TOPIC", name), ("DESCRIBE", "TOPIC", f"no-{name}"))
    assert delete_by_id(raw, topic_id) == (name, denied)
    assert delete_by_id(raw, bytes(15) + b"x") == (None, unknown_id)
    for topic, error in ((name, "TOPIC_AUTHORIZATION_FAILED"),
                         (f"no-{name}", "UNKNOWN_TOPIC_OR_PART"),
                         (f"hidden-{name}", "TOPIC_AUTHORIZATION_FAILED")):
        with pytest.raises(KafkaException, match=error):
            admin.delete_topics([topic])[topic].result(DEADLINE)
    # Who may delete a topic and is denied to describe it cannot name it.
    hide = secured.acl(principal, "DESCRIBE", "TOPIC", name, allow=False)
    secured.admin.create_acls([hide])[hide].result(DEADLINE)
    secured.allow(principal, ("DELETE", "TOPIC", name))
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        admin.delete_topics([name])[name].result(DEADLINE)
    assert delete_by_id(raw, topic_id) == (name, 0)
    raw.close()


def test_a_transactional_id_needs_write(secured, user, name):
    client, principal = user
    producer = Producer({**client, "transactional.id": name})
    with pytest.raises(KafkaException) as refused:
        producer.init_transactions(DEADLINE)
    assert refused.value.args[0].name() == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"


def test_entries_are_listed_and_removed_by_filter(secured, name):
    principal = f"User:{name}"
    secured.allow(principal, ("READ", "TOPIC", name), ("WRITE", "TOPIC", f"{name[:4]}.."),
                  ("READ", "GROUP", name))

    def chosen(kind, of, pattern):
        return AclBindingFilter(kind, of, pattern, principal, None, AclOperation.ANY,
                                AclPermissionType.ANY)

    def listed(kind, of, pattern):
        found = secured.admin.describe_acls(chosen(kind, of, pattern)).result(DEADLINE)
        return {(acl.restype, acl.name, acl.operation) for acl in found}

    topic = (ResourceType.TOPIC, name, AclOperation.READ)
    prefix = (ResourceType.TOPIC, name[:4], AclOperation.WRITE)
    group = (ResourceType.GROUP, name, AclOperation.READ)
    assert listed(ResourceType.ANY, None, ResourcePatternType.ANY) == {topic, prefix, group}
    assert listed(ResourceType.TOPIC, name, ResourcePatternType.MATCH) == {topic, prefix}
    assert listed(ResourceType.TOPIC, name, ResourcePatternType.LITERAL) == {topic}
    gone = chosen(ResourceType.TOPIC, name, ResourcePatternType.MATCH)
    removed = secured.admin.delete_acls([gone])[gone].result(DEADLINE)
    assert len(removed) == 2
    assert listed(ResourceType.ANY, None, ResourcePatternType.ANY) == {group}


def test_without_an_authorizer_there_are_no_entries(cluster):
    with pytest.raises(kafka.errors.SecurityDisabledError):
        every_entry({"bootstrap.servers": ",".join(cluster.kafka)})


def test_denials_are_counted(secured, user, name):
    client, _ = user

    def denied():
        lines = [line for node in secured.cluster.nodes
                 for line in node.get("/metrics").text.splitlines()]
        counts = [line for line in lines if line.startswith("trine_denied_actions_total ")]
        return sum(float(line.split()[1]) for line in counts)

    before = denied()
    make(secured, name)
    assert produce(client, name) is not None
    assert denied() > before
