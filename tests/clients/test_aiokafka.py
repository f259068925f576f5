"""aiokafka, the client of Python's asyncio programs."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

DEADLINE = 60


def run(body):
    async def bounded():
        async with asyncio.timeout(DEADLINE):
            await body
    asyncio.run(bounded())


async def create(cluster, topic, partitions):
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.kafka)
    await admin.start()
    answer = await admin.create_topics([NewTopic(topic, partitions, 3)])
    assert answer.topic_errors[0][1] == 0, answer
    return admin


async def send(cluster, topic, values, **options):
    async with AIOKafkaProducer(bootstrap_servers=cluster.kafka, **options) as producer:
        sent = [await producer.send(topic, value, key=b"k" + value, headers=[("h", value)])
                for value in values]
        return [await one for one in sent]


async def read(consumer, count):
    found = []
    while len(found) < count:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            found += records
    return found


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_produce_and_consume(cluster, name, codec, idempotent):
    async def body():
        admin = await create(cluster, name, 3)
        values = [b"%d" % n * 50 for n in range(100)]
        await send(cluster, name, values, compression_type=codec, acks="all",
                   enable_idempotence=idempotent, linger_ms=5)
        consumer = AIOKafkaConsumer(name, bootstrap_servers=cluster.kafka,
                                    auto_offset_reset="earliest")
        async with consumer:
            found = await read(consumer, 100)
        assert sorted(r.value for r in found) == sorted(values)
        assert all(r.key == b"k" + r.value and r.headers == (("h", r.value),) for r in found)
        await admin.close()
    run(body())


def test_offsets(cluster, name):
    async def body():
        admin = await create(cluster, name, 1)
        part = TopicPartition(name, 0)
        sent = await send(cluster, name, [b"a", b"b", b"c"])
        assert [s.offset for s in sent] == [0, 1, 2]
        async with AIOKafkaConsumer(bootstrap_servers=cluster.kafka) as consumer:
            assert await consumer.beginning_offsets([part]) == {part: 0}
            assert await consumer.end_offsets([part]) == {part: 3}
            times = await consumer.offsets_for_times({part: sent[0].timestamp})
            assert times[part].offset == 0
            consumer.assign([part])
            consumer.seek(part, 1)
            assert [r.value for r in await read(consumer, 2)] == [b"b", b"c"]
            await consumer.seek_to_beginning(part)
            assert [r.value for r in await read(consumer, 3)] == [b"a", b"b", b"c"]
        await admin.close()
    run(body())


def test_a_group_shares_and_goes_on(cluster, name):
    async def body():
        admin = await create(cluster, name, 4)

        def member():
            return AIOKafkaConsumer(
                name, bootstrap_servers=cluster.kafka, group_id=name, session_timeout_ms=10_000,
                heartbeat_interval_ms=500, auto_offset_reset="earliest", enable_auto_commit=False)

        async with member() as one:
            async with member() as two:
                async def polled(*consumers):
                    for consumer in consumers:
                        await consumer.getmany(timeout_ms=20)
                while not len(one.assignment()) == len(two.assignment()) == 2:
                    await polled(one, two)
                assert len(one.assignment() | two.assignment()) == 4
            while len(one.assignment()) != 4:
                await polled(one)
            await send(cluster, name, [b"%d" % n for n in range(50)])
            await read(one, 50)
            await one.commit()
        await send(cluster, name, [b"next"])
        async with member() as three:
            assert [r.value for r in await read(three, 1)] == [b"next"]
            committed = [await three.committed(TopicPartition(name, p)) or 0 for p in range(4)]
            assert sum(committed) == 50
        listed = await admin.list_consumer_groups()
        assert (name, "consumer") in listed
        await admin.close()
    run(body())
