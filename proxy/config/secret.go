package config

// A Secret is a text that must not be seen: written to a log, a message or as JSON it is stars. A conversion to
// string gives it.
type Secret string

// hidden is what is seen of a secret.
const hidden = "***"

// String gives stars, or nothing for no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String: %#v shows no more.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for JSON and its like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
