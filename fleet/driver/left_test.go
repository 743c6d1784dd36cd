package driver

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
)

// TestCommandLeftToAConnectionIsToldOfByWhoOwnsWhenThatEnds, also if it is another one than when the command was read, and the
// connection was open by then or about to be.
func TestCommandLeftToAConnectionIsToldOfByWhoOwnsWhenThatEnds(t *testing.T) {
	for name, opened := range map[string]bool{"open": true, "about to be": false} {
		t.Run(name, func(t *testing.T) {
			_, d := beginning()
			host := new(lagging)
			d.host = host
			p := d.parts[0]
			write := func(s fleet.Session) {
				value, err := s.Encode()
				require.NoError(t, err)
				host.read(d, fleet.SessionKey("d1", "other"), value)
			}
			s := fleet.Session{Expiry: 3600}
			write(s)
			s.Claim, s.StateEpoch, s.Began = 1, 1, 1
			if opened {
				write(s)
			}
			require.Equal(t, Elsewhere, d.Seek(&Quest{ClientID: "d1", Stream: 1, Offset: 5}))
			if !opened {
				write(s)
			}
			p.owner.Assigned()
			p.owner.Taken(&p.table)
			require.Empty(t, host.unwanted)
			s.Released, s.OfflineSince = true, 1
			write(s)
			require.Len(t, host.unwanted, 1)
		})
	}
}

// TestSessionThatExpiresBeforeKafkaHasItsLastRecordIsToldOfAsItWasLeft, when the device comes again before that: with what it had in
// flight in the end.
func TestSessionThatExpiresBeforeKafkaHasItsLastRecordIsToldOfAsItWasLeft(t *testing.T) {
	for _, clean := range []bool{false, true} {
		for _, read := range []bool{false, true} {
			t.Run(fmt.Sprint("clean start ", clean, ", the last record is read ", read), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, d := beginning()
					p := d.parts[0]
					c := b.opens(t, d, fleet.ConnectRequest{Expiry: 5}, 6)
					c.Told()
					c.Leave(Leaving{Expiry: 5, State: &fleet.Session{Subs: []fleet.Sub{{Filter: "in flight"}}}})
					if read {
						b.land(d)
					}
					if !clean {
						time.Sleep(6 * time.Second) // its time
					}
					at, err := p.begin(t.Context(), "d1", fleet.ConnectRequest{Clean: clean, Expiry: 5}, &Conn{p: p, dev: &reader{next: 6}})
					require.NoError(t, err)
					time.Sleep(6 * time.Second)
					if !read { // Kafka takes it, and it is not read back yet
						r := b.records[0]
						b.records, r.Offset = b.records[1:], b.next
						r.Owner.RecordDone(r, nil)
						b.read(d, r.Key, r.Value)
					}
					b.settled(d, func() bool { return len(at.answer) > 0 })
					require.Equal(t, fleet.ActOpened, (<-at.answer).Kind)
					require.Len(t, b.ended, 1)
					require.NotEmpty(t, b.ended[0].Subs)
				})
			})
		}
	}
}
