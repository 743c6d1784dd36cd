package mqtt

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQoS2IsOnceThroughReconnectsWhileCommandsCome: Send, replay, saves and the ends of connections all at once.
func TestQoS2IsOnceThroughReconnectsWhileCommandsCome(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		rng := rand.New(rand.NewPCG(uint64(v), 7))
		for range 5 {
			r := &relay{chunk: 7}
			r.keptWorld = keeping(t, func(c *Config) { c.CommandsInFlight, c.CommandsQueued = 1+rng.IntN(5), 1+rng.IntN(5) })
			r.v.setPrompt(true)
			want := r.plan(rng, 200, 0)
			for _, c := range r.all {
				c.QoS = 2
			}
			r.deposits(deposit{snapshot: Snapshot{Subscriptions: []Subscription{{Filter: "t", QoS: 2}}, Next: []Place{{1, 0}}}})
			r.exactlyOnce(rng, v, want)
		}
	})
}

// exactlyOnce has a device come and go until it has as many commands as want, and holds that they are these.
func (r *relay) exactlyOnce(rng *rand.Rand, v byte, want []int) {
	r.t.Helper()
	stop := make(chan struct{})
	var parts sync.WaitGroup
	defer parts.Wait()
	defer close(stop)
	parts.Go(func() { r.extend(len(r.all)) })
	got, received := []int{}, map[uint16]bool{}
	for round := 0; len(got) < len(want); round++ {
		c := r.stored(v, "dev")
		if round == 0 {
			parts.Go(func() { r.replays(stop) })
		}
		for n := rng.IntN(30); n > 0 && len(got) < len(want); n-- {
			got = c.completeOne(got, received)
		}
		c.lost()
	}
	require.Equal(r.t, want, got)
}

// completeOne takes a PUBLISH or a PUBREL, answers it, and adds the number of a command that was not received yet.
func (c *client) completeOne(got []int, received map[uint16]bool) []int {
	c.t.Helper()
	first, body := c.read()
	if first>>4 == typePubrel {
		id := binary.BigEndian.Uint16(body)
		delete(received, id)
		c.send(pubcomp(id))
		return got
	}
	id := binary.BigEndian.Uint16(body[3:])
	c.send(pubrec(id))
	if received[id] {
		require.NotZero(c.t, first&8, "an identifier in use stands for another command")
		return got
	}
	received[id] = true
	number, err := strconv.Atoi(string(body[5+len(c.none()):]))
	require.NoError(c.t, err)
	return append(got, number)
}
