package test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A disorder is two messages of a device of which the earlier one came to a partition after the later one.
type disorder struct {
	earlier, later uint64
	moved          bool // between partitions of a topic that grew, so nobody promised their order
}

// disorders gives what is out of order in the records of a device, by the first record of each message in each partition.
// sent are the times of messages that were sent more than once, and grew is when the topic got more partitions.
//
// A key has another partition in a topic that grew, and what waits for the old one stays there, as with Kafka's own
// clients. So a message that still waits when its connection is lost, and is sent again, may come to the new partition
// after those that went there at once. What its device sent a window before, at most, is in the old one.
func disorders(records map[uint64][]writtenRecord, sent map[uint64][]time.Time, grew []time.Time, window uint64) (all []disorder) {
	last := map[int32]uint64{}            // by partition
	first := map[int32]map[uint64]int64{} // offsets by partition and message
	for _, seq := range slices.Sorted(maps.Keys(records)) {
		for _, r := range records[seq] {
			if _, again := first[r.partition][seq]; again {
				continue
			}
			if first[r.partition] == nil {
				first[r.partition] = map[uint64]int64{}
			}
			first[r.partition][seq] = r.offset
			before, there := last[r.partition]
			last[r.partition] = seq
			if !there || first[r.partition][before] < r.offset {
				continue
			}
			times := sent[before]
			moved := len(times) > 0 && slices.ContainsFunc(grew, times[len(times)-1].After)
			all = append(all, disorder{before, seq, moved && elsewhere(records, r.partition, before-min(before, window), seq)})
		}
	}
	return all
}

// elsewhere says whether some of the messages from one to another are in another partition too.
func elsewhere(records map[uint64][]writtenRecord, partition int32, from, to uint64) bool {
	for seq := from; seq <= to; seq++ {
		if slices.ContainsFunc(records[seq], func(r writtenRecord) bool { return r.partition != partition }) {
			return true
		}
	}
	return false
}

// grew gives the times since which a topic may have had a partition more.
func (n *nemesis) grew(topic string) (at []time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.deeds {
		if d.grown == topic {
			at = append(at, d.begin)
		}
	}
	return at
}

// TestOnlyATopicThatGrewExcusesDisorder: the nemesis finds what is out of order, but for what waited for the partition
// that a key had before its topic grew.
func TestOnlyATopicThatGrewExcusesDisorder(t *testing.T) {
	second := func(s int) time.Time { return time.Unix(int64(s), 0) }
	sent := map[uint64][]time.Time{20: {second(1), second(9)}} // the one that is late was sent again
	grew := []time.Time{second(5)}
	const window = 10
	f := func(what string, records map[uint64][]writtenRecord, sent map[uint64][]time.Time, grew []time.Time, want ...disorder) {
		t.Helper()
		require.Equal(t, want, disorders(records, sent, grew, window), what)
	}
	late := func(neighbour uint64, partition int32) map[uint64][]writtenRecord {
		return map[uint64][]writtenRecord{neighbour: {{partition, 1}}, 20: {{7, 5}}, 21: {{7, 4}}, 22: {{7, 6}}}
	}
	found, excused := disorder{20, 21, false}, disorder{20, 21, true}
	f("a key that moved", late(19, 2), sent, grew, excused)
	f("a window before", late(10, 2), sent, grew, excused)
	f("longer before than a window", late(9, 2), sent, grew, found)
	f("one partition", late(19, 7), sent, grew, found)
	f("no growth", late(19, 2), sent, nil, found)
	f("growth after it was sent for the last time", late(19, 2), sent, []time.Time{second(10)}, found)
	f("sent once", late(19, 2), nil, grew, found)
	f("the later one sent again", late(19, 2), map[uint64][]time.Time{21: sent[20]}, grew, found)

	stored := late(19, 2)
	stored[20] = []writtenRecord{{2, 2}, {7, 5}}
	f("the first copy was stored after all", stored, sent, grew, excused)
	slices.Reverse(stored[20])
	f("whichever partition is read first", stored, sent, grew, excused)
	f("a copy behind others", map[uint64][]writtenRecord{20: {{7, 4}, {7, 9}}, 21: {{7, 5}}}, sent, grew)
	f("order", map[uint64][]writtenRecord{19: {{2, 9}}, 20: {{7, 4}}, 21: {{7, 5}}, 22: {{2, 10}}}, sent, grew)
}
