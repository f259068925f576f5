"""What administration tools ask beside topics and groups, through kafka-python and librdkafka."""

import struct

import pytest
import requests
from confluent_kafka import ElectionType, TopicPartition as LibrdTopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition, TopicPartitionReplica
from kafka import errors as Errors
from kafka.admin import NewTopic
from support.raw_kafka import RawKafka
from support.wait import wait_until

DEADLINE = 30


@pytest.fixture
def admin(cluster):
    client = KafkaAdminClient(bootstrap_servers=cluster.kafka)
    yield client
    client.close()


@pytest.fixture
def topic(cluster, admin, name):
    admin.create_topics([NewTopic(name, 3, 3)])
    # Any node is asked about it.
    cluster.digests()
    return name


def partitions_of(admin, topic):
    found = admin.describe_topic_partitions([topic])["topics"][0]["partitions"]
    return {part["partition_index"]: part for part in found}


def test_log_dirs_tell_where_and_how_much(cluster, admin, topic):
    producer = KafkaProducer(bootstrap_servers=cluster.kafka, acks="all")
    for _ in range(20):
        producer.send(topic, b"x" * 1000, partition=1)
    producer.flush(DEADLINE)
    producer.close()

    def sizes():
        found = {}
        for broker in admin.describe_log_dirs({topic: [0, 1]}):
            (log_dir,) = broker["log_dirs"]
            assert log_dir["error_code"] == 0
            assert log_dir["log_dir"].startswith(str(cluster.dir.resolve()))
            assert 0 < log_dir["usable_bytes"] <= log_dir["total_bytes"]
            (one,) = log_dir["topics"]
            assert one["name"] == topic
            found[broker["broker"]] = {
                p["partition_index"]: p["partition_size"] for p in one["partitions"]}
        return found

    # A follower applies a moment later than the leader answers.
    wait_until(lambda: all(s[1] > 20_000 for s in sizes().values()), DEADLINE, "all replicas")
    assert sorted(sizes()) == [1, 2, 3]
    assert all(set(found) == {0, 1} and found[0] == 0 for found in sizes().values())


def test_log_dirs_of_everything_hold_every_topic_and_of_nothing_none(admin, topic):
    for broker in admin.describe_log_dirs():
        names = [found["name"] for found in broker["log_dirs"][0]["topics"]]
        assert topic in names and names == sorted(names)
    for broker in admin.describe_log_dirs({topic + "-not-there": [0], topic: [7]}):
        assert broker["log_dirs"][0]["topics"] == []


def test_a_replica_is_moved_only_to_where_it_is(cluster, admin, topic):
    own = {b["broker"]: b["log_dirs"][0]["log_dir"] for b in admin.describe_log_dirs()}
    asked = {
        TopicPartitionReplica(topic, 0, 1): own[1],
        TopicPartitionReplica(topic, 1, 2): "/elsewhere",
        TopicPartitionReplica(topic, 9, 3): own[3],
    }
    results = [error for _, error in sorted(admin.alter_replica_log_dirs(asked).items())]
    assert [error.errno for error in results] == [0, 57, 3]


def test_topic_partitions_come_page_by_page(cluster, admin, name):
    topics = [f"{name}-{letter}" for letter in "abc"]
    admin.create_topics([NewTopic(topic, 3, 3) for topic in topics])
    cluster.digests()
    cursor, pages = None, []
    while True:
        answer = admin.describe_topic_partitions(topics, 2, cursor)
        pages.append([
            (topic["name"], part["partition_index"])
            for topic in answer["topics"] for part in topic["partitions"]])
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert all(len(page) <= 2 for page in pages)
    assert sum(pages, []) == [(topic, index) for topic in topics for index in range(3)]
    def whole():
        part = partitions_of(admin, topics[0])[0]
        led = part["leader_id"] in (1, 2, 3) and sorted(part["replica_nodes"]) == [1, 2, 3]
        return led and sorted(part["isr_nodes"]) == [1, 2, 3] and part["offline_replicas"] == []

    wait_until(whole, DEADLINE, "replicas in sync")


