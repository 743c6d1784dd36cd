package mqtt

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPublishToADeviceIsByteExact(t *testing.T) {
	full := func() *Command {
		return &Command{
			Topic: []byte("a/b"), Payload: []byte("hello"), Retain: true, Expires: late,
			ContentType: []byte("text"), ResponseTopic: []byte("re"), CorrelationData: []byte{0, 255},
			User: []Property{{[]byte("k"), []byte("v")}, {[]byte("k"), nil}},
		}
	}
	get := func(v byte, options int, c *Command, want []byte) {
		t.Helper()
		d := commands(t, nil)
		dev := d.device(v, "dev")
		dev.send(packet(0x82, uint16(1), dev.none(), str("#"), options))
		dev.expect(packet(0x90, uint16(1), dev.none(), options&3))
		devices, _ := d.send(c)
		require.Equal(t, 1, devices)
		dev.expect(want)
		dev.ping()
		if options&3 > 0 && c.QoS > 0 {
			d.waits(c)
		} else {
			d.became(c, "dev sent")
		}
	}
	properties := props(0x02, uint32(math.MaxUint32), 0x03, str("text"), 0x08, str("re"), 0x09, uint16(2), 0, 255, user("k", "v"), user("k", ""))
	for qos := range 3 {
		var id []byte
		if qos > 0 {
			id = cat(uint16(1))
		}
		c := full()
		c.QoS = byte(qos)
		get(4, 2, c, packet(0x30|qos<<1, str("a/b"), id, "hello"))
		c = full()
		c.QoS = byte(qos)
		get(5, 2, c, packet(0x30|qos<<1, str("a/b"), id, properties, "hello"))
		c = full()
		c.QoS = byte(qos)
		get(5, 2|8, c, packet(0x31|qos<<1, str("a/b"), id, properties, "hello"))
	}
	get(5, 0, &Command{Topic: []byte("t"), PayloadFormat: FormatBytes}, packet(0x30, str("t"), props(0x01, 0)))
	get(5, 0, &Command{Topic: []byte("t"), PayloadFormat: FormatText}, packet(0x30, str("t"), props(0x01, 1)))
	get(4, 0, &Command{Topic: []byte("t"), PayloadFormat: FormatText}, packet(0x30, str("t")))
	empty := &Command{Topic: []byte("t"), ContentType: []byte{}, ResponseTopic: []byte{}, CorrelationData: []byte{}}
	get(5, 0, empty, packet(0x30, str("t"), props(0x03, uint16(0), 0x08, uint16(0), 0x09, uint16(0)))) // empty is not absent
	get(4, 0, &Command{Topic: []byte("t")}, packet(0x30, str("t")))
	get(5, 0, &Command{Topic: []byte("t")}, packet(0x30, str("t"), 0))
	for _, n := range []int{123, 124, 125, 16380, 16381, 200_000} { // around the lengths of Remaining Length
		get(4, 0, &Command{Topic: []byte("t"), Payload: bytes.Repeat([]byte("x"), n)}, packet(0x30, str("t"), strings.Repeat("x", n)))
	}
	for _, n := range []int{118, 119, 16_000, 65_535} { // and of the property length
		c := &Command{Topic: []byte("t"), User: []Property{{[]byte("key"), bytes.Repeat([]byte("x"), n)}}}
		get(5, 0, c, packet(0x30, str("t"), props(user("key", strings.Repeat("x", n)))))
	}
}

func TestMessageExpiryIntervalCountsDownAndIsRoundedUp(t *testing.T) {
	now := time.Now()
	told := func(left time.Duration, want uint32) {
		t.Helper()
		p := (&delivery{cmd: &Command{Expires: now.Add(left)}}).outgoing(5, now)
		require.Equal(t, want, p.expiry, "%v left", left)
	}
	told(10*time.Second, 10)
	told(9*time.Second+1, 10) // a started second is one
	told(9*time.Second, 9)
	told(time.Second, 1)
	told(1, 1)
	told(0, 1) // sent all the same, as what has begun must be: 0 would be no time at all
	told(-time.Hour, 1)
	told(math.MaxUint32*time.Second, math.MaxUint32)
	told((math.MaxUint32+1)*time.Second, math.MaxUint32)
	told(math.MaxInt64, math.MaxUint32)
	never := (&delivery{cmd: &Command{}}).outgoing(5, now)
	require.Zero(t, never.expiry)
	far := (&delivery{cmd: &Command{Expires: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}}).outgoing(5, now)
	require.Equal(t, uint32(math.MaxUint32), far.expiry, "beyond what a Duration holds")
}

