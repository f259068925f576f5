"""The consumer protocol (KIP-848, group.protocol=consumer) of librdkafka and of Kafka's own client.

Sessions and heartbeats are shorter than Kafka's defaults here, so that a rebalance does not take
the five seconds between two heartbeats; the tests that use the shared cluster have the defaults.
"""

import re
import struct
import subprocess
import sys
import textwrap
import time

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, ConsumerGroupType
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from jvm import Jvm
from support.cluster import Cluster
from support.raw_kafka import RawKafka
from support.wait import wait_until
from test_groups import (
    DEADLINE, Member, Reader, Sender, all_read, check_committed, create, servers, wait_read_on,
)
from test_java import Tools

SESSION_MS = 8_000
# Where nodes die, and nobody shall lose its place meanwhile.
LONG_SESSION_MS = 20_000
# Not less: librdkafka waits for an answer a little longer than the interval, then gives up the
# connection, and commits that were on their way are repeated in another order.
INTERVAL_MS = 1_000


def sets(session_ms):
    return ["disk.reserve_bytes=0", f"groups.consumer_session_timeout_ms={session_ms}",
            f"groups.consumer_heartbeat_interval_ms={INTERVAL_MS}"]


CONSUMER = {"group.protocol": "consumer"}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def quick():
    """A cluster with short sessions that no test breaks."""
    shared = Cluster(sets=sets(SESSION_MS))
    yield shared
    shared.close()


def joined(cluster, topic, **more):
    """A member of the group that is named as its topic is."""
    return Reader(cluster, topic, [topic], **CONSUMER, **more)


def shares(members, count):
    """Whether the members own all partitions, each an equal share."""
    owned = [member.owns for member in members]
    equal = max(map(len, owned)) - min(map(len, owned)) <= 1
    return equal and sorted(p for owns in owned for p in owns) == list(range(count))


def described(cluster, group):
    """The group as its coordinator tells. Asks with a client of its own: librdkafka's admin client
    remembers a coordinator for a quarter of an hour, whatever it answers."""
    def told():
        admin = AdminClient({"bootstrap.servers": servers(cluster), "log_level": 0})
        return admin.describe_consumer_groups([group])[group].result(DEADLINE)

    return wait_until(told, DEADLINE, "the description of the group")


def settle(cluster, group, sender):
    """Waits until every member is in its last epoch and has heard so. A commit that meets the
    change of its member's epoch is refused, as by Kafka, and one of a member that leaves is lost
    with that: the next one reads again."""
    wait_until(lambda: described(cluster, group).state.name == "STABLE", DEADLINE, "a stable group")
    sender.wait_acks(200)


def wait_committed(cluster, group, acked):
    """Waits until the group has committed all of it: members do it again and again."""
    wait_until(lambda: check_committed(cluster, group, acked) is None, DEADLINE,
               "the commit of everything")


@pytest.mark.parametrize("assignor", [None, "uniform", "range"])
def test_members_share_come_and_leave(quick, name, assignor):
    create(quick, name, 6)
    more = {"group.remote.assignor": assignor} if assignor else {}
    one = joined(quick, name, **more)
    wait_until(lambda: shares([one], 6), DEADLINE, "all partitions at one member")
    two = joined(quick, name, **more)
    wait_until(lambda: shares([one, two], 6), DEADLINE, "three partitions each")
    sender = Sender(quick, name)
    sender.wait_acks(200)
    wait_until(lambda: one.found and two.found, DEADLINE, "records at both members")
    three = joined(quick, name, **more)
    wait_until(lambda: shares([one, two, three], 6), DEADLINE, "two partitions each")
    if assignor == "range":
        assert sorted(map(sorted, [one.owns, two.owns, three.owns])) == [[0, 1], [2, 3], [4, 5]]
    settle(quick, name, sender)
    one.leave()
    wait_until(lambda: shares([two, three], 6), DEADLINE, "all partitions at those who stay")
    settle(quick, name, sender)
    sender.stop()
    found = lambda: [*one.found, *two.found, *three.found]  # noqa: E731
    wait_until(lambda: all_read(sender, [one, two, three]), DEADLINE, "all records")
    wait_committed(quick, name, sender.acked)
    two.leave()
    three.leave()
    # Partitions went from one to the other in good order, so nothing was read twice: but where a
    # commit met the change of its member's epoch.
    assert set(found()) == sender.acked.keys()
    refused = [*one.refused, *two.refused, *three.refused]
    assert len(found()) == len(sender.acked) or refused


