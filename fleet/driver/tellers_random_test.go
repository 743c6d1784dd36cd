package driver

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A tellOp is a step of a random script.
type tellOp struct{ node, what, arg int }

const (
	opLand = iota
	opRead
	opCommand
	opConnect
	opLeave
	opGiveUp
	opWrite
	opSubscribe
	opEnds
)

// do does it, if it can be done now.
func (o tellOp) do(w *world) {
	n := w.nodes[o.node]
	open := n.dev != nil && n.dev.conn != nil
	switch o.what {
	case opLand:
		if len(n.records) > 0 {
			n.land()
		}
	case opRead:
		if n.sessions < len(w.log) {
			n.read()
		}
	case opCommand:
		if n.next < w.commands {
			n.command()
		}
	case opConnect:
		for _, other := range w.nodes {
			if other.at != nil {
				return // a device waits for its answer
			}
		}
		if h := n.p.clients[client]; n.dev == nil && (h == nil || h.unused()) {
			n.connect(o.arg&1 > 0, []uint32{0, 3600}[o.arg>>1&1])
		}
	case opLeave:
		if open {
			n.leave()
		}
	case opGiveUp:
		if n.at != nil {
			n.giveUp()
			w.gaveUp = true
		}
	case opWrite:
		if w.commands < 3 {
			w.written()
		}
	case opEnds:
		n.ends()
	case opSubscribe:
		if open && !n.dev.closed && n.next == w.commands { // an instance does not lag behind a SUBSCRIBE
			n.subscribe()
		}
	}
}

// playTellers plays a script to its end, and gives what is wrong with the receipts; "": nothing.
func playTellers(t *testing.T, nodes int, script []tellOp, trace bool) (wrong string) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, []string{"A", "B", "C"}[:nodes]...)
		if !trace {
			w.trace = func(string, ...any) {}
		}
		w.nodes[0].owns()
		if slices.ContainsFunc(script, func(o tellOp) bool { return o.what == opEnds }) {
			for _, n := range w.nodes {
				n.asks = make(chan struct{})
			}
		}
		for _, o := range script {
			o.do(w)
		}
		w.trace("-- over")
		w.over()
		for _, n := range w.nodes {
			if n.dev != nil && n.dev.conn != nil {
				n.leave()
			}
		}
		w.over()
		n := w.nodes[0]
		n.open(true, 0) // the session that there is ends
		n.settle()
		w.over()
		n.leave()
		w.over()
		for at := range w.commands {
			if said := w.receipts[at]; len(said) != 1 && !w.allowed(at) {
				wrong = fmt.Sprintf("%v of command %d", said, at)
				w.trace("!! %s", wrong)
			}
		}
	})
	return wrong
}

// TestTellersOfRandomScripts: each command has one receipt, or two where docs/commands.md says so. SLUICE_TELLERS=n plays n scripts of
// each kind, SLUICE_SEED=n others.
func TestTellersOfRandomScripts(t *testing.T) {
	number := func(name string, otherwise int) int {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.Atoi(text)
			require.NoError(t, err)
			return n
		}
		return otherwise
	}
	patient := []int{opLand, opLand, opLand, opRead, opRead, opRead, opRead, opCommand, opCommand, opConnect, opConnect, opLeave, opWrite}
	n, seed := number("SLUICE_TELLERS", 400), uint64(number("SLUICE_SEED", int(time.Now().UnixNano()%1_000_000_000)))
	for name, c := range map[string]struct {
		nodes int
		ops   []int
	}{
		"two":               {2, patient},
		"two, subscribed":   {2, append(patient[:len(patient):len(patient)], opSubscribe)},
		"two, given up":     {2, append(patient[:len(patient):len(patient)], opGiveUp, opSubscribe)},
		"two, late":         {2, append(patient[:len(patient):len(patient)], opSubscribe, opEnds)},
		"three, late":       {3, append(patient[:len(patient):len(patient)], opSubscribe, opEnds)},
		"three, subscribed": {3, append(patient[:len(patient):len(patient)], opSubscribe)},
		"three, all of it":  {3, append(patient[:len(patient):len(patient)], opGiveUp, opSubscribe)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, uint64(len(c.ops)+c.nodes)))
			for range n {
				var script []tellOp
				for range 40 {
					script = append(script, tellOp{rng.IntN(c.nodes), c.ops[rng.IntN(len(c.ops))], rng.IntN(4)})
				}
				if playTellers(t, c.nodes, script, false) == "" {
					continue
				}
				for shorter := true; shorter; {
					shorter = false
					for i := range script {
						if s := slices.Delete(slices.Clone(script), i, i+1); playTellers(t, c.nodes, s, false) != "" {
							script, shorter = s, true
							break
						}
					}
				}
				t.Fatalf("SLUICE_SEED=%d: %s: %v", seed, playTellers(t, c.nodes, script, true), script)
			}
		})
	}
}

// allowed says that docs/commands.md has several receipts for a command, or none. Several: for any two, one lagged when it told, or had just
// connected, or each had a connection of the device when it read it, or one that the device had left; or a CONNECT was given up. None: an
// instance read it when the device's connection had ended there, and that was not stored, and the owner had not read of that connection.
func (w *world) allowed(at int64) bool {
	tells := w.tells[at]
	if len(tells) == 0 {
		seen := w.nodes[0].reads[at].seen
		return slices.ContainsFunc(w.nodes[1:], func(n *node) bool { return n.reads[at].leaving > seen })
	}
	if w.gaveUp {
		return len(tells) <= len(w.nodes)
	}
	unwanted := slices.ContainsFunc(w.receipts[at], func(r string) bool { return strings.Contains(r, " not_") })
	for i, one := range tells {
		for _, two := range tells[i+1:] {
			r1, r2 := one.n.reads[at], two.n.reads[at]
			unknowing := r1.unknowing || r2.unknowing || one.left || two.left
			late := one.lags || two.lags || r1.opening || r2.at > one.at && (r2.open || r2.opening)
			if one.n == two.n || !unknowing && !(unwanted && late) {
				return false
			}
		}
	}
	return true
}
