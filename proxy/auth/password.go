package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"time"

	"golang.org/x/crypto/argon2"
)

// What HashPassword asks of whoever tries passwords: 19 MiB and two passes, as OWASP recommends.
const (
	hashMemory = 19 * 1024
	hashTime   = 2
)

// HashPassword gives what stands in a users file for this password: argon2id with a random salt. An empty
// password is refused.
func HashPassword(password []byte) (string, error) {
	if len(password) == 0 {
		return "", errors.New("cannot hash an empty password: no device can log in with one")
	}
	a := argon{memory: hashMemory, time: hashTime, threads: 1, salt: make([]byte, 16)}
	rand.Read(a.salt)
	a.sum = argon2.IDKey(password, a.salt, a.time, a.memory, a.threads, 32)
	return a.String(), nil
}

// hashWait is how long a login waits for its turn to be checked.
const hashWait = 5 * time.Second

// A hasher checks passwords, a few at a time: half the processors at most, so that the other half serves the
// devices that are in, and no more than four, since each check may take 64 MiB.
type hasher chan struct{}

func newHasher() hasher { return make(hasher, min(max(runtime.GOMAXPROCS(0)/2, 1), 4)) }

// verify says whether the password of a is the one of h. A login whose address failed too often while it
// waited is not checked: so many at once would be as many tries.
func (s hasher) verify(ctx context.Context, a *attempt, h hash) (outcome, error) {
	if a.slowed() {
		return throttled, nil
	}
	ctx, cancel := context.WithTimeout(ctx, hashWait)
	defer cancel()
	select {
	case s <- struct{}{}:
	case <-ctx.Done():
		return refused, errBusy
	}
	defer func() { <-s }()
	switch {
	case a.slowed():
		return throttled, nil
	case h.matches(a.Password):
		return accepted, nil
	}
	return refused, nil
}