MEMBER_THAT_DIES = textwrap.dedent("""
    import sys
    from confluent_kafka import Consumer
    servers, group = sys.argv[1:]
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "log_level": 0,
                         "group.protocol": "consumer"})
    consumer.subscribe([group])
    while True:
        consumer.poll(0.1)
        print(len(consumer.assignment()), flush=True)
""")


def test_a_member_that_dies_is_replaced_when_its_session_ends(quick, name):
    create(quick, name, 4)
    words = [sys.executable, "-c", MEMBER_THAT_DIES, servers(quick), name]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as dies:
        wait_until(lambda: dies.stdout.readline().strip() == "4", DEADLINE, "its partitions")
        stays = joined(quick, name)
        wait_until(lambda: len(stays.owns) == 2, DEADLINE, "a half for the second")
        dies.kill()
    died_at = time.monotonic()
    assert len(described(quick, name).members) == 2
    wait_until(lambda: shares([stays], 4), DEADLINE, "all partitions at the other")
    took = time.monotonic() - died_at
    assert took > SESSION_MS / 1000 - 2, f"replaced after {took:.1f} s, before its session ended"
    assert len(described(quick, name).members) == 1
    stays.leave()


def test_static_members_come_back_to_what_they_had(quick, name):
    create(quick, name, 4)
    stays = joined(quick, name, **{"group.instance.id": "a"})
    goes = joined(quick, name, **{"group.instance.id": "b"})
    wait_until(lambda: shares([stays, goes], 4), DEADLINE, "two each")
    before = set(goes.owns)
    goes.leave()
    back = joined(quick, name, **{"group.instance.id": "b"})
    wait_until(lambda: back.owns == before, DEADLINE, "the same partitions again")
    assert stays.owns == set(range(4)) - before
    told = described(quick, name)
    assert sorted(m.group_instance_id for m in told.members) == ["a", "b"]
    # Nobody takes a name that is in use.
    thief = Consumer({"bootstrap.servers": servers(quick), "group.id": name, "log_level": 0,
                      "group.instance.id": "a", **CONSUMER})
    thief.subscribe([name])
    refused = []

    def is_refused():
        message = thief.poll(0.2)
        if message is not None and message.error() is not None:
            refused.append(message.error().code())
        return KafkaError.UNRELEASED_INSTANCE_ID in refused or KafkaError._FATAL in refused

    wait_until(is_refused, DEADLINE, "the refusal")
    thief.close()
    assert shares([stays, back], 4)
    stays.leave()
    back.leave()
    # Both are away for a while only, and then for good.
    wait_until(lambda: described(quick, name).state.name == "EMPTY", DEADLINE, "an empty group")


def test_topics_that_come_and_grow_are_read(quick, name):
    admin = create(quick, f"{name}-a", 2)
    reader = Reader(quick, name, [f"^{name}-.*"], **CONSUMER)
    wait_until(lambda: reader.owns == {0, 1}, DEADLINE, "the first topic")
    create(quick, f"{name}-b", 5)
    create(quick, f"not-{name}-c", 7)
    wait_until(lambda: reader.owns == set(range(5)), DEADLINE, "the second topic")
    grown = NewPartitions(f"{name}-a", 6)
    admin.create_partitions([grown])[f"{name}-a"].result(DEADLINE)
    wait_until(lambda: reader.owns == set(range(6)), DEADLINE, "the new partitions")
    producer = Producer({"bootstrap.servers": servers(quick)})
    for topic, partitions in ((f"{name}-a", 6), (f"{name}-b", 5)):
        for partition in range(partitions):
            producer.produce(topic, b"x", partition=partition)
    assert producer.flush(DEADLINE) == 0
    wait_until(lambda: len(reader.found) == 11, DEADLINE, "a record of each partition")
    admin.delete_topics([f"{name}-a"])[f"{name}-a"].result(DEADLINE)
    wait_until(lambda: reader.owns == set(range(5)), DEADLINE, "the topic that is left")
    reader.leave()


