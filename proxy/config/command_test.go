package config

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/topicmap"
)

// commands is base with one command rule, in 10 lines; tests add fields to the rule from line 11 on.
const commands = base + `commands:
  - topic: cmd
    publish: d/{key}
`

// alone is a configuration of 7 lines that has command rules and no publish rules; tests write more of them from line 8 on.
var alone = strings.Replace(rule, "publish:", "commands:", 1) + "  - topic: cmd\n    publish: d/{key}\n"

func TestWhatACommandLeavesOutIsTheDefault(t *testing.T) {
	cfg := parse(t, commands)
	require.Equal(t, []Command{{Topic: "cmd", Publish: "d/{key}", QoS: 1, Offline: OfflineKeep}}, cfg.Commands)
	require.Empty(t, parse(t, base).Commands)
}

// TestCommandsMayBeEmptyOrAlone: there must be rules of one of the two directions.
func TestCommandsMayBeEmptyOrAlone(t *testing.T) {
	require.Empty(t, parse(t, base+"commands: []\n").Commands)
	cfg := parse(t, alone)
	require.Empty(t, cfg.Publish)
	require.Len(t, cfg.Commands, 1)
	none := rule[:strings.Index(rule, "publish:")]
	refuse(t, none+"commands: []\n", "1:1: publish is missing")
	refuse(t, none+"comands: [{topic: a, publish: b}]\n", `5:1: unknown field "comands" (did you mean "commands"?)`)
	refuse(t, alone+"publish: []\n", "8:10: publish must have at least one entry")
	refuse(t, base+"commands:\n", "8:1: commands has no value")
	refuse(t, base+"commands: {topic: a}\n", "8:11: commands must be a list, not a mapping")
	refuse(t, base+"commands: [a]\n", "8:12: commands[0] must be a mapping")
}

// TestCommandRulesAreWhatTheFileSays: no template ends in the field of another.
func TestCommandRulesAreWhatTheFileSays(t *testing.T) {
	cfg := parse(t, commands+`    content_type: a
    response_topic: b
    correlation_data: c
    client: d
    when: {key: k, header.x.y: z}
  - pattern: '^p-(?P<x>.)$'
    publish: x/{x}
`)
	m, err := cfg.CommandRules()
	require.NoError(t, err)
	require.Equal(t, []topicmap.CommandRule{
		{Topic: "cmd", Publish: "d/{key}", ContentType: "a", ResponseTopic: "b", CorrelationData: "c", Client: "d",
			When: []topicmap.Field{{Name: "key", Value: "k"}, {Name: "header.x.y", Value: "z"}}},
		{Pattern: "^p-(?P<x>.)$", Publish: "x/{x}"},
	}, m.Rules())
	none, err := parse(t, base).CommandRules()
	require.NoError(t, err)
	require.Zero(t, none.Len())
}

