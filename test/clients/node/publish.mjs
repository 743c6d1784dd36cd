// Publishes a job with MQTT.js.
//
// Reads the job as JSON from standard input, prints one JSON line per
// acknowledgement, and ends with status 1 and a line on standard error at the
// first error or warning.

import { readFileSync } from 'node:fs'
import mqtt from 'mqtt'

const job = JSON.parse(readFileSync(0, 'utf8'))
const messages = job.messages ?? []
let sent = 0
let acked = 0
let window = Infinity
let leaving = false

function fail(why) {
  process.stderr.write(`${why}\n`, () => process.exit(1))
}

function properties(message) {
  if (job.version !== 5) return undefined
  const p = {}
  for (const [name, value] of message.user_properties ?? []) {
    p.userProperties ??= {}
    const earlier = p.userProperties[name]
    p.userProperties[name] = earlier === undefined ? value : [earlier, value].flat()
  }
  if (message.content_type) p.contentType = message.content_type
  if (message.response_topic) p.responseTopic = message.response_topic
  if (message.correlation_data) p.correlationData = Buffer.from(message.correlation_data, 'base64')
  if (message.expiry) p.messageExpiryInterval = message.expiry
  return p
}

function acknowledge(index, reason) {
  process.stdout.write(`${JSON.stringify({ index, reason })}\n`)
  acked++
  if (acked === messages.length) leave()
  else publishSome()
}

// publishSome keeps to the server's Receive Maximum [MQTT-4.9.0-2], which
// MQTT.js leaves to its user.
function publishSome() {
  while (sent < messages.length && (job.qos === 0 || sent - acked < window)) {
    publish(messages[sent], sent++)
  }
}

function leave() {
  leaving = true
  client.end()
}

function publish(message, index) {
  const options = { qos: job.qos, retain: message.retain ?? false, properties: properties(message) }
  const payload = Buffer.from(message.payload ?? '', 'base64')
  client.publish(message.topic, payload, options, (error, packet) => {
    if (!error) return acknowledge(index, job.qos === 0 ? 0 : packet?.reasonCode ?? 0)
    if (error.code >= 0x80) acknowledge(index, error.code)
    fail(`message ${index}: ${error.message}`)
  })
}

process.on('warning', (warning) => fail(`warning: ${warning.stack}`))

const client = mqtt.connect({
  host: job.host,
  port: job.port,
  protocol: 'mqtt',
  protocolVersion: job.version,
  clientId: job.client_id,
  username: job.username,
  password: job.password,
  clean: true,
  reconnectPeriod: 0,
})
client.on('connect', (connack) => {
  if (messages.length === 0) return leave()
  window = connack.properties?.receiveMaximum ?? Infinity
  publishSome()
})
client.on('error', (error) => fail(`error: ${error.message}`))
client.on('disconnect', (packet) => fail(`DISCONNECT from the server: ${packet.reasonCode}`))
client.on('close', () => {
  if (!leaving) fail('the connection was closed')
})
