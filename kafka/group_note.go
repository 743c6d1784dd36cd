package kafka

import (
	"fmt"
	"strconv"
	"strings"
)

// A stretch is the offsets from one up to another, which is not of it.
type stretch struct{ from, to int64 }

// mostNoted bounds what is noted with an offset: Kafka takes 4096 bytes (offset.metadata.max.bytes). What is above it comes
// again.
const mostNoted = 3000

// noteOf says what an offset is to say besides: of which topic it is, and what is settled above it, in offsets from there on.
func noteOf(topicID string, offset int64, settled []stretch) string {
	b := []byte(topicID)
	for i, s := range settled {
		if len(b) > mostNoted {
			break
		}
		separator := byte(',')
		if i == 0 {
			separator = ' '
		}
		b = strconv.AppendInt(append(b, separator), s.from-offset, 10)
		b = strconv.AppendInt(append(b, '-'), s.to-offset, 10)
	}
	return string(b)
}

// readNote reads what noteOf gave: "" if the topic is not known. What else it can't read comes again.
func readNote(note string, offset int64) (topicID string, settled []stretch) {
	topicID, rest, _ := strings.Cut(note, " ")
	for text := range strings.SplitSeq(rest, ",") {
		var s stretch
		if _, err := fmt.Sscanf(text, "%d-%d", &s.from, &s.to); err != nil {
			break
		}
		settled = append(settled, stretch{offset + s.from, offset + s.to})
	}
	return topicID, settled
}

// settledAbove gives what is settled above the first record that is not, in order. mu is held.
func (h *holding) settledAbove() (settled []stretch) {
	add := func(s stretch, joined bool) {
		if last := len(settled) - 1; joined && last >= 0 {
			settled[last].to = s.to
		} else {
			settled = append(settled, s)
		}
	}
	for i, r := range h.open {
		if r.done {
			add(stretch{r.offset, r.offset + 1}, h.open[i-1].done) // the first one is not
		}
	}
	for _, s := range h.passed {
		if s.from = max(s.from, h.next); s.from < s.to { // the others are among those that were handed out
			add(s, false)
		}
	}
	return settled
}

// hasPassed says whether another member has settled a record, of which this one is to be handed out next. mu is held.
func (h *holding) hasPassed(offset int64) bool {
	for len(h.passed) > 0 && h.passed[0].to <= offset {
		h.passed = h.passed[1:]
	}
	return len(h.passed) > 0 && h.passed[0].from <= offset
}
