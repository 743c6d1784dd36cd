package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMissingFieldsAreNamed(t *testing.T) {
	for _, empty := range []string{"", "\n", "# only a comment\n", "---\n", "~\n", "{}\n"} {
		refuse(t, empty, "1:1: listeners is missing", "1:1: kafka is missing", "1:1: publish is missing")
	}
	refuse(t, "listeners: [{}]\nkafka: {}\npublish: [{}]\n",
		"1:13: address is missing", "2:1: brokers is missing", "3:11: topic is missing", "3:11: a rule needs match")
	refuse(t, base+"unmatched: {}\n", "8:1: dead_letter is missing")
	refuse(t, strings.Replace(base, "publish", "  create_topics: {partitions: 1}\npublish", 1), "5:3: replication is missing")
	refuse(t, "listeners: []\nkafka: {brokers: []}\npublish: []\n",
		"1:12: listeners must have at least one entry", "2:18: brokers must have at least one entry", "3:10: publish must have at least one entry")
}

func TestUnknownFieldsAreNamedWithWhatIsNear(t *testing.T) {
	refuse(t, base+"limit: {}\n", `8:1: unknown field "limit" (did you mean "limits"?)`)
	refuse(t, base+"log: {lvel: info}\n", `8:7: unknown field "lvel" (did you mean "level"?)`)
	refuse(t, base+"log: {Level: info}\n", `8:7: unknown field "Level" (did you mean "level"?)`)
	refuse(t, base+"    topci: x\n", `8:5: unknown field "topci" (did you mean "topic"?)`)
	refuse(t, base+"linger: 5ms\n", `8:1: unknown field "linger" (it belongs under "kafka.producer")`)
	refuse(t, base+"address: x\n", `8:1: unknown field "address" (known here: listeners, kafka,`)
	refuse(t, base+"max_topics: 1\n", `8:1: unknown field "max_topics" (it belongs under "publish")`)
	refuse(t, base+"tls: {ca: ca.pem}\n", `8:1: unknown field "tls" (known here: listeners, kafka, publish, commands, unmatched, refused, sessions, presence, retained, auth, acl, shares, limits, admin, log)`)
	refuse(t, base+"1: x\ntrue: y\n? z\n", "10:1: complex keys (?) are not supported")
	refuse(t, base+"1: x\ntrue: y\n", `8:1: unknown field "1"`, `9:1: unknown field "true"`)
	refuse(t, base+"kafka.brokers: [x]\n'a[0]': 1\n", `8:1: unknown field "kafka.brokers"`, `9:1: unknown field "a[0]"`)
	// A misspelt name of a required field is one fault, not two.
	refuse(t, strings.Replace(base, "topic", "topics", 1), `7:5: unknown field "topics" (did you mean "topic"?)`)
}

func TestDuplicateFieldsAreRefused(t *testing.T) {
	refuse(t, base+"log: {}\nlog: {}\n", `9:1: duplicate field "log"; it is in line 8 already`)
	refuse(t, base+"    topic: u\n", `8:5: duplicate field "topic"; it is in line 7 already`)
	refuse(t, base+"    headers: {a: x, b: x, 'a': y}\n", `8:27: duplicate field "a"; it is in line 8 already`)
	refuse(t, base+"x: 1\nx: 2\n", `8:1: unknown field "x"`, `9:1: duplicate field "x"`)
}

