package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
)

// LedgerIDs are all QoS 2 packet ids that were received from a client and not yet released, at one incarnation. The
// whole set is written each time, in the transaction of the message or of its release.
type LedgerIDs struct {
	Epoch int64    `json:"epoch"` // of the connection that wrote it
	IDs   []uint16 `json:"ids,omitempty"`
}

// A WillEnd says what became of a Will.
type WillEnd string

// The ends of a Will. Both are final.
const (
	WillPublished WillEnd = "published"
	WillDropped   WillEnd = "dropped"
)

// LedgerWill is written in the transaction that publishes a Will, or with a DISCONNECT that drops it.
type LedgerWill struct {
	Will WillEnd `json:"will"`
}

// Encode is the value of an ids record.
func (l LedgerIDs) Encode() ([]byte, error) {
	return json.Marshal(struct {
		V int `json:"v"`
		LedgerIDs
	}{Version, l})
}

// Encode is the value of a will record.
func (l LedgerWill) Encode() ([]byte, error) {
	return json.Marshal(struct {
		V int `json:"v"`
		LedgerWill
	}{Version, l})
}

// A Ledger is one partition of the ledger as far as it was read, in transactions that are decided. The zero value
// is empty and ready.
type Ledger struct {
	ids   map[string][]heldIDs
	wills map[string][]int64
	next  int64
}

type heldIDs struct {
	inc   string
	epoch int64
	ids   []uint16
}

// Next is the offset up to which the ledger was read.
func (l *Ledger) Next() int64 { return l.next }

// Advance says that everything below next was read: offsets of markers and aborted records are never applied.
func (l *Ledger) Advance(next int64) { l.next = max(l.next, next) }

// Apply takes in a record.
func (l *Ledger) Apply(rec Record) (client string, err error) {
	l.Advance(rec.Offset + 1)
	key, err := ParseLedgerKey(rec.Key)
	if err != nil {
		return "", err
	}
	if key.Kind == KeyWill {
		err = l.applyWill(key, rec.Value)
	} else {
		err = l.applyIDs(key, rec.Value)
	}
	if err != nil {
		return key.Client, fmt.Errorf("ledger record of client %q at offset %d: %w", key.Client, rec.Offset, err)
	}
	return key.Client, nil
}

func (l *Ledger) applyWill(key LedgerKey, value []byte) error {
	if value == nil {
		l.setWills(key.Client, slices.DeleteFunc(l.wills[key.Client], func(e int64) bool { return e == key.Epoch }))
		return nil
	}
	var w struct {
		V int `json:"v"`
		LedgerWill
	}
	if err := decode(value, &w, &w.V); err != nil {
		return err
	}
	if !l.WillDone(key.Client, key.Epoch) {
		l.setWills(key.Client, append(l.wills[key.Client], key.Epoch))
	}
	return nil
}

func (l *Ledger) setWills(client string, epochs []int64) {
	if len(epochs) == 0 {
		delete(l.wills, client)
		return
	}
	if l.wills == nil {
		l.wills = make(map[string][]int64)
	}
	l.wills[client] = epochs
}

func (l *Ledger) applyIDs(key LedgerKey, value []byte) error {
	held := slices.DeleteFunc(l.ids[key.Client], func(h heldIDs) bool { return h.inc == key.Inc })
	if value != nil {
		var q struct {
			V int `json:"v"`
			LedgerIDs
		}
		if err := decode(value, &q, &q.V); err != nil {
			return err
		}
		held = append(held, heldIDs{key.Inc, q.Epoch, q.IDs})
	}
	if len(held) == 0 {
		delete(l.ids, key.Client)
		return nil
	}
	if l.ids == nil {
		l.ids = make(map[string][]heldIDs)
	}
	l.ids[key.Client] = held
	return nil
}

// IDs are the packet ids of a client's session that began with epoch began: those of the highest epoch, or none if
// even that is older than the session.
func (l *Ledger) IDs(client string, began int64) []uint16 {
	var top heldIDs
	for _, h := range l.ids[client] {
		if h.epoch > top.epoch {
			top = h
		}
	}
	if top.epoch < began {
		return nil
	}
	return slices.Clone(top.ids)
}

// WillDone says that the Will of this epoch was published or dropped.
func (l *Ledger) WillDone(client string, epoch int64) bool {
	return slices.Contains(l.wills[client], epoch)
}

// Stale are the keys of a client that say nothing any more: packet ids below the highest epoch's or of sessions
// before the one that began with epoch began, and Wills below lowest, the lowest state epoch that any key of the
// client in the sessions topic still has. They may be tombstoned, in a transaction as all of the ledger.
func (l *Ledger) Stale(client string, began, lowest int64) [][]byte {
	var keys [][]byte
	top := began
	for _, h := range l.ids[client] {
		top = max(top, h.epoch)
	}
	for _, h := range l.ids[client] {
		if h.epoch < top {
			keys = append(keys, LedgerIDsKey(client, h.inc))
		}
	}
	for _, e := range l.wills[client] {
		if e < lowest {
			keys = append(keys, LedgerWillKey(client, e))
		}
	}
	return keys
}
