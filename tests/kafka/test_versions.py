"""The table of APIs is that of Kafka 4.0.1, as far as it is served."""

import struct

import pytest
from kafka import KafkaAdminClient
from kafka.protocol.broker_version_data import (
    BROKER_API_VERSIONS, infer_broker_version_from_api_versions)
from support.raw_kafka import RawKafka

KAFKA_4_0 = {int(key): tuple(versions) for key, versions in BROKER_API_VERSIONS[4, 0].items()}

# Served otherwise than a broker of 4.0.0 does: the row, and why.
OTHERWISE = {
    # 4.0.1 took the old versions back in for clients that look for them (KAFKA-19444).
    11: (0, 9),
}
# What a broker of 4.0 serves and trine does not (docs/decisions, README).
NOT_SERVED = {
    38: "delegation tokens", 39: "delegation tokens", 40: "delegation tokens",
    41: "delegation tokens",
    57: "changing features",
    64: "unregistering brokers",
    80: "changing voters", 81: "changing voters",
}


@pytest.fixture
def raw(cluster):
    client = RawKafka(cluster.kafka[0])
    yield client
    client.close()


def test_kafka_python_takes_a_node_for_kafka_4_0(cluster):
    admin = KafkaAdminClient(bootstrap_servers=cluster.kafka)
    assert admin.get_broker_version_data(1).broker_version == (4, 0)
    admin.close()


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4])
def test_every_row_is_that_of_kafka_4_0(raw, version):
    table = raw.api_versions(version)
    assert infer_broker_version_from_api_versions(table) == (4, 0)
    expected = {key: row for key, row in KAFKA_4_0.items() if key in table}
    expected.update({key: row for key, row in OTHERWISE.items() if key in table})
    assert table == expected, "no row differs, and none is there that Kafka has not"
    missing = set(KAFKA_4_0) - set(table)
    assert missing <= set(NOT_SERVED), missing


def test_all_nodes_serve_the_same(cluster):
    tables = []
    for address in cluster.kafka:
        client = RawKafka(address)
        tables.append(client.api_versions(3))
        client.close()
    assert tables[0] == tables[1] == tables[2]


def test_a_version_of_api_versions_that_is_not_served_is_answered_in_version_0(raw):
    body = raw.ask(18, 99, b"whatever a later version brings", flexible=True)
    code, count = struct.unpack(">hi", body[:6])
    assert (code, count) == (35, 1)
    assert struct.unpack(">hhh", body[6:12]) == (18, 0, 4)
    # The connection goes on.
    assert raw.api_versions(0)[18] == (0, 4)


@pytest.mark.parametrize("name, version", [("", "1"), ("a b", "1"), ("-a", "1"), ("a", "")])
def test_software_names_that_kip_511_forbids_are_an_invalid_request(raw, name, version):
    def text(value):
        return bytes([len(value) + 1]) + value.encode()

    body = raw.ask(18, 3, text(name) + text(version) + b"\0", flexible=True)
    assert struct.unpack(">h", body[:2]) == (42,)
