package auth

import "sluice/tls"

// NameRule says what ValidName asks, for messages that begin with the name.
const NameRule = "must have 1 to 1024 bytes of UTF-8 text without control characters and without + # /"

// ValidName says whether a device may be called s. Names get into topics and filters, where + # / mean something.
func ValidName(s string) bool { return tls.NameFault(s) == "" }
