// What applications do with KafkaJS. Run by test_node.py: `node kafkajs_cases.cjs CASE SERVERS TOPIC`.
'use strict'

const assert = require('node:assert/strict')
const { Kafka, CompressionTypes, ConfigResourceTypes, logLevel } = require('kafkajs')

const [name, servers, topic] = process.argv.slice(2)
const kafka = new Kafka({
  clientId: 'kafkajs', brokers: servers.split(','), logLevel: logLevel.ERROR,
  retry: { initialRetryTime: 50, retries: 10 }
})

async function withAdmin (body) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await body(admin)
  } finally {
    await admin.disconnect()
  }
}

// Records of these cases say that they are of long ago: retention would take them.
const create = (numPartitions) => withAdmin(admin => admin.createTopics({
  topics: [{
    topic, numPartitions, replicationFactor: 3, configEntries: [{ name: 'retention.ms', value: '-1' }]
  }]
}))

async function send (messages, options = {}, more = {}) {
  const producer = kafka.producer(options)
  await producer.connect()
  const result = await producer.send({ topic, messages, ...more })
  await producer.disconnect()
  return result
}

// The next `count` records of a group, which then leaves.
async function read (groupId, count, options = {}) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, maxWaitTimeInMs: 500, ...options })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const found = []
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, event => reject(event.payload.error))
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        found.push({ partition, ...message })
        if (found.length === count) resolve()
      }
    }).catch(reject)
  })
  await consumer.disconnect()
  assert.equal(found.length, count)
  return found
}

const cases = {
  async topics () {
    assert.equal(await create(3), true)
    await withAdmin(async admin => {
      assert.equal(await admin.createTopics({ topics: [{ topic }] }), false)
      assert.ok((await admin.listTopics()).includes(topic))
      const told = await admin.fetchTopicMetadata({ topics: [topic] })
      assert.deepEqual(told.topics[0].partitions.map(p => p.partitionId).sort(), [0, 1, 2])
      await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
      const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
      await admin.alterConfigs({
        resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '123456' }] }]
      })
      const configs = await admin.describeConfigs({ resources: [resource] })
      const entry = configs.resources[0].configEntries.find(c => c.configName === 'retention.ms')
      assert.equal(entry.configValue, '123456')
      const cluster = await admin.describeCluster()
      assert.deepEqual(cluster.brokers.map(b => b.nodeId).sort(), [1, 2, 3])
      await admin.deleteTopics({ topics: [topic] })
    })
  },

  async messages () {
    await create(3)
    const messages = [...Array(30).keys()].map(n => ({
      key: `k${n}`, value: n % 10 ? `v${n}` : null, headers: { h: [`${n}`, 'x'] }, timestamp: `${1e12 + n}`
    }))
    await send(messages, { idempotent: true })
    await send(messages, {}, { compression: CompressionTypes.GZIP, acks: 1 })
    await send(messages, {}, { acks: 0 })
    const found = await read(topic, 90)
    for (const { key, value, headers, timestamp } of found) {
      const n = Number(key.toString().slice(1))
      assert.equal(value && value.toString(), n % 10 ? `v${n}` : null)
      assert.deepEqual(headers.h.map(String), [`${n}`, 'x'])
      assert.equal(timestamp, `${1e12 + n}`)
    }
  },

  async groups () {
    await create(4)
    await send([...Array(40).keys()].map(n => ({ value: `${n}`, partition: n % 4 })))
    await read(topic, 40)
    await send([{ value: 'next', partition: 2 }])
    const [next] = await read(topic, 1)
    assert.equal(next.value.toString(), 'next')
    await withAdmin(async admin => {
      const told = await admin.describeGroups([topic])
      assert.equal(told.groups[0].state, 'Empty')
      assert.ok((await admin.listGroups()).groups.some(g => g.groupId === topic))
      const [{ partitions }] = await admin.fetchOffsets({ groupId: topic, topics: [topic] })
      assert.equal(partitions.reduce((sum, p) => sum + Number(p.offset), 0), 41)
      await admin.setOffsets({ groupId: topic, topic, partitions: [{ partition: 2, offset: '10' }] })
      const ends = await admin.fetchTopicOffsets(topic)
      assert.equal(ends.reduce((sum, p) => sum + Number(p.high), 0), 41)
    })
    const [again] = await read(topic, 1)
    assert.equal(again.value.toString(), 'next')
    await withAdmin(admin => admin.deleteGroups([topic]))
  },

  async rebalance () {
    await create(6)
    const owned = new Map()
    const member = async () => {
      const consumer = kafka.consumer({ groupId: topic, sessionTimeout: 10000, heartbeatInterval: 500, maxWaitTimeInMs: 200 })
      consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
        owned.set(consumer, payload.memberAssignment[topic] || [])
      })
      await consumer.connect()
      await consumer.subscribe({ topics: [topic] })
      await consumer.run({ eachMessage: async () => {} })
      return consumer
    }
    const until = async (condition) => {
      while (!condition()) await new Promise(resolve => setTimeout(resolve, 20))
    }
    const members = []
    for (let n = 0; n < 3; n++) members.push(await member())
    await until(() => members.every(m => (owned.get(m) || []).length === 2))
    const all = members.flatMap(m => owned.get(m)).sort()
    assert.deepEqual(all, [0, 1, 2, 3, 4, 5])
    await members[0].disconnect()
    await until(() => members.slice(1).every(m => owned.get(m).length === 3))
    await Promise.all(members.slice(1).map(m => m.disconnect()))
  },

  async offsets () {
    await create(1)
    await send([1, 2, 3].map(n => ({ value: `${n}`, timestamp: `${n * 1000}` })))
    await withAdmin(async admin => {
      const [found] = await admin.fetchTopicOffsetsByTimestamp(topic, 2000)
      assert.equal(found.offset, '1')
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '2' }] })
      const [{ low, high }] = await admin.fetchTopicOffsets(topic)
      assert.deepEqual([low, high], ['2', '3'])
    })
  }
}

cases[name]().then(() => process.exit(0), error => {
  console.error(error)
  process.exit(1)
})
