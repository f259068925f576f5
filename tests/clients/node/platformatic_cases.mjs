// What applications do with @platformatic/kafka, which wants the newest versions of every API.
// Run by test_node.py: `node platformatic_cases.mjs CASE SERVERS TOPIC`.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

// The client wants a newer Node.js than many machines have, but only for this function.
Promise.withResolvers ??= function () {
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}

// NODE_PATH, where the packages are, counts only for CommonJS; so the path is resolved by hand.
const require = createRequire(`${process.env.NODE_PATH}/x.js`)
const {
  Admin, Consumer, MessagesStreamFallbackModes, MessagesStreamModes, Producer, stringDeserializers,
  stringSerializers
} = await import(require.resolve('@platformatic/kafka'))

const [name, servers, topic] = process.argv.slice(2)
const base = { clientId: 'platformatic', bootstrapBrokers: servers.split(','), retries: 10, retryDelay: 100 }

async function use (client, body) {
  try {
    return await body(client)
  } finally {
    await client.close()
  }
}

const withAdmin = body => use(new Admin(base), body)
// Records of these cases say that they are of long ago: retention would take them.
const create = partitions => withAdmin(admin => admin.createTopics({
  topics: [topic], partitions, replicas: 3, configs: [{ name: 'retention.ms', value: '-1' }]
}))
const send = (messages, options = {}) => use(
  new Producer({ ...base, serializers: stringSerializers, ...options }),
  producer => producer.send({ messages: messages.map(m => ({ topic, ...m })) }))

async function read (groupId, count, options = {}) {
  const consumer = new Consumer({ ...base, groupId, deserializers: stringDeserializers, ...options })
  return use(consumer, async consumer => {
    const stream = await consumer.consume({
      topics: [topic], mode: MessagesStreamModes.COMMITTED,
      fallbackMode: MessagesStreamFallbackModes.EARLIEST, sessionTimeout: 10000,
      heartbeatInterval: 500, maxWaitTime: 500, autocommit: false
    })
    const found = []
    for await (const message of stream) {
      found.push(message)
      await message.commit()
      if (found.length === count) break
    }
    await stream.close()
    return found
  })
}

const cases = {
  async topics () {
    const [made] = await create(3)
    assert.equal(made.name, topic)
    await withAdmin(async admin => {
      await assert.rejects(admin.createTopics({ topics: [topic] }))
      assert.ok((await admin.listTopics()).includes(topic))
      const metadata = await admin.metadata({ topics: [topic] })
      assert.equal(metadata.brokers.size, 3)
      assert.equal(metadata.topics.get(topic).partitionsCount, 3)
      await admin.createPartitions({ topics: [{ name: topic, count: 4, assignments: [{ brokerIds: [3, 1, 2] }] }] })
      const resources = [{
        resourceType: 2, resourceName: topic,
        configs: [{ name: 'retention.ms', configOperation: 0, value: '123456' }]
      }]
      await admin.incrementalAlterConfigs({ resources })
      const [told] = await admin.describeConfigs({
        resources: [{ resourceType: 2, resourceName: topic, configurationKeys: null }]
      })
      assert.equal(told.configs.find(c => c.name === 'retention.ms').value, '123456')
      await admin.deleteTopics({ topics: [topic] })
    })
  },

  async messages () {
    await create(3)
    const messages = [...Array(30).keys()].map(n => ({
      key: `k${n}`, value: `v${n}`, headers: { h: `${n}` }, timestamp: BigInt(1e12 + n)
    }))
    for (const compression of ['none', 'gzip', 'lz4', 'snappy']) {
      await send(messages, { compression })
    }
    await send(messages, { idempotent: true })
    const found = await read(topic, 150)
    for (const { key, value, headers, timestamp } of found) {
      const n = Number(key.slice(1))
      assert.equal(value, `v${n}`)
      assert.equal(headers.get('h'), `${n}`)
      assert.equal(timestamp, BigInt(1e12 + n))
    }
  },

  async groups () {
    await create(2)
    await send([...Array(20).keys()].map(n => ({ key: `${n}`, value: `${n}` })))
    assert.equal((await read(topic, 20)).length, 20)
    await send([{ value: 'next' }])
    const [next] = await read(topic, 1)
    assert.equal(next.value, 'next')
    await withAdmin(async admin => {
      const groups = await admin.listGroups({ states: ['EMPTY', 'STABLE'], types: ['classic'] })
      assert.ok(groups.has(topic))
      assert.equal((await admin.describeGroups({ groups: [topic] })).get(topic).state, 'Empty')
      const [told] = await admin.listConsumerGroupOffsets({ groups: [topic] })
      const sum = told.topics[0].partitions.reduce((sum, p) => sum + p.committedOffset, 0n)
      assert.equal(sum, 21n)
      await admin.deleteGroups({ groups: [topic] })
    })
  },

  async records () {
    await create(1)
    await send([1, 2, 3].map(n => ({ value: `${n}`, timestamp: BigInt(n * 1000) })))
    await withAdmin(async admin => {
      const partitions = [{ partitionIndex: 0, timestamp: 2000n }]
      const [told] = await admin.listOffsets({ topics: [{ name: topic, partitions }] })
      assert.equal(told.partitions[0].offset, 1n)
      const deleted = [{ name: topic, partitions: [{ partition: 0, offset: 2n }] }]
      const [left] = await admin.deleteRecords({ topics: deleted })
      assert.equal(left.partitions[0].lowWatermark, 2n)
      const dirs = await admin.describeLogDirs({ topics: [{ name: topic, partitions: [0] }] })
      assert.equal(dirs.length, 3)
    })
  }
}

try {
  await cases[name]()
  process.exit(0)
} catch (error) {
  console.error(error)
  process.exit(1)
}
