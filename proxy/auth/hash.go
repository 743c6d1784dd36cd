package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// What a hash may cost. The bounds keep a slip in the users file from stopping everybody's logins.
const (
	maxBcryptCost   = 14
	maxBcrypt       = 72        // bytes of a password that bcrypt looks at
	maxArgonMemory  = 64 * 1024 // KiB
	maxArgonTime    = 10
	maxArgonThreads = 16
)

// A hash is a password as it stands in the users file.
type hash struct {
	text  string
	argon *argon // nil: bcrypt
}

// argon are the parts of an argon2id hash.
type argon struct {
	memory, time uint32
	threads      uint8
	salt, sum    []byte
}

// parseHash reads a hash. The errors do not quote it.
func parseHash(text string) (hash, error) {
	text = strings.Clone(text) // it outlives the file, whose text it may be a part of: devices that are in remember it
	if rest, ok := strings.CutPrefix(text, "$argon2id$"); ok {
		a, err := parseArgon(rest)
		return hash{text, a}, err
	}
	for _, prefix := range []string{"$2a$", "$2b$", "$2y$"} {
		if strings.HasPrefix(text, prefix) {
			return hash{text: text}, checkBcrypt(text)
		}
	}
	return hash{}, errors.New("password must be a hash of bcrypt or argon2id")
}

func checkBcrypt(text string) error {
	cost, err := bcrypt.Cost([]byte(text))
	if err != nil || len(text) != 60 {
		return errors.New("password is no whole bcrypt hash")
	}
	if cost > maxBcryptCost {
		return fmt.Errorf("password has a bcrypt cost above %d", maxBcryptCost)
	}
	return nil
}

// parseArgon reads v=19$m=…,t=…,p=…$salt$sum.
func parseArgon(text string) (*argon, error) {
	broken := errors.New("password is no whole argon2id hash of version 19")
	parts := strings.Split(text, "$")
	if len(parts) != 4 || parts[0] != "v=19" {
		return nil, broken
	}
	a := &argon{}
	if _, err := fmt.Sscanf(parts[1], "m=%d,t=%d,p=%d", &a.memory, &a.time, &a.threads); err != nil {
		return nil, broken
	}
	var saltErr, sumErr error
	a.salt, saltErr = base64.RawStdEncoding.DecodeString(parts[2])
	a.sum, sumErr = base64.RawStdEncoding.DecodeString(parts[3])
	if saltErr != nil || sumErr != nil || a.String() != "$argon2id$"+text {
		return nil, broken
	}
	return a, a.check()
}

func (a *argon) check() error {
	switch {
	case a.memory < 8*uint32(a.threads) || a.memory > maxArgonMemory:
		return fmt.Errorf("password has an argon2id memory (m) below 8 per thread or above %d KiB", maxArgonMemory)
	case a.time < 1 || a.time > maxArgonTime:
		return fmt.Errorf("password has an argon2id time (t) outside 1 to %d", maxArgonTime)
	case a.threads < 1 || a.threads > maxArgonThreads:
		return fmt.Errorf("password has an argon2id parallelism (p) outside 1 to %d", maxArgonThreads)
	case len(a.salt) < 8 || len(a.salt) > 64 || len(a.sum) < 16 || len(a.sum) > 64:
		return errors.New("password has an argon2id salt outside 8 to 64 bytes or a hash outside 16 to 64")
	}
	return nil
}

// matches says whether password is the one. It takes long by design.
func (h hash) matches(password []byte) bool {
	if h.argon != nil {
		return h.argon.matches(password)
	}
	// bcrypt leaves out what is behind byte 72; two passwords would be one.
	return bcrypt.CompareHashAndPassword([]byte(h.text), password) == nil && len(password) <= maxBcrypt
}

func (a *argon) matches(password []byte) bool {
	sum := argon2.IDKey(password, a.salt, a.time, a.memory, a.threads, uint32(len(a.sum)))
	return subtle.ConstantTimeCompare(sum, a.sum) == 1
}

// String is the hash as users files have it, in the PHC string format.
func (a *argon) String() string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, a.memory, a.time, a.threads, b64(a.salt), b64(a.sum))
}
