package sim

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain has one processor run the drivers: what two run at once is in no order that a seed repeats. For the same reason
// memory is collected between schedules.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	goleak.VerifyTestMain(m)
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	value, ok := os.LookupEnv(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseUint(value, 10, 64)
	require.NoError(t, err)
	return n
}

// schedule runs the schedule of a seed.
func schedule(t *testing.T, seed uint64, r rules) *world {
	if seed%32 == 0 {
		runtime.GC()
	}
	return simulate(t, seed, r, nil)
}

// TestProtocolHoldsInAnySchedule: no acknowledged change is lost, no ended session comes back, Session Present is
// true, one connection lives, Wills go out once, no message is stored twice, and nothing stays behind.
func TestProtocolHoldsInAnySchedule(t *testing.T) {
	if _, ok := os.LookupEnv("SLUICE_SEED"); ok {
		w := simulate(t, number(t, "SLUICE_SEED", 0), rules{}, t.Logf)
		require.Empty(t, w.bad)
		return
	}
	atMost := int(10 - 9*min(1, number(t, "SLUICE_STOP", 0))) // of those that fail
	first, schedules := number(t, "SLUICE_FIRST", 0), number(t, "SLUICE_SCHEDULES", schedulesByDefault)
	tainted, steps, opened, returned, doubled, bad := 0, 0, 0, 0, 0, 0
	for seed := first; seed < first+schedules; seed++ {
		w := schedule(t, seed, rules{})
		if w.bad != "" {
			t.Errorf("SLUICE_SEED=%d: %s", seed, w.bad)
			if bad++; bad == atMost {
				break
			}
		}
		steps += w.steps
		for _, c := range w.clients {
			opened += c.ghost.opened
			returned += c.ghost.present
			doubled += c.ghost.doubled
		}
		if w.tainted {
			tainted++
		}
	}
	t.Logf("%d schedules, %d steps, %d sessions opened, %d of them resumed, %d schedules with a zombie's record after removal, %d plain messages stored twice by a crash", schedules, steps, opened, returned, tainted, doubled)
	require.Less(t, uint64(tainted), schedules/5)
}

// TestASeedRepeatsItsSchedule to the letter, save for where the time slice of Go's scheduler ended in one of both.
func TestASeedRepeatsItsSchedule(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has goroutines run in a random order")
	}
	for seed := range uint64(300) {
		play := func() string {
			var trace strings.Builder
			simulate(t, seed, rules{}, func(format string, args ...any) { traced(&trace, format, args) })
			return trace.String()
		}
		first, second := play(), play()
		for range 5 {
			if first == second {
				break
			}
			first, second = second, play()
		}
		require.Equal(t, first, second, "SLUICE_SEED=%d", seed)
	}
}

// TestSimulatorSeesABrokenRule: without the rule there is a schedule that breaks a promise, and it is found. Some are so rare
// that they are looked for with the mutants alone.
func TestSimulatorSeesABrokenRule(t *testing.T) {
	long, most := os.Getenv("SLUICE_MUTANTS") != "", uint64(4_000)
	if long {
		most = 20_000
	}
	f := func(name string, r rules, want ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			for seed := range most {
				w := schedule(t, seed, r)
				for _, promise := range want {
					if strings.Contains(w.bad, promise) {
						t.Logf("schedule %d: %s", seed, w.bad)
						return
					}
				}
			}
			t.Errorf("no schedule shows %q", want)
		})
	}
	f("the opening record is not written before CONNACK", rules{noOpen: true}, "session lost", "change lost")
	f("the claim is not read back", rules{noRead: true}, "session lost", "change lost", "resurrected")
	f("a clean start takes effect with the claim", rules{cleanAtOnce: true}, "resurrected", "session lost", "change lost")
	f("an ended session is removed before the keys below it", rules{noOrder: true}, "resurrected")
	f("a claim does not carry the ids that are received", rules{noCarry: true}, "nobody has died")
	f("ids without an outcome are given up", rules{noPending: true}, "nobody has died")
	f("the ledger is not read to its end", rules{noLedger: true}, "in two records")
	if !long {
		return
	}
	f("nobody is fenced", rules{noFence: true}, "in two records", "published twice")
	f("the ledger is read to its last stable offset", rules{stable: true}, "in two records")
}
