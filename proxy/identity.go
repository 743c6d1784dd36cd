package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/mqtt"
	"sluice/proxy/acl"
	"sluice/proxy/auth"
	"sluice/proxy/config"
)

// A gate is the mqtt.Authenticator: it says who a device is, and what that one may do.
type gate struct {
	chain *auth.Chain // nil: devices are who they say they are
	rules *acl.List   // nil: everybody may do everything
}

// newGate gives nil where everybody may come and do everything.
func newGate(cfg *config.Config, log zerolog.Logger, reg prometheus.Registerer) (*gate, error) {
	g := new(gate)
	var err error
	if len(cfg.Auth) > 0 {
		g.chain, err = auth.New(auth.Config{
			Methods: authMethods(cfg.Auth, log), FailedLogins: cfg.Limits.FailedLogins, Logger: log, Registerer: reg,
		})
		if err != nil {
			return nil, fmt.Errorf("cannot authenticate devices: %w", err)
		}
	}
	if g.rules, err = cfg.AccessList(); err != nil {
		return nil, err
	}
	if g.chain == nil && g.rules == nil {
		return nil, nil
	}
	return g, nil
}

// Authenticate says who the device is and what it may do.
func (g *gate) Authenticate(ctx context.Context, l *mqtt.Login) (*mqtt.Identity, error) {
	id, err := g.identify(ctx, l)
	if err != nil || g.rules == nil {
		return id, err
	}
	own := *id // others may have the same
	own.Access = g.rules.Access(acl.Who{ClientID: l.ClientID, Username: id.Name, CommonName: id.CommonName})
	return &own, nil
}

func (g *gate) identify(ctx context.Context, l *mqtt.Login) (*mqtt.Identity, error) {
	if g.chain == nil {
		return l.Believed()
	}
	return g.chain.Authenticate(ctx, l)
}

// authMethods gives them in the order of the file.
func authMethods(methods []config.AuthMethod, log zerolog.Logger) []auth.Method {
	var out []auth.Method
	for _, m := range methods {
		switch {
		case m.File != "":
			out = append(out, auth.File{Path: m.File})
		case m.JWT != nil:
			out = append(out, jwtOf(m.JWT, log))
		case m.MTLS != nil:
			out = append(out, auth.Certificate{})
		case m.HTTP != nil:
			h := m.HTTP
			out = append(out, auth.HTTP{
				URL: h.URL, Timeout: h.Timeout, MaxConcurrent: h.MaxConcurrent, Cache: h.Cache,
				CacheRefused: h.CacheRefused, CacheSize: h.CacheSize, TLS: clientTLS(h.TLS, log),
			})
		}
	}
	return out
}

func jwtOf(j *config.JWT, log zerolog.Logger) auth.JWT {
	return auth.JWT{
		Secret: string(j.Secret), Key: j.Key, JWKS: j.JWKS, Algorithms: j.Algorithms, Issuer: j.Issuer,
		Audience: j.Audience, Identity: j.Identity, From: j.From, Leeway: j.Leeway,
		TLS: clientTLS(j.TLS, log),
	}
}

var (
	errPublishDenied = errors.New("the acl denies the device to publish to the topic")
	errSystemTopic   = errors.New("topics below $SYS are the server's own")
	errRetainDenied  = errors.New("the acl denies the device to retain in the topic")
)

// isSystemTopic says that only a server publishes to the topic.
func isSystemTopic(topic []byte) bool { return bytes.HasPrefix(topic, []byte("$SYS/")) }

// denied says why the device that published m may not.
func denied(m *mqtt.Message) error {
	id := m.Identity()
	switch {
	case isSystemTopic(m.Topic):
		return errSystemTopic
	case id == nil || id.Access == nil:
		return nil
	case m.Will:
		return willDenied(id.Access, m)
	}
	return deniedTo(id.Access, m.Topic, m.Retain)
}

// willDenied is denied for a will, which was asked about at CONNECT already, by rights that the device may have lost.
func willDenied(access mqtt.Access, m *mqtt.Message) error {
	return unless(access.Will(m.Topic), access, m.Topic, m.Retain)
}

func deniedTo(access mqtt.Access, topic []byte, retain bool) error {
	return unless(access.Publish(topic), access, topic, retain)
}

// unless says what is missing of the right to a topic, and of that to retain there, which is asked for only if need be.
func unless(may bool, access mqtt.Access, topic []byte, retain bool) error {
	switch {
	case !may:
		return errPublishDenied
	case retain && !access.Retain(topic):
		return errRetainDenied
	}
	return nil
}
