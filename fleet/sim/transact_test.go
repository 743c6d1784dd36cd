package sim

import (
	"bytes"

	"sluice/fleet"
)

// transact sends a transaction under the node's own id. done is called when it has committed. A node that was fenced
// reads to the ends; then still says whether it may try again, else drop is called.
func (n *node) transact(c *commit) {
	if n.refencing {
		n.fenced = append(n.fenced, c)
		return
	}
	c.txid, c.epoch, c.node = n.txid(), n.epoch, n
	n.w.commits = append(n.w.commits, c)
}

// wasFenced takes a new epoch and reads to the ends before it repeats anything.
func (n *node) wasFenced(c *commit) {
	if c.txid == ownerTx {
		n.ousted(c.epoch)
		return
	}
	n.fenced = append(n.fenced, c)
	if n.refencing {
		return
	}
	n.refencing = true
	n.do("refence", nil, func() {
		n.epoch = n.w.fence(n.txid())
		n.atEnd("refenced", func() {
			again := n.fenced
			n.fenced, n.refencing = nil, false
			for _, c := range again {
				if c.still() {
					n.transact(c)
				} else {
					c.drop()
				}
			}
		})
	})
}

// ousted ends the ownership. If the group still says that the partition is ours, it was a former owner's late take
// that fenced us, and we take it again.
func (n *node) ousted(epoch int) {
	if n.ownEpoch != epoch {
		return
	}
	n.owner.Revoked()
	if n.w.owner == n {
		n.w.assign(n)
	}
}

// publishWill publishes the Will of an epoch under the node's own id, if it is not done.
func (n *node) publishWill(epoch int64, done func()) {
	n.transact(&commit{done: done, drop: done, still: func() bool { return !n.book.WillDone(client, epoch) }, apply: func() {
		n.w.ghost.published(n.w, epoch)
		n.w.appendLedger(fleet.LedgerWillKey(client, epoch), ledgerValue(fleet.LedgerWill{Will: fleet.WillPublished}))
	}})
}

func (n *node) dropWill(epoch int64, done func()) {
	n.transact(&commit{done: done, drop: done, still: func() bool { return !n.book.WillDone(client, epoch) }, apply: func() {
		n.w.ghost.dropped(epoch)
		n.w.appendLedger(fleet.LedgerWillKey(client, epoch), ledgerValue(fleet.LedgerWill{Will: fleet.WillDropped}))
	}})
}

func (n *node) delayedWill(a fleet.Action, done func()) {
	n.ledgerEnd(func() {
		if n.book.WillDone(client, a.Epoch) {
			done()
			return
		}
		n.publishWill(a.Epoch, done)
	})
}

// ownerDo calls back into the owner, unless the partition was assigned anew meanwhile.
func (n *node) ownerDo(call func()) func() {
	which := n.assigned
	return func() {
		if which == n.assigned {
			call()
		}
	}
}

// ownerActs carries out what the owner asks for.
func (n *node) ownerActs(acts []fleet.Action) {
	for _, a := range acts {
		switch a.Kind {
		case fleet.ActTake:
			n.assigned++
			n.do("take", nil, n.ownerDo(func() {
				n.ownEpoch = n.w.fence(ownerTx)
				n.ownerActs(n.owner.Taken(n.table))
			}))
		case fleet.ActVerdict:
			n.verdict(a)
		case fleet.ActFence:
			n.ownerFence(a)
		case fleet.ActReadEnds:
			n.readEnds()
		case fleet.ActTombstone:
			n.send(a.Key, nil, func(int64) { n.w.removed(a.Key) })
		case fleet.ActWill:
			n.ownerWill(a)
		case fleet.ActEnded:

		}
	}
}

func (n *node) verdict(a fleet.Action) {
	judged := n.ownerDo(func() { n.ownerActs(n.owner.Judged(a.Inc, n.table)) })
	value, err := a.Verdict.Encode()
	must(err)
	if n.w.rules.verdictAfter {
		n.do("judged", nil, judged)
		return
	}
	n.send(a.Key, value, func(int64) {
		n.w.judged(a.Inc)
		judged()
	})
}

func (n *node) ownerFence(a fleet.Action) {
	fenced := n.ownerDo(func() { n.ownerActs(n.owner.Fenced(a.Inc)) })
	if _, dead := n.table.Dead(a.Inc); !n.w.rules.verdictAfter || dead {
		n.doFence(a, fenced)
		return
	}
	value, err := (&fleet.Instance{Dead: true, By: n.name, At: n.w.now, TxIDs: a.TxIDs}).Encode()
	must(err)
	late := func() bool { return n.w.quiet || n.w.chance(15) }
	n.doFence(a, func() {
		n.do("late verdict", late, func() {
			n.send(fleet.VerdictKey(a.Inc), value, func(int64) {
				n.w.judged(a.Inc)
				fenced()
			})
		})
	})
}

func (n *node) readEnds() {
	asked := n.w.now
	done := n.ownerDo(func() { n.ownerActs(n.owner.EndsRead(asked, n.table, n.book)) })
	if n.w.rules.noReadEnd {
		n.do("ends unread", nil, done)
		return
	}
	n.atEnd("ends read", done)
}

func (n *node) ownerWill(a fleet.Action) {
	done := n.ownerDo(func() { n.owner.WillDone(a.Client, a.Epoch) })
	n.w.commits = append(n.w.commits, &commit{txid: ownerTx, epoch: n.ownEpoch, node: n, done: done, apply: func() {
		n.w.ghost.published(n.w, a.Epoch)
		n.w.appendLedger(fleet.LedgerWillKey(client, a.Epoch), ledgerValue(fleet.LedgerWill{Will: fleet.WillPublished}))
	}})
}

// removed notes that an owner has removed a key; what its writer appends afterwards of the same state is beyond the
// protocol's promise.
func (w *world) removed(key []byte) {
	for _, rec := range w.log {
		if bytes.Equal(rec.Key, key) && rec.Value != nil {
			if s, err := fleet.DecodeSession(rec.Value); err == nil {
				w.ghost.removed[string(key)] = max(w.ghost.removed[string(key)], s.StateEpoch)
			}
		}
	}
}
