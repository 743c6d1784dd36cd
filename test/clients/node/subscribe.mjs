// Subscribes with MQTT.js.
//
// Reads the job as a line of JSON from standard input, prints one JSON line for
// the SUBACK and for each message, and disconnects when its input ends. Ends with
// status 1 and a line on standard error at the first error or warning.

import { createInterface } from 'node:readline'
import mqtt from 'mqtt'

function fail(why) {
  process.stderr.write(`${why}\n`, () => process.exit(1))
}

function print(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

function pairs(userProperties) {
  return Object.entries(userProperties ?? {}).flatMap(([name, values]) => [values].flat().map((value) => [name, value]))
}

function message(topic, payload, packet) {
  const p = packet.properties ?? {}
  return {
    topic,
    payload: payload.toString('base64'),
    qos: packet.qos,
    retain: packet.retain,
    dup: packet.dup,
    user_properties: pairs(p.userProperties),
    content_type: p.contentType,
    response_topic: p.responseTopic,
    correlation_data: p.correlationData?.toString('base64'),
    expiry: p.messageExpiryInterval,
    subscription_ids: p.subscriptionIdentifier === undefined ? [] : [p.subscriptionIdentifier].flat(),
  }
}

function answer(client, payload, packet) {
  const p = packet.properties ?? {}
  if (!p.responseTopic) return
  const options = { qos: 1, properties: { correlationData: p.correlationData } }
  client.publish(p.responseTopic, payload, options, (error) => {
    if (error) fail(`answer: ${error.message}`)
  })
}

function run(job) {
  const sub = job.subscription
  let leaving = false
  const client = mqtt.connect({
    host: job.host,
    port: job.port,
    protocol: 'mqtt',
    protocolVersion: job.version,
    clientId: job.client_id,
    username: job.username,
    password: job.password,
    clean: !sub.keep,
    properties: job.version === 5 ? { topicAliasMaximum: 5, sessionExpiryInterval: sub.keep ? 3600 : 0 } : undefined,
    reconnectPeriod: 0,
    resubscribe: false,
  })
  client.on('message', (topic, payload, packet) => {
    print({ message: message(topic, payload, packet) })
    if (sub.answer) answer(client, payload, packet)
  })
  client.on('connect', () => {
    const options = { qos: sub.qos }
    if (job.version === 5) {
      options.nl = sub.no_local ?? false
      options.rap = sub.retain_as_published ?? false
      if (sub.id) options.properties = { subscriptionIdentifier: sub.id }
    }
    client.subscribe(sub.filters, options, (error, granted, packet) => {
      if (packet?.granted) print({ granted: packet.granted })
      else if (error) fail(`SUBACK: ${error.message}`)
    })
  })
  client.on('error', (error) => fail(`error: ${error.message}`))
  client.on('disconnect', (packet) => fail(`DISCONNECT from the server: ${packet.reasonCode}`))
  client.on('close', () => {
    if (!leaving) fail('the connection was closed')
  })
  return () => {
    leaving = true
    client.end()
  }
}

process.on('warning', (warning) => fail(`warning: ${warning.stack}`))
let leave = () => {}
createInterface({ input: process.stdin })
  .on('line', (line) => (leave = run(JSON.parse(line))))
  .on('close', () => leave())
