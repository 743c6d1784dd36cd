package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the longest name of a device, in bytes.
const maxName = 1024

// NameRule says what ValidName asks, for messages that begin with the name.
const NameRule = "must have 1 to 1024 bytes of UTF-8 text without control characters and without + # /"

// ValidName says whether a device may be called s. Names get into topics and filters, where + # / mean something.
func ValidName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) &&
		!strings.ContainsAny(s, "+#/") && strings.IndexFunc(s, unicode.IsControl) < 0
}