func TestFaultsInsideCommandsArePlacedInTheFile(t *testing.T) {
	entry := func(fields, want string) {
		t.Helper()
		refuse(t, base+"commands:\n  - "+strings.ReplaceAll(fields, "\n", "\n    ")+"\n", want)
	}
	entry("publish: x", "9:5: a command rule needs topic, a Kafka topic, or pattern")
	entry("topic: a", "9:5: publish is missing")
	entry("topic: a\npattern: ^b$\npublish: x", "10:14: pattern: a command rule has topic or pattern, not both")
	entry("topic: a b\npublish: x", "9:13: topic: illegal Kafka topic name")
	entry("topic: ''\npublish: x", "9:12: topic: a command rule needs topic")
	entry("topic: __consumer_offsets\npublish: x", "9:12: topic: internal Kafka topic")
	entry("topic: sluice-retained\npublish: x", "9:12: topic: internal Kafka topic")
	entry("pattern: '^__.*$'\npublish: x", "9:16: pattern: internal Kafka topic")
	entry("pattern: '^a(b$'\npublish: x", "9:14: pattern: missing closing )")
	entry("pattern: a$\npublish: x", "9:14: pattern: the regex must match the whole topic: begin it with ^")
	entry("pattern: '^(?P<key>a)$'\npublish: x", "9:20: pattern: {key} is a part of the record already")
	entry("topic: a\npublish: x/{nope}", `10:17: publish: unknown name "nope"; known here: kafka.topic, key, header.NAME, payload.PATH`)
	entry("topic: a\npublish: x/{mqtt.client_id}", `10:17: publish: unknown name "mqtt.client_id"`)
	entry("pattern: ^(?P<b>a)$\npublish: x/{c}", `10:17: publish: unknown name "c"; known here: b, kafka.topic`)
	entry("topic: a\npublish: x/+/{key}", "10:16: publish: illegal MQTT topic name: + is for subscriptions")
	entry("topic: a\npublish: ''", "10:14: publish: illegal MQTT topic name: it is empty")
	entry("topic: a\npublish: $share/g/x", "10:14: publish: illegal MQTT topic name: $share/ is for subscriptions")
	entry("topic: a\npublish: x\nresponse_topic: \"r/{key}/#\"", "11:30: response_topic: illegal MQTT topic name: # is for")
	entry("topic: a\npublish: x\nresponse_topic: a{{b}}/#", "11:28: response_topic: illegal MQTT topic name: # is for")
	entry("topic: a\npublish: x\ncontent_type: 'a{'", "11:21: content_type: this { is not closed")
	entry("topic: a\npublish: x\ncorrelation_data: '}'", "11:24: correlation_data: this } closes nothing")
	entry("topic: a\npublish: x\nclient: '{header.}'", `11:15: client: unknown name "header."`)
	entry("topic: a\npublish: x\nclient: {key}", `11:13: client must be a text, not a mapping; write templates in quotes: "{key}"`)
	entry("topic: a\npublish: x\nwhen: {type: a}", `11:12: when: unknown name "type"`)
	entry("topic: a\npublish: x\nwhen: {header.type: }", `11:12: "header.type" has no value`)
	entry("topic: a\npublish: x\npayload: y", `11:5: unknown field "payload"`)
	entry("topic: a\npublish: x\nheaders: {a: b}", `11:5: unknown field "headers" (it belongs under "publish")`)
}

func TestValuesOfCommandsAreChecked(t *testing.T) {
	field := func(line, want string) {
		t.Helper()
		refuse(t, commands+"    "+line+"\n", want)
	}
	field("qos: 3", "11:10: qos must be 0 to 2, not 3")
	field("qos: -1", "11:10: qos must be 0 to 2, not -1")
	field("qos: '1'", `11:10: qos must be a whole number, not the text "1"`)
	field("retain: yes", `11:13: retain must be true or false, not the text "yes"`)
	field("retain: 'true'", `11:13: retain must be true or false, not the text "true"`)
	field("retain: 1", "11:13: retain must be true or false, not the number 1")
	field("retain: [true]", "11:13: retain must be true or false, not a list")
	field("retain:", "11:5: retain has no value")
	field("retain: ${NONE}", "11:13: environment variable NONE is not set")
	field("expiry: 500ms", "11:13: expiry must be whole seconds, not 500ms")
	field("expiry: 1.5s", "11:13: expiry must be whole seconds, not 1.5s")
	field("expiry: -1s", "11:13: expiry must be 0s to 1193046h28m15s, not -1s")
	field("expiry: 4294967296s", "11:13: expiry must be 0s to 1193046h28m15s")
	field("offline: kepe", `11:14: offline must be keep or drop, not "kepe" (did you mean "keep"?)`)
	field("client: ''", "11:13: client is empty; give it a value or leave it out")
	field("content_type: ''", "11:19: content_type is empty")
	field("response_topic: ''", "11:21: response_topic is empty")
	field("correlation_data: ''", "11:23: correlation_data is empty")
	field("client: ${NONE}", "11:13: environment variable NONE is not set")
	field("receipts: a b", "11:15: receipts: illegal Kafka topic name")
	field("receipts: ''", "11:15: receipts: illegal Kafka topic name: it is empty")
	field("receipts: sluice-receipts", "11:15: receipts: internal Kafka topic")
	field("receipts: 5", `11:15: receipts must be a text; write it in quotes: "5"`)
}

// TestAnEmptyVariableDoesNotMakeACommandForEverybody: a client from the environment is there, or a fault.
func TestAnEmptyVariableDoesNotMakeACommandForEverybody(t *testing.T) {
	env := environment(map[string]string{"CLIENT": ""})
	refuseEnv(t, commands+"    client: ${CLIENT}\n", env, "11:13: client is empty")
}

