"""Clients that log in by SCRAM-SHA-512 over TLS: KafkaJS and aiokafka. Others are in
test_authentication.py and test_java_tools.py."""

import asyncio
import os
import ssl
import subprocess

import aiokafka
import aiokafka.errors
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from jvm import CLIENTS
from support.paths import ROOT
from support.secured import DEADLINE
from support.wait import wait_until


@pytest.fixture
def user(secured, name):
    """Name and password of one who may write and read a topic and a group of this name."""
    secured.admin.create_topics([NewTopic(name, 3, 3)])[name].result(DEADLINE)
    client = secured.user(name)
    secured.allow(f"User:{name}", ("WRITE", "TOPIC", name), ("READ", "TOPIC", name),
                  ("READ", "GROUP", name))
    wait_until(lambda: name in AdminClient(client).list_topics(timeout=5).topics, DEADLINE,
               "the user and its rights")
    return client["sasl.username"], client["sasl.password"]


def test_kafkajs(secured, user, name):
    home = CLIENTS / "node"
    skipped = home / "skipped"
    if skipped.exists():
        pytest.skip(skipped.read_text().strip())
    done = subprocess.run(
        ["node", ROOT / "tests" / "secure" / "kafkajs_secured.cjs", secured.servers, name,
         secured.certificates.path("ca.pem"), *user],
        env={**os.environ, "NODE_PATH": str(home / "node_modules")},
        capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-4000:]


def test_aiokafka(secured, user, name):
    def options(password):
        return {"bootstrap_servers": secured.servers, "security_protocol": "SASL_SSL",
                "ssl_context": ssl.create_default_context(
                    cafile=secured.certificates.path("ca.pem")),
                "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": user[0],
                "sasl_plain_password": password}

    async def body():
        values = [b"%d" % number for number in range(20)]
        async with aiokafka.AIOKafkaProducer(**options(user[1])) as producer:
            for value in values:
                await producer.send(name, value)
        consumer = aiokafka.AIOKafkaConsumer(
            name, group_id=name, auto_offset_reset="earliest", **options(user[1]))
        async with consumer:
            found = [(await consumer.getone()).value for _ in values]
        assert sorted(found) == sorted(values)
        stranger = aiokafka.AIOKafkaProducer(**options("wrong"))
        with pytest.raises(aiokafka.errors.KafkaConnectionError):
            await stranger.start()
        await stranger.stop()

    asyncio.run(asyncio.wait_for(body(), 2 * DEADLINE))
