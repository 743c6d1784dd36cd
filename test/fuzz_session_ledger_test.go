package test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/bits"
	"strconv"
	"sync"
)

// A ledger compares what devices were told with what Kafka has. A message is a number, so an hour of them is small.
type ledger struct{ acked, seen numbers }

// numbers is a set.
type numbers struct {
	mu   sync.Mutex
	bits []uint64
}

func (n *numbers) add(i uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if need := int(i/64) + 1; need > len(n.bits) {
		n.bits = append(n.bits, make([]uint64, need-len(n.bits)+len(n.bits)/4)...)
	}
	n.bits[i/64] |= 1 << (i % 64)
}

func (n *numbers) count() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.bits {
		count += bits.OnesCount64(w)
	}
	return count
}

// ledgerPayload is the payload of message n. The sum keeps a payload with a flipped bit from passing for another message.
func ledgerPayload(n uint64) string {
	number := fmt.Sprint(n)
	return fmt.Sprintf("%s %08x ", number, crc32.ChecksumIEEE([]byte(number)))
}

// found takes a value of Kafka.
func (l *ledger) found(value []byte) {
	number, _, ok := bytes.Cut(value, []byte(" "))
	n, err := strconv.ParseUint(string(number), 10, 64)
	if !ok || err != nil || !bytes.HasPrefix(value, []byte(ledgerPayload(n))) {
		return
	}
	l.seen.add(n)
}

// missing counts what was acknowledged and is not in Kafka.
func (l *ledger) missing() (count int) {
	l.acked.mu.Lock()
	acked := append([]uint64(nil), l.acked.bits...)
	l.acked.mu.Unlock()
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	for i, w := range acked {
		if i < len(l.seen.bits) {
			w &^= l.seen.bits[i]
		}
		count += bits.OnesCount64(w)
	}
	return count
}
