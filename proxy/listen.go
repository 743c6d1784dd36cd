package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"sluice/mqtt"
	"sluice/proxy/config"
	"sluice/tls"
)

// A door is a listener and what is spoken there.
type door struct {
	cfg      *config.Listener
	endpoint mqtt.Endpoint
}

// newDoors reads the files of the listeners and binds nothing.
func newDoors(cfg *config.Config, log zerolog.Logger, reg prometheus.Registerer) ([]door, error) {
	var doors []door
	var faults []error
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		d := door{cfg: l}
		if l.ProxyProtocol != nil {
			d.endpoint.Proxies = l.ProxyProtocol.Networks()
		}
		if l.Protocol == config.ProtocolWebSocket {
			d.endpoint.WebSocket = &mqtt.WebSocket{Path: l.Path, Origins: l.Origins}
		}
		if t := l.TLS; t != nil {
			server, err := tls.NewServer(tls.ServerConfig{
				Certificate: t.Certificate, Key: t.Key, ClientCA: t.ClientCA, ClientAuth: t.ClientAuth, CRL: t.CRL,
				MinVersion: t.MinVersion, Identity: t.Identity, Listener: l.Address, Logger: log, Registerer: reg,
			})
			if err != nil {
				faults = append(faults, fmt.Errorf("cannot use the TLS of listener %s: %w", l.Address, err))
			}
			d.endpoint.TLS = server
		}
		doors = append(doors, d)
	}
	return doors, errors.Join(faults...)
}

// bind binds all listeners, or none.
func bind(doors []door) (listeners []net.Listener, err error) {
	for _, d := range doors {
		l, err := net.Listen("tcp", d.cfg.Address)
		if err != nil {
			for _, open := range listeners {
				_ = open.Close()
			}
			return nil, fmt.Errorf("cannot listen: %w", err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// serve takes the devices of all listeners until Shutdown.
func (p *Proxy) serve(listeners []net.Listener, g *errgroup.Group) {
	for i, l := range listeners {
		d := &p.doors[i]
		p.log.Info().Stringer("address", l.Addr()).Str("protocol", d.cfg.Protocol).Bool("tls", d.endpoint.TLS != nil).
			Msg("listening for devices")
		g.Go(func() error {
			err := p.server.ServeAt(l, d.endpoint)
			if errors.Is(err, mqtt.ErrServerClosed) {
				return nil
			}
			return err
		})
	}
}

// runSecurity watches certificates and what devices are known by, until ctx ends.
func (p *Proxy) runSecurity(ctx context.Context, g *errgroup.Group) {
	for _, d := range p.doors {
		if d.endpoint.TLS != nil {
			g.Go(func() error { return d.endpoint.TLS.Run(ctx) })
		}
	}
	if p.gate != nil && p.gate.chain != nil {
		g.Go(func() error { return p.gate.chain.Run(ctx) })
	}
}

// warn says in the log what is open to everybody, and what is sent for everybody to read.
func warn(cfg *config.Config, log zerolog.Logger) {
	if len(cfg.Auth) == 0 {
		log.Warn().Msg("devices are not authenticated: whoever reaches a listener is let in, as who it says it is")
	}
	if cfg.ACL == nil {
		log.Warn().Msg("there is no acl: every device may publish and subscribe to every topic")
	}
	for _, l := range cfg.Listeners {
		if l.TLS == nil && len(cfg.Auth) > 0 {
			log.Warn().Str("address", l.Address).Msg("passwords and tokens come over this listener in the clear: it has no tls")
		}
	}
	if cfg.Kafka.SASL != nil && cfg.Kafka.TLS == nil {
		log.Warn().Str("mechanism", cfg.Kafka.SASL.Mechanism).Msg("kafka.sasl without kafka.tls: who reads along sees what is sent, and with PLAIN and OAUTHBEARER the credentials")
	}
}

// filesReserved are the open files that are left for Kafka, files and the admin side.
const filesReserved = 256

// mostConnections is limits.connections, or what the limit for open files leaves.
func mostConnections(limit int) int {
	if limit > 0 {
		return limit
	}
	files := mostFiles()
	return max(files-filesReserved, files/2)
}
