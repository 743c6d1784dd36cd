package config

import "testing"

// Faults inside rules come from the compiler of package topicmap with an offset; here they must get the caret
// where that byte stands in the file, whatever the quoting.

func TestFaultsInsideRulesArePlacedInTheFile(t *testing.T) {
	refuse(t, rule+"  - match: a/{b/c\n    topic: t\n", "6:14: match: this { is not closed")
	refuse(t, rule+"  - match: 'a/{b/c'\n    topic: t\n", "6:15: match: this { is not closed")
	refuse(t, rule+"  - match: \"a/{b/c\"\n    topic: t\n", "6:15: match: this { is not closed")
	refuse(t, rule+"  - match: a/#/b\n    topic: t\n", "6:14: match: # must be the last level")
	refuse(t, rule+"  - match: a/{b}\n    topic: x-{nope}\n", `7:15: topic: unknown name "nope"`)
	refuse(t, rule+"  - match: a/{b}\n    topic: t\n    key: 'it''s {nope}'\n", `8:18: key: unknown name "nope"`)
	refuse(t, rule+"  - match: a/{b}\n    topic: t\n    key: \"\\u00e4\\t{nope}\"\n", `8:20: key: unknown name "nope"`)
	refuse(t, rule+"  - match: a/{b}\n    topic: t\n    key: ä{nope}\n", `8:12: key: unknown name "nope"`)
	refuse(t, rule+"  - match: a/{b}\n    topic: t\n    key: x\n      y {nope}\n", `9:10: key: unknown name "nope"`)
	refuse(t, rule+"  - match: a/{b}\n    topic: t\n    key: |\n      {nope}\n", `8:10: key: unknown name "nope"`)
	refuse(t, rule+"  - match: a/{b}\n    topic: t\n    key: 'x\n\n      {nope}'\n", `10:8: key: unknown name "nope"`)
	refuse(t, rule+"  - match: a/{b}\n    topic: t\n    key: \"x\\\n      {nope}\"\n", `9:8: key: unknown name "nope"`)
	// Where the scalar can't be followed, the caret stands at its beginning.
	refuse(t, rule+"  - match: a/{b}\n    topic: t\n    key: \"\\ud83d\\ude00{nope}\"\n", `8:10: key: unknown name "nope"`)
	refuse(t, rule+"  - {match: 'a/{b}', topic: 'x y'}\n", "6:31: topic: illegal Kafka topic name")
	refuse(t, rule+"  - match: a\n    topic: __t\n", "7:12: topic: internal Kafka topic")
	refuse(t, rule+"  - match: a\n    topic: ''\n", "7:12: topic: illegal Kafka topic name: it is empty")
	refuse(t, rule+"  - match: ''\n    topic: t\n", "6:12: match: a rule needs match")
}

func TestRegexFaultsArePlaced(t *testing.T) {
	refuse(t, rule+"  - regex: '^a(b$'\n    topic: t\n", "6:12: regex: missing closing )")
	refuse(t, rule+"  - regex: '^a{2,1}$'\n    topic: t\n", `6:15: regex: invalid repeat count: "{2,1}"`)
	refuse(t, rule+"  - regex: 'a$'\n    topic: t\n", "6:13: regex: the regex must match the whole topic: begin it with ^")
	refuse(t, rule+"  - regex: ^a\n    topic: t\n", "6:14: regex: the regex must match the whole topic: end it with $")
	refuse(t, rule+"  - regex: ^a$\n    match: a\n    topic: t\n", "6:12: regex: a rule has match or regex, not both")
}

