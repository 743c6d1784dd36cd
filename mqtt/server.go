package mqtt

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// A Server accepts devices on any number of listeners and hands their messages to one Handler.
type Server struct {
	cfg      Config
	handler  Handler
	log      zerolog.Logger // for what is rare
	lines    zerolog.Logger // one line per connection, sampled
	m        *metrics
	limits   *limitMetrics
	rates    rateLimits
	sessions *registry
	conns    connSet
	lot      lot
	pacer    pacer
	flusher  flusher
	index    index
	backlog  backlog
	filters  atomic.Int64  // bytes of subscriptions
	held     atomic.Int64  // bytes of commands that wait or are in flight
	unheld   chan struct{} // signalled when held comes to 0
	tick     atomic.Int64  // seconds since start
	serials  atomic.Uint32 // of connections
	extra    extra
	records  extra         // what TLS keeps for large records
	partial  atomic.Int64  // bytes of incomplete packets beyond partialUncounted each
	waiting  atomic.Int64  // bytes that wait unhandled in paused connections
	patience chan struct{} // closed when Shutdown waits no longer
	hurry    sync.Once     // closes patience

	mu        sync.Mutex // guards all below
	listeners []net.Listener
	stopping  bool

	admission admission // has a lock of its own
}

// New makes a Server that starts nothing. Serve and Run start it; handler gets every message.
func New(cfg Config, handler Handler) (*Server, error) {
	d := DefaultConfig()
	setDefault(&cfg.MaxPacketSize, d.MaxPacketSize)
	setDefault(&cfg.ReceiveMaximum, d.ReceiveMaximum)
	setDefault(&cfg.MaxInFlightBytes, d.MaxInFlightBytes)
	setDefault(&cfg.ConnectTimeout, d.ConnectTimeout)
	setDefault(&cfg.WriteTimeout, d.WriteTimeout)
	setDefault(&cfg.MaxUnreadBytes, d.MaxUnreadBytes)
	setDefault(&cfg.MaxPartialBytes, d.MaxPartialBytes)
	setDefault(&cfg.MaxExtraBytes, d.MaxExtraBytes)
	setDefault(&cfg.MaxRecordBytes, d.MaxRecordBytes)
	setDefault(&cfg.MaxStoredSessions, d.MaxStoredSessions)
	setDefault(&cfg.MaxSubscriptions, d.MaxSubscriptions)
	setDefault(&cfg.SubscriptionMemory, d.SubscriptionMemory)
	setDefault(&cfg.CommandsInFlight, d.CommandsInFlight)
	setDefault(&cfg.CommandsQueued, d.CommandsQueued)
	setDefault(&cfg.CommandMemory, d.CommandMemory)
	setDefault(&cfg.TopicLevels, d.TopicLevels)
	setDefault(&cfg.UserProperties, d.UserProperties)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Away == nil {
		cfg.Away = func() bool { return false }
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	s := &Server{
		cfg:      cfg,
		handler:  handler,
		log:      cfg.Logger,
		lines:    cfg.Logger.Sample(&zerolog.BurstSampler{Burst: 200, Period: time.Second}),
		sessions: newRegistry(cfg.MaxStoredSessions),
		patience: make(chan struct{}),
		rates:    newRateLimits(&cfg),
	}
	s.extra.most, s.records.most = cfg.MaxExtraBytes, cfg.MaxRecordBytes
	s.admission.init(&cfg)
	s.pacer.signal = make(chan struct{}, 1)
	s.sessions.elsewhere = cfg.Store != nil
	s.sessions.maxKept = int64(cfg.MaxSessions)
	s.flusher.wake = make(chan struct{}, 1)
	s.unheld = make(chan struct{}, 1)
	m, err := newMetrics(cfg.Registerer, s)
	if err != nil {
		return nil, err
	}
	s.m = m
	s.limits, err = newLimitMetrics(cfg.Registerer, s)
	return s, err
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Run does the periodic work and sends acknowledgements until ctx ends; it must run as long as connections
// are served, so its ctx ends after Shutdown.
func (s *Server) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Go(func() { s.runFlusher(ctx.Done()) })
	workers.Go(func() { s.runPacer(ctx.Done()) })
	workers.Go(func() { s.runLot(ctx.Done()) })
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-second.C:
			s.tick.Add(1)
			s.sweep(now)
			s.Flush() // the list of a Handler that answers inside Publish and has no need to
		}
	}
}

// Serve is ServeAt for MQTT over plain TCP.
func (s *Server) Serve(l net.Listener) error { return s.ServeAt(l, Endpoint{}) }

