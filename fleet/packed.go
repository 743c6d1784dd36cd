package fleet

import (
	"bytes"
	"math"
	"slices"
	"strconv"
)

// pack keeps the value of e's record. As the incarnations write it, it begins with what the entry has anyway, and a transactional id
// that many have: every instance keeps one for each device of the fleet.
func (e *entry) pack(value []byte, txID text) {
	e.tx = e.inc.txNumber(string(txID))
	rest, ok := bytes.CutPrefix(value, e.opening())
	if !ok {
		e.tx = 0
	}
	e.raw = string(rest)
}

// value is the value of the record.
func (e *entry) value() []byte { return append(e.opening(), e.raw...) }

// opening is what pack leaves out: that of an open connection which has begun its session.
func (e *entry) opening() []byte {
	if e.tx == 0 {
		return nil
	}
	b := make([]byte, 0, 64+len(e.raw))
	for _, part := range []struct {
		name string
		n    int64
	}{{`{"v":`, Version}, {`,"claim":`, e.claim}, {`,"state":`, e.state}, {`,"began":`, e.state}} {
		b = strconv.AppendInt(append(b, part.name...), part.n, 10)
	}
	b = append(b, `,"tx":`...)
	return append(strconv.AppendQuote(b, e.inc.txIDs[e.tx-1]), ',')
}

// txNumber notes a transactional id, and gives its number; 0: there is none, or more than have one.
func (i *instance) txNumber(id string) uint8 {
	at := slices.Index(i.txIDs, id)
	if at < 0 && id != "" {
		at = len(i.txIDs)
		i.txIDs = append(i.txIDs, id)
	}
	if at >= math.MaxUint8 {
		return 0
	}
	return uint8(at + 1)
}
