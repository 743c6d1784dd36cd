package auth

import (
	"context"
	"fmt"
	"sync/atomic"

	"sluice/mqtt"
)

// usersFile is a File that was read.
type usersFile struct {
	users  atomic.Pointer[users]
	hasher hasher
	proofs *proofs
	cache  *cacheMetrics
}

func (f File) build(s *shared) (method, error) {
	proofs, err := newProofs(s.sealer)
	if err != nil {
		return nil, err
	}
	u := &usersFile{hasher: s.hasher, proofs: proofs, cache: s.metrics.cache("file")}
	if err := s.files.add("users file", f.Path, u.load); err != nil {
		return nil, err
	}
	return u, nil
}

// load takes the text of the file. If it has a fault, the users stay as they are.
func (f *usersFile) load(src []byte) error {
	users, err := parseUsers(src)
	if err != nil {
		return err
	}
	f.users.Store(users)
	return nil
}

// whys say for the log why a password was not accepted.
var whys = [outcomes]string{refused: "wrong password", throttled: "too many failed logins"}

func (f *usersFile) name() string { return "file" }

func (f *usersFile) decide(ctx context.Context, a *attempt) (verdict, error) {
	h, ok := f.users.Load().hashes[a.Username]
	switch {
	case !ok || !a.HasUsername:
		return verdict{}, nil
	case len(a.Password) == 0 && !a.slowed(): // else as with a name that nobody has
		return verdict{outcome: refused, why: "no password"}, nil
	case len(a.Password) == 0, a.barred():
		return verdict{outcome: throttled, why: whys[throttled]}, nil
	}
	key := f.proofs.key(h, a)
	proven := f.proofs.has(key, a)
	f.cache.count(proven)
	if !proven {
		o, err := f.hasher.verify(ctx, a, h)
		if o != accepted || err != nil {
			return verdict{outcome: o, why: whys[o]}, err
		}
	}
	f.proofs.add(key, a)
	return verdict{outcome: accepted, identity: f.identity(a.Username, h)}, nil
}

// identity gives one that ends when the file has another hash for the name, or none.
func (f *usersFile) identity(name string, h hash) *mqtt.Identity {
	withdrawn := func() bool { return f.users.Load().hashes[name].text != h.text }
	return &mqtt.Identity{Name: name, Withdrawn: withdrawn}
}

// pretend spends on a user that nobody knows what a wrong password would have cost, so that the time of the
// answer does not tell which names exist.
func (f *usersFile) pretend(ctx context.Context, a *attempt) (outcome, error) {
	if len(a.Password) == 0 {
		return refused, nil
	}
	o, err := f.hasher.verify(ctx, a, f.users.Load().decoy(a.Username))
	if o == accepted {
		o = refused // it is somebody else's password
	}
	if err != nil {
		return refused, fmt.Errorf("cannot check the password: %w", err)
	}
	return o, nil
}
