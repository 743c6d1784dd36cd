package tls

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// rotateAfter is the time for which tickets are made with one key.
	rotateAfter = 12 * time.Hour
	// ticketKeys is how many keys open tickets: the one that makes them, and those before.
	ticketKeys = 3
	// nagEvery is the time between two log lines about a file that expired.
	nagEvery = time.Hour
	// longestChain is how many certificates a device may send: its own, 8 between, and the root.
	longestChain = 10
	// mostTicket is the size of a session ticket with which a hello is still within mostFlight. It has all certificates.
	mostTicket = 12 << 10
)

// A Server is the TLS side of a listener.
type Server struct {
	cfg     ServerConfig
	log     zerolog.Logger
	metrics *metrics
	current atomic.Pointer[material]

	// These belong to NewServer, and then to Run.
	keys       [][32]byte // for session tickets; the first makes them
	rotated    time.Time
	nagged     time.Time
	fault      string // why the files on disk aren't in use; empty: they are
	generation uint64 // of the material in use
}

// material is what one reading of the files gave; it never changes, but for the ticket keys in its configuration. All
// connections share the configuration.
type material struct {
	config     *tls.Config
	trusted    map[string]bool // the client CAs, by issuerKey
	revoked    *revocations
	digest     [sha256.Size]byte
	notAfter   time.Time
	notes      []note
	leftOut    []error // certificates among the client CAs that are of no use
	generation uint64  // how many were in use by then, this one included
}

// A note is said once the material is in use.
type note struct{ text, cas string }

// sources are the files as they were read.
type sources struct {
	certificate, key, clientCA, crl file
}

// NewServer reads all files and checks them; its error names each file that is not good, and why.
func NewServer(cfg ServerConfig) (*Server, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Logger.With().Str("listener", cfg.Listener).Logger()}
	src, err := s.read()
	if err != nil {
		return nil, err
	}
	m, err := s.build(src, time.Now())
	if err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(cfg.Registerer, cfg.Listener, cfg.CRL != ""); err != nil {
		return nil, err
	}
	s.newKey(time.Now())
	s.use(m)
	return s, nil
}

// Run watches the files and takes what changed, and changes the keys of session tickets, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	return Watch(ctx, s.log, s.cfg.files(), func() { s.refresh(time.Now()) })
}

// Accept does the handshake of a server on nc, of which the bytes in early were already read; they are not used after
// it returns. It blocks for as long as ctx and the deadlines of nc let it, and leaves nc open, except that nc is closed when ctx ends
// before the handshake does. room, if not nil, is told how many bytes crypto/tls holds of what the device sent, as Conn.Kept does after
// the handshake; it is called in between, not after, and ends the handshake with false.
func (s *Server) Accept(ctx context.Context, nc net.Conn, early []byte, room func(kept int) bool) (*Conn, error) {
	c, err := accept(ctx, nc, early, room, s.current.Load().config, s.cfg.Identity)
	if err != nil {
		s.metrics.handshakes.WithLabelValues(outcome(err)).Inc()
		return nil, fmt.Errorf("cannot complete the TLS handshake: %w", err)
	}
	if c.identity != nil {
		c.identity.standing = &standing{server: s, chains: chainsOf(c.tls.ConnectionState().VerifiedChains)}
	}
	result := "full"
	if c.resumed {
		result = "resumed"
	}
	s.metrics.handshakes.WithLabelValues(result).Inc()
	return c, nil
}

// verify is asked in each handshake, resumed or not, after crypto/tls found the client certificate good. It looks at
// the lists of now, which may be newer than the configuration that the handshake began with.
func (s *Server) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	if len(state.PeerCertificates) > longestChain {
		return ErrLongChain
	}
	if err := s.current.Load().revoked.check(state.VerifiedChains); err != nil {
		return err
	}
	_, err := identify(state.PeerCertificates[0], s.cfg.Identity)
	return err
}

// read gives the files, or what is wrong with each that can't be read.
func (s *Server) read() (*sources, error) {
	var faults []error
	read := func(kind, name string) (f file) {
		if name != "" {
			var err error
			f, err = readFile(kind, name)
			faults = append(faults, err)
		}
		return f
	}
	src := &sources{read("certificate", s.cfg.Certificate), read("key", s.cfg.Key), read("client CA", s.cfg.ClientCA), read("CRL", s.cfg.CRL)}
	return src, errors.Join(faults...)
}

func (src *sources) digest() [sha256.Size]byte {
	return digest(src.certificate, src.key, src.clientCA, src.crl)
}

// build checks the files and makes of them what connections share. Its error has the faults of all.
func (s *Server) build(src *sources, now time.Time) (*material, error) {
	m := &material{digest: src.digest(), config: &tls.Config{
		MinVersion:       s.cfg.version(),
		ClientAuth:       s.cfg.clientAuth(),
		VerifyConnection: s.verify,
	}}
	return m, errors.Join(m.setOwn(src, now), s.setClients(m, src, now))
}