func TestHeaderAndConditionFaultsArePlaced(t *testing.T) {
	refuse(t, rule+"  - match: a\n    topic: t\n    headers:\n      x: '1'\n      mqtt.qos: '2'\n", `10:7: header "mqtt.qos": names that begin with mqtt. are the proxy's own`)
	refuse(t, rule+"  - match: a\n    topic: t\n    user_properties: [a, sluice.x]\n", `8:26: user_properties: "sluice.x": names that begin with sluice. are the proxy's own`)
	refuse(t, rule+"  - match: a\n    topic: t\n    user_properties: some\n", `8:22: user_properties must be all, none or a list of names, not "some"`)
	refuse(t, rule+"  - match: a\n    topic: t\n    user_properties: {a: b}\n", `8:22: user_properties must be all, none or a list of names`)
	refuse(t, rule+"  - match: a\n    topic: t\n    user_properties: []\n", `8:22: user_properties must have at least one entry`)
	refuse(t, rule+"  - match: a\n    topic: t\n    headers: {x.y: '}', z: '{'}\n", `8:21: "x.y": this } closes nothing`, `8:29: "z": this { is not closed`)
	refuse(t, rule+"  - match: a\n    topic: t\n    headers: {'': x}\n", `8:15: "": a header needs a name`)
	refuse(t, rule+"  - match: a\n    topic: t\n    when: {mqtt.usr.x: a}\n", `8:12: when: unknown name "mqtt.usr.x"`)
	refuse(t, rule+"  - match: a\n    topic: t\n    when: {'{mqtt.username}': a}\n", `8:13: when: unknown name`)
	refuse(t, rule+"  - match: a\n    topic: t\n    when: {mqtt.user.x: }\n", `8:12: "mqtt.user.x" has no value`)
}

// TestOneBrokenFieldHidesNoOther: what is wrong in the other fields of the rule, and in the other rules, is
// told in the same run, and no fault is told that only follows from another one.
func TestOneBrokenFieldHidesNoOther(t *testing.T) {
	refuse(t, rule+`  - match: 5
    topic: "a b"
    key: "{whatever}"
  - topic: "x y"
  - nonsense
  - match: ok/{id}
    key: "{di}"
`, `6:12: match must be a text`, "7:14: topic: illegal Kafka topic", "9:5: a rule needs match", "9:14: topic: illegal Kafka topic",
		"10:5: publish[2] must be a mapping", "11:5: topic is missing", `12:12: key: unknown name "di"`)
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	refuse(t, `listener: []
listeners:
  - address: localhost
  - address: :1883
  - address: 0.0.0.0:1883
kafka:
  brokers: localhost:9092
  producer: {linger: 5, compression: lz5}
  create_topics: {partitions: "12", replication: 0}
publish:
  - match: devices/{device/x
    topci: telemetry
  - match: a/{b}
    topic: "x-{c}"
    key: {b}
    headers: {mqtt.x: "y", z: 12}
    when: {mqtt.usr: x, b: }
unmatched: rejct
sessions: {max_expiry: 1500ms}
limits: {max_packet_size: 100, receive_maximum: ${N}, keep_alive_max: -1s, linger: 5}
admin: {address: 1, address: 2}
log: [a]
`, "20:50: ',' or '}' must be specified")
	refuse(t, `listener: []
listeners:
  - address: localhost
  - address: :1883
  - address: 0.0.0.0:1883
kafka:
  brokers: localhost:9092
  producer: {linger: 5, compression: lz5}
  create_topics: {partitions: "12", replication: 0}
publish:
  - match: devices/{device/x
    topci: telemetry
  - match: a/{b}
    topic: "x-{c}"
    key: {b}
    headers: {mqtt.x: "y", z: 12}
    when: {mqtt.usr: x, b: }
unmatched: rejct
sessions: {max_expiry: 1500ms}
limits: {max_packet_size: 100, receive_maximum: "${N}", keep_alive_max: -1s, linger: 5}
admin: {address: 1, address: 2}
log: [a]
`, `1:1: unknown field "listener"`, "3:14: address:", "5:14: 0.0.0.0:1883 is taken", "7:12: brokers must be a list",
		`8:22: linger: "5"`, "8:38: compression must be", "9:31: partitions must be", "9:50: replication must be",
		"11:20: match: this {", `12:5: unknown field "topci"`, `14:16: topic: unknown name "c"`, "15:10: key must be a text",
		`16:15: header "mqtt.x"`, `16:31: "z" must be a text`, `17:12: when: unknown name "mqtt.usr"`, `17:25: "b" has no value`,
		"18:12: unmatched must be", "19:24: max_expiry must be whole", "20:27: max_packet_size must be", "20:50: environment variable N is not set",
		"20:73: keep_alive_max must be", `20:78: unknown field "linger"`, "21:18: address must be a text", `21:21: duplicate field "address"`,
		"22:6: log must be a mapping")
}