// ServeAt accepts connections from l, which speak as e says, until Shutdown, through every error of accept, and returns
// ErrServerClosed then. It closes l.
func (s *Server) ServeAt(l net.Listener, e Endpoint) error {
	defer l.Close()
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	backoff := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err == nil {
			backoff = 0
			s.accept(nc, &e)
			continue
		}
		if s.isStopping() {
			return ErrServerClosed
		}
		// Whatever it is (no file left, a connection reset before it was accepted), the next one may do.
		s.m.acceptErrors.Inc()
		backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
		s.lines.Warn().Err(err).Stringer("retry_in", backoff).Msg("cannot accept a connection")
		select {
		case <-time.After(backoff):
		case <-s.patience:
		}
	}
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// connOf gives a Conn for what was accepted, or closes it and gives nil.
func (s *Server) connOf(nc net.Conn) *Conn {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		_ = nc.Close()
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = neverWaits(raw)
	}
	if err != nil {
		_ = nc.Close()
		return nil
	}
	return &Conn{srv: s, nc: tcp, raw: raw, serial: s.serials.Add(1)}
}

// launch starts the connection's goroutine, which ends with the connection.
func (s *Server) launch(c *Conn) {
	if !s.conns.add(c) {
		_ = c.nc.Close()
		s.admission.leave(c)
		return
	}
	go c.run()
}

// sweep ends the connections that were silent for one and a half times their keep-alive [MQTT-3.1.2-22], those whose
// credentials have expired or were withdrawn, and the sessions and will delays whose time has come. It has those parked
// that are quiet.
func (s *Server) sweep(now time.Time) {
	tick := s.tick.Load()
	s.conns.each(func(c *Conn) {
		c.mu.Lock()
		if c.session != nil && c.keepAlive > 0 && !c.paused.Load() {
			if allowed := int64(c.keepAlive) + int64(c.keepAlive+1)/2 + 1; tick-c.heard.Load() > allowed {
				c.shutdownLocked(&ProtocolFault{KeepAliveTimeout, "nothing was heard for one and a half times the keep-alive"})
			}
		}
		if c.spareSince != 0 && c.waitedEnough() {
			c.wakeLocked()
		}
		if c.session != nil {
			if err := c.identity.Load().over(now); err != nil {
				c.shutdownLocked(err)
			}
		}
		if !c.paused.Load() {
			c.slots.forget(tick)
		}
		c.hush(tick)
		c.mu.Unlock()
	})
	s.dropOverdue(now)
	s.sweepSessions(now, false)
	s.backlog.sweep(now)
}

// sweepSessions ends the sessions whose time is over and publishes the wills that are due; all takes every
// session, when the process ends.
func (s *Server) sweepSessions(now time.Time, all bool) {
	due, ended := s.sessions.sweep(now, all)
	for _, ss := range ended {
		ss.end(s)
	}
	for _, m := range due {
		s.publishWill(m)
	}
}

// publishWill hands a Will Message over, which nobody can refuse to take now. It is called by goroutines
// that must go on whatever the Handler does: the sweep, the end of another connection.
func (s *Server) publishWill(m *Message) {
	defer func() {
		if p := recover(); p != nil {
			s.m.panics.Inc()
			s.log.Error().Interface("panic", p).Msg("recovered from a panic; a will is lost")
		}
	}()
	m.Received = time.Now()
	s.m.wills.Inc()
	s.handler.Publish(m)
}

// Shutdown stops accepting, lets every connection's messages be settled until ctx ends, says DISCONNECT
// 0x8B, closes, and publishes the wills, delayed ones too, since the sessions end with the process. It
// returns when all connections are closed and every command is settled; none may be sent meanwhile. It may be called
// again.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.stopping = true
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.mu.Unlock()
	s.conns.close()
	s.dropWaiting()
	s.conns.each(func(c *Conn) { c.shutdown(&ProtocolFault{ServerShuttingDown, "the server stops"}) })
	gone := make(chan struct{})
	go func() { // ends when the last connection is closed
		s.conns.wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
	s.hurry.Do(func() { close(s.patience) })
	<-gone
	s.sweepSessions(time.Now(), true)
	s.awaitSettlements()
}

// Connections is how many connections are open, also those that have not said CONNECT.
func (s *Server) Connections() int { return s.conns.count() }

func (s *Server) opened(c *Conn) {
	s.m.connections.WithLabelValues(versionName(c.version)).Inc()
	s.lines.Debug().Str("client_id", c.session.clientID).Stringer("remote", c.RemoteAddr()).Str("mqtt", versionName(c.version)).Msg("device connected")
}

func versionName(version byte) string {
	switch version {
	case 3:
		return "3.1"
	case 5:
		return "5"
	}
	return "3.1.1"
}