// TestExpiryToldIsWhatIsLeft: what waited is sent with less than it came with [MQTT-3.3.2-6].
func TestExpiryToldIsWhatIsLeft(t *testing.T) {
	d := commands(t, nil)
	d.subscribed(5, "dev", 1)
	d.drop("dev")
	c := &Command{Topic: []byte("t"), QoS: 1, Expires: time.Now().Add(1000*time.Second + time.Millisecond)}
	d.send(c)
	until(t, "some of its time is over", func() bool { return time.Until(c.Expires) < 1000*time.Second })
	most := time.Until(c.Expires)
	dev := d.stored(5, "dev")
	first, body := dev.read()
	least := time.Until(c.Expires)
	require.Equal(t, byte(0x32), first)
	told := time.Duration(binary.BigEndian.Uint32(body[7:])) * time.Second
	require.Equal(t, cat(str("t"), uint16(1), props(0x02, body[7:11])), body)
	require.GreaterOrEqual(t, told, least)
	require.Less(t, told, most+time.Second)
	dev.send(puback(1))
	d.became(c, "dev delivered")
}

// TestPublishIsReadByMochiAsItWasMeant compares our encoder with mochi's decoder.
func TestPublishIsReadByMochiAsItWasMeant(t *testing.T) {
	word := rapid.StringMatching(`[a-zé]{0,9}`)
	bytesOf := func(rt *rapid.T, what string) []byte {
		if rapid.Bool().Draw(rt, what+" is absent") {
			return nil
		}
		return []byte(word.Draw(rt, what))
	}
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Now()
		cmd := &Command{
			Topic:       []byte("t/" + word.Draw(rt, "topic")),
			Payload:     rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "payload"),
			ContentType: bytesOf(rt, "content type"), ResponseTopic: bytesOf(rt, "response topic"), CorrelationData: bytesOf(rt, "correlation data"),
			Expires: now.Add(time.Duration(rapid.IntRange(1, 1e9).Draw(rt, "expiry")) * time.Second),
		}
		for range rapid.IntRange(0, 20).Draw(rt, "user properties") {
			cmd.User = append(cmd.User, Property{[]byte(word.Draw(rt, "key")), []byte(word.Draw(rt, "value"))})
		}
		ids := rapid.SliceOfNDistinct(rapid.IntRange(1, 268_435_455), 0, 5, rapid.ID[int]).Draw(rt, "subscription identifiers")
		del := &delivery{cmd: cmd, ids: ids, qos: byte(rapid.IntRange(0, 2).Draw(rt, "qos")), retain: rapid.Bool().Draw(rt, "retain")}
		p := del.outgoing(rapid.SampledFrom([]byte{4, 5}).Draw(rt, "version"), now)
		if p.version == 5 {
			p.alias = uint16(rapid.IntRange(0, 65535).Draw(rt, "alias"))
			p.aliased = p.alias > 0 && rapid.Bool().Draw(rt, "the device has it")
		}
		p.id, p.dup = uint16(rapid.IntRange(1, 65535).Draw(rt, "id")), del.qos > 0 && rapid.Bool().Draw(rt, "dup")
		b := p.appendTo([]byte("before"))
		require.Equal(rt, "before", string(b[:6]))
		requireRead(rt, &p, b[6:])
	})
}

func requireRead(t require.TestingT, p *outgoing, b []byte) {
	require.Len(t, b, p.size())
	pk := readPublish(t, p.version, b)
	require.Equal(t, p.qos, pk.FixedHeader.Qos)
	require.Equal(t, p.retain, pk.FixedHeader.Retain)
	require.Equal(t, p.dup, pk.FixedHeader.Dup)
	require.Equal(t, string(p.topic()), pk.TopicName)
	require.Equal(t, p.alias, pk.Properties.TopicAlias)
	require.Equal(t, string(p.cmd.Payload), string(pk.Payload))
	if p.qos > 0 {
		require.Equal(t, p.id, pk.PacketID)
	}
	if p.version < 5 {
		return
	}
	got := &pk.Properties
	require.Equal(t, p.expiry, got.MessageExpiryInterval)
	require.Equal(t, string(p.cmd.ContentType), got.ContentType)
	require.Equal(t, string(p.cmd.ResponseTopic), got.ResponseTopic)
	require.Equal(t, string(p.cmd.CorrelationData), string(got.CorrelationData))
	require.Equal(t, p.ids, append(p.ids[:0:0], got.SubscriptionIdentifier...))
	require.Len(t, got.User, len(p.cmd.User))
	for i, u := range got.User {
		require.Equal(t, string(p.cmd.User[i].Key), u.Key)
		require.Equal(t, string(p.cmd.User[i].Value), u.Val)
	}
}

// readPublish is a whole PUBLISH as mochi reads it.
func readPublish(t require.TestingT, version byte, b []byte) *packets.Packet {
	header, size, err := frame(b)
	require.NoError(t, err)
	require.Equal(t, len(b), size)
	pk := &packets.Packet{ProtocolVersion: version}
	require.NoError(t, pk.FixedHeader.Decode(b[0]))
	pk.FixedHeader.Remaining = size - header
	require.NoError(t, pk.PublishDecode(b[header:]))
	return pk
}
