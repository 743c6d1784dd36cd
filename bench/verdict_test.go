package bench

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// value is message seq of a device as it lies in Kafka.
func value(run string, device int, seq uint64) []byte {
	b, at := payload(run, device, 100)
	setSeq(b[at:], seq)
	return b
}

func TestAPayloadIsJSONOfItsSizeAndSaysWhoseItIs(t *testing.T) {
	for _, size := range []int{MinSize, 65, 256, 4096} {
		for _, device := range []int{0, 17, maxDevice} {
			for _, seq := range []uint64{1, 999, 999_999_999_999} {
				b, at := payload("0123abcd", device, size)
				setSeq(b[at:], 999_999_999_999)
				setSeq(b[at:], seq)
				require.Len(t, b, size)
				var got struct {
					Run    string
					Device int
					Seq    uint64
				}
				require.NoError(t, json.Unmarshal(b, &got), "%s", b)
				require.Equal(t, "0123abcd", got.Run)
				require.Equal(t, device, got.Device)
				require.Equal(t, seq, got.Seq)
				for _, b := range [][]byte{b, append([]byte(`{"topic":"t","payload":`), append(b, '}')...)} {
					d, s, ok := identityOf("0123abcd").read(b)
					require.True(t, ok)
					require.Equal(t, device, d)
					require.Equal(t, seq, s)
				}
				_, _, ok := identityOf("0123abce").read(b)
				require.False(t, ok)
			}
		}
	}
}

// FuzzIdentity: whatever lies in Kafka is read without a panic, and what is ours as it was written.
func FuzzIdentity(f *testing.F) {
	f.Add([]byte(`{"run":"r","device":1,"seq":2,"pad":""}`), uint64(5))
	f.Add([]byte(`{"run":"r","device":99999999999999999999,"seq":`), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, seq uint64) {
		if device, _, ok := identityOf("r").read(b); ok {
			require.LessOrEqual(t, device, maxDevice)
		}
		seq %= 1_000_000_000_000
		device, got, ok := identityOf("mine").read(append(b, value("mine", 7, seq)...))
		require.True(t, ok)
		require.Equal(t, 7, device)
		require.Equal(t, seq, got)
	})
}

// A message is one of a device.
type message struct {
	device int
	seq    uint64
}

// TestTheVerdictFindsWhatIsLostDoubledOrOutOfOrder, and nothing else.
func TestTheVerdictFindsWhatIsLostDoubledOrOutOfOrder(t *testing.T) {
	at := place{"t", 0}
	all := func(n uint64) ledger { return ledger{sent: n, acked: runs{{1, n}}} }
	judge := func(told []ledger, qos byte, records ...message) *Readback {
		v := newVerdict("r", len(told))
		for i, m := range records {
			v.record(at, int64(i), value("r", m.device, m.seq))
		}
		v.record(at, 99, value("another", 0, 1))
		v.record(at, 99, []byte("no payload of a load"))
		return v.judge(told, qos)
	}
	f := func(want Readback, wantErr string, told []ledger, qos byte, records ...message) {
		t.Helper()
		got := judge(told, qos, records...)
		err := got.Err()
		got.Examples = nil
		require.Equal(t, want, *got)
		if wantErr == "" {
			require.NoError(t, err)
			return
		}
		require.ErrorContains(t, err, wantErr)
	}
	told := []ledger{all(3), all(2)}
	f(Readback{Records: 5}, "", told, 1, message{0, 1}, message{1, 1}, message{0, 2}, message{1, 2}, message{0, 3})
	f(Readback{Records: 4, Lost: 1}, "1 acknowledged messages are not in Kafka", told, 1, message{0, 1}, message{1, 1}, message{1, 2}, message{0, 3})
	f(Readback{Records: 3, Lost: 2}, "2 acknowledged messages", told, 1, message{0, 1}, message{0, 2}, message{0, 3})
	f(Readback{Lost: 5}, "is that where the rules put it", told, 1)
	f(Readback{Records: 6, Doubled: 1}, "1 records are doubles", told, 1, message{0, 1}, message{1, 1}, message{0, 2}, message{1, 2}, message{0, 3}, message{0, 2})
	f(Readback{Records: 5, Disordered: 1}, "1 records are out of order", told, 1, message{1, 1}, message{0, 2}, message{0, 1}, message{0, 3}, message{1, 2})

	again := []ledger{{sent: 3, acked: runs{{1, 3}}, repeated: runs{{2, 2}}}}
	f(Readback{Records: 4, Repeats: 1}, "", again, 1, message{0, 1}, message{0, 2}, message{0, 2}, message{0, 3})
	f(Readback{Records: 4, Doubled: 1}, "doubles", again, 1, message{0, 1}, message{0, 2}, message{0, 3}, message{0, 3})

	f(Readback{Records: 3, Unacknowledged: 1}, "", []ledger{{sent: 4, acked: runs{{1, 2}}}}, 1, message{0, 1}, message{0, 2}, message{0, 3})
	f(Readback{Records: 2, NotStored: 3}, "", []ledger{{sent: 5}}, 0, message{0, 1}, message{0, 4})
}

// TestOrderCountsWithinAPartition: between partitions there is none.
func TestOrderCountsWithinAPartition(t *testing.T) {
	v := newVerdict("r", 1)
	for _, r := range []struct {
		partition int32
		seq       uint64
	}{{0, 2}, {0, 4}, {1, 1}, {1, 3}} {
		v.record(place{"t", r.partition}, 0, value("r", 0, r.seq))
	}
	require.Equal(t, &Readback{Records: 4, Spread: 1}, v.judge([]ledger{{sent: 4, acked: runs{{1, 4}}}}, 1))
}

// TestMoreThanAMillionRepeatsAreNoDoubles: windows that were sent again, some of them twice, take little memory and are told
// from what was sent once.
func TestMoreThanAMillionRepeatsAreNoDoubles(t *testing.T) {
	const sent, again = 1<<20 + 100, 1<<20 + 50
	v := newVerdict("r", 1)
	for _, n := range []uint64{sent, again, 10} {
		for seq := uint64(1); seq <= n; seq++ {
			v.seen[0].add(seq)
		}
	}
	v.seen[0].add(sent)
	require.Equal(t, copies{{{1, sent}}, {{1, again}, {sent, sent}}, {{1, 10}}}, v.seen[0])
	got := v.judge([]ledger{{sent: sent, acked: runs{{1, sent}}, repeated: runs{{1, again}}}}, 1)
	require.Equal(t, &Readback{Repeats: again + 10, Doubled: 1, Examples: []string{fmt.Sprintf("doubled: messages %d to %d of device 0 are there 2 times", sent, sent)}}, got)
}
