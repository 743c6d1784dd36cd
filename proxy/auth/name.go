package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the longest name of a device, in bytes.
const maxName = 1024

// nameRule says what validName asks, for messages.
const nameRule = "must have 1 to 1024 bytes of UTF-8 text without control characters and without + # /"

// validName says whether a device may be called s. Names get into topics and filters, where + # / mean something.
func validName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) &&
		!strings.ContainsAny(s, "+#/") && strings.IndexFunc(s, unicode.IsControl) < 0
}