// setOwn puts in what proves the listener.
func (m *material) setOwn(src *sources, now time.Time) error {
	pair, err := parsePair(src.certificate, src.key, now)
	if err != nil {
		return err
	}
	m.config.Certificates = []tls.Certificate{pair}
	m.notAfter = pair.Leaf.NotAfter
	return nil
}

// setClients puts in what is about the certificates of devices.
func (s *Server) setClients(m *material, src *sources, now time.Time) error {
	if s.cfg.ClientCA == "" {
		return nil
	}
	cas, leftOut, err := parseCAs(src.clientCA, now)
	if err != nil {
		return err
	}
	m.leftOut = leftOut
	if s.cfg.CRL != "" {
		if m.revoked, err = parseCRLs(src.crl, src.clientCA, cas, now); err != nil {
			return err
		}
		for _, name := range m.revoked.leftOut {
			m.notes = append(m.notes, note{"left out a revocation list, as the certificate of its issuer is left out of the client CAs", name})
		}
	}
	trusted := m.revoked.trusted(cas)
	if len(trusted) < len(cas) {
		m.notes = append(m.notes, note{"client CAs that others revoked are not trusted; these are", namesOf(trusted)})
	}
	if free := m.revoked.unlisted(trusted); len(free) > 0 {
		m.notes = append(m.notes, note{"client CAs without a revocation list", namesOf(free)})
	}
	m.config.ClientCAs = poolOf(trusted)
	m.config.WrapSession = m.ticket
	m.trusted = make(map[string]bool, len(trusted))
	for _, ca := range trusted {
		m.trusted[issuerKey(ca)] = true
	}
	return nil
}

// ticket makes a session ticket. One that would make the next hello too long opens nothing, which leads to a full handshake.
func (m *material) ticket(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	ticket, err := m.config.EncryptTicket(state, session)
	if len(ticket) > mostTicket {
		ticket = ticket[:1]
	}
	return ticket, err
}

// use makes m what the next handshake takes.
func (s *Server) use(m *material) {
	m.config.SetSessionTicketKeys(s.keys)
	m.generation = s.generation + 1
	s.generation = m.generation
	s.current.Store(m)
	var next time.Time
	if m.revoked != nil {
		next = m.revoked.next
	}
	s.metrics.dates(m.notAfter, next)
	warnOf(s.log, m.leftOut)
	for _, n := range m.notes {
		s.log.Warn().Str("client_cas", n.cas).Msg(n.text)
	}
}

// refresh is called by Run when files may have changed, and now and then.
func (s *Server) refresh(now time.Time) {
	s.reload(now)
	if now.Sub(s.rotated) >= rotateAfter {
		s.newKey(now)
		s.current.Load().config.SetSessionTicketKeys(s.keys)
	}
	s.nag(now)
}

// reload takes the files if they changed and are good.
func (s *Server) reload(now time.Time) {
	src, err := s.read()
	if err == nil && src.digest() == s.current.Load().digest {
		s.fault = ""
		return
	}
	var m *material
	if err == nil {
		m, err = s.build(src, now)
	}
	if err != nil {
		s.keep(err)
		return
	}
	s.fault = ""
	s.use(m)
	s.metrics.reloads.WithLabelValues("ok").Inc()
	s.log.Info().Time("not_after", m.notAfter).Msg("took the changed TLS files")
}

// keep says once what is wrong with the files on disk.
func (s *Server) keep(err error) {
	if err.Error() == s.fault {
		return
	}
	s.fault = err.Error()
	s.metrics.reloads.WithLabelValues("failed").Inc()
	s.log.Error().Err(err).Msg("cannot take the changed TLS files, the old ones stay in use")
}

// newKey makes the key of the tickets to come, and forgets the oldest.
func (s *Server) newKey(now time.Time) {
	var key [32]byte
	rand.Read(key[:]) // never fails
	s.keys = append([][32]byte{key}, s.keys[:min(len(s.keys), ticketKeys-1)]...)
	s.rotated = now
}

// nag says, not too often, that what is in use has expired.
func (s *Server) nag(now time.Time) {
	m := s.current.Load()
	expired := now.After(m.notAfter)
	overdue := m.revoked != nil && !m.revoked.next.IsZero() && now.After(m.revoked.next)
	if (!expired && !overdue) || now.Sub(s.nagged) < nagEvery {
		return
	}
	s.nagged = now
	if expired {
		s.log.Error().Time("not_after", m.notAfter).Msg("the certificate has expired")
	}
	if overdue {
		s.log.Error().Time("next_update", m.revoked.next).Msg("a revocation list is overdue; what was revoked since is not known")
	}
}
