package fleet

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// beats has O read its own heartbeats of partition 0, one every 2 s, without delay.
func beats(p *Pulse, from, to int64) {
	for at := from; at <= to; at += 2000 {
		p.Heard("O", 0, at, at+5)
	}
}

func TestSilenceIsProvenByOurOwnHeartbeats(t *testing.T) {
	p := NewPulse("O", 2000, 10_000, 1)
	p.Heard("A", 0, 0, 0)
	require.False(t, p.Silent("A", 60_000), "nothing of ours came back")
	beats(p, 60_000, 70_000)
	require.False(t, p.Silent("A", 70_010), "9995 ms")
	beats(p, 72_000, 72_000)
	require.True(t, p.Silent("A", 72_010))
	require.False(t, p.Silent("A", 76_001), "ours stay out again")
	require.False(t, p.Silent("O", 72_010))
	p.Heard("A", 0, 0, 72_010)
	require.False(t, p.Silent("A", 72_010))
	p.Condemned("A")
	require.True(t, p.Silent("A", 72_010), "another owner has judged it")

	p = NewPulse("O", 2000, 10_000, 1)
	require.False(t, p.Silent("A", 0), "counted from the first question")
	beats(p, 0, 10_000)
	require.False(t, p.Silent("A", 10_010))
	beats(p, 12_000, 12_000)
	require.True(t, p.Silent("A", 12_010))
}

func TestAnOutageBeginsTheCountAnew(t *testing.T) {
	f := func(name string, outage func(p *Pulse)) {
		t.Helper()
		p := NewPulse("O", 2000, 10_000, 1)
		beats(p, 0, 8000)
		p.Known("A", 0, 1000)
		outage(p)
		require.False(t, p.Silent("A", 22_010), name)
		beats(p, 24_000, 28_000)
		require.False(t, p.Silent("A", 28_010), name)
		beats(p, 30_000, 32_000)
		require.True(t, p.Silent("A", 32_010), name)
	}
	f("stored late", func(p *Pulse) { p.Heard("O", 0, 10_000, 20_000); beats(p, 22_000, 22_000) })
	f("read late, all at once", func(p *Pulse) {
		for at := int64(10_000); at <= 20_000; at += 2000 {
			p.Heard("O", 0, at, 20_000)
		}
		beats(p, 22_000, 22_000)
	})
	f("not written", func(p *Pulse) { beats(p, 20_000, 22_000) })
}

// TestOutagesTooShortToBeSeenDoNotAddUp: Kafka takes nothing for 3.5 s, again and again, and in the moments between the
// suspect is not back yet. Where it goes well again the dead are judged after the time they are given.
func TestOutagesTooShortToBeSeenDoNotAddUp(t *testing.T) {
	p := NewPulse("O", 2000, 10_000, 1)
	beats(p, 0, 4000)
	p.Heard("A", 0, 0, 4100)
	at := int64(4000)
	for range 10 {
		p.Heard("O", 0, at+2000, at+3800) // written 2 s after the one before, stored when the outage is over
		at += 3900
		p.Heard("O", 0, at, at+5)
		require.False(t, p.Silent("A", at+10))
	}
	beats(p, at+2000, at+10_000)
	require.False(t, p.Silent("A", at+10_010))
	beats(p, at+12_000, at+14_000)
	require.True(t, p.Silent("A", at+14_010))

	p = NewPulse("O", 2000, 10_000, 1)
	beats(p, 0, 4000)
	p.Heard("A", 0, 0, 4100)
	beats(p, 6000, 6000)
	p.Heard("O", 0, 8000, 9500) // one that is late costs what it may hide, and not all
	beats(p, 10_000, 18_000)
	require.False(t, p.Silent("A", 18_010))
	beats(p, 20_000, 20_000)
	require.True(t, p.Silent("A", 20_010))
}

func TestProofIsNeededWhereTheSuspectWrites(t *testing.T) {
	p := NewPulse("O", 2000, 10_000, 3)
	for q := range int32(3) {
		p.Known("A", q, 0)
	}
	p.Known("old", 2, 0) // an earlier release writes heartbeats to one partition
	beats(p, 0, 14_000)  // of partition 0 alone
	require.False(t, p.Silent("A", 14_010), "the other two may have it")
	require.False(t, p.Silent("old", 14_010))
	for at := int64(0); at <= 14_000; at += 2000 {
		p.Heard("O", 2, at, at+5)
	}
	require.True(t, p.Silent("A", 14_010))
	require.True(t, p.Silent("old", 14_010))
}

// A judge is what a random history is judged by.
type judge interface {
	Heard(inc string, partition int32, beat, mono int64)
	Silent(inc string, mono int64) bool
}

// A lastHeard is the rule that a Pulse replaces: each writes heartbeats to one partition, and silence is judged by the
// clock, while own heartbeats are read.
type lastHeard struct {
	home       int32 // of the judge; the suspect's is 0
	own, other int64
}

func (l *lastHeard) Heard(inc string, partition int32, _, mono int64) {
	switch {
	case inc == "O" && partition == l.home:
		l.own = mono
	case inc == "A" && partition == 0:
		l.other = mono
	}
}

func (l *lastHeard) Silent(_ string, mono int64) bool {
	return mono-l.own <= 4000 && mono-l.other > 10_000
}

