package test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"sluice/test/internal/wire"
)

// mutations change one packet. They get a copy and may look at packets that were sent before.
var mutations = []func(rng *rand.Rand, p []byte, before [][]byte) []byte{
	flipBits, setBytes, cutEnd, cutBody, grow, removeChunk, repeatChunk, changeLength, hugeLength, splice, insertProperty, badText, changeFirst,
}

// mutate applies one to three of them.
func mutate(rng *rand.Rand, packet []byte, before [][]byte) []byte {
	p := slices.Clone(packet)
	for range 1 + rng.IntN(3)/2 {
		if len(p) > 0 {
			p = mutations[rng.IntN(len(mutations))](rng, p, before)
		}
	}
	return p
}

func flipBits(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	for range 1 + rng.IntN(4) {
		p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
	}
	return p
}

// interesting are the bytes at which lengths, flags and signs change their meaning.
var interesting = []byte{0, 1, 2, 3, 4, 0x10, 0x20, 0x23, 0x26, 0x7F, 0x80, 0x81, 0xC0, 0xED, 0xFE, 0xFF}

func setBytes(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	for range 1 + rng.IntN(3) {
		p[rng.IntN(len(p))] = interesting[rng.IntN(len(interesting))]
	}
	return p
}

// cutEnd leaves the length as it was: what follows is taken for the rest.
func cutEnd(rng *rand.Rand, p []byte, _ [][]byte) []byte { return p[:rng.IntN(len(p))] }

// relength gives the fixed header the length that the body has.
func relength(first byte, body []byte) []byte { return wire.Packet(first, body) }

// body gives what follows the fixed header, nil if there is no more than that.
func body(p []byte) []byte {
	if len(p) < 2 {
		return nil
	}
	if _, n := binary.Uvarint(p[1:]); n > 0 {
		return p[1+n:]
	}
	return nil
}

// cutBody sets the length right: the packet ends inside a field.
func cutBody(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	b := body(p)
	return relength(p[0], b[:rng.IntN(len(b)+1)])
}

func grow(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	more := make([]byte, 1+rng.IntN(40))
	for i := range more {
		more[i] = byte(rng.Uint32())
	}
	return relength(p[0], append(slices.Clone(body(p)), more...))
}

// chunk gives two places in b in their order.
func chunk(rng *rand.Rand, b []byte) (from, to int) {
	from, to = rng.IntN(len(b)+1), rng.IntN(len(b)+1)
	return min(from, to), max(from, to)
}

func removeChunk(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	b := slices.Clone(body(p))
	from, to := chunk(rng, b)
	return relength(p[0], slices.Delete(b, from, to))
}

func repeatChunk(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	b := body(p)
	from, to := chunk(rng, b)
	out := slices.Clone(b[:to])
	for range 1 + rng.IntN(3) {
		out = append(out, b[from:to]...)
	}
	return relength(p[0], append(out, b[to:]...))
}

// changeLength lies about the length by a little.
func changeLength(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	b := body(p)
	return wire.Bytes(p[0], wire.Length(max(0, len(b)+rng.IntN(9)-4)), b)
}

// hugeLength puts a Variable Byte Integer of the largest kinds, or an overlong one, in the fixed header or anywhere.
func hugeLength(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	huge := [][]byte{{0xFF, 0xFF, 0xFF, 0x7F}, {0xFF, 0xFF, 0xFF, 0xFF, 1}, {0x80, 0x80, 0x80, 0}, {0x80, 0x80, 0x10}, {0x80, 0}}[rng.IntN(5)]
	if rng.IntN(2) == 0 {
		return wire.Bytes(p[0], huge, body(p))
	}
	return slices.Insert(p, rng.IntN(len(p)+1), huge...)
}

// splice puts the end of an earlier packet behind the beginning of this one.
func splice(rng *rand.Rand, p []byte, before [][]byte) []byte {
	if len(before) == 0 {
		return p
	}
	other := before[rng.IntN(len(before))]
	joined := append(slices.Clone(p[:rng.IntN(len(p)+1)]), other[rng.IntN(len(other)+1):]...)
	if rng.IntN(2) == 0 || len(joined) == 0 {
		return joined
	}
	return relength(p[0], body(joined))
}

// insertProperty puts a property, whole or broken, at any place; often a length before it, so that it may be a section.
func insertProperty(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	ids := []byte{0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x7F}
	values := []any{0, 2, uint16(0), uint16(1), uint32(0), uint32(1 << 31), "x", "mqtt.qos", []byte{0xFF, 0xFF}, wire.Bytes("k", "v"), wire.Length(1 << 27)}
	property := wire.Bytes(ids[rng.IntN(len(ids))], values[rng.IntN(len(values))])
	if rng.IntN(2) == 0 {
		property = wire.Properties(property)
	}
	b := slices.Clone(body(p))
	return relength(p[0], slices.Insert(b, rng.IntN(len(b)+1), property...))
}

// badText overwrites a place with what no UTF-8 string may hold.
func badText(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	text := badTexts[rng.IntN(len(badTexts))]
	copy(p[rng.IntN(len(p)):], text)
	return p
}

func changeFirst(rng *rand.Rand, p []byte, _ [][]byte) []byte {
	p[0] = byte(rng.Uint32())
	return p
}
