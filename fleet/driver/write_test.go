package driver

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/fleet"
	"sluice/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A count is a Counter, and a Producer that takes records and says nothing of them.
type count struct{ atomic.Int32 }

func (c *count) Inc()                  { c.Add(1) }
func (c *count) Produce(*kafka.Record) { c.Add(1) }

// TestRefusedSessionRecordsAreTriedAgainAtABoundedPace: the waits grow to a second, and the log has Kafka's words, once in
// a while.
func TestRefusedSessionRecordsAreTriedAgainAtABoundedPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var sent, records, retries count
		d := New(Config{
			Sessions: "sessions", State: &sent, Metrics: Metrics{Records: &records, Retries: &retries},
			Refusals: zerolog.New(&log).Sample(&zerolog.BurstSampler{Burst: 1, Period: 5 * time.Second}),
		})
		r := &stateRecord{d: d, done: func(int64, error) { require.Fail(t, "it is not decided") }}
		r.Topic, r.Key, r.Fixed, r.Owner = "sessions", []byte("k"), true, r
		refusal := fmt.Errorf("%w: the words of Kafka", kafka.ErrUncertain)
		for i, wait := range []int{50, 100, 200, 400, 800, 1000, 1000, 1000} {
			r.RecordDone(&r.Record, refusal)
			time.Sleep(time.Duration(wait)*time.Millisecond - 1)
			synctest.Wait()
			require.EqualValues(t, i, sent.Load(), "try %d", i)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.EqualValues(t, i+1, sent.Load(), "try %d", i)
		}
		require.EqualValues(t, 8, retries.Load())
		require.EqualValues(t, 8, records.Load())
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("the words of Kafka")), "one line in 5 s")
		r.RecordDone(&r.Record, kafka.ErrClosed)
		time.Sleep(time.Minute)
		require.EqualValues(t, 8, sent.Load(), "the process stops")
	})
}

// TestARecordThatKafkaNeverTakesIsNotAskedForAgainAndAgain, as the removal of a session that has ended is when the right to write is
// withdrawn. When it is given back, the removal is made up for.
func TestARecordThatKafkaNeverTakesIsNotAskedForAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := beginning()
		p := d.parts[0]
		c := b.opens(t, d, fleet.ConnectRequest{}, 0)
		c.Told()
		waits := func() bool {
			p.lock()
			defer p.unlock()
			return len(b.records) > 0
		}
		b.settled(d, func() bool { return !waits() })
		c.Leave(Leaving{State: &fleet.Session{}})
		b.land(d)
		tries := 0
		for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
			synctest.Wait()
			for tries < 1000 && waits() {
				r := b.records[0]
				b.records = b.records[1:]
				tries++
				r.Owner.RecordDone(r, kafka.ErrNotAuthorized)
			}
		}
		require.Less(t, tries, 20)
		require.Greater(t, tries, 5)
		time.Sleep(maxStateRetry)
		b.settled(d, func() bool {
			p.lock()
			defer p.unlock()
			return len(p.clients) == 0 && p.table.Keys("me") == 0
		})
		d.Wait()
	})
}