def test_a_regular_expression_that_is_none_is_refused(quick, name):
    consumer = Consumer({"bootstrap.servers": servers(quick), "group.id": name, "log_level": 0,
                         **CONSUMER})
    codes = []

    def is_refused():
        message = consumer.poll(0.2)
        if message is not None and message.error() is not None:
            codes.append(message.error().code())
        return bool(codes)

    try:
        consumer.subscribe([f"^{name}(("])
        wait_until(is_refused, DEADLINE, "the refusal")
        assert codes[0] in (KafkaError._FATAL, 128)
    except KafkaException as error:
        # Some versions look at it themselves.
        assert error.args[0].code() == KafkaError._INVALID_ARG
    consumer.close()


def test_groups_are_listed_described_altered_and_deleted(quick, name):
    admin = create(quick, name, 1)
    member = joined(quick, name)
    wait_until(lambda: member.owns == {0}, DEADLINE, "the partition")

    def listed(kind):
        found = admin.list_consumer_groups(types={kind}).result(DEADLINE).valid
        return {group.group_id: group for group in found}

    assert listed(ConsumerGroupType.CONSUMER)[name].state.name == "STABLE"
    assert name not in listed(ConsumerGroupType.CLASSIC)
    told = described(quick, name)
    assert (told.state.name, told.partition_assignor) == ("STABLE", "uniform")
    assert told.type == ConsumerGroupType.CONSUMER
    [one] = told.members
    assert [p.topic for p in one.assignment.topic_partitions] == [name]
    assert [p.topic for p in one.target_assignment.topic_partitions] == [name]
    with pytest.raises(Exception, match="NON_EMPTY_GROUP"):
        admin.delete_consumer_groups([name])[name].result(DEADLINE)
    wanted = ConsumerGroupTopicPartitions(name, [TopicPartition(name, 0, 0)])

    def alter():
        altered = admin.alter_consumer_group_offsets([wanted])[name].result(DEADLINE)
        [part] = altered.topic_partitions
        return part.error and part.error.name()

    assert alter() == "UNKNOWN_MEMBER_ID", "there are members"
    member.leave()
    assert alter() is None
    asked = ConsumerGroupTopicPartitions(name, [TopicPartition(name, 0)])
    found = admin.list_consumer_group_offsets([asked])[name].result(DEADLINE)
    assert [part.offset for part in found.topic_partitions] == [0]
    admin.delete_consumer_groups([name])[name].result(DEADLINE)
    assert name not in listed(ConsumerGroupType.CONSUMER)


def test_a_group_changes_its_protocol_while_nobody_is_in_it(quick, name):
    create(quick, name, 2)
    sender = Sender(quick, name)
    sender.wait_acks(50)
    readers = []
    for protocol in ("classic", "consumer", "classic", "consumer"):
        reader = joined(quick, name) if protocol == "consumer" else Member(quick, name)
        wait_until(lambda: shares([reader], 2), DEADLINE, f"partitions by the {protocol} protocol")
        readers.append(reader)
        sender.wait_acks(50)
        wait_until(lambda: reader.found, DEADLINE, "records")
        other = Member(quick, name) if protocol == "consumer" else joined(quick, name)
        wait_until(lambda: other.errors, DEADLINE, "the other protocol is refused")
        assert not other.found
        other.leave()
        reader.leave()
    last = joined(quick, name)
    sender.stop()
    readers.append(last)
    wait_until(lambda: all_read(sender, readers), DEADLINE, "all records")
    last.leave()
    found = sum(len(reader.found) for reader in readers)
    assert found == len(sender.acked), "each went on where the one before had ended"


