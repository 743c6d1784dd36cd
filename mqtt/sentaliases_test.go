package mqtt

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestTopicsAreAliasesToADeviceThatTakesThem, and to another connection they are topics first (section 3.3.2.3.4).
func TestTopicsAreAliasesToADeviceThatTakesThem(t *testing.T) {
	d := commands(t, nil)
	h := persistent(5, "dev")
	h.props = cat(h.props, 0x22, uint16(2)) // Topic Alias Maximum
	c := d.connect(h)
	c.subscribe("#", 2)
	named := func(topic string, alias int) []byte {
		return packet(0x30, str(topic), props(0x23, uint16(alias)), "x")
	}
	sends := func(topic string, want []byte) {
		t.Helper()
		d.command(topic, "x", 0)
		c.expect(want)
	}
	sends("first", named("first", 1))
	sends("first", named("", 1))
	sends("second", named("second", 2))
	sends("first", named("", 1))
	sends("abc", pub{topic: "abc", payload: "x"}.packet(5)) // no longer than the property
	sends("third", pub{topic: "third", payload: "x"}.packet(5))
	sends("second", named("", 2))

	d.command("first", "x", 2)
	c.expect(packet(0x34, str("first"), uint16(1), props(), "x"))
	c.send(pubrec(1))
	c.expect(pubrel(1))
	c.send(pubcomp(1))

	last := d.command("first", "x", 1)
	c.expect(packet(0x32, str(""), uint16(2), props(0x23, uint16(1)), "x"))
	d.drop("dev")
	c = d.connect(h)
	c.expect(packet(0x3A, str("first"), uint16(2), props(0x23, uint16(1)), "x")) // [MQTT-3.3.2-7]
	c.send(puback(2))
	d.became(last, "dev delivered")
	sends("first", named("", 1))
}

// TestTopicsThatComeMostKeepTheirAliases beside many that come once.
func TestTopicsThatComeMostKeepTheirAliases(t *testing.T) {
	a := newSentAliases(3)
	left := map[string]int{}
	for i := range 1000 {
		for _, topic := range []string{"often/1", "often/2", fmt.Sprint("once/", i), fmt.Sprint("twice/", i/2)} {
			alias, known := a.of([]byte(topic))
			if known {
				left[topic]++
			} else if alias > 0 {
				a.set(alias, []byte(topic))
			}
		}
	}
	require.Greater(t, left["often/1"], 980)
	require.Greater(t, left["often/2"], 980)
}

// TestATopicTakesThePlaceOfOneAsLong, where that of a short one would be too little.
func TestATopicTakesThePlaceOfOneAsLong(t *testing.T) {
	a := newSentAliases(16)
	long := func(c string) []byte { return []byte(strings.Repeat(c, 250)) }
	for _, topic := range [][]byte{[]byte("short"), long("a"), long("b"), long("c"), long("d")} {
		alias, _ := a.of(topic)
		a.set(alias, topic)
	}
	for range 20 {
		if alias, _ := a.of(long("e")); alias > 0 {
			return
		}
	}
	t.Fatal("the topic that comes most has no alias")
}

// TestADeviceFindsEveryTopicByItsAliases: whatever the topics, their order, its Topic Alias Maximum and its Maximum Packet Size.
func TestADeviceFindsEveryTopicByItsAliases(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		maximum := uint16(rapid.SampledFrom([]int{0, 1, 2, 3, 15, 16, 17, 65535}).Draw(rt, "Topic Alias Maximum"))
		c := &Conn{version: 5, maxPacket: uint32(rapid.SampledFrom([]int{40, 400, 1 << 20}).Draw(rt, "Maximum Packet Size")), sent: newSentAliases(maximum)}
		o := &outbox{window: 10}
		topics := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,30}(/[a-z]{200})?(/[a-z]{700})?`), 1, 40).Draw(rt, "topics")
		has := map[uint16]string{}
		for i := range rapid.IntRange(1, 200).Draw(rt, "commands") {
			topic := rapid.SampledFrom(topics).Draw(rt, "topic")
			payload := make([]byte, rapid.SampledFrom([]int{0, 1, 2, 9, 20, 300, commandBytes - 20, commandBytes}).Draw(rt, "payload"))
			d := &delivery{cmd: &Command{Topic: []byte(topic), Payload: payload}, qos: byte(i % 3)}
			p := d.outgoing(5, time.Now())
			p.id = 1
			c.out, c.tail = nil, nil
			fit := o.fits(c, &p)
			require.NotEqual(rt, notNow, fit)
			if fit == tooLarge {
				continue
			}
			c.put(&p)
			if c.tail != nil {
				c.out = append(c.out, c.tail.b...)
			}
			require.LessOrEqual(rt, uint32(len(c.out)), c.maxPacket) // [MQTT-3.1.2-24]
			requireRead(rt, &p, c.out)
			got := readPublish(rt, 5, c.out)
			if got.Properties.TopicAlias > 0 {
				require.LessOrEqual(rt, got.Properties.TopicAlias, maximum) // [MQTT-3.1.2-26]
				if got.TopicName != "" {
					has[got.Properties.TopicAlias] = got.TopicName
				}
				got.TopicName = has[got.Properties.TopicAlias]
			}
			require.Equal(rt, topic, got.TopicName)
			if c.sent != nil {
				bytes := 0
				for _, a := range c.sent.topic {
					bytes += len(a.name)
				}
				require.Equal(rt, bytes, c.sent.bytes)
				require.LessOrEqual(rt, bytes, sentAliasBytes)
				require.LessOrEqual(rt, len(c.sent.topic), sentAliasesMost)
			}
		}
	})
}
