package proxy

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
)

const commandsForTests = `
commands:
  - topic: plain
    publish: devices/{key}/{header.name}
    when: {header.name: reboot}
    qos: 2
    retain: true
    expiry: 60s
    content_type: application/json
    response_topic: devices/{key}/answers
    correlation_data: "{header.id}"
    client: "{key}"
    offline: drop
    receipts: receipts
  - topic: plain
    publish: any/{header.to}
    receipts: receipts
  - topic: fixed
    publish: fleet
    receipts: receipts
  - pattern: '^cmd-(?P<plant>[a-z]+)$'
    publish: plants/{plant}/{payload.to}
`

// configured makes a configuration that nothing listens to, with more YAML.
func configured(t testing.TB, extra string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("test", []byte("listeners: [{address: 127.0.0.1:0}]\nadmin: {address: \"\"}\nkafka: {brokers: [127.0.0.1:1]}\n"+extra), noEnv)
	require.NoError(t, err)
	return cfg
}

// translating gives a translator of these rules and a count of the headers it left out.
func translating(t testing.TB, cfg *config.Config) (tr *translator, leftOut *int) {
	t.Helper()
	rules, err := cfg.CommandRules()
	require.NoError(t, err)
	leftOut = new(int)
	return &translator{rules: rules, settings: cfg.Commands, leftOut: func() { *leftOut++ }}, leftOut
}

var written = time.UnixMilli(1_700_000_000_000)

// recordOf makes a record; headers are names and values in turn, "null" is the null value.
func recordOf(topic, key, value string, headers ...string) *kafka.Fetched {
	r := &kafka.Fetched{Topic: topic, Partition: 3, Offset: 42, Key: bytesOf(key), Value: bytesOf(value), Timestamp: written}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, kafka.Header{Key: []byte(headers[i]), Value: bytesOf(headers[i+1])})
	}
	return r
}

func bytesOf(s string) []byte {
	if s == "null" {
		return nil
	}
	return []byte(s)
}

// told is all that a command says, in one line.
func told(c *command) string { return published(&c.Command, c.written) }

// published is the PUBLISH of a record that was written then; what is absent is not in it.
func published(c *mqtt.Command, written time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q qos=%d", c.Topic, c.Payload, c.QoS)
	add := func(name string, v []byte) {
		if v != nil {
			fmt.Fprintf(&b, " %s=%q", name, v)
		}
	}
	if c.Retain {
		b.WriteString(" retain")
	}
	if !c.Expires.IsZero() {
		fmt.Fprintf(&b, " expires=%s", c.Expires.Sub(written))
	}
	add("type", c.ContentType)
	add("response", c.ResponseTopic)
	add("correlation", c.CorrelationData)
	for _, u := range c.User {
		fmt.Fprintf(&b, " %s:%q", u.Key, u.Value)
	}
	if c.From != "" {
		b.WriteString(" from=" + c.From)
	}
	if c.To != "" {
		b.WriteString(" to=" + c.To)
	}
	if c.Connected {
		b.WriteString(" connected")
	}
	return b.String()
}

