package tls

import (
	"crypto/x509"
	"math/big"
	"slices"
	"sync/atomic"
)

// A link is a certificate in a chain and who signed it.
type link struct {
	serial *big.Int
	issuer *x509.Certificate
}

// A chain is one of those that crypto/tls found. It has the device's own certificate by its serial number alone, since
// there is one for each connection; those of CAs are shared.
type chain struct {
	links []link
	end   *x509.Certificate // one of the client CAs
}

func chainsOf(found [][]*x509.Certificate) []chain {
	chains := make([]chain, 0, len(found))
	for _, certs := range found {
		c := chain{make([]link, 0, len(certs)), certs[len(certs)-1]}
		for i := range len(certs) - 1 {
			c.links = append(c.links, link{certs[i].SerialNumber, certs[i+1]})
		}
		chains = append(chains, c)
	}
	return chains
}

// A standing is what a certificate that was once accepted is worth now.
type standing struct {
	server *Server
	chains []chain
	seen   atomic.Uint64 // the generation of the files that it was good under; 0: none yet
}

func (s *standing) lost() bool {
	m := s.server.current.Load()
	if s.seen.Load() == m.generation {
		return false
	}
	if !slices.ContainsFunc(s.chains, m.accepts) {
		return true
	}
	s.seen.Store(m.generation)
	return false
}

// accepts says whether nothing in the chain is revoked and its end still trusted.
func (m *material) accepts(c chain) bool { return m.revoked.good(c) && m.trusted[issuerKey(c.end)] }
