package config

import "time"

// AuthMethod is one of the four: each entry has exactly one of them, so that their order is that of the list.
type AuthMethod struct {
	// File is the YAML file of the users and the hashes of their passwords. It is read again when it changes; a device
	// whose user is no longer in it, or has another hash, is disconnected.
	File string `yaml:"file"`
	// JWT lets in devices that have a signed token.
	JWT *JWT `yaml:"jwt"`
	// MTLS lets in devices that have a certificate: they are who it says, whatever user name they give. It needs a
	// listener with `client_auth: request` or `require`.
	MTLS *MTLS `yaml:"mtls"`
	// HTTP asks a service of yours.
	HTTP *HTTPAuth `yaml:"http"`
}

// MTLS has no fields: `mtls: {}`. What counts in a certificate is said at the listener.
type MTLS struct{}

// The words of JWT.From.
const (
	FromPassword = "password"
	FromUsername = "username"
)

// JWT says whose tokens count. Exactly one of `secret`, `key` and `jwks` is needed. A token without an expiry time is
// refused, and the connection ends with it; an MQTT 5 device may send a new one before by re-authentication with the
// method `JWT`.
type JWT struct {
	// Secret is the key of tokens signed with HMAC, at least 32 bytes; take it from the environment. Whoever has it can
	// make tokens.
	Secret Secret `yaml:"secret"`
	// Key is the PEM file of the public key, RSA, EC or Ed25519, of who signs the tokens.
	Key string `yaml:"key"`
	// JWKS is a set of public keys: a file, or the https URL of one, which is fetched again now and then and when a token
	// names a key that is not in it. http is allowed to this machine only.
	JWKS string `yaml:"jwks"`
	// TLS is for a `jwks` that is an https URL. Left out, the authorities the system trusts are trusted.
	TLS *ClientTLS `yaml:"tls"`
	// Algorithms are the signatures that count. Left out, they are all that fit the key. Those that begin with HS go with
	// `secret` only, and the others without it.
	Algorithms []string `yaml:"algorithms"`
	// Issuer is what the claim `iss` must be. Left out, it is not looked at.
	Issuer string `yaml:"issuer"`
	// Audience is what must be in the claim `aud`. Left out, it is not looked at, so that tokens made for other services
	// count here too.
	Audience string `yaml:"audience"`
	// Identity is the claim that says who the device is.
	Identity string `yaml:"identity"`
	// From is the field of the CONNECT packet that holds the token.
	From string `yaml:"from"`
	// Leeway is how far the clocks of who signs and of this machine may be apart.
	Leeway time.Duration `yaml:"leeway"`
}

// HTTPAuth asks a service of yours, by an HTTP POST with a JSON object that has client_id, username, password, address
// and certificate. It answers with status 200 and a JSON object with `result`: allow, deny or ignore (the next method
// is asked), and if it likes `identity` and `expires_in` (seconds). Anything else, or nothing in time, lets nobody in.
type HTTPAuth struct {
	// URL is where to ask: https, since passwords are sent there. http is allowed to this machine only.
	URL string `yaml:"url"`
	// Timeout is how long an answer may take.
	Timeout time.Duration `yaml:"timeout"`
	// MaxConcurrent is how many questions may be open; others wait.
	MaxConcurrent int `yaml:"max_concurrent"`
	// Cache is how long allow is remembered for the same credentials. 0s: not at all.
	Cache time.Duration `yaml:"cache"`
	// CacheRefused is how long deny and ignore are remembered for the same credentials. 0s: not at all.
	CacheRefused time.Duration `yaml:"cache_refused"`
	// CacheSize is how many answers are remembered.
	CacheSize int `yaml:"cache_size"`
	// TLS is for an https URL. Left out, the authorities the system trusts are trusted.
	TLS *ClientTLS `yaml:"tls"`
}

// defaultJWT gives the values of what the file leaves out.
func defaultJWT() JWT { return JWT{Identity: "sub", From: FromPassword, Leeway: 30 * time.Second} }

// defaultHTTPAuth gives the values of what the file leaves out.
func defaultHTTPAuth() HTTPAuth {
	return HTTPAuth{Timeout: 3 * time.Second, MaxConcurrent: 64, Cache: time.Minute, CacheRefused: 5 * time.Second, CacheSize: 10_000}
}
