package fleet

import (
	"fmt"
	"strconv"
	"strings"
)

// A KeyKind says what a key of the sessions topic or of the ledger names.
type KeyKind uint8

// The kinds of keys.
const (
	KeySession  KeyKind = iota + 1 // sessions topic: a client's session at one incarnation
	KeyInstance                    // sessions topic: an incarnation's heartbeat
	KeyVerdict                     // sessions topic: the verdict on an incarnation
	KeyLayout                      // sessions topic: how the fleet is laid out
	KeyUnknown                     // sessions topic: what a later release writes beside the sessions
	KeyIDs                         // ledger: a client's packet ids at one incarnation
	KeyWill                        // ledger: what became of the Will of one epoch
)

const (
	separator      = "\x00"
	instancePrefix = "!i/"
	verdictPrefix  = "!d/"
	layoutKey      = "!l"
	ownPrefix      = "!" // of all keys that are no session's
)

// SessionKey is the key of a client's record that incarnation inc alone writes. A client ID contains no 0x00.
func SessionKey(client, inc string) []byte {
	return []byte(client + separator + inc)
}

// InstanceKey is the key of an incarnation's heartbeat, which that incarnation alone writes.
func InstanceKey(inc string) []byte { return []byte(instancePrefix + inc) }

// VerdictKey is the key of the verdict on an incarnation. It is not the heartbeat's: a heartbeat that arrives late
// would hide the verdict from whoever reads the compacted topic.
func VerdictKey(inc string) []byte { return []byte(verdictPrefix + inc) }

// LayoutKey is the key of the [Layout], in partition 0.
func LayoutKey() []byte { return []byte(layoutKey) }

// ParseKey reads a key of the sessions topic. client is empty unless kind is KeySession.
func ParseKey(key []byte) (kind KeyKind, client, inc string, err error) {
	k := string(key)
	if client, inc, ok := strings.Cut(k, separator); ok {
		if client == "" || inc == "" || strings.Contains(inc, separator) {
			return 0, "", "", fmt.Errorf("key %q: %w", k, ErrMalformed)
		}
		return KeySession, client, inc, nil
	}
	if inc, ok := strings.CutPrefix(k, instancePrefix); ok && inc != "" {
		return KeyInstance, "", inc, nil
	}
	if inc, ok := strings.CutPrefix(k, verdictPrefix); ok && inc != "" {
		return KeyVerdict, "", inc, nil
	}
	if k == layoutKey {
		return KeyLayout, "", "", nil
	}
	if strings.HasPrefix(k, ownPrefix) && k != instancePrefix && k != verdictPrefix {
		return KeyUnknown, "", "", nil
	}
	return 0, "", "", fmt.Errorf("key %q: %w", k, ErrMalformed)
}

// LedgerIDsKey is the ledger's key of the packet ids that incarnation inc took in from a client.
func LedgerIDsKey(client, inc string) []byte {
	return []byte(client + separator + inc + separator + "q")
}

// LedgerWillKey is the ledger's key of the Will of the connection that opened with this epoch.
func LedgerWillKey(client string, epoch int64) []byte {
	return []byte(client + separator + strconv.FormatInt(epoch, 10) + separator + "w")
}

// A LedgerKey is a key of the ledger, read.
type LedgerKey struct {
	Kind   KeyKind // KeyIDs or KeyWill
	Client string
	Inc    string // of KeyIDs
	Epoch  int64  // of KeyWill
}

// ParseLedgerKey reads a key of the ledger.
func ParseLedgerKey(key []byte) (LedgerKey, error) {
	parts := strings.Split(string(key), separator)
	if len(parts) == 3 && parts[0] != "" && parts[1] != "" {
		k := LedgerKey{Client: parts[0]}
		switch epoch, err := strconv.ParseInt(parts[1], 10, 64); {
		case parts[2] == "q":
			k.Kind, k.Inc = KeyIDs, parts[1]
			return k, nil
		case parts[2] == "w" && err == nil && epoch > 0:
			k.Kind, k.Epoch = KeyWill, epoch
			return k, nil
		}
	}
	return LedgerKey{}, fmt.Errorf("ledger key %q: %w", key, ErrMalformed)
}
