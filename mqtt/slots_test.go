package mqtt

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSlotsAreAFIFO compares slots with a plain slice, also where sequence numbers wrap.
func TestSlotsAreAFIFO(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		start := rapid.SampledFrom([]uint32{0, 1, math.MaxUint32 - 10, math.MaxUint32, 1 << 31}).Draw(rt, "start")
		s := slots{head: start, tail: start}
		var model []uint16
		var settled []bool
		first := start
		for i := range rapid.IntRange(0, 200).Draw(rt, "steps") {
			switch rapid.IntRange(0, 2).Draw(rt, "step") {
			case 0:
				q := s.push(uint16(i), typePuback)
				require.Equal(rt, first+uint32(len(model)), q)
				model, settled = append(model, uint16(i)), append(settled, false)
			case 1:
				if len(model) > 0 {
					k := rapid.IntRange(0, len(model)-1).Draw(rt, "k")
					s.at(first + uint32(k)).state = slotAcked
					settled[k] = true
				}
			case 2:
				h := s.settled()
				require.Equal(rt, len(model) > 0 && settled[0], h != nil)
				if h != nil {
					require.Equal(rt, model[0], h.id)
					s.pop()
					model, settled, first = model[1:], settled[1:], first+1
				}
			}
			require.Equal(rt, len(model), s.len())
			require.False(rt, s.holds(first-1))
			require.Equal(rt, len(model) > 0, s.holds(first))
			require.False(rt, s.holds(first+uint32(len(model))))
		}
	})
}

func TestSlotsGiveTheirMemoryBack(t *testing.T) {
	var s slots
	require.Nil(t, s.ring)
	for id := range 100 {
		s.push(uint16(id), typePuback)
	}
	require.Len(t, s.ring, 128)
	for range 100 {
		s.pop()
	}
	require.Nil(t, s.ring)
	s.push(1, typePuback)
	s.pop()
	require.Len(t, s.ring, 8, "few slots stay for the next message")
	require.Equal(t, slot{}, s.ring[0], "without the strings of outcomes")
}

// TestSlotsRememberWhatTheyAnswered of each kind, and only while they are to.
func TestSlotsRememberWhatTheyAnswered(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var s slots
		key := rapid.Custom(func(rt *rapid.T) answerKey {
			return answerKey{rapid.Uint16().Draw(rt, "id"), rapid.SampledFrom([]byte{typePuback, typePubrec}).Draw(rt, "kind")}
		})
		answer := func() answerKey {
			k := key.Draw(rt, "key")
			s.push(k.id, k.kind)
			require.True(rt, s.knows(k.id, k.kind))
			s.pop()
			return k
		}
		k := answer()
		require.False(rt, s.knows(k.id, k.kind))
		s.remember(7)
		answered := map[answerKey]bool{}
		for range rapid.IntRange(0, 100).Draw(rt, "answers") {
			answered[answer()] = true
		}
		s.forget(7 + repeatsCome)
		for k := range answered {
			require.True(rt, s.knows(k.id, k.kind))
		}
		for range 20 {
			k := key.Draw(rt, "another")
			require.Equal(rt, answered[k], s.knows(k.id, k.kind))
		}
		s.forget(8 + repeatsCome)
		require.Nil(rt, s.answered)
	})
}

func TestSlotsRememberAllIdentifiersInFewBytes(t *testing.T) {
	var s slots
	s.remember(0)
	for id := range 1 << 16 {
		for _, kind := range []byte{typePuback, typePubrec} {
			s.push(uint16(id), kind)
			s.pop()
		}
	}
	require.Len(t, s.answered.now, 512)
}

// TestSlotsRememberThroughLongPauses, one after the other: nothing is read in between.
func TestSlotsRememberThroughLongPauses(t *testing.T) {
	var s slots
	s.remember(0)
	s.push(1, typePuback)
	s.pop()
	for tick := int64(3 * repeatsCome); tick < 30*repeatsCome; tick += 3 * repeatsCome {
		s.goOn(tick)
		s.remember(tick)
	}
	require.True(t, s.knows(1, typePuback))
}

// TestSlotsForgetInPartsWhilePausesGoOn: a device that is paused again and again would have all its identifiers remembered.
func TestSlotsForgetInPartsWhilePausesGoOn(t *testing.T) {
	var s slots
	for tick := range int64(10 * repeatsCome) {
		s.remember(tick)
		s.goOn(tick)
		s.push(uint16(tick)+1, typePuback)
		s.pop()
		s.forget(tick)
		for ago := range min(tick, repeatsCome) + 1 {
			require.True(t, s.knows(uint16(tick-ago)+1, typePuback), "%d s ago", ago)
		}
		if tick > 2*(repeatsCome+1) {
			require.False(t, s.knows(uint16(tick-2*(repeatsCome+1))+1, typePuback))
		}
	}
	s.forget(11 * repeatsCome)
	require.Nil(t, s.answered)
}