func TestWrongTypesAreRefused(t *testing.T) {
	refuse(t, "- a\n", "1:1: the configuration must be a mapping (name: value), not a list")
	refuse(t, "foo\n", "1:1: the configuration must be a mapping (name: value), not a text")
	refuse(t, base+"limits: 5\n", "8:9: limits must be a mapping (name: value), not the number 5")
	refuse(t, base+"limits: [a]\n", "8:9: limits must be a mapping (name: value), not a list")
	refuse(t, base+"limits:\n  - a\n", "9:3: limits must be a mapping (name: value), not a list")
	refuse(t, base+"admin: true\n", "8:8: admin must be a mapping (name: value), not true")
	refuse(t, strings.Replace(base, "[localhost:9092]", "localhost:9092", 1), "4:12: brokers must be a list, not a text")
	refuse(t, strings.Replace(base, "[localhost:9092]", "[9092]", 1), `4:13: brokers[0] must be a text; write it in quotes: "9092"`)
	refuse(t, strings.Replace(base, "- address: 0.0.0.0:1883", "address: 0.0.0.0:1883", 1), "2:3: listeners must be a list, not a mapping")
	refuse(t, base+"    headers: [a]\n", "8:14: headers must be a mapping (name: value), not a list")
	refuse(t, base+"    headers: {a: 1.10, b: true, c: [x]}\n", `8:18: "a" must be a text; write it in quotes: "1.10"`,
		`8:27: "b" must be a text; write it in quotes: "true"`, `8:36: "c" must be a text, not a list`)
	refuse(t, base+"unmatched: [a]\n", "8:12: unmatched must be reject, drop or {dead_letter: TOPIC}, not a list")
	refuse(t, base+"refused: 3\n", "8:10: refused must be close, acknowledge or {dead_letter: TOPIC}, not the number 3")
	refuse(t, base+"refused: drop\n", `8:10: refused must be close, acknowledge or {dead_letter: TOPIC}, not "drop"`)
	refuse(t, base+"refused: {}\n", "8:1: dead_letter is missing")
	refuse(t, base+"unmatched: dorp\n", `8:12: unmatched must be reject, drop or {dead_letter: TOPIC}, not "dorp"`)
	refuse(t, base+"limits: {receive_maximum: \"5\"}\n", `8:27: receive_maximum must be a whole number, not the text "5"`)
	refuse(t, base+"limits: {receive_maximum: 1.5}\n", "8:27: receive_maximum must be a whole number, not the number 1.5")
	for _, odd := range []string{"0x10", "010", "1_000", "+5", "0b1", "0o7", "99999999999999999999"} {
		refuse(t, base+"limits: {receive_maximum: "+odd+"}\n", "8:27: receive_maximum must be a whole number")
	}
	refuse(t, base+"limits: {connect_timeout: 5}\n", `8:27: connect_timeout: "5" is no duration such as 5ms, 10s, 1h30m`)
	refuse(t, base+"limits: {connect_timeout: soon}\n", `8:27: connect_timeout: "soon" is no duration`)
	refuse(t, base+"limits: {connect_timeout: [1s]}\n", "8:27: connect_timeout must be a duration such as 10s, not a list")
	refuse(t, base+"limits: {max_packet_size: 1.5MiB}\n", `8:27: max_packet_size: "1.5MiB" is no size`)
	refuse(t, base+"limits: {max_packet_size: 64Mib}\n", `8:27: max_packet_size: unknown unit "Mib"`)
	refuse(t, base+"limits: {max_packet_size: 1.5}\n", "8:27: max_packet_size must be a size such as 64MiB, not the number 1.5")
	refuse(t, base+"log: {level: debgu}\n", `8:14: level must be trace, debug, info, warn or error, not "debgu" (did you mean "debug"?)`)
	refuse(t, base+"log: {format: xml}\n", `8:15: format must be console or json, not "xml"`)
}

func TestTemplatesWithoutQuotesAreRecognised(t *testing.T) {
	refuse(t, base+"    key: {b}\n", `8:10: key must be a text, not a mapping; write templates in quotes: "{b}"`)
	refuse(t, base+"    headers: {b: {b}}\n", `8:18: "b" must be a text, not a mapping; write templates in quotes: "{b}"`)
	refuse(t, base+"    headers: {b: x{b}}\n", `8:19: ',' or '}' must be specified; a text with braces or brackets needs quotes here`)
}

func TestFieldsWithoutAValueAreRefused(t *testing.T) {
	refuse(t, base+"limits:\nlog:\n", "8:1: limits has no value; give it one or leave it out", "9:1: log has no value")
	refuse(t, base+"limits: ~\n", "8:1: limits has no value")
	refuse(t, base+"limits: {receive_maximum: null}\n", "8:10: receive_maximum has no value")
	refuse(t, base+"    key:\n", `8:5: key has no value; write "" for no key, or leave it out for {mqtt.client_id}`)
	refuse(t, base+"    headers: {a: }\n", `8:15: "a" has no value`)
	refuse(t, base+"  -\n", "8:3: publish[1] has no value")
	refuse(t, "listeners:\nkafka:\npublish:\n", "1:1: listeners has no value", "2:1: kafka has no value", "3:1: publish has no value")
}

