// Node-RED as the matrix drives it: a flow with its MQTT nodes, in this process. See doc.go for the lines it reads and
// writes.
const http = require('node:http')
const os = require('node:os')
const fs = require('node:fs')
const path = require('node:path')
const readline = require('node:readline')
const RED = require('node-red')

const say = (...words) => process.stdout.write(words.join(' ') + '\n')
const userDir = fs.mkdtempSync(path.join(os.tmpdir(), 'node-red-'))
const bridge = { say, publish: () => {} }

function flow(host, port, version, clientId, subscription) {
  const v5 = version === '5'
  return [
    { id: 'tab', type: 'tab', label: 'matrix' },
    {
      id: 'broker', type: 'mqtt-broker', name: '', broker: host, port, clientid: clientId, autoConnect: true,
      usetls: false, protocolVersion: version, keepalive: '20', cleansession: false, autoUnsubscribe: false,
      birthTopic: '', closeTopic: '', willTopic: '', userProps: '', sessionExpiry: v5 ? '3600' : '',
    },
    { id: 'n-in', type: 'mqtt in', z: 'tab', topic: subscription, qos: '1', datatype: 'utf8', broker: 'broker', nl: false, rap: true, rh: 0, inputs: 0, wires: [['got']] },
    { id: 'got', type: 'function', z: 'tab', func: "global.get('bridge').say('message', msg.payload)", outputs: 0, wires: [] },
    // The function node's start code hands its own send to the driver.
    { id: 'source', type: 'function', z: 'tab', func: '', initialize: "global.get('bridge').publish = (msg) => node.send(msg)", outputs: 1, wires: [['n-out']] },
    { id: 'n-out', type: 'mqtt out', z: 'tab', topic: '', qos: '', retain: '', broker: 'broker', wires: [] },
    { id: 'n-complete', type: 'complete', z: 'tab', scope: ['n-out'], uncaught: false, wires: [['n-done']] },
    { id: 'n-done', type: 'function', z: 'tab', func: "global.get('bridge').say('acked', msg.payload)", outputs: 0, wires: [] },
    { id: 'n-catch', type: 'catch', z: 'tab', scope: ['n-out'], uncaught: false, wires: [['failed']] },
    { id: 'failed', type: 'function', z: 'tab', func: "global.get('bridge').say('fault', msg.error.message)", outputs: 0, wires: [] },
    { id: 'n-status', type: 'status', z: 'tab', scope: ['n-out'], wires: [['n-state']] },
    {
      id: 'n-state', type: 'function', z: 'tab', outputs: 0, wires: [],
      func: `const text = msg.status.text || ''
        const was = context.get('was')
        if (text.endsWith('connected') && !text.endsWith('disconnected') && was !== 'up') { context.set('was', 'up'); global.get('bridge').say('connected', '?'); global.get('bridge').say('granted', 1) }
        if (text.endsWith('disconnected') && was === 'up') { context.set('was', 'down'); global.get('bridge').say('lost', text) }`,
    },
  ]
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  const words = (await lines.next()).value.split(' ')
  fs.writeFileSync(path.join(userDir, 'flows.json'), JSON.stringify(flow(...words)))
  const server = http.createServer()
  RED.init(server, {
    userDir, flowFile: 'flows.json', httpAdminRoot: false, httpNodeRoot: false, disableEditor: true,
    credentialSecret: false, mqttReconnectTime: 500, functionGlobalContext: { bridge },
    logging: { console: { level: 'off' } }, telemetry: { enabled: false },
  })
  await RED.start()
  for await (const line of lines) {
    const [topic, qos, first, count] = line.split(' ')
    for (let n = Number(first); n < Number(first) + Number(count); n++) {
      bridge.publish({ topic, payload: String(n), qos: Number(qos) })
    }
  }
  await RED.stop()
  fs.rmSync(userDir, { recursive: true, force: true })
  process.exit(0)
}

main()
