package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"sluice/mqtt"
)

// A Chain asks methods in order who a device is. It is an [mqtt.Authenticator].
type Chain struct {
	methods []method
	tokens  []method   // those that speak enhanced authentication
	hidden  bool       // user names may be tokens, and so secrets
	decoy   *usersFile // nil: no method takes long to find a password wrong
	runs    []func(context.Context) error
	limits  *limits
	delays  delays
	metrics *metrics
	log     zerolog.Logger // sampled: a fleet can make it write
}

var _ mqtt.Authenticator = (*Chain)(nil)

// shared is what methods are built with.
type shared struct {
	hasher  hasher
	sealer  sealer
	metrics *metrics
	log     zerolog.Logger
	files   *files
	runs    []func(context.Context) error
}

// New reads and checks everything that the methods need, and says all that is wrong at once. It starts
// nothing and asks no network.
func New(cfg Config) (*Chain, error) {
	if len(cfg.Methods) == 0 || cfg.FailedLogins < 0 {
		return nil, errors.New("authentication needs at least one method, and no negative number of failed logins")
	}
	limits, err := newLimits(cfg.FailedLogins)
	if err != nil {
		return nil, err
	}
	c := &Chain{limits: limits, delays: make(delays, maxDelayed), log: sampled(cfg.Logger)}
	if c.metrics, err = newMetrics(cfg.Registerer, func() float64 { return float64(len(c.delays)) }); err != nil {
		return nil, err
	}
	if err := c.build(cfg); err != nil {
		return nil, err
	}
	return c, nil
}

// build makes the methods ready.
func (c *Chain) build(cfg Config) error {
	s := &shared{hasher: newHasher(), sealer: newSealer(), metrics: c.metrics, log: cfg.Logger}
	s.files = &files{log: cfg.Logger, metrics: c.metrics}
	var faults []error
	for _, m := range cfg.Methods {
		ready, err := m.build(s)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		c.add(ready)
	}
	c.runs = append(s.runs, s.files.run)
	return errors.Join(faults...)
}

func (c *Chain) add(m method) {
	c.methods = append(c.methods, m)
	switch m := m.(type) {
	case *tokens:
		c.tokens = append(c.tokens, m)
		c.hidden = c.hidden || m.cfg.From == FromUsername
	case *usersFile:
		if c.decoy == nil {
			c.decoy = m
		}
	}
}

// sampled lets ten lines a second through and then one of a hundred.
func sampled(log zerolog.Logger) zerolog.Logger {
	return log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Second, NextSampler: &zerolog.BasicSampler{N: 100}})
}

// Run reads files again when they change and keeps key sets fresh, until ctx ends.
func (c *Chain) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range c.runs {
		group.Go(func() error { return run(ctx) }) // each ends with ctx
	}
	return group.Wait()
}

// Authenticate says who the device is that sent l. The error is always a [mqtt.ProtocolFault]. One that
// refuses takes about a second, or until ctx ends.
func (c *Chain) Authenticate(ctx context.Context, l *mqtt.Login) (*mqtt.Identity, error) {
	if l.Method != "" && (l.Method != enhancedMethod || len(c.tokens) == 0) {
		return nil, &mqtt.ProtocolFault{Code: mqtt.BadAuthenticationMethod, Detail: "the authentication method is not known"}
	}
	a := &attempt{Login: l, from: originOf(l.Remote), limits: c.limits}
	begin := time.Now()
	by, v, err := c.ask(ctx, a)
	if err != nil {
		v.outcome = failed
	}
	c.metrics.login(by, v.outcome, time.Since(begin))
	switch v.outcome {
	case accepted:
		return confined(v.identity, l), nil
	case failed:
		c.line(c.log.Warn(), a, by).Err(err).Msg("nobody can say who a device is; it is not let in")
		return nil, failure(l, err)
	}
	return nil, c.refuse(ctx, a, by, v)
}

// ask gives the verdict of the first method that knows the user, and its name.
func (c *Chain) ask(ctx context.Context, a *attempt) (string, verdict, error) {
	methods := c.methods
	if a.Method != "" {
		methods = c.tokens
	}
	for _, m := range methods {
		v, err := m.decide(ctx, a)
		if err != nil || v.outcome != unknown {
			return m.name(), v, err
		}
	}
	v, err := c.stranger(ctx, a)
	return "none", v, err
}

// stranger gives the verdict on a user that no method knows. It is the one that a known user with a wrong
// password would have got, after the same time.
func (c *Chain) stranger(ctx context.Context, a *attempt) (verdict, error) {
	o, err := refused, error(nil)
	switch {
	case a.slowed():
		o = throttled
	case c.decoy != nil && a.Method == "":
		o, err = c.decoy.pretend(ctx, a)
	}
	return verdict{outcome: o, why: "no method knows the user"}, err
}

// refuse counts and tells of a login that failed, and holds its answer back.
func (c *Chain) refuse(ctx context.Context, a *attempt, by string, v verdict) error {
	c.limits.failed(a, v.outcome)
	c.line(c.log.Info(), a, by).Str("result", outcomeNames[v.outcome]).Str("reason", v.why).Msg("login failed")
	c.delays.wait(ctx)
	if v.outcome == throttled {
		return slowDown()
	}
	return refusal(a.Login)
}

// maxLogged is how much of what a device sent gets into a log line, in bytes.
const maxLogged = 128

// line fills in who tried to log in. A user name that is a token is a secret.
func (c *Chain) line(e *zerolog.Event, a *attempt, by string) *zerolog.Event {
	if c.hidden || looksLikeToken(a.Username) {
		e.Str("username", "(not shown)")
	} else {
		e.Str("username", clip(a.Username))
	}
	return e.Str("client_id", clip(a.ClientID)).Str("address", host(a.Remote)).Str("method", by)
}

func clip(s string) string {
	if len(s) > maxLogged {
		return fmt.Sprintf("%s… (%d bytes)", s[:maxLogged], len(s))
	}
	return s
}