func TestRecordBecomesACommand(t *testing.T) {
	tr, leftOut := translating(t, configured(t, commandsForTests))
	f := func(r *kafka.Fetched, rule int, want string) {
		t.Helper()
		c, err := tr.translate(r)
		require.NoError(t, err)
		require.Equal(t, want, told(c))
		require.Equal(t, rule, c.rule)
		require.Same(t, &tr.settings[rule], c.settings)
		require.Equal(t, r.Key, c.key)
		require.Equal(t, []any{r.Topic, r.Partition, r.Offset, r.Timestamp}, []any{c.topic, c.partition, c.offset, c.written})
	}
	// What the rule says, and its templates.
	f(recordOf("plain", "d1", "{}", "name", "reboot", "id", "7"), 0,
		`devices/d1/reboot "{}" qos=2 retain expires=1m0s type="application/json" response="devices/d1/answers" correlation="7" name:"reboot" id:"7" to=d1 connected`)
	f(recordOf("plain", "d1", "x", "to", "y"), 1, `any/y "x" qos=1 to:"y"`)
	f(recordOf("cmd-ulm", "null", `{"to":"line"}`), 3, `plants/ulm/line "{\"to\":\"line\"}" qos=1`)
	// The record's headers come before the rule.
	f(recordOf("plain", "d1", "x", "name", "reboot", "mqtt.qos", "0", "mqtt.retain", "false", "mqtt.expiry", "5", "mqtt.content_type", "text/plain",
		"mqtt.response_topic", "r", "mqtt.correlation_data", "\x00\xff", "mqtt.client_id", "me"), 0,
		`devices/d1/reboot "x" qos=0 expires=5s type="text/plain" response="r" correlation="\x00\xff" name:"reboot" from=me to=d1 connected`)
	f(recordOf("fixed", "null", "x", "mqtt.qos", "2", "mqtt.retain", "true", "mqtt.expiry", "4294967295"), 2, `fleet "x" qos=2 retain expires=1193046h28m15s`)
	f(recordOf("fixed", "null", "x", "mqtt.expiry", "0"), 2, `fleet "x" qos=1 expires=0s`)
	f(recordOf("fixed", "null", "x", "mqtt.expiry", "007"), 2, `fleet "x" qos=1 expires=7s`)
	// The first of a name, also if its value is null; an empty value is a value.
	f(recordOf("fixed", "null", "x", "mqtt.qos", "0", "mqtt.qos", "2", "mqtt.qos", "nonsense"), 2, `fleet "x" qos=0`)
	f(recordOf("fixed", "null", "x", "mqtt.content_type", "null", "mqtt.content_type", "t", "mqtt.correlation_data", ""), 2, `fleet "x" qos=1 type="" correlation=""`)
	// What only the proxy may say is no user property; all else is, in its order, repeated or empty.
	f(recordOf("fixed", "null", "x", "b", "2", "mqtt.topic", "t", "sluice.refused", "r", "mqtt.", "x", "a", "1", "b", "3", "", "null", "MQTT.qos", "0", "mqtt", "m", "sluice", ""), 2,
		`fleet "x" qos=1 b:"2" a:"1" b:"3" :"" MQTT.qos:"0" mqtt:"m" sluice:""`)
	// A tombstone is an empty payload; a key may be empty or anything.
	f(recordOf("fixed", "", "null"), 2, `fleet "" qos=1`)
	f(recordOf("fixed", "\xff\x00", ""), 2, `fleet "" qos=1`)
	require.Zero(t, *leftOut)
}

func TestRecordThatMakesNoCommandSaysWhy(t *testing.T) {
	tr, _ := translating(t, configured(t, commandsForTests))
	long := strings.Repeat("x", 65536)
	f := func(r *kafka.Fetched, rule int, reason, detail string) {
		t.Helper()
		c, err := tr.translate(r)
		var refusal *recordRefusal
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, reason, refusal.reason)
		require.Contains(t, refusal.detail, detail)
		require.Equal(t, rule, refusal.rule)
		require.Equal(t, rule, c.rule)
		require.Equal(t, rule == noRule, c.settings == nil)
		require.Equal(t, r.Key, c.key, "the receipt's")
		require.Equal(t, []any{r.Topic, r.Partition, r.Offset, r.Timestamp}, []any{c.topic, c.partition, c.offset, c.written})
	}
	header := func(name, value, detail string) {
		t.Helper()
		f(recordOf("fixed", "k", "x", name, value), 2, reasonInvalidHeader, detail)
	}
	for _, bad := range []string{"null", "", "3", "-1", "00", "0 ", "1.0", "\x01", "１"} {
		header("mqtt.qos", bad, "mqtt.qos is not 0, 1 or 2")
	}
	for _, bad := range []string{"null", "", "1", "0", "TRUE", "yes", "true "} {
		header("mqtt.retain", bad, "mqtt.retain is not true or false")
	}
	for _, bad := range []string{"null", "", "-1", "+1", "4294967296", "1s", "0x1", "1_000", "1e3", strings.Repeat("9", 1000)} {
		header("mqtt.expiry", bad, "mqtt.expiry is no number of seconds from 0 to 4294967295")
	}
	for _, bad := range []string{"\x00", "\xff", "\xed\xa0\x80", long} {
		header("mqtt.content_type", bad, "mqtt.content_type is no UTF-8 string of at most 65535 bytes")
	}
	for _, bad := range []string{"a/+", "#", "\x00", "\xff", long} {
		header("mqtt.response_topic", bad, "mqtt.response_topic is no UTF-8 string of at most 65535 bytes without wildcards")
	}
	for _, bad := range []string{"null", "", "2", "01", "-1", "true"} {
		header("mqtt.payload_format", bad, "mqtt.payload_format is not 0 or 1")
	}
	header("mqtt.correlation_data", long, "mqtt.correlation_data is longer than 65535 bytes")
	f(recordOf("fixed", "k", "x", "mqtt.qos", "7", "mqtt.retain", "7"), 2, reasonInvalidHeader, "mqtt.qos is not 0, 1 or 2\nmqtt.retain is not true or false")
	// The rules refuse.
	f(recordOf("elsewhere", "k", "x"), noRule, "no_rule", "")
	f(recordOf("cmd-U", "k", "x"), noRule, "no_rule", "")
	f(recordOf("cmd-ulm", "k", "x"), 3, "not_json", "{payload.to}")
	f(recordOf("cmd-ulm", "k", "null"), 3, "not_json", "{payload.to}")
	f(recordOf("cmd-ulm", "k", "{}"), 3, "missing_value", "{payload.to}")
	f(recordOf("plain", "k", "x"), 1, "missing_value", "{header.to}")
	f(recordOf("plain", "null", "x", "name", "reboot"), 0, "missing_value", "{key}")
	f(recordOf("plain", "k", "x", "to", "a/#"), 1, "illegal_mqtt_topic", "a/#")
	f(recordOf("plain", "\xff", "x", "name", "reboot"), 0, "illegal_mqtt_topic", "UTF-8")
}

