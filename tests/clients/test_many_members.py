"""Many members in one group: joining at once, coming and going, and losing their coordinator.

The members are aiokafka's, because fifty of them fit into one process.
"""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

DEADLINE = 120
MEMBERS = 50
PARTITIONS = 60

pytestmark = pytest.mark.timeout(300)


def create(cluster, topic, partitions):
    admin = AdminClient({"bootstrap.servers": ",".join(cluster.kafka), "log_level": 0})
    admin.create_topics([NewTopic(topic, partitions, 3)])[topic].result(DEADLINE)
    return admin


class Counting(ConsumerRebalanceListener):
    """How often partitions were assigned."""

    def __init__(self):
        self.assigned = 0

    async def on_partitions_revoked(self, revoked):
        pass

    async def on_partitions_assigned(self, assigned):
        self.assigned += 1


class Member:
    """A member of a group that polls and commits until it leaves."""

    def __init__(self, cluster, group):
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=cluster.kafka, group_id=group, auto_offset_reset="earliest",
            session_timeout_ms=20_000, rebalance_timeout_ms=30_000, heartbeat_interval_ms=1_000,
            auto_commit_interval_ms=500, retry_backoff_ms=50, metadata_max_age_ms=5_000,
            partition_assignment_strategy=(RoundRobinPartitionAssignor,))
        self.listener = Counting()
        self.found = []
        self.group = group

    async def start(self):
        self.consumer.subscribe([self.group], listener=self.listener)
        await self.consumer.start()
        self._task = asyncio.create_task(self._poll())
        return self

    async def _poll(self):
        while True:
            for part, records in (await self.consumer.getmany(timeout_ms=500)).items():
                self.found += [(part.partition, r.offset) for r in records]

    @property
    def owns(self):
        return {part.partition for part in self.consumer.assignment()}

    async def leave(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.consumer.stop()


async def until(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} not within {DEADLINE} s"
        await asyncio.sleep(0.05)


async def send(cluster, topic, count):
    """Sends over all partitions; gives what was acknowledged."""
    async with AIOKafkaProducer(
            bootstrap_servers=cluster.kafka, acks="all", request_timeout_ms=60_000) as producer:
        sent = [await producer.send(topic, b"%d" % n, partition=n % PARTITIONS)
                for n in range(count)]
        told = [await one for one in sent]
    return {(m.partition, m.offset) for m in told}


def shared(members):
    """Every partition is owned, once, and each member has one or two."""
    owned = sorted(p for m in members for p in m.owns)
    return owned == list(range(PARTITIONS)) and all(1 <= len(m.owns) <= 2 for m in members)


async def end(members):
    await asyncio.gather(*(m.leave() for m in members))


def test_fifty_members_join_at_once_and_come_and_go(cluster, name, figure):
    admin = create(cluster, name, PARTITIONS)

    async def body():
        started = time.monotonic()
        members = list(await asyncio.gather(
            *(Member(cluster, name).start() for _ in range(MEMBERS))))
        await until(lambda: shared(members), "one or two partitions each")
        figure(f"{MEMBERS} members share after {time.monotonic() - started:.1f} s, "
               f"{max(m.listener.assigned for m in members)} rebalances at most")
        told = admin.describe_consumer_groups([name])[name].result(DEADLINE)
        assert told.state.name == "STABLE" and len(told.members) == MEMBERS
        sent = await send(cluster, name, 600)
        read = lambda: {r for m in members for r in m.found}  # noqa: E731
        await until(lambda: sent <= read(), "all records")
        # Ten leave and ten come, all at once, while records flow.
        leaving, members[:10] = members[:10], []
        gone = [r for m in leaving for r in m.found]
        _, fresh, more = await asyncio.gather(
            end(leaving), asyncio.gather(*(Member(cluster, name).start() for _ in range(10))),
            send(cluster, name, 600))
        members += fresh
        await until(lambda: shared(members), "one or two partitions each again")
        gone += [r for m in leaving for r in m.found]
        await until(lambda: more <= read() | set(gone), "all records after the change")
        await end(members)

    asyncio.run(body())
    told = admin.describe_consumer_groups([name])[name].result(DEADLINE)
    assert told.state.name == "EMPTY" and not told.members


def test_the_coordinator_of_a_big_group_dies_and_nobody_rebalances(own_cluster, name, figure):
    cluster = own_cluster()
    admin = create(cluster, name, PARTITIONS)

    async def body():
        members = await asyncio.gather(*(Member(cluster, name).start() for _ in range(MEMBERS)))
        await until(lambda: shared(members), "one or two partitions each")
        sent = await send(cluster, name, 600)
        read = lambda: [r for m in members for r in m.found]  # noqa: E731
        await until(lambda: sent <= set(read()), "all records")
        told = await asyncio.to_thread(
            lambda: admin.describe_consumer_groups([name])[name].result(DEADLINE))
        before = [(m.owns, m.listener.assigned) for m in members]
        dead = cluster.node(told.coordinator.id)
        dead.kill()
        killed = time.monotonic()
        sent |= await send(cluster, name, 600)
        await until(lambda: sent <= set(read()), "records sent after the death")
        figure(f"a group of {MEMBERS} read on {time.monotonic() - killed:.1f} s after the death")

        def committed():
            # A consumer, for AdminClient does not survive a coordinator that moves.
            consumer = Consumer({"bootstrap.servers": ",".join(cluster.kafka), "group.id": name,
                                 "log_level": 0})
            places = [TopicPartition(name, p) for p in range(PARTITIONS)]
            try:
                found = consumer.committed(places, timeout=DEADLINE)
            finally:
                consumer.close()
            return sum(max(part.offset, 0) for part in found)

        async def all_is_committed(what):
            since = time.monotonic()
            while await asyncio.to_thread(committed) < len(sent):
                assert time.monotonic() < since + DEADLINE, what
                await asyncio.sleep(0.1)

        await all_is_committed("commits at the new coordinator")
        now = await asyncio.to_thread(
            lambda: admin.describe_consumer_groups([name])[name].result(DEADLINE))
        assert now.state.name == "STABLE" and len(now.members) == MEMBERS
        assert {m.member_id for m in now.members} == {m.member_id for m in told.members}
        # The generation went on: no partition moved and nobody was asked to join again.
        assert [(m.owns, m.listener.assigned) for m in members] == before
        assert len(read()) == len(sent), "a record was read twice"
        dead.start()
        await asyncio.to_thread(cluster.wait_ready)
        sent |= await send(cluster, name, 600)
        await until(lambda: sent <= set(read()), "records sent after the return")
        # aiokafka does not end a member that is looking for its coordinator.
        await all_is_committed("commits after the return")
        assert [(m.owns, m.listener.assigned) for m in members] == before
        await end(members)

    asyncio.run(body())
    cluster.wait_equal_digests()
