package mqtt

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// sharedAndKept starts a server with a vault and shared subscriptions.
func (v *vault) sharedAndKept() *shareWorld {
	return sharedIn(v.t, 10, func(shares func(*Config)) *dispatcher { return v.start(shares).dispatcher })
}

// placed gives the share a command that has a place.
func (w *shareWorld) placed(offset int64, payload string, qos byte) *Command {
	w.t.Helper()
	c := &Command{Topic: []byte("t"), Payload: []byte(payload), QoS: qos, Place: Place{1, offset}}
	w.sendShared(c)
	return c
}

// streamOf has the vault know a stream up to next, with these records.
func (v *vault) streamOf(next int64, offsets ...int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.prompt = true
	v.next[1] = next
	for _, offset := range offsets {
		v.records[Place{1, offset}] = &Command{Topic: []byte("t"), Payload: []byte("kept"), QoS: 2}
	}
}

// TestBegunQoS2OfAShareIsCompletedAtAnotherServer: the session has it in its state, and it moves no position there,
// however far the share is behind.
func TestBegunQoS2OfAShareIsCompletedAtAnotherServer(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		vault := newVault(t)
		vault.streamOf(100, 5)
		w := vault.sharedAndKept()
		c := w.member(v, "dev", 2)
		sent := w.placed(5, "kept", 2)
		c.expect(pub{topic: "t", payload: "kept", qos: 2, id: 1}.packet(v))
		require.Equal(t, []Place{{1, 100}}, vault.keeper("dev").snapshot().Next)
		w.drop("dev")
		w.became(sent, "dev kept")

		w = vault.sharedAndKept()
		c = w.stored(v, "dev")
		require.True(t, c.present())
		c.expect(pub{topic: "t", payload: "kept", qos: 2, id: 1, dup: true}.packet(v))
		require.Equal(t, []Place{{1, 100}}, vault.keeper("dev").snapshot().Next)
		c.send(pubrec(1))
		c.expect(pubrel(1))
		c.send(pubcomp(1))
		c.ping()
		after := vault.keeper("dev").snapshot()
		require.Equal(t, []Place{{1, 100}}, after.Next)
		require.Empty(t, after.Done)
		require.Empty(t, after.Flight)

		next := w.placed(6, "more", 1) // the subscription is a shared one here too
		c.expect(pub{topic: "t", payload: "more", qos: 1, id: 1}.packet(v))
		require.Empty(t, vault.keeper("dev").snapshot().Flight, "with QoS 1 another member gets it after a crash")
		c.send(puback(1))
		w.became(next, "dev delivered")
	})
}

// TestMemberGetsNothingBeforeItsSubscriptionIsStored: and what it was not sent is handed on when it leaves.
func TestMemberGetsNothingBeforeItsSubscriptionIsStored(t *testing.T) {
	vault := newVault(t)
	w := vault.sharedAndKept()
	c := w.stored(5, "dev")
	c.send(packet(0x82, uint16(9), props(), str("$share/g/t"), 1))
	waits := w.placed(1, "x", 1)
	c.ping()
	w.waits(waits)
	vault.setPrompt(true)
	c.expect(packet(0x90, uint16(9), props(), 1), pub{topic: "t", payload: "x", qos: 1, id: 1}.packet(5))
	c.send(puback(1))
	w.became(waits, "dev delivered")

	c.subscribe("$share/g/t", 2)
	vault.setPrompt(false)
	unsent := w.placed(2, "y", 2)
	until(t, "it waits for the store", func() bool { return vault.keeper("dev").waits() })
	c.ping()
	w.drop("dev")
	w.became(unsent, " kept")
}

// TestShareBeginsWhereItsMemberSubscribed, though its session has something open before that.
func TestShareBeginsWhereItsMemberSubscribed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		vault := newVault(t)
		vault.streamOf(100, 5)
		w := vault.sharedAndKept()
		c := w.stored(v, "dev")
		c.subscribe("t", 1)
		w.send(&Command{Topic: []byte("t"), QoS: 1, Place: Place{1, 5}})
		c.expect(pub{topic: "t", qos: 1, id: 1}.packet(v))
		c.subscribe("$share/g/t", 1)
		w.drop("dev")
		w = vault.sharedAndKept()
		require.True(t, w.stored(v, "dev").present())
		require.Equal(t, []Place{{1, 100}}, w.share("$share/g/t").Begins)
	})
}
