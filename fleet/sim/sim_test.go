package sim

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// TestProtocolHoldsInAnySchedule: no acknowledged change is lost, no ended session comes back, Session Present is
// true, one connection lives, Wills go out once, and nothing stays behind.
func TestProtocolHoldsInAnySchedule(t *testing.T) {
	if _, ok := os.LookupEnv("SLUICE_SEED"); ok {
		w := newWorld(number(t, "SLUICE_SEED", 0), rules{}, t.Logf)
		w.run(200)
		require.Empty(t, w.bad)
		return
	}
	schedules := number(t, "SLUICE_SCHEDULES", 1500)
	tainted, steps, opened, returned, doubled := 0, 0, 0, 0, 0
	for seed := range schedules {
		w := newWorld(seed, rules{}, func(string, ...any) {})
		w.run(200)
		require.Empty(t, w.bad, "SLUICE_SEED=%d", seed)
		steps += w.steps
		opened += w.ghost.opened
		returned += w.ghost.present
		doubled += w.ghost.doubled
		if w.tainted {
			tainted++
		}
	}
	t.Logf("%d schedules, %d steps, %d sessions opened, %d of them resumed, %d schedules with a zombie's record after removal, %d plain messages stored twice by a crash", schedules, steps, opened, returned, tainted, doubled)
	require.Less(t, uint64(tainted), schedules/5)
}

// TestSimulatorSeesABrokenRule: without the rule there is a schedule that breaks a promise, and it is found.
func TestSimulatorSeesABrokenRule(t *testing.T) {
	f := func(name string, r rules, want ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(30_000) {
				w := newWorld(seed, r, func(string, ...any) {})
				w.run(200)
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
	f("the owner removes without reading to the end", rules{noReadEnd: true}, "session lost", "change lost", "resurrected", "twice")
	f("the verdict comes after the fence", rules{verdictAfter: true}, "published twice")
	f("nobody is fenced", rules{noFence: true}, "in two records", "published twice")
	f("a claim does not carry the ids that are received", rules{noCarry: true}, "nobody has died")
	f("ids without an outcome are given up", rules{noPending: true}, "nobody has died")
	f("the ledger is not read to its end", rules{noLedger: true}, "in two records")
}