// TestRefusedCommandCanBeToldFromOthers: its sender knows it by the correlation data, if it can have them.
func TestRefusedCommandCanBeToldFromOthers(t *testing.T) {
	tr, _ := translating(t, configured(t, commandsForTests))
	f := func(want []byte, r *kafka.Fetched) {
		t.Helper()
		c, err := tr.translate(r)
		require.Error(t, err)
		require.Equal(t, want, c.CorrelationData)
	}
	f([]byte("7"), recordOf("fixed", "k", "x", "mqtt.qos", "7", "mqtt.correlation_data", "7"))
	f([]byte("7"), recordOf("plain", "k", "x", "mqtt.correlation_data", "7"))
	f([]byte("8"), recordOf("plain", "k", "x", "name", "reboot", "id", "8", "mqtt.qos", "7"))
	f(nil, recordOf("plain", "k", "x"))
	f(nil, recordOf("fixed", "k", "x", "mqtt.correlation_data", strings.Repeat("x", 65536)))
	f(nil, recordOf("plain", "k", "x", "mqtt.correlation_data", strings.Repeat("x", 65536)))
}

func TestHeadersThatCannotBeUserPropertiesAreLeftOutAndCounted(t *testing.T) {
	tr, leftOut := translating(t, configured(t, commandsForTests))
	longest, long := strings.Repeat("x", 65535), strings.Repeat("x", 65536)
	c, err := tr.translate(recordOf("fixed", "k", "x", "a", "\xff", "b\xff", "1", "c\x00", "2", "d", "\x00", long, "3", "e", long, "f", "ok", "g", longest, longest, "h"))
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf(`fleet "x" qos=1 f:"ok" g:%q %s:"h"`, longest, longest), told(c))
	require.Equal(t, 6, *leftOut)
}

// TestExpiryCountsFromTheRecordsTimestamp, and from now if it has none.
func TestExpiryCountsFromTheRecordsTimestamp(t *testing.T) {
	tr, _ := translating(t, configured(t, commandsForTests))
	f := func(timestamp time.Time) *command {
		t.Helper()
		r := recordOf("fixed", "k", "x", "mqtt.expiry", "10")
		r.Timestamp = timestamp
		c, err := tr.translate(r)
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, c.Expires.Sub(c.written))
		return c
	}
	require.Equal(t, written.Add(10*time.Second), f(written).Expires)
	for _, none := range []time.Time{{}, time.UnixMilli(-1), time.UnixMilli(0)} {
		before := time.Now()
		c := f(none)
		require.False(t, c.written.Before(before))
		require.False(t, c.written.After(time.Now()))
	}
	f(time.UnixMilli(1<<63 - 1))
}

// everything is a record whose translation has a value in each place, in memory of its own.
func everything() *kafka.Fetched {
	return recordOf("plain", "d1", `{"a":1}`, "name", "reboot", "mqtt.content_type", "type", "mqtt.response_topic", "answers/d1", "mqtt.correlation_data", "c-1",
		"mqtt.client_id", "me", "site", "north")
}

// TestCommandOwnsItsMemory: the fetch it came from is used for others meanwhile, and so is what translates.
func TestCommandOwnsItsMemory(t *testing.T) {
	tr, _ := translating(t, configured(t, commandsForTests))
	r := everything()
	c, err := tr.translate(r)
	require.NoError(t, err)
	before, key := told(c), string(c.key)
	for _, b := range append([][]byte{r.Key, r.Value}, headerBytes(r)...) {
		for i := range b {
			b[i] = '#'
		}
	}
	for range 10 { // what translated it is in use again
		_, err = tr.translate(recordOf("plain", "another key", "another value", "to", "elsewhere", "mqtt.content_type", "another type"))
		require.NoError(t, err)
	}
	require.Equal(t, before, told(c))
	require.Equal(t, key, string(c.key))
	c.Topic = append(c.Topic, "overflow"...)
	require.Equal(t, before, strings.Replace(told(c), "overflow", "", 1), "no part ends where another begins")
}