def test_topic_partitions_name_what_is_not_there_and_refuse_a_bad_cursor(admin, topic):
    answer = admin.describe_topic_partitions([topic, "not-there", "a b"])
    codes = {found["name"]: found["error_code"] for found in answer["topics"]}
    assert codes == {topic: 0, "not-there": 3, "a b": 17}
    bad = admin.describe_topic_partitions([topic], 10, {"topic_name": topic, "partition_index": -1})
    assert [found["error_code"] for found in bad["topics"]] == [42]
    late = admin.describe_topic_partitions([topic], 10, {"topic_name": topic, "partition_index": 2})
    assert [p["partition_index"] for p in late["topics"][0]["partitions"]] == [2]


def test_reassignments_are_never_under_way_and_change_nothing(admin, topic):
    replicas = partitions_of(admin, topic)[0]["replica_nodes"]
    asked = {
        TopicPartition(topic, 0): replicas[::-1],
        TopicPartition(topic, 1): [1],
        TopicPartition(topic, 2): None,
        TopicPartition(topic, 9): [1, 2, 3],
        TopicPartition(topic + "-not-there", 0): [1, 2, 3],
    }
    results = admin.alter_partition_reassignments(asked)
    assert results[TopicPartition(topic, 0)] is None, "the same in another order"
    assert results[TopicPartition(topic, 1)] is Errors.InvalidReplicationAssignmentError
    assert results[TopicPartition(topic, 2)] is Errors.NoReassignmentInProgressError
    unknown = Errors.UnknownTopicOrPartitionError
    assert results[TopicPartition(topic, 9)] is unknown
    assert results[TopicPartition(topic + "-not-there", 0)] is unknown
    assert admin.list_partition_reassignments() == {}
    assert admin.list_partition_reassignments([TopicPartition(topic, 0)]) == {}


@pytest.mark.parametrize("replicas", [[1, 1, 2], [1, 2, 7]])
def test_an_assignment_to_nodes_that_cannot_be_is_refused(admin, topic, replicas):
    tp = TopicPartition(topic, 0)
    results = admin.alter_partition_reassignments({tp: replicas})
    assert results[tp] is Errors.InvalidReplicationAssignmentError


def test_the_quorum_is_the_three_nodes_with_their_logs(admin, topic):
    (found,) = admin.describe_metadata_quorum()["topics"]
    (part,) = found["partitions"]
    assert (found["topic_name"], part["partition_index"], part["error"]) == (
        "__cluster_metadata", 0, None)
    assert part["leader_id"] in (1, 2, 3) and part["leader_epoch"] > 0
    ends = {voter["replica_id"]: voter["log_end_offset"] for voter in part["current_voters"]}
    assert sorted(ends) == [1, 2, 3] and part["observers"] == []
    assert ends[part["leader_id"]] >= part["high_watermark"] > 0
    before = part["high_watermark"]
    admin.create_topics([NewTopic(topic + "-more", 1, 3)])
    (found,) = admin.describe_metadata_quorum()["topics"]
    assert found["partitions"][0]["high_watermark"] > before


def test_there_are_no_client_metrics_resources(admin):
    assert admin.list_config_resources() == {}


def test_settings_of_client_metrics_are_refused(cluster):
    """Kafka's type 16 (KIP-714), which this table does not serve: DescribeConfigs 1."""
    raw = RawKafka(cluster.kafka[0])
    name = b"metrics"
    resource = struct.pack(">bh", 16, len(name)) + name + struct.pack(">i", -1)
    answer = raw.ask(32, 1, struct.pack(">i", 1) + resource + b"\0")
    raw.close()
    throttle, count, error, length = struct.unpack_from(">iihh", answer)
    assert (throttle, count, error) == (0, 1, 42), "INVALID_REQUEST"
    assert answer[12:12 + length] == b"Unsupported resource type: 16"


