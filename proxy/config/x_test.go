package config
import ("testing";"fmt";"os")
func TestX(t *testing.T){
 for _, f := range []string{"../../examples/minimal.yaml","../../examples/full.yaml"} {
  c, err := Load(f, os.LookupEnv); fmt.Printf("%+v\n%v\n", c, err)
 }
 _, err := Parse("sluice.yaml", []byte(`listener:
  - address: 0.0.0.0:1883
listeners: 
  - address: localhost
  - address: :1883
  - address: 0.0.0.0:1883
  - adress: x:70000
  - address: x:70000
  - address: ${HOST}:18a3
  -
kafka:
  brokers: localhost:9092
  producer: {linger: 5, compression: lz5, max_in_flight_bytes: 64Mib}
  create_topics: {partitions: "12", replication: 0}
publish:
  - match: devices/{device/x
    topci: telemetry
  - match: a/{b}
    topic: "x-{c}-ö"
    key: {b}
    headers: {mqtt.x: "y{", z: 12}
    when: {mqtt.usr: x, b: }
  - topic: 'it''s'
  - regex: 'abc'
    match: foo
    topic: __x
    max_topics: 0
  - hello
  - regex: "^a\\d{2,1}$"
    topic: "${NOPE}x"
unmatched: rejct
sessions: {max_expiry: 1500ms}
limits: {max_packet_size: 100, receive_maximum: 70000, keep_alive_max: -1s, linger: 5}
admin: {address: 1, address: 2}
log: [a]
max_packet_size: 5
`), func(string) (string, bool) { return "", false })
 fmt.Println(err)
}