func TestRangesAreKept(t *testing.T) {
	limits := func(field, value, want string) {
		t.Helper()
		refuse(t, base+"limits:\n  "+field+": "+value+"\n", "9:"+column(field)+": "+field+" must be "+want)
	}
	limits("receive_maximum", "0", "1 to 65535, not 0")
	limits("receive_maximum", "65536", "1 to 65535, not 65536")
	limits("receive_maximum", "-1", "1 to 65535, not -1")
	limits("topic_alias_maximum", "65536", "0 to 65535, not 65536")
	limits("max_packet_size", "1023", "1KiB to 268435455, not 1023")
	limits("max_packet_size", "256MiB", "1KiB to 268435455, not 256MiB")
	limits("keep_alive_max", "-1s", "0s to 18h12m15s, not -1s")
	limits("keep_alive_max", "65536s", "0s to 18h12m15s, not 18h12m16s")
	limits("keep_alive_max", "1500ms", "whole seconds, not 1500ms")
	limits("connect_timeout", "0s", "100ms to 10m, not 0s")
	limits("connect_timeout", "1h", "100ms to 10m, not 1h")
	limits("shutdown_timeout", "2h", "100ms to 1h, not 2h")
	limits("commands_in_flight", "0", "1 to 65535, not 0")
	limits("commands_in_flight", "65536", "1 to 65535, not 65536")
	limits("commands_queued", "0", "1 to 1000000, not 0")
	limits("commands_queued", "1000001", "1 to 1000000, not 1000001")
	limits("commands_memory", "4095", "4KiB to 1TiB, not 4095")
	limits("commands_memory", "2TiB", "4KiB to 1TiB, not 2TiB")
	limits("subscriptions", "0", "1 to 100000, not 0")
	limits("subscriptions", "100001", "1 to 100000, not 100001")
	limits("subscriptions_memory", "4095", "4KiB to 1TiB, not 4095")
	limits("subscriptions_memory", "2TiB", "4KiB to 1TiB, not 2TiB")
	limits("connections", "-1", "0 to 10000000, not -1")
	limits("connections_per_address", "-1", "0 to 10000000, not -1")
	limits("connects_per_second", "1000001", "0 to 1000000, not 1000001")
	limits("publishes_per_second", "-1", "0 to 1000000, not -1")
	limits("publish_bytes_per_second", "2TiB", "0 to 1TiB, not 2TiB")
	limits("over_rate", "drop", `delay or disconnect, not "drop"`)
	limits("topic_levels", "0", "1 to 65535, not 0")
	limits("user_properties", "0", "1 to 65535, not 0")
	limits("sessions", "-1", "0 to 100000000, not -1")
	limits("sessions_memory", "1KiB", "4KiB to 1TiB, not 1KiB")
	limits("failed_logins", "-1", "0 to 1000000, not -1")
	refuse(t, base+"sessions: {dead_after: 7s}\n", "8:24: dead_after must be 8s to 1h, not 7s")
	refuse(t, base+"sessions: {dead_after: 61m}\n", "8:24: dead_after must be 8s to 1h, not 1h1m")
	refuse(t, base+"sessions: {max_expiry: 4294967295s}\n", "8:24: max_expiry must be 0s to 1193046h28m14s")
	refuse(t, base+"    max_topics: 0\n", "8:17: max_topics must be 1 to 1000000, not 0")
	kafka := func(field, want string) {
		t.Helper()
		refuse(t, strings.Replace(base, "publish:", "  "+field+"\npublish:", 1), want)
	}
	kafka("producer: {linger: 11s}", "5:22: linger must be 0s to 10s, not 11s")
	kafka("producer: {compression: lz5}", "5:27: compression must be none, lz4, snappy, zstd or gzip")
	kafka("producer: {max_in_flight_bytes: 2TiB}", "5:35: max_in_flight_bytes must be 4KiB to 1TiB, not 2TiB")
	kafka("create_topics: {partitions: 0, replication: 1}", "5:31: partitions must be 1 to 100000, not 0")
	kafka("create_topics: {partitions: 1, replication: 32768}", "5:47: replication must be 1 to 32767, not 32768")
}

// column is where the value of a field begins that stands behind two blanks.
func column(field string) string {
	const digits = "0123456789"
	n := len(field) + 5
	return strings.TrimLeft(string(digits[n/10])+string(digits[n%10]), "0")
}

func TestTheEdgesOfRangesAreAccepted(t *testing.T) {
	for _, limits := range []string{
		"receive_maximum: 1", "receive_maximum: 65535", "topic_alias_maximum: 65535", "max_packet_size: 1KiB", "max_packet_size: 16MiB",
		"keep_alive_max: 0s", "keep_alive_max: 0", "keep_alive_max: 65535s", "connect_timeout: 100ms", "connect_timeout: 10m", "shutdown_timeout: 1h",
		"commands_in_flight: 1", "commands_in_flight: 65535", "commands_queued: 1", "commands_queued: 1000000", "commands_memory: 4KiB",
		"commands_memory: 1TiB", "subscriptions: 1", "subscriptions: 100000", "subscriptions_memory: 4KiB", "subscriptions_memory: 1TiB",
	} {
		parse(t, base+"limits: {"+limits+"}\n")
	}
	parse(t, base+"sessions: {max_expiry: 4294967294s}\n")
	parse(t, strings.Replace(base, "publish:", "  producer: {max_in_flight_bytes: 1TiB}\nlimits: {max_packet_size: 268435455}\npublish:", 1))
}