func headerBytes(r *kafka.Fetched) (all [][]byte) {
	for _, h := range r.Headers {
		all = append(all, h.Key, h.Value)
	}
	return all
}

// TestReceiptKeepsNoPayload: receipts wait while Kafka is away, and are counted with little memory.
func TestReceiptKeepsNoPayload(t *testing.T) {
	tr, _ := translating(t, configured(t, commandsForTests))
	c, err := tr.translate(recordOf("fixed", "a key that is long enough", strings.Repeat("x", 1<<20)))
	require.NoError(t, err)
	payload, key := weak.Make(&c.Payload[0]), c.key
	require.NotNil(t, payload.Value())
	c = nil
	runtime.GC()
	require.Nil(t, payload.Value(), "the key that the receipt has keeps it")
	require.NotEmpty(t, key)
}

// TestTranslationKeepsNoFetch: what translates is used again, perhaps much later, and a fetch may be large.
func TestTranslationKeepsNoFetch(t *testing.T) {
	tr, _ := translating(t, configured(t, commandsForTests))
	large := strings.Repeat("x", 1<<10)
	r := recordOf("plain", "a key that is long enough", large, "name", "reboot", "id", large, large, large, "mqtt.content_type", large, "mqtt.correlation_data", large)
	var fetch []weak.Pointer[byte]
	for _, b := range append([][]byte{r.Key, r.Value}, headerBytes(r)...) {
		if len(b) >= 16 { // smaller ones share their place with others
			fetch = append(fetch, weak.Make(&b[0]))
		}
	}
	c, err := tr.translate(r)
	require.NoError(t, err)
	r = nil
	runtime.GC()
	for i, b := range fetch {
		require.Nil(t, b.Value(), i)
	}
	runtime.KeepAlive(c)
}

// TestTranslationsRememberNothing of other records, also when many translate at once.
func TestTranslationsRememberNothing(t *testing.T) {
	tr, _ := translating(t, configured(t, commandsForTests))
	many := recordOf("fixed", "k", "x")
	for i := range 3 * keptHeaders {
		many.Headers = append(many.Headers, kafka.Header{Key: fmt.Append(nil, i), Value: []byte("v")})
	}
	records := []*kafka.Fetched{everything(), recordOf("fixed", "null", "null"), many, recordOf("fixed", "k", "x", "mqtt.qos", "9")}
	var want []string
	for _, r := range records {
		c, _ := tr.translate(r)
		want = append(want, told(c))
	}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 50 {
				n := (i*7 + worker) % len(records)
				c, _ := tr.translate(records[n])
				if got := told(c); got != want[n] {
					t.Errorf("got %s, want %s", got, want[n])
				}
			}
		})
	}
	all.Wait()
}

// FuzzTranslate: whatever a record holds, it is refused for a known reason or makes a command that can be sent.
func FuzzTranslate(f *testing.F) {
	f.Add(byte(0), []byte("d1"), []byte(`{"to":"x"}`), []byte("name"), []byte("reboot"), []byte("mqtt.qos"), []byte("2"))
	f.Add(byte(1), []byte("d1"), []byte{}, []byte("to"), []byte("a/+"), []byte("mqtt.correlation_data"), []byte("\xff"))
	f.Add(byte(2), []byte{0xff}, []byte{}, []byte("mqtt.expiry"), []byte("60"), []byte("mqtt.response_topic"), []byte("r"))
	f.Add(byte(3), []byte{}, []byte(`{"to":"x"}`), []byte("mqtt.content_type"), []byte("t"), []byte("mqtt.cancel"), []byte("c"))
	f.Add(byte(0xf2), []byte{}, []byte{}, []byte("mqtt.retain"), []byte("true"), []byte("mqtt.client_id"), []byte("me"))
	tr, _ := translating(f, configured(f, commandsForTests))
	quiet, _, _ := commanding(f, strings.ReplaceAll(commandsForTests, "receipts: receipts", ""))
	f.Fuzz(func(t *testing.T, what byte, key, value, name1, value1, name2, value2 []byte) {
		r := &kafka.Fetched{Topic: []string{"plain", "plain", "fixed", "cmd-ulm"}[what&3], Key: key, Value: value, Timestamp: written,
			Headers: []kafka.Header{{Key: name1, Value: value1}, {Key: name2, Value: value2}}}
		for i, b := range []*[]byte{&r.Key, &r.Value, &r.Headers[0].Value, &r.Headers[1].Value} {
			if what&(0x10<<i) != 0 {
				*b = nil
			}
		}
		quiet.handle(r)
		c, err := tr.translate(r)
		if err != nil {
			requireRefusal(t, c, err)
			return
		}
		requireLegal(t, c)
		require.True(t, bytes.Equal(r.Value, c.Payload))
	})
}
