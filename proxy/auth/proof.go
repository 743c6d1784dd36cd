package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	lru "github.com/hashicorp/golang-lru/v2"
)

// A digest stands for secrets in a cache.
type digest [sha256.Size]byte

// A sealer makes digests with a key that lives as long as the process: a dump of a cache tells nothing.
type sealer []byte

func newSealer() sealer {
	key := make([]byte, sha256.Size)
	rand.Read(key)
	return key
}

// seal gives the digest of the parts, each with its length, so that no two lists of parts are alike.
func (s sealer) seal(parts ...string) (d digest) {
	mac := hmac.New(sha256.New, s)
	var length [8]byte
	for _, part := range parts {
		mac.Write(binary.BigEndian.AppendUint64(length[:0], uint64(len(part))))
		mac.Write([]byte(part))
	}
	mac.Sum(d[:0])
	return d
}

// maxProofs is how many right passwords are remembered.
const maxProofs = 65_536

// proofs remember which passwords were found right for which hash, and where from. A hash that is changed in
// the users file has another digest, so what was proven for the old one is never found again.
type proofs struct {
	sealer sealer
	cache  *lru.Cache[digest, netip.Addr]
}

func newProofs(s sealer) (*proofs, error) {
	cache, err := lru.New[digest, netip.Addr](maxProofs)
	return &proofs{s, cache}, err
}

// key gives the digest of the password of a for h.
func (p *proofs) key(h hash, a *attempt) digest { return p.sealer.seal(h.text, string(a.Password)) }

// has says whether the password was found right before; for a suspect address, right from there.
func (p *proofs) has(key digest, a *attempt) bool {
	from, ok := p.cache.Get(key)
	return ok && (from == a.from || !a.suspect())
}

// add remembers that the password is right.
func (p *proofs) add(key digest, a *attempt) { p.cache.Add(key, a.from) }
