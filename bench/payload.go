package bench

import (
	"bytes"
	"fmt"
	"strconv"
)

// The bounds of a load.
const (
	MinSize    = 64        // bytes of a payload, which says whose it is
	MaxSize    = 1_000_000 // bytes of a payload
	MaxDevices = 10_000_000
)

const (
	seqDigits = 12 // a million messages a second of one device for eleven days
	maxDevice = MaxDevices - 1
)

// payload makes what a device's messages have in common, a JSON object: the run, the device, its place in the device's
// order, and padding. The place is written by setSeq, from the byte at on.
func payload(run string, device, size int) (b []byte, at int) {
	b = fmt.Appendf(nil, `{"run":"%s","device":%d,"seq":`, run, device)
	at = len(b)
	b = append(b, bytes.Repeat([]byte{' '}, seqDigits)...)
	b = append(b, `,"pad":"`...)
	for len(b) < size-2 {
		b = append(b, 'x')
	}
	return append(b, `"}`...), at
}

// setSeq writes a number and blanks behind it, which JSON allows, into b.
func setSeq(b []byte, seq uint64) {
	n := len(strconv.AppendUint(b[:0], seq, 10))
	for i := n; i < seqDigits; i++ {
		b[i] = ' '
	}
}

// An identity reads whose a payload is.
type identity struct{ prefix []byte }

func identityOf(run string) identity { return identity{fmt.Appendf(nil, `{"run":"%s","device":`, run)} }

// read gives the device and its place; ok is false if the value is not of this run. What stands before and behind is
// passed over: a rule may have put the payload into something.
func (id identity) read(value []byte) (device int, seq uint64, ok bool) {
	i := bytes.Index(value, id.prefix)
	if i < 0 {
		return 0, 0, false
	}
	number, rest := digits(value[i+len(id.prefix):])
	rest, isSeq := bytes.CutPrefix(rest, []byte(`,"seq":`))
	seq, after := digits(rest)
	if !isSeq || number > maxDevice || len(after) == len(rest) {
		return 0, 0, false
	}
	return int(number), seq, true
}

// digits reads a number of at most 18 digits.
func digits(b []byte) (n uint64, rest []byte) {
	i := 0
	for ; i < len(b) && i < 18 && '0' <= b[i] && b[i] <= '9'; i++ {
		n = n*10 + uint64(b[i]-'0')
	}
	return n, b[i:]
}
