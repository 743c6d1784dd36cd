package sim

import (
	"bytes"

	"sluice/fleet"
	"sluice/kafka"
)

// rules are the protocol's rules that a test takes away. None is known to the driver: the world answers it early, or
// changes what it has written.
type rules struct {
	noOpen, noRead, cleanAtOnce, noOrder, noFence, noLedger, stable, noCarry, noPending bool
}

// send has a record on its way as the rules that were taken away have it.
func (r rules) send(n *node, rec *kafka.Record) *sent {
	kind, id, _, err := fleet.ParseKey(rec.Key)
	must(err)
	s := &sent{rec: rec}
	if kind == fleet.KeySession && rec.Value != nil {
		st, err := fleet.DecodeSession(rec.Value)
		must(err)
		if r.noOpen && st.Opened() && !st.Released {
			if c := n.seat(n.w.client(id)).conn; c != nil && !c.asked {
				c.asked = true
				s.landed, rec.Offset = true, st.Claim-1
			}
		}
		r.change(rec, st)
	}
	return s
}

// change takes out of a state what the rules are about.
func (r rules) change(rec *kafka.Record, st *fleet.Session) {
	if r.noCarry && st.Claim == 0 || r.noPending {
		st.Pending = nil
	}
	if r.noCarry && st.Claim == 0 {
		st.Received = nil
	}
	if r.noCarry || r.noPending {
		value, err := st.Encode()
		must(err)
		rec.Value = value
	}
	if st.Ended && r.noOrder {
		rec.Value = nil
	}
}

// cleanAtOnce makes the claim of a clean start the state itself.
func cleanAtOnce(value []byte, epoch int64) []byte {
	if value == nil || !bytes.Contains(value, []byte(`"clean":true`)) {
		return value
	}
	s, err := fleet.DecodeSession(value)
	if err != nil || s.Claim != 0 || !s.Clean || s.TxID == "" {
		return value
	}
	*s = fleet.Session{
		Claim: epoch, StateEpoch: epoch, Began: epoch, TxID: s.TxID, Principal: s.Principal,
		Connected: s.Connected, Clean: true, Expiry: fleet.NeverExpires,
	}
	value, err = s.Encode()
	must(err)
	return value
}