def test_the_coordinator_dies_while_a_group_consumes(own_cluster, name):
    cluster = own_cluster(sets=sets(LONG_SESSION_MS))
    create(cluster, name, 6)
    one, two = joined(cluster, name), joined(cluster, name)
    wait_until(lambda: shares([one, two], 6), DEADLINE, "three each")
    sender = Sender(cluster, name)
    sender.wait_acks(300)
    wait_until(lambda: one.found and two.found, DEADLINE, "records at both members")
    before = {member.member_id for member in described(cluster, name).members}
    owned = [set(one.owns), set(two.owns)]
    for _ in range(2):
        dead = cluster.node(described(cluster, name).coordinator.id)
        dead.kill()
        wait_read_on(sender, [one, two])
        # Nobody lost its place: members go on in their epochs.
        assert {member.member_id for member in described(cluster, name).members} == before
        assert [one.owns, two.owns] == owned
        dead.start()
        cluster.wait_ready()
    # A rebalance under a coordinator that dies.
    three = joined(cluster, name)
    wait_until(lambda: len(described(cluster, name).members) == 3, DEADLINE, "the third member")
    dead = cluster.node(described(cluster, name).coordinator.id)
    dead.kill()
    wait_until(lambda: shares([one, two, three], 6), DEADLINE, "two each")
    dead.start()
    cluster.wait_ready()
    sender.wait_acks(300)
    sender.stop()
    wait_until(lambda: all_read(sender, [one, two, three]), DEADLINE, "all records")
    wait_committed(cluster, name, sender.acked)
    for member in (one, two, three):
        member.leave()
        assert not member.errors, member.errors[:3]
    check_committed(cluster, name, sender.acked)
    cluster.wait_equal_digests()


def test_every_coordinator_dies_and_the_group_is_still_there(own_cluster, name):
    cluster = own_cluster(sets=sets(LONG_SESSION_MS))
    create(cluster, name, 4)
    one, two = joined(cluster, name), joined(cluster, name)
    wait_until(lambda: shares([one, two], 4), DEADLINE, "two each")
    before = {member.member_id for member in described(cluster, name).members}
    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        node.start()
    cluster.wait_ready()
    wait_until(lambda: shares([one, two], 4), DEADLINE, "two each again")
    assert {member.member_id for member in described(cluster, name).members} == before
    one.leave()
    two.leave()


@pytest.fixture(scope="module")
def jvm(tmp_path_factory):
    one = Jvm("4.1.1", tmp_path_factory.mktemp("java-consumer-protocol"))
    yield one
    one.close()


def test_kafkas_own_consumer_and_tools(jvm, cluster, name):
    tools = Tools(jvm, cluster)
    tools.create(name, 3)
    tools.produce(name, "".join(f"v{n}\n" for n in range(30)))
    protocol = ["--consumer-property", "group.protocol=consumer"]
    found = tools.consume(name, 30, "--from-beginning", "--group", name, *protocol)
    assert sorted(found) == sorted(f"v{n}" for n in range(30))
    groups = lambda *words: tools("consumer-groups", *words)  # noqa: E731
    assert name in groups("--list", "--type", "consumer").split()
    assert name not in groups("--list", "--type", "classic").split()
    told = groups("--describe", "--group", name, "--state")
    assert re.search(rf"{name}\s.*uniform\s+Empty\s+0", told), told
    # With a member of another client in it, and Kafka's default timing.
    member = joined(cluster, name)
    wait_until(lambda: member.owns == {0, 1, 2}, DEADLINE, "all partitions")
    told = groups("--describe", "--group", name, "--state")
    assert re.search(rf"{name}\s.*uniform\s+Stable\s+1", told), told
    told = groups("--describe", "--group", name, "--members", "--verbose")
    assert re.search(rf"{name}\s.*\s3\s.*{name}:0,1,2", told), told
    told = groups("--describe", "--group", name)
    rows = [line.split() for line in told.splitlines() if line.startswith(name)]
    assert sorted(row[2:6] for row in rows) == [[str(p), "10", "10", "0"] for p in range(3)] or \
        sum(int(row[3]) for row in rows if row[3] != "-") == 30, told
    member.leave()
    groups("--reset-offsets", "--group", name, "--topic", name, "--to-earliest", "--execute")
    again = tools.consume(name, 30, "--group", name, *protocol)
    assert sorted(again) == sorted(found)
    groups("--delete", "--group", name)
    assert name not in groups("--list").split()


