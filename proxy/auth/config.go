package auth

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/tls"
)

// Config says how devices prove who they are.
type Config struct {
	// Methods are asked in this order; the first that knows the user decides. At least one.
	Methods []Method

	// FailedLogins is how many logins may fail for one address in a minute. Beyond it, passwords from there
	// that were not found right from there before are refused unchecked, until the address has cooled. A user
	// may fail half as often from an address. An address is an IPv4 address or a /64 of IPv6. 0: no limit.
	FailedLogins int

	// Logger takes a line for each failed login, sampled, and for each file or key set that was read again.
	Logger zerolog.Logger

	// Registerer takes the metrics; nil: none.
	Registerer prometheus.Registerer
}

// A Method is one way to prove who one is: [File], [JWT], [Certificate] or [HTTP].
type Method interface {
	build(*shared) (method, error)
}

// File is a users file: names and password hashes. It is read again when it changes; what then cannot be
// read keeps the users of before.
//
// It knows the devices whose user name is in the file.
type File struct {
	Path string
}

// Where a JWT method finds the token in CONNECT.
const (
	FromPassword = "password"
	FromUsername = "username"
)

// JWT takes a signed JSON Web Token. Exactly one of Secret, Key and JWKS is set.
//
// It knows the devices that send something of the form of a token; with an Issuer, a token that names this
// issuer. MQTT 5 devices may also send it by enhanced authentication with the method "JWT", and renew it on
// the connection in the same way.
type JWT struct {
	// Secret is for HMAC, at least 32 bytes.
	Secret string

	// Key is a PEM file with a public key or a certificate: RSA of at least 2048 bits, EC or Ed25519. It is
	// read again when it changes.
	Key string

	// JWKS is a file or a URL with a set of such keys: https, or http on the loopback interface. A file is read
	// again when it changes; a URL every ten minutes, and when a token names a key that is not known.
	JWKS string

	// TLS is for a JWKS by https.
	TLS tls.ClientConfig

	// Algorithms are those allowed, by their names in RFC 7518. Empty: all that fit the key. "none" is never allowed.
	Algorithms []string

	// Issuer and Audience are what the claims iss and aud must say. Empty: not asked.
	Issuer, Audience string

	// Identity is the claim that names the device. Empty: sub.
	Identity string

	// From is FromPassword, the default, or FromUsername. The user name beside a token in the password says
	// nothing: the device is who the token says it is.
	From string

	// Leeway is how far clocks may differ, for the claims nbf and iat. There is none for exp: it is also when
	// the connection ends.
	Leeway time.Duration
}

// Certificate takes the client certificate of the connection as proof. The user name and the password are
// not looked at.
//
// It knows the devices that have shown a certificate.
type Certificate struct{}

// The values that HTTP has for fields that are 0.
const (
	DefaultTimeout       = 3 * time.Second
	DefaultMaxConcurrent = 64
	DefaultCacheSize     = 10_000
)

// HTTP asks a service by POST. The service answers 200 and {"result": "allow"}, "deny" or "ignore", with
// "identity" and "expires_in" (seconds) if it likes. Everything else is a failure, and nobody is let in by one.
//
// It knows the devices for which the service does not say "ignore".
type HTTP struct {
	// URL is https, or http on the loopback interface. Redirects are not followed.
	URL string

	// Timeout is for one question, the wait for its turn included.
	Timeout time.Duration

	// MaxConcurrent is how many questions are asked at a time.
	MaxConcurrent int

	// Cache is how long "allow" is remembered for the same device, credentials and address, and CacheRefused
	// is for the other two. 0: not at all.
	Cache, CacheRefused time.Duration

	// CacheSize is how many answers are remembered.
	CacheSize int

	// TLS is for https.
	TLS tls.ClientConfig
}