// A history is partitions that fail and heal, a judge that pauses and reads late, and a suspect that lives, or dies.
type history struct {
	rng      *rand.Rand
	up       []bool
	back     []int64    // when the suspect can write to a partition again
	pend     [2][]int64 // what judge and suspect have under way, by partition: when it was written, or -1
	logs     [][]beaten
	read     []int
	paused   int64 // the judge, until then
	parted   int64 // from Kafka, until then: it writes and reads nothing
	judged   int64 // when A was judged, or -1
	disturbs int
}

type beaten struct {
	inc  string
	beat int64
}

// run plays a history of 100 s. The suspect dies at a time, -1 for never; trouble is over after a minute.
func run(seed uint64, partitions int, dies int64, j judge) *history {
	h := &history{
		rng: rand.New(rand.NewPCG(seed, 2)), up: make([]bool, partitions), back: make([]int64, partitions),
		logs: make([][]beaten, partitions), read: make([]int, partitions), judged: -1,
	}
	for q := range partitions {
		h.up[q] = true
		h.pend[0], h.pend[1] = append(h.pend[0], -1), append(h.pend[1], -1)
	}
	var outage, calm int64
	for now := int64(0); now < 100_000 && h.judged < 0; now += 100 {
		switch trouble := now < 60_000; {
		case outage > 0 && (now >= outage || !trouble):
			h.heal(now, partitions)
			outage, calm = 0, now+12_000
		case outage > 0 && h.rng.IntN(40) == 0:
			h.healOne(now) // one by one
		case trouble && outage == 0 && now >= calm && h.rng.IntN(60) == 0:
			outage = now + int64(h.rng.IntN(20_000))
			h.fail()
		}
		if now < 60_000 && h.rng.IntN(300) == 0 {
			h.paused = now + int64(h.rng.IntN(15_000))
		}
		if now < 60_000 && h.rng.IntN(300) == 0 {
			h.parted = now + int64(h.rng.IntN(15_000))
		}
		h.step(now, dies, j)
	}
	return h
}

func (h *history) fail() {
	h.disturbs++
	for q := range h.up {
		if h.rng.IntN(3) > 0 {
			h.up[q] = false
		}
	}
}

func (h *history) healOne(now int64) {
	q := h.rng.IntN(len(h.up))
	if !h.up[q] {
		h.up[q], h.back[q] = true, now+int64(h.rng.IntN(1000))
	}
}

func (h *history) heal(now int64, partitions int) {
	for q := range partitions {
		if !h.up[q] {
			h.up[q], h.back[q] = true, now+int64(h.rng.IntN(1000))
		}
	}
}

func (h *history) step(now, dies int64, j judge) {
	awake := now >= h.paused
	for q := range h.up {
		if now%2000 == 0 && awake && h.pend[0][q] < 0 {
			h.pend[0][q] = now
		}
		if (now+700)%2000 == 0 && h.pend[1][q] < 0 && (dies < 0 || now < dies) {
			h.pend[1][q] = now
		}
		if h.up[q] && now >= h.parted && h.pend[0][q] >= 0 {
			h.logs[q] = append(h.logs[q], beaten{"O", h.pend[0][q]})
			h.pend[0][q] = -1
		}
		if h.up[q] && now >= h.back[q] && h.pend[1][q] >= 0 {
			h.logs[q] = append(h.logs[q], beaten{"A", h.pend[1][q]})
			h.pend[1][q] = -1
		}
		if awake && now >= h.parted && h.rng.IntN(3) > 0 {
			for ; h.read[q] < len(h.logs[q]); h.read[q]++ {
				s := h.logs[q][h.read[q]]
				j.Heard(s.inc, int32(q), s.beat, now)
			}
		}
	}
	if awake && now%1000 == 0 && j.Silent("A", now) {
		h.judged = now
	}
}

// TestTheLivingAreNotJudged: random outages of partitions, one at a time, with a judge that pauses, reads late and is
// parted from Kafka. The rule that was there before gives false verdicts in such histories.
func TestTheLivingAreNotJudged(t *testing.T) {
	disturbed, fooled := 0, 0
	for seed := range uint64(3000) {
		partitions := 1 + int(seed%5)
		h := run(seed, partitions, -1, NewPulse("O", 2000, 10_000, partitions))
		require.Negative(t, h.judged, "history %d: judged at %d", seed, h.judged)
		disturbed += h.disturbs
		if run(seed, partitions, -1, &lastHeard{home: int32(partitions - 1)}).judged >= 0 {
			fooled++
		}
	}
	require.Greater(t, disturbed, 3000)
	require.Greater(t, fooled, 150, "these histories disturb nobody")
}

// TestTheDeadAreJudged: when trouble is over the verdict comes in time.
func TestTheDeadAreJudged(t *testing.T) {
	for seed := range uint64(1000) {
		partitions := 1 + int(seed%5)
		dies := int64(seed * 59 % 60_000)
		h := run(seed, partitions, dies, NewPulse("O", 2000, 10_000, partitions))
		require.GreaterOrEqual(t, h.judged, int64(0), "history %d", seed)
		require.GreaterOrEqual(t, h.judged, dies+8000-100)
		require.LessOrEqual(t, h.judged, int64(91_000))
	}
}