func TestTheEdgesOfCommandsAreAccepted(t *testing.T) {
	for _, line := range []string{"qos: 0", "qos: 2", "retain: true", "retain: false", "expiry: 0s", "expiry: 1s", "expiry: 4294967295s",
		"offline: keep", "offline: drop", "receipts: cmd-receipts", "content_type: '{header.mqtt.content_type}'", "when: {}",
		"client: '{payload.to.0.id}'", "response_topic: $devices/{key}"} {
		parse(t, commands+"    "+line+"\n")
	}
	require.True(t, parse(t, commands+"    retain: true\n").Commands[0].Retain)
	require.False(t, parse(t, commands+"    retain: false\n").Commands[0].Retain)
	// What goes out can come back in: the topic of the message is in a header of its record.
	parse(t, base+"commands:\n  - topic: t\n    publish: \"{header.mqtt.topic}\"\n")
}

func TestCommandsTakeValuesFromTheEnvironment(t *testing.T) {
	env := environment(map[string]string{"TOPIC": "cmd", "QOS": "2", "YES": "true", "NO": "false", "WAIT": "30s", "WHAT": "drop", "T": "{key}"})
	cfg, err := Parse("f", []byte(base+`commands:
  - {topic: "${TOPIC}", publish: "d/${T}", qos: "${QOS}", retain: "${YES}", expiry: "${WAIT}", offline: "${WHAT}"}
  - {topic: "${TOPIC}", publish: d, retain: "${NO}"}
`), env)
	require.NoError(t, err)
	require.Equal(t, Command{Topic: "cmd", Publish: "d/{key}", QoS: 2, Retain: true, Expiry: 30 * time.Second, Offline: OfflineDrop}, cfg.Commands[0])
	require.False(t, cfg.Commands[1].Retain)
	refuseEnv(t, commands+"    retain: ${QOS}\n", env, `11:13: retain must be true or false, not the text "2"`)
}

// TestReceiptsAreNoCommands: a receipt that is a command again would go round for ever.
func TestReceiptsAreNoCommands(t *testing.T) {
	refuse(t, commands+"    receipts: cmd\n", "11:15: receipts: commands[0] reads the Kafka topic cmd")
	refuse(t, commands+"    receipts: other\n  - topic: other\n    publish: x\n", "11:15: receipts: commands[1] reads the Kafka topic other")
	refuse(t, commands+"    receipts: r-one\n  - pattern: ^r-.*$\n    publish: x\n    receipts: r-two\n",
		"11:15: receipts: commands[1] reads the Kafka topic r-one", "14:15: receipts: commands[1] reads the Kafka topic r-two")
	parse(t, commands+"    receipts: r\n  - pattern: ^r-.*$\n    publish: x\n    receipts: r\n")
	// A pattern with a fault of its own does not hide what else is wrong.
	refuse(t, commands+"    receipts: cmd\n  - pattern: '^(a$'\n    publish: x\n    receipts: r\n",
		"11:15: receipts: commands[0] reads", "12:14: pattern: missing closing )")
}

// TestFaultsOfBothDirectionsAreToldAtOnce, of every field of a rule and of every rule.
func TestFaultsOfBothDirectionsAreToldAtOnce(t *testing.T) {
	refuse(t, rule+`  - match: a/{b
    topic: x
commands:
  - topic: a b
    publish: "x/{nope}/#"
    qos: 7
    retain: maybe
    expiry: 1ms
    content_type: "{"
    response_topic: "#"
    correlation_data: "{payload.}"
    client: ""
    when: {header: x}
    offline: never
    receipts: __r
  - nonsense
  - topic: ok
    publsh: x
limits: {commands_queued: 0}
`, "6:14: match: this {", "9:13: topic: illegal Kafka topic name", `10:18: publish: unknown name "nope"`, "11:10: qos must be 0 to 2",
		"12:13: retain must be true or false", "13:13: expiry must be whole seconds", "14:20: content_type: this {",
		"15:22: response_topic: illegal MQTT topic name", "16:25: correlation_data: a path in a JSON payload", "17:13: client is empty",
		`18:12: when: unknown name "header"`, "19:14: offline must be keep or drop", "20:15: receipts: internal Kafka topic",
		"21:5: commands[1] must be a mapping", `23:5: unknown field "publsh" (did you mean "publish"?)`, "24:27: commands_queued must be 1 to")
}