func TestTheMemoryBudgetHoldsFourPackets(t *testing.T) {
	refuse(t, base+"limits: {max_packet_size: 17MiB}\n",
		"8:27: max_in_flight_bytes (64MiB) must hold 4 packets of limits.max_packet_size (17MiB): at least 68MiB")
	refuse(t, strings.Replace(base, "publish:", "  producer: {max_in_flight_bytes: 1000KiB}\npublish:", 1),
		"5:35: max_in_flight_bytes (1000KiB) must hold 4 packets of limits.max_packet_size (256KiB): at least 1MiB")
}

func TestAddressesAreChecked(t *testing.T) {
	listener := func(address, want string) {
		t.Helper()
		refuse(t, strings.Replace(base, "0.0.0.0:1883", address, 1), want)
	}
	listener("localhost", `2:14: address: "localhost" is no host:port`)
	listener(`""`, `2:14: address: "" is no host:port`)
	listener("'::1:1883'", `2:14: address: "::1:1883" is no host:port`)
	listener("a:b", `2:16: address: the port must be 0 to 65535, not "b"`)
	listener("'a:65536'", `2:17: address: the port must be 0 to 65535, not "65536"`)
	listener("a:-1", `2:16: address: the port must be 0 to 65535, not "-1"`)
	listener("a:01883", `2:16: address: the port must be 0 to 65535, not "01883"`)
	listener("http://a:80", `2:14: address: "http://a:80" is no host:port`)
	listener("a b:1883", `2:14: address: "a b" is no host name and no IP address`)
	listener("1.2.3:1883", `2:14: address: "1.2.3" is no host name and no IP address`)
	listener("a..b:1883", `2:14: address: "a..b" is no host name`)
	broker := func(address, want string) {
		t.Helper()
		refuse(t, strings.Replace(base, "localhost:9092", address, 1), want)
	}
	broker("kafka", `4:13: brokers[0]: "kafka" is no host:port`)
	broker("':9092'", `4:13: brokers[0]: ":9092" lacks the host before the port`)
	broker("kafka:0", `4:19: brokers[0]: the port must be 1 to 65535, not "0"`)
	broker("a:1, b:2, a:1", "4:23: broker a:1 is in the list twice")
	refuse(t, base+"admin: {address: 8080}\n", `8:18: address must be a text; write it in quotes: "8080"`)
	refuse(t, base+"admin: {address: nowhere}\n", `8:18: address: "nowhere" is no host:port`)
}

func TestTwoListenersCannotShareAnAddress(t *testing.T) {
	twice := func(a, b string) string {
		return strings.Replace(base, "0.0.0.0:1883", "'"+a+"'\n  - address: '"+b+"'", 1)
	}
	refuse(t, twice("a:1", "A:1"), "3:14: A:1 is taken by listeners[0].address already")
	refuse(t, twice("0.0.0.0:1", ":1"), "3:14: :1 is taken by listeners[0].address already")
	refuse(t, twice("[::]:1", "0.0.0.0:1"), "3:14: 0.0.0.0:1 is taken by listeners[0].address already")
	refuse(t, twice("a:1", "127.0.0.1:8080"), "3:14: 127.0.0.1:8080 is taken by admin.address already")
	refuse(t, base+"admin: {address: ':1883'}\n", "8:18: :1883 is taken by listeners[0].address already")
	parse(t, twice("a:1", "b:1"))
	parse(t, twice("a:1", "a:2"))
	parse(t, twice("a:0", "a:0")) // two free ports are two ports
}

func TestTheDeadLetterTopicIsALegalKafkaTopic(t *testing.T) {
	refuse(t, base+"unmatched: {dead_letter: a b}\n", "8:26: dead_letter: illegal Kafka topic name")
	refuse(t, base+"refused: {dead_letter: a b}\n", "8:24: dead_letter: illegal Kafka topic name")
	refuse(t, base+"unmatched: {dead_letter: ''}\n", "8:26: dead_letter: illegal Kafka topic name")
	refuse(t, base+"unmatched:\n  dead_letter: __dead\n", "9:16: dead_letter: internal Kafka topic")
	refuse(t, base+"unmatched: {dead_letter: sluice-dead}\n", "8:26: dead_letter: internal Kafka topic")
	refuse(t, base+"unmatched: {dead_leter: x}\n", `8:13: unknown field "dead_leter" (did you mean "dead_letter"?)`)
}

