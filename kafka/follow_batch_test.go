package kafka

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// hollow encodes a batch without records, as compaction leaves it.
func hollow(first, last int64) []byte {
	b := kmsg.RecordBatch{FirstOffset: first, Length: 49, Magic: 2, LastOffsetDelta: int32(last - first), ProducerID: 7, FirstSequence: 0}
	raw := b.AppendTo(nil)
	crc := crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(raw[17:], crc)
	return raw
}

// hollowed starts a cluster with a partition of n records, of which those before the given one are gone: its log
// begins with a segment that has only batches without records, and an answer is of one segment.
func hollowed(t testing.TB, n int, before int64, segment []byte) *kfake.Cluster {
	k := fake(t, kfake.SeedTopics(1, "t"))
	put(t, client(t, k), "t", 0, numbers(0, n-1)...)
	k.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		fetch := req.(*kmsg.FetchRequest)
		if len(fetch.Topics) == 0 || fetch.Topics[0].Partitions[0].FetchOffset >= before {
			return nil, nil, false
		}
		resp := fetch.ResponseKind().(*kmsg.FetchResponse)
		topic, part := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		topic.Topic, topic.TopicID = fetch.Topics[0].Topic, fetch.Topics[0].TopicID
		part.HighWatermark, part.LastStableOffset, part.LogStartOffset, part.RecordBatches = int64(n), int64(n), 0, segment
		topic.Partitions = append(topic.Partitions, part)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	return k
}

// TestASegmentWithoutRecordsIsPassed: all that is behind it would never be read.
func TestASegmentWithoutRecordsIsPassed(t *testing.T) {
	const n, before = 20, 15
	whole := append(hollow(0, 6), hollow(7, before-1)...)
	cut := append(hollow(0, before-1), hollow(before, before+1)[:40]...) // so short that sarama does not look at it
	cutLater := append(hollow(0, before-1), hollow(before, before+1)...) // what it says of its length is more than there is
	binary.BigEndian.PutUint32(cutLater[61+8:], 500)
	for name, segment := range map[string][]byte{"whole": whole, "cut off": cut, "cut off in a batch": cutLater} {
		t.Run(name, func(t *testing.T) {
			k := hollowed(t, n, before, segment)
			tb := newTable()
			c := follow(t, tabling(k.ListenAddrs(), tb, "t"))
			positioned(t, c)
			require.EqualValues(t, n, tb.read("t", 0))
			tb.check(t, map[string]string{"": "19"}) // of no key
			values, end := all(t, reader(t, k.ListenAddrs()), "t", 0, 0, 1<<20)
			require.Equal(t, numbers(before, n-1), values)
			require.EqualValues(t, n, end)
		})
	}
}
