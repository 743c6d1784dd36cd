// MQTT.js as the matrix drives it: see doc.go for the lines it reads and writes.
import readline from 'node:readline'
import mqtt from 'mqtt'

const say = (...words) => process.stdout.write(words.join(' ') + '\n')
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const [host, port, version, clientId, subscription] = (await lines.next()).value.split(' ')
const client = mqtt.connect({
  host,
  port: Number(port),
  clientId,
  protocolVersion: Number(version),
  clean: false,
  keepalive: 20,
  reconnectPeriod: 500,
  ...(version === '5' ? { properties: { sessionExpiryInterval: 3600 } } : {}),
})
client.on('connect', (connack) => {
  say('connected', connack.sessionPresent ? 1 : 0)
  client.subscribe(subscription, { qos: 1 }, (err, granted) => {
    if (err) say('lost', 'SUBSCRIBE:', err.message)
    else say('granted', granted[0]?.qos ?? 1)
  })
})
client.on('close', () => say('lost', 'closed'))
client.on('error', (err) => say('lost', err.message))
client.on('disconnect', (packet) => say('lost', 'DISCONNECT', packet.reasonCode))
client.on('message', (topic, payload) => say('message', payload))
for await (const line of lines) {
  const [topic, qos, first, count] = line.split(' ')
  for (let n = Number(first); n < Number(first) + Number(count); n++) {
    client.publish(topic, String(n), { qos: Number(qos) }, (err) => {
      if (err) say('fault', err.message)
      else say('acked', n)
    })
  }
}
client.removeAllListeners('close')
await client.endAsync()
process.exit(0)
