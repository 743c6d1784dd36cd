package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Bytes is a size. In the file it is a number of bytes or a number with a unit: B, KiB, MiB, GiB, TiB
// (powers of 1024), kB, MB, GB, TB (powers of 1000).
type Bytes int64

const (
	kib Bytes = 1 << 10
	mib Bytes = 1 << 20
	gib Bytes = 1 << 30
	tib Bytes = 1 << 40
)

// byteUnits are the units; those at the front are what String writes.
var byteUnits = []struct {
	name string
	size Bytes
}{{"TiB", tib}, {"GiB", gib}, {"MiB", mib}, {"KiB", kib}, {"B", 1}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}}

var byteSyntax = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]*)$`)

// ParseBytes reads a size such as 64MiB.
func ParseBytes(s string) (Bytes, error) {
	m := byteSyntax.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is no size such as 64MiB, 256KiB or 1000000", s)
	}
	unit, ok := byteUnit(m[2])
	if !ok {
		return 0, fmt.Errorf("unknown unit %q: it is one of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB", m[2])
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64/int64(unit) {
		return 0, fmt.Errorf("%q is larger than any size that can be counted", s)
	}
	return Bytes(n) * unit, nil
}

func byteUnit(name string) (Bytes, bool) {
	if name == "" {
		return 1, true
	}
	for _, u := range byteUnits {
		if u.name == name {
			return u.size, true
		}
	}
	return 0, false
}

// String writes b with the largest unit of 1024 that divides it, as ParseBytes reads it.
func (b Bytes) String() string {
	for _, u := range byteUnits[:4] {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Mode is what becomes of a message that is not stored by a rule.
type Mode int

const (
	// Reject refuses it: MQTT 5 devices get a reason code, those of MQTT 3.1.1 what Refused says.
	Reject Mode = iota
	// Drop acknowledges a message that no rule matches and forgets it; other refusals are as with Reject.
	Drop
	// DeadLetter stores it in a Kafka topic of its own.
	DeadLetter
)

var modeNames = [...]string{"reject", "drop", "dead_letter"}

// String gives the word of the file.
func (m Mode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return "Mode(" + strconv.Itoa(int(m)) + ")"
	}
	return modeNames[m]
}

// Refused is one of
//
//   - `close`: the connection is read no further and closes, after the acknowledgements of all that was handed over.
//     The device sends the message again after its next CONNECT, as long as it is in its queue.
//   - `acknowledge`: the message is acknowledged, counted and forgotten.
//   - `dead_letter: TOPIC`: the message is stored in this Kafka topic and then acknowledged, with the reason in the
//     header `sluice.refused` and the client ID as key; also what the `acl` denies. What even this topic can't take
//     closes the connection. The name must be legal in Kafka and not internal.
type Refused struct {
	Acknowledge bool
	// DeadLetter is the Kafka topic for dead_letter, else "".
	DeadLetter string
}

// The words of Refused.
const (
	RefusedClose       = "close"
	RefusedAcknowledge = "acknowledge"
)

// String gives the word of the file.
func (r Refused) String() string {
	switch {
	case r.DeadLetter != "":
		return DeadLetter.String()
	case r.Acknowledge:
		return RefusedAcknowledge
	}
	return RefusedClose
}

// Unmatched is one of
//
//   - `reject`: an MQTT 5 device gets a negative acknowledgement with a reason code. MQTT 3.1.1 has none; `refused`
//     says what its devices get.
//   - `drop`: a message that no rule matches is acknowledged, counted and forgotten. Messages that a rule
//     matches and can't store are rejected.
//   - `dead_letter: TOPIC`: every message that would be refused is stored in this Kafka topic and then
//     acknowledged, with the reason in the header `sluice.refused` and the client ID as key. The name must be
//     legal in Kafka and not internal. What the `acl` denies is rejected all the same.
type Unmatched struct {
	Mode Mode
	// DeadLetter is the Kafka topic for mode dead_letter, else "".
	DeadLetter string
}

// UserProperties says which user properties pass: all, none, or those of a list of names.
type UserProperties struct {
	None  bool
	Names []string // nil: not a list
}

// String gives the word of the file, or the names.
func (u UserProperties) String() string {
	switch {
	case u.None:
		return "none"
	case u.Names != nil:
		return "[" + strings.Join(u.Names, ", ") + "]"
	}
	return "all"
}