func TestWhatIsLeftOutOfYAMLIsRefusedClearly(t *testing.T) {
	refuse(t, base+"log: &x {}\nadmin: *x\n<<: *x\n", "8:6: anchors (&name) are not supported", "9:8: aliases (*name) are not supported",
		"10:1: merge keys (<<) are not supported", "10:5: aliases (*name) are not supported")
	refuse(t, base+"log: !!map {}\n", "8:6: tags (!name) are not supported")
	refuse(t, "%YAML 1.2\n---\n"+base, "1:1: directives (%) are not supported")
	refuse(t, base+"---\n"+base, "8:1: a second document begins here")
	refuse(t, base+"---\n", "8:1: a second document begins here")
	refuse(t, "---\n---\n"+base, "2:1: a second document begins here")
	refuse(t, base+"...\n---\n"+base, "9:1: a second document begins here")
	refuse(t, strings.Repeat("[", 65), "1:65: nested deeper than 64 levels")
	refuse(t, strings.Repeat("- ", 65), "1:129: nested deeper than 64 levels")
	refuse(t, "a: "+strings.Repeat("x", maxSource), "1:1: the file is larger than 1MiB")
}

func TestWhatIsNoYAMLIsRefusedWithItsPlace(t *testing.T) {
	refuse(t, base+"log: [\n", "8:6: sequence end token ']' not found")
	refuse(t, base+"log: 'x\n", "8:6: could not find end character of single-quoted text")
	refuse(t, base+"log:\n\tlevel: info\n", "9:1: found character '\t' that cannot start any token; indent with blanks, not with tabs")
	refuse(t, base+"log: a: b\n", `8:6: mapping value is not allowed in this context; a text with ": " needs quotes`)
	refuse(t, base+"log: \xff\n", "8:6: the file is not UTF-8 text")
	refuse(t, base+"löß: \xc3", "8:6: the file is not UTF-8 text")
	refuse(t, base+"log: \x00\n", "8:6: control character U+0000 is not allowed")
	refuse(t, "log: {}\rx: y", "1:8: control character U+000D is not allowed")
}

func TestTrustedProxiesAreAddresses(t *testing.T) {
	proxied := func(value string) string {
		return strings.Replace(base, "- address: 0.0.0.0:1883", "- address: 0.0.0.0:1883\n    proxy_protocol: "+value, 1)
	}
	refuse(t, proxied("{}"), "3:5: trusted is missing")
	refuse(t, proxied("{trusted: []}"), "3:31: trusted must have at least one entry")
	refuse(t, proxied("{trusted: [lb.example, 10.0.0.0/33]}"), `3:32: trusted[0]: "lb.example" is no IP address and no network such as 10.0.0.0/8`,
		`3:44: trusted[1]: "10.0.0.0/33" is no IP address and no network`)
	refuse(t, proxied("{trusted: [10.1.2.3/8]}"), `3:32: trusted[0]: "10.1.2.3/8" has bits behind its 8; did you mean 10.0.0.0/8?`)
	refuse(t, proxied(`{trusted: ["::ffff:10.0.0.1", "fe80::1%eth0"]}`), `3:32: trusted[0]: "::ffff:10.0.0.1" is an IPv4 address written as IPv6`,
		`3:51: trusted[1]: "fe80::1%eth0" is no IP address`)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		parse(t, proxied(`{trusted: [10.0.0.0/8, "::1"]}`)).Listeners[0].ProxyProtocol.Networks())
}

func TestShareNamesAreChecked(t *testing.T) {
	refuse(t, base+"shares: [ok, \"\"]\n", "8:14: a share name is not empty and has no /, + or # in it")
	refuse(t, base+"shares: [a/b]\n", "8:11: a share name is not empty and has no /, + or # in it")
	refuse(t, base+"acl: [{allow: [subscribe], filter: a, share: \"#\"}]\n", "8:47: a share name is not empty and has no /, + or # in it")
	refuse(t, base+"acl: [{deny: [subscribe, publish], filter: a, share: g}]\n", "8:54: an entry for a share is about subscribe alone")
	refuse(t, base+"limits: {shares_per_device: 0}\n", "8:29: shares_per_device must be 1 to 10000")
}
