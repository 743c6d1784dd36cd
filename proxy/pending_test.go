package proxy

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"sluice/mqtt"
)

// named makes a command with what a record that cancels it must name.
func named(topic, key, correlationData string) *command {
	return &command{topic: topic, key: bytesOf(key), Command: mqtt.Command{CorrelationData: bytesOf(correlationData)}}
}

// found are the open commands of the same name as c.
func (p *pending) foundLike(c *command) []*command {
	return p.find(c.topic, c.key, c.CorrelationData)
}

// size is how many commands are entered.
func (p *pending) size() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.all {
		for ; c != nil; c = c.earlier {
			n++
		}
	}
	return n
}

func TestCancelFindsWhatIsOpenUnderItsName(t *testing.T) {
	var p pending
	require.Empty(t, p.find("t", []byte("k"), []byte("c")), "nothing was ever entered")
	all := []*command{
		named("t", "k", "c"), named("t2", "k", "c"), named("t", "k2", "c"), named("t", "k", "c2"), named("t", "null", "c"), named("t", "k", ""),
		// Where one part ends and the next begins is part of the name.
		named("t", "kc", ""), named("t", "", "kc"), named("t", "k\x00", "c"), named("t", "k", "\x00c"), named("t", "1\x00k", "c"),
	}
	for _, c := range all {
		p.add(c)
	}
	for _, c := range all {
		require.Equal(t, []*command{c}, p.foundLike(c))
	}
	require.Equal(t, []*command{all[4]}, p.find("t", []byte{}, []byte("c")), "an empty key names what has none")
	for i, c := range all {
		p.remove(c)
		require.Empty(t, p.foundLike(c))
		require.Equal(t, len(all)-i-1, p.size())
	}
	require.Empty(t, p.all, "no name stays")
}

// TestCommandsOfOneNameAreCancelledTogether, and each is forgotten by itself, in any order.
func TestCommandsOfOneNameAreCancelledTogether(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}} {
		var p pending
		all := []*command{named("t", "k", "c"), named("t", "k", "c"), named("t", "k", "c")}
		for _, c := range all {
			p.add(c)
		}
		require.ElementsMatch(t, all, p.foundLike(all[0]))
		left := slices.Clone(all)
		for _, i := range order {
			p.remove(all[i])
			left = slices.DeleteFunc(left, func(c *command) bool { return c == all[i] })
			require.ElementsMatch(t, left, p.foundLike(all[0]))
		}
		require.Empty(t, p.all)
	}
}

func TestCommandWithoutCorrelationDataIsNotEntered(t *testing.T) {
	var p pending
	c := named("t", "k", "null")
	p.add(c)
	require.Zero(t, p.size())
	require.Empty(t, p.find("t", []byte("k"), []byte{}))
	p.remove(c)
}

// TestOpenDevicesEndOnce: in whatever order the number of devices and their outcomes come, exactly one of them is
// the last.
func TestOpenDevicesEndOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		devices := rapid.IntRange(0, 20).Draw(t, "devices")
		before := rapid.IntRange(0, devices).Draw(t, "outcomes before their number is known")
		var o openDevices
		for range before {
			require.False(t, o.settled())
		}
		require.Equal(t, before == devices, o.expect(devices))
		for i := before; i < devices; i++ {
			require.Equal(t, i == devices-1, o.settled())
		}
	})
}

// TestOpenDevicesEndOnceWhenAllComeAtOnce is the same from many goroutines.
func TestOpenDevicesEndOnceWhenAllComeAtOnce(t *testing.T) {
	for devices := range 12 {
		for range 50 {
			var o openDevices
			var ends sync.Map
			var all sync.WaitGroup
			for i := range devices {
				all.Go(func() {
					if o.settled() {
						ends.Store(i, true)
					}
				})
			}
			all.Go(func() {
				if o.expect(devices) {
					ends.Store(-1, true)
				}
			})
			all.Wait()
			n := 0
			ends.Range(func(any, any) bool { n++; return true })
			require.Equal(t, 1, n)
		}
	}
}

// TestNothingStaysPending: commands that are sent, settled and cancelled at once from many goroutines.
func TestNothingStaysPending(t *testing.T) {
	var p pending
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 300 {
				c := named("t", fmt.Sprint(worker%2), fmt.Sprint(i%3))
				p.add(c)
				var devices sync.WaitGroup
				settled := func() {
					if c.open.settled() {
						p.remove(c)
					}
				}
				for range i % 4 {
					devices.Go(settled)
				}
				for _, f := range p.foundLike(c) {
					f.Cancel()
				}
				if c.open.expect(i % 4) {
					p.remove(c)
				}
				devices.Wait()
			}
		})
	}
	all.Wait()
	require.Empty(t, p.all)
}

// BenchmarkPendingOfOneName is the worst that a sender can do: the same key and the same correlation data always.
func BenchmarkPendingOfOneName(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var p pending
			all := make([]*command, n)
			for i := range all {
				all[i] = named("t", "key", "correlation")
				p.add(all[i])
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c := all[i*7919%n]
				p.remove(c)
				p.add(c)
			}
		})
	}
}
