// KafkaJS over TLS and SCRAM. Run by test_clients.py:
// `node kafkajs_secured.cjs SERVERS TOPIC CA USER PASSWORD`.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')
const { Kafka, logLevel } = require('kafkajs')

const [servers, topic, ca, username, password] = process.argv.slice(2)

const client = (password, retries = 10) => new Kafka({
  clientId: 'kafkajs',
  brokers: servers.split(','),
  logLevel: logLevel.NOTHING,
  ssl: { ca: [fs.readFileSync(ca, 'utf8')] },
  sasl: { mechanism: 'scram-sha-512', username, password },
  retry: { initialRetryTime: 50, retries }
})

async function read (kafka, count) {
  const consumer = kafka.consumer({ groupId: topic, maxWaitTimeInMs: 500 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const found = []
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, event => reject(event.payload.error))
    consumer.run({
      eachMessage: async ({ message }) => {
        found.push(message.value.toString())
        if (found.length === count) resolve()
      }
    }).catch(reject)
  })
  await consumer.disconnect()
  return found
}

async function main () {
  const kafka = client(password)
  const producer = kafka.producer({ idempotent: true })
  await producer.connect()
  const values = [...Array(20).keys()].map(n => `v${n}`)
  await producer.send({ topic, messages: values.map(value => ({ value })) })
  await producer.disconnect()
  assert.deepEqual((await read(kafka, 20)).sort(), values.sort())
  const stranger = client('wrong', 0).admin()
  await assert.rejects(stranger.connect(), /invalid credentials/)
  await stranger.disconnect()
}

main().then(() => process.exit(0), error => {
  console.error(error)
  process.exit(1)
})
