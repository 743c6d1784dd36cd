package proxy

import (
	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/mqtt"
)

// A keeper keeps the session of one connection: it is its mqtt.Keeper, and the driver's Device.
type keeper struct {
	s       *sessions
	session *mqtt.Session
	conn    *driver.Conn      // set before mqtt has the keeper
	unread  []mqtt.Unfinished // likewise; see late
}

// Changed writes the session down.
func (k *keeper) Changed() { k.conn.Save() }

// Progressed writes the session down too; nobody waits for it.
func (k *keeper) Progressed() { k.conn.Save() }

// Released frees the packet identifier of a message that a transaction has stored.
func (k *keeper) Released(id uint16, done func()) bool { return k.conn.Release(id, done) }

// Lagging replays what waits for the session, and finds what could not be read.
func (k *keeper) Lagging() {
	k.s.late.want(k)
	if k.s.replayer != nil {
		k.s.replayer.want(k.session)
	}
}

// Streams says how to make the snapshot of the end.
func (k *keeper) Streams() ([]int32, func(int32) (int64, bool)) {
	return k.s.streams.ids(), k.s.streams.next
}

// Left takes the end of the connection.
func (k *keeper) Left(l *mqtt.Leaving) {
	k.s.late.forget(k.session)
	met := make(driver.Ends)
	for _, places := range [][]mqtt.Place{l.State.Next, l.State.Met} {
		for _, p := range places {
			met[p.Stream] = max(met[p.Stream], p.Offset)
		}
	}
	for _, p := range l.State.Done {
		met[p.Stream] = max(met[p.Stream], p.Offset+1)
	}
	left := driver.Leaving{Tidy: l.Tidy, Expiry: l.Expiry, State: stateOf(&l.State, k.s.streams), Met: met, Reason: l.Reason}
	if at, ok := l.Session.Attached().(*line); ok && !at.Empty() {
		left.Retaining = at
	}
	k.conn.Leave(left)
}

// Snapshot gives the session as it is.
func (k *keeper) Snapshot() (state *fleet.Session, version uint64) {
	snap := k.session.Snapshot(k.Streams())
	return stateOf(&snap, k.s.streams), snap.Version
}

// HasProgressed says whether commands were settled since the last snapshot.
func (k *keeper) HasProgressed() bool { return k.session.HasProgressed() }

// Saved says that a snapshot is stored.
func (k *keeper) Saved(version uint64) { k.session.Saved(version) }

// Settle passes on what is known of messages that other connections of the session took in.
func (k *keeper) Settle(stored, pending []uint16, unsure bool) (pass func()) {
	return k.session.Settle(stored, pending, unsure)
}

// Received gives the QoS 2 ids that were received and not released.
func (k *keeper) Received(changed func(id uint16, stored bool)) (stored, pending []uint16) {
	return k.session.Received(changed)
}

// faults say how a connection ends whose session can't be kept.
var faults = map[driver.Why]mqtt.ProtocolFault{
	driver.Judged:      {Code: mqtt.ServerBusy, Detail: "this instance was cut off from the others"},
	driver.TooLarge:    {Code: mqtt.QuotaExceeded, Detail: "the session is larger than Kafka takes"},
	driver.NotReleased: {Code: mqtt.ImplementationSpecificError, Detail: "Kafka did not take a transaction"},
}

// Close ends the connection.
func (k *keeper) Close(why driver.Why) {
	if fault, ok := faults[why]; ok {
		k.session.Disconnect(fault.Code, fault.Detail)
	} else {
		k.session.TakeOver()
	}
}
