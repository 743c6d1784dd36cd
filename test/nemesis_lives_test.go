package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
)

// A death is the loss of what an instance had not written down: it was killed, or the others declared it dead. from is
// when it can have begun, to when it was over.
type death struct {
	from, to time.Time
	what     string
}

// A life is one process of an instance.
type life struct {
	named        string   // in its receipts
	incarnations []string // in the sessions topic
	deaths       []death
	stopping     time.Time // zero: it was not told to
}

// lives is what is known of the processes of the instances: what was done to them, and what they say themselves.
type lives struct {
	mu       sync.Mutex
	of       [][]*life // by instance, the last one is the latest
	verdicts map[string]time.Time
	clocks   [3][]clockSetting
	begin    time.Time
	lines    [][]byte // what the instances said, with the time by our clock
}

// A clockSetting is how far an instance's clock was ahead from a time on.
type clockSetting struct {
	from  time.Time
	ahead time.Duration
}

// set notes that the clock of an instance was set.
func (l *lives) set(instance int, ahead time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clocks[instance] = append(l.clocks[instance], clockSetting{time.Now(), ahead})
}

// times gives what a time by an instance's clock can have been by ours.
func (l *lives) times(instance int, said time.Time) (all []time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := clockSetting{from: l.begin.Add(-time.Hour)}
	for i := 0; i <= len(l.clocks[instance]); i++ {
		next := clockSetting{from: time.Now().Add(time.Hour)}
		if i < len(l.clocks[instance]) {
			next = l.clocks[instance][i]
		}
		const slack = 100 * time.Millisecond // the clock was set a moment before it was noted
		if at := said.Add(-before.ahead); at.After(before.from.Add(-slack)) && at.Before(next.from.Add(slack)) {
			all = append(all, at)
		}
		before = next
	}
	return all
}

// begins notes a new process of an instance.
func (l *lives) begins(instance int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.of) <= instance {
		l.of = append(l.of, nil)
	}
	l.of[instance] = append(l.of[instance], &life{})
}

// killed notes that the process of an instance is about to be.
func (l *lives) killed(instance int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	last := l.of[instance][len(l.of[instance])-1]
	last.deaths = append(last.deaths, death{now, now.Add(time.Second), "killed"})
}

const declaredDead = "declared dead"

// verdictLag is how long before the verdict an instance can have been heard last.
const verdictLag = deadAfter + 5*time.Second

// said reads a line of an instance's log. Its time is ours: the instance's clock may be another one.
func (l *lives) said(instance int, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.lines = append(l.lines, fmt.Appendf(nil, "%8.3f %d %s", now.Sub(l.begin).Seconds(), instance, line))
	var event struct{ Message, Incarnation, Instance string }
	if json.Unmarshal(line, &event) != nil {
		return // the last words of a panic
	}
	last := l.of[instance][len(l.of[instance])-1]
	switch event.Message {
	case "receipts name this process":
		last.named = event.Instance
	case "sessions are shared with the other instances":
		last.incarnations = append(last.incarnations, event.Incarnation)
	case "stopping":
		last.stopping = now
	case "an instance is silent and is declared dead":
		if _, known := l.verdicts[event.Incarnation]; !known {
			l.verdicts[event.Incarnation] = now
		}
	case "this instance was silent for too long and was declared dead; its devices are disconnected and it goes on under a new name":
		at, known := l.verdicts[event.Incarnation]
		if !known {
			at = now // who passed it says so in a moment
		}
		last.deaths = append(last.deaths, death{at.Add(-verdictLag), now.Add(time.Second), declaredDead})
	case "stopped before all sessions were released",
		"stopped before it was told that this instance has ended; the other instances notice within seconds":
		last.deaths = append(last.deaths, death{now.Add(-deadAfter), now.Add(verdictLag), event.Message})
	}
}

// died gives a death of an instance between two times.
func (l *lives) died(instance int, from, to time.Time) (what string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, life := range l.of[instance] {
		for _, d := range life.deaths {
			if d.from.Before(to) && d.to.After(from) {
				return d.what, true
			}
		}
	}
	return "", false
}

// verdictsSince gives the verdicts since a time, but for those on processes that had ended by then: Kafka's trouble may put
// them off.
func (l *lives) verdictsSince(from time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, at := range l.verdicts {
		ended := slices.ContainsFunc(slices.Concat(l.of...), func(one *life) bool {
			return slices.Contains(one.incarnations, name) &&
				slices.ContainsFunc(one.deaths, func(d death) bool { return d.what != declaredDead && d.from.Before(from) })
		})
		if at.After(from) && !ended {
			n++
		}
	}
	return n
}

// writer gives the instance whose process has a name in receipts.
func (l *lives) writer(name string) (instance int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, all := range l.of {
		if slices.ContainsFunc(all, func(one *life) bool { return one.named == name }) {
			return i, true
		}
	}
	return 0, false
}

// keep writes down what the instances said, and what was done, for who looks for the cause of a failure: go test
// -artifacts keeps it.
func (n *nemesis) keep() {
	n.lives.mu.Lock()
	defer n.lives.mu.Unlock()
	dir := n.t.ArtifactDir()
	require.NoError(n.t, os.WriteFile(filepath.Join(dir, "instances.log"), bytes.Join(n.lives.lines, []byte("\n")), 0o600))
	require.NoError(n.t, os.WriteFile(filepath.Join(dir, "deeds.txt"), []byte(n.did(n.lives.begin)), 0o600))
}

// A visit is a connection, by when it was asked for and the door.
type visit struct {
	at   time.Time
	door int
}

// visits are the connections of the devices of a fleet.
type visits struct {
	mu sync.Mutex
	of map[int][]visit
}

// next gives the door for a device's next connection: one after the other, so that one that lost its instance finds another.
func (v *visits) next(device, doors int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	door := (device + 1 + len(v.of[device])) % doors
	v.of[device] = append(v.of[device], visit{time.Now(), door})
	return door
}

// between gives the doors that a device was at between two times.
func (v *visits) between(device int, from, to time.Time) (doors []int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.of[device]
	for i, one := range all {
		if one.at.Before(to) && (i == len(all)-1 || all[i+1].at.After(from)) {
			doors = append(doors, one.door)
		}
	}
	slices.Sort(doors)
	return slices.Compact(doors)
}

// lost says whether an instance that a device was at between two times has died in that time.
func (n *nemesis) lost(v *visits, device int, from, to time.Time) bool {
	return slices.ContainsFunc(v.between(device, from, to), func(door int) bool {
		_, ok := n.lives.died(door, from, to)
		return ok
	})
}
