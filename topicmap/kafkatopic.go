package topicmap

import (
	"fmt"
	"strings"
)

// maxKafkaTopic is the longest name Kafka takes: it becomes a directory, with the partition's number behind it.
const maxKafkaTopic = 249

// The prefixes of names that no rule may write to: Kafka's own topics and Sluice's own.
const (
	kafkaInternal  = "__"
	sluiceInternal = "sluice-"
)

// LegalKafkaTopic checks that records may be written to name: [a-zA-Z0-9._-]{1,249}, neither "." nor "..", or the
// error is [ErrIllegalTopic]; and neither __* nor sluice-*, or it is [ErrInternalTopic].
func LegalKafkaTopic(name string) error {
	f := checkKafkaTopic(name)
	return f.err
}

// checkKafkaTopic is LegalKafkaTopic with the place of the fault.
func checkKafkaTopic(name string) fault {
	if i := illegalByte(name); i >= 0 {
		return faultf(i, "%w: %q is none of a-z A-Z 0-9 . _ -", ErrIllegalTopic, runeAt(name, i))
	}
	switch {
	case name == "":
		return faultf(0, "%w: it is empty", ErrIllegalTopic)
	case name == "." || name == "..":
		return faultf(0, "%w: it is %q", ErrIllegalTopic, name)
	case len(name) > maxKafkaTopic:
		return faultf(maxKafkaTopic, "%w: %d characters, the most is %d", ErrIllegalTopic, len(name), maxKafkaTopic)
	}
	return fault{0, internalTopic(name)}
}

// internalTopic is ErrInternalTopic for names that begin as internal ones do.
func internalTopic(name string) error {
	for _, prefix := range [...]string{kafkaInternal, sluiceInternal} {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("%w: names that begin with %q are not for rules", ErrInternalTopic, prefix)
		}
	}
	return nil
}

// illegalByte is the place of the first byte no Kafka topic has, or -1.
func illegalByte(name string) int {
	for i := range len(name) {
		c := name[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-' {
			continue
		}
		return i
	}
	return -1
}

// runeAt is the character that begins at i, for messages.
func runeAt(text string, i int) string {
	for _, r := range text[i:] {
		return string(r)
	}
	return ""
}