class RawMember:
    """A member of a few lines, for what real clients do not send."""

    def __init__(self, cluster, group, member):
        self.cluster, self.group, self.member = cluster, group, member
        self.node = None

    def _ask(self, key, version, body, error_at):
        """The response from the coordinator, its tags left out; looks for it where it moved."""
        answers = []

        def asked():
            for address in [self.node] if self.node else self.cluster.kafka:
                raw = RawKafka(address)
                answer = raw.ask(key, version, body, flexible=True)[1:]
                raw.close()
                if error_at(answer) not in (14, 15, 16):
                    self.node = address
                    answers.append(answer)
                    return True
            self.node = None
            return False

        wait_until(asked, DEADLINE, "an answer of the coordinator")
        return answers[0]

    def beat(self, epoch, topics=None, assignor=None):
        """Error code, epoch and interval; with `topics` it joins."""
        joins = topics is not None
        body = b"".join([
            text(self.group), text(self.member), struct.pack(">i", epoch), b"\0\0",
            struct.pack(">i", 60_000 if joins else -1),
            array(topics) if joins else b"\0", b"\0", text(assignor) if assignor else b"\0",
            b"\1" if joins else b"\0", b"\0",
        ])
        answer = self._ask(68, 1, body, lambda a: struct.unpack(">h", a[4:6])[0])
        code, rest = struct.unpack(">h", answer[4:6])[0], answer[6:]
        for _ in range(2):
            # The message and the member's id.
            size, rest = length(rest)
            rest = rest[size:]
        return (code, *struct.unpack(">ii", rest[:8]))

    def commit(self, epoch, version=9):
        """The error code of a commit of offset 1 of partition 0."""
        body = b"".join([
            text(self.group), struct.pack(">i", epoch), text(self.member), b"\0", b"\2",
            text(self.group), b"\2", struct.pack(">iqi", 0, 1, -1), b"\0\0", b"\0", b"\0",
        ])

        def code(answer):
            # Throttle time, the topic's name, the partition's number.
            at = 4 + 1 + answer[5] + 1 + 4
            return struct.unpack(">h", answer[at:at + 2])[0]

        return code(self._ask(8, version, body, code))


def length(data):
    """A compact length, 0 for null, and what comes behind it."""
    first, rest = data[0], data[1:]
    if first >= 128:
        first, rest = (first & 127) | rest[0] << 7, rest[1:]
    return max(first - 1, 0), rest


def text(value):
    assert len(value) < 127
    return bytes([len(value) + 1]) + value.encode()


def array(values):
    return bytes([len(values) + 1]) + b"".join(map(text, values))


def test_who_is_not_in_its_epoch_commits_nothing(quick, name):
    create(quick, name, 1)
    member, other = RawMember(quick, name, "one"), RawMember(quick, name, "two")
    assert member.beat(1)[0] == 69, "there is no such group"
    assert member.commit(1) == 69
    assert member.beat(0, [name], "sticky")[0] == 112
    assert member.beat(0, [name]) == (0, 1, INTERVAL_MS)
    assert member.commit(1) == 0
    assert member.commit(0) == member.commit(2) == 113
    assert member.commit(1, version=8) == 35
    assert other.commit(1) == 25
    assert other.beat(1)[0] == 25
    assert member.beat(7)[0] == 110
    # It falls silent, and another takes over.
    assert other.beat(0, [name])[:2] == (0, 2)
    wait_until(lambda: other.beat(0, [name])[0] == 0 and member.commit(1) == 25, DEADLINE,
               "the end of the silent member")
    code, epoch, _ = other.beat(0, [name])
    assert (code, epoch) == (0, 3)
    assert other.commit(2) == 113
    assert other.commit(3) == 0
    assert member.beat(1)[0] == 25


def test_settings_of_a_group_reach_its_members(jvm, cluster, name):
    tools = Tools(jvm, cluster)
    tools.create(name, 1)
    member = RawMember(cluster, name, "one")
    assert member.beat(0, [name]) == (0, 1, 5000)
    words = ["--entity-type", "groups", "--entity-name", name]
    setting = "consumer.heartbeat.interval.ms"
    tools("configs", "--alter", *words, "--add-config", f"{setting}=6000")
    wait_until(lambda: member.beat(1) == (0, 1, 6000), DEADLINE, "the new interval")
    told = tools("configs", "--alter", *words, "--add-config", f"{setting}=4999", code=None)
    assert "Invalid value 4999" in told
    assert member.beat(-1)[:2] == (0, -1)