def test_leaders_that_lead_are_not_elected(admin, cluster, topic):
    wait_until(lambda: all(
        part["leader_id"] == part["replica_nodes"][0]
        for part in partitions_of(admin, topic).values()), DEADLINE, "the preferred leaders")
    answer = admin.elect_leaders(0, {topic: [0, 1], "not-there": [0]}, raise_errors=False)
    results = {
        (found.topic, part.partition_id): (part.error_code, part.error_message)
        for found in answer.replica_election_results for part in found.partition_result}
    not_needed = (84, "Leader election not needed for topic partition.")
    assert results == {
        (topic, 0): not_needed, (topic, 1): not_needed,
        ("not-there", 0): (3, "No such topic as not-there"),
    }
    unclean = admin.elect_leaders(1, {topic: [2]}, raise_errors=False)
    assert unclean.replica_election_results[0].partition_result[0].error_code == 84


def test_librdkafka_elects_leaders(cluster, admin, topic):
    client = AdminClient({"bootstrap.servers": ",".join(cluster.kafka)})
    parts = [LibrdTopicPartition(topic, 0), LibrdTopicPartition(topic, 5)]
    results = client.elect_leaders(ElectionType.PREFERRED, parts).result(DEADLINE)
    codes = {tp.partition: error.code() if error else 0 for tp, error in results.items()}
    assert codes[5] == 3
    assert codes[0] in (0, 84)


def test_an_election_moves_the_leader(own_cluster, name):
    """Of partitions that a node leads which was told to lead everything for a while: nobody else
    moves them meanwhile."""
    cluster = own_cluster()
    admin = KafkaAdminClient(bootstrap_servers=cluster.kafka)
    admin.create_topics([NewTopic(name, 6, 3)])
    greedy = cluster.node(2)

    def leads_all():
        requests.post(f"http://{greedy.ports['console']}/api/lead", timeout=40)
        return {p["leader_id"] for p in partitions_of(admin, name).values()} == {greedy.number}

    preferred = {p["partition_index"]: p["replica_nodes"][0]
                 for p in partitions_of(admin, name).values()}
    wanted = {index: node for index, node in preferred.items() if node != greedy.number}
    assert len(wanted) == 4

    def elected():
        # Again where a node was not ready to take over.
        wait_until(leads_all, DEADLINE, "one leader of everything")
        answer = admin.elect_leaders(0, {name: sorted(wanted)}, raise_errors=False)
        results = answer.replica_election_results[0].partition_result
        return all(part.error_code == 0 for part in results)

    wait_until(elected, DEADLINE, "an election of all")

    def led():
        now = {p["partition_index"]: p["leader_id"] for p in partitions_of(admin, name).values()}
        return {index: now[index] for index in wanted} == wanted

    # Whoever answers may hear of it a moment later; the nodes themselves move nothing so soon.
    wait_until(led, 10, "the leaders that were elected")
    admin.close()


def test_a_node_that_comes_back_is_elected_for_what_it_prefers(own_cluster, name):
    cluster = own_cluster()
    admin = KafkaAdminClient(bootstrap_servers=cluster.kafka)
    admin.create_topics([NewTopic(name, 6, 3)])
    cluster.node(2).kill()

    def led_by_2():
        return [p for p in partitions_of(admin, name).values() if p["leader_id"] == 2]

    wait_until(lambda: not led_by_2(), DEADLINE, "other leaders than node 2")
    cluster.node(2).start()
    wanted = [p["partition_index"] for p in partitions_of(admin, name).values()
              if p["replica_nodes"][0] == 2]
    assert len(wanted) == 2

    def elected():
        answer = admin.elect_leaders(0, {name: wanted}, raise_errors=False)
        codes = [part.error_code for part in answer.replica_election_results[0].partition_result]
        # Not alive yet (80), moved now (0), or moved by the node itself (84).
        assert all(code in (0, 80, 84) for code in codes)
        return 80 not in codes

    wait_until(elected, DEADLINE, "an election")
    # Whoever answers may hear of it a moment later.
    wait_until(lambda: sorted(p["partition_index"] for p in led_by_2()) == wanted, 10,
               "the leaders that were elected")
    admin.close()
