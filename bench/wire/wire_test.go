package wire

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParsePublishReadsEveryProperty(t *testing.T) {
	properties := []byte{0x01, 1, 0x02, 0, 0, 0, 60, 0x0B, 0x80, 1, 0x0B, 3}
	properties = Text(append(properties, 0x03), "text/plain")
	properties = Text(append(properties, 0x08), "answers")
	properties = Text(append(properties, 0x09), "\x00\x01")
	properties = Text(Text(append(properties, 0x26), "k"), "v")
	body := binary.BigEndian.AppendUint16(Text(nil, "t"), 7)
	body = append(append(body, byte(len(properties))), properties...)
	m, err := ParsePublish(0x3D, append(body, "payload"...), 5)
	require.NoError(t, err)
	require.Equal(t, &Message{Topic: "t", Payload: []byte("payload"), QoS: 2, Retain: true, Dup: true, ID: 7, HasExpiry: true, Expiry: 60,
		ContentType: "text/plain", ResponseTopic: "answers", CorrelationData: []byte{0, 1}, UserProperties: [][2]string{{"k", "v"}},
		SubscriptionIDs: []uint32{128, 3}}, m)
}

func TestParseConnackReadsWhatBindsADevice(t *testing.T) {
	properties := []byte{0x21, 0, 9, 0x13, 0, 30, 0x24, 1, 0x22, 0, 5, 0x27, 0, 1, 0, 0}
	properties = Text(append(properties, 0x12), "id")
	properties = Text(Text(append(properties, 0x26), "k"), "v")
	properties = Text(append(properties, 0x1F), "because")
	a, err := ParseConnack(append([]byte{1, 0x87, byte(len(properties))}, properties...), 5)
	require.NoError(t, err)
	require.Equal(t, Connack{Present: true, Code: 0x87, ReceiveMaximum: 9, KeepAlive: 30, Reason: "because"}, a)
	a, err = ParseConnack([]byte{0, 5}, 4)
	require.NoError(t, err)
	require.Equal(t, Connack{Code: 5, ReceiveMaximum: 65535, KeepAlive: -1}, a)
	for _, short := range [][]byte{nil, {0}, {0, 0}, {0, 0, 3, 0x21, 0}, {0, 0, 2, 0x21, 0}, {0, 0, 1, 0x7F}} {
		_, err := ParseConnack(short, 5)
		require.Error(t, err, "% x", short)
	}
}

func TestCutTakesOnePacketAfterTheOther(t *testing.T) {
	stream := append(Packet(0x40, []byte{0, 7}), Packet(0x30, make([]byte, 300))...)
	for n := range len(stream) + 1 {
		var got []int
		rest := stream[:n]
		for {
			_, body, after, ok, err := Cut(rest)
			require.NoError(t, err)
			if !ok {
				break
			}
			got, rest = append(got, len(body)), after
		}
		switch {
		case n < 4:
			require.Empty(t, got)
		case n < len(stream):
			require.Equal(t, []int{2}, got)
		default:
			require.Equal(t, []int{2, 300}, got)
			require.Empty(t, rest)
		}
	}
	for _, bad := range [][]byte{{0x30, 0xFF, 0xFF, 0xFF, 0xFF}, {0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1}, {0x30, 0x81, 0x80, 0x40}} {
		_, _, _, ok, err := Cut(bad)
		require.False(t, ok)
		require.Error(t, err)
	}
}

// FuzzPackets: whatever a server sends, it is read without a panic, and Cut loses no byte.
func FuzzPackets(f *testing.F) {
	f.Add(Packet(0x20, []byte{0, 0, 3, 0x21, 0, 9}), byte(5))
	f.Add(Publish(5, 1, "t", []byte("payload"), []byte("c")), byte(5))
	f.Add(Packet(0x90, []byte{0, 1, 0, 1}), byte(5))
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		for whole := b; ; {
			first, body, rest, ok, err := Cut(b)
			if !ok || err != nil {
				require.LessOrEqual(t, len(rest), len(whole))
				return
			}
			require.Less(t, len(body)+len(rest), len(b))
			_, _ = ParseConnack(body, version)
			_, _ = ParsePublish(first, body, version)
			_, _, _ = ParseAck(body)
			_ = SubackCodes(body, version)
			b = rest
		}
	})
}
