package auth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"sluice/mqtt"
)

const (
	maxAnswer  = 64 << 10              // bytes
	maxSeconds = 100 * 365 * 24 * 3600 // of expires_in
)

// A question is what the service gets, as JSON.
type question struct {
	ClientID    string               `json:"client_id"`
	Username    *string              `json:"username,omitempty"`
	Password    *string              `json:"password,omitempty"`
	Address     string               `json:"address"`
	Certificate *questionCertificate `json:"certificate,omitempty"`
}

type questionCertificate struct {
	Name       string `json:"name"`
	CommonName string `json:"common_name"`
	Serial     string `json:"serial"`
}

// A reply is what the service says.
type reply struct {
	Result   string `json:"result"`
	Identity string `json:"identity"`
	Expires  *int64 `json:"expires_in"`
}

// service is an HTTP that can be asked.
type service struct {
	cfg     HTTP
	client  *http.Client
	slots   chan struct{}
	sealer  sealer
	answers *answers
	flights flights
	cache   *cacheMetrics
}

func (h HTTP) build(s *shared) (method, error) {
	h.Timeout = cmp.Or(h.Timeout, DefaultTimeout)
	h.MaxConcurrent = cmp.Or(h.MaxConcurrent, DefaultMaxConcurrent)
	h.CacheSize = cmp.Or(h.CacheSize, DefaultCacheSize)
	if h.Timeout < 0 || h.MaxConcurrent < 0 || h.CacheSize < 0 || h.Cache < 0 || h.CacheRefused < 0 {
		return nil, errors.New("a number of http is negative")
	}
	urlErr := checkURL(h.URL)
	if urlErr != nil {
		urlErr = fmt.Errorf("cannot use the url of http: %w", urlErr)
	}
	client, tlsErr := newClient(h.TLS, h.MaxConcurrent)
	if err := errors.Join(urlErr, tlsErr); err != nil {
		return nil, err
	}
	answers, err := newAnswers(h)
	if err != nil {
		return nil, err
	}
	s.runs = append(s.runs, func(ctx context.Context) error {
		<-ctx.Done()
		client.CloseIdleConnections()
		return nil
	})
	return &service{
		cfg: h, client: client, slots: make(chan struct{}, h.MaxConcurrent), sealer: s.sealer, answers: answers,
		flights: flights{under: map[digest]*flight{}}, cache: s.metrics.cache("http"),
	}, nil
}

func (s *service) name() string { return "http" }

func (s *service) decide(ctx context.Context, a *attempt) (verdict, error) {
	switch {
	case !utf8.Valid(a.Password):
		// JSON would make one text of many such passwords.
		return verdict{outcome: refused, why: "the password is not UTF-8 text"}, nil
	case a.barred():
		return verdict{outcome: throttled, why: whys[throttled]}, nil
	}
	key := s.key(a)
	v, ok := s.answers.get(key)
	s.cache.count(ok)
	if ok {
		return v, nil
	}
	return s.flights.do(ctx, key, func(ctx context.Context) (verdict, error) {
		v, err := s.ask(ctx, a)
		if err != nil {
			return verdict{}, fmt.Errorf("cannot ask %s: %w", place(s.cfg.URL), err)
		}
		s.answers.add(key, v)
		return v, nil
	})
}

// key gives the digest of all that the service would be told.
func (s *service) key(a *attempt) digest {
	parts := []string{
		a.ClientID, fmt.Sprint(a.HasUsername, a.HasPassword), a.Username, string(a.Password), host(a.Remote),
	}
	if c := a.Certificate; c != nil {
		parts = append(parts, c.Name, c.CommonName, c.Serial)
	}
	return s.sealer.seal(parts...)
}

// ask puts the question when it is its turn, unless the address failed too often meanwhile.
func (s *service) ask(ctx context.Context, a *attempt) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return verdict{}, errBusy
	}
	defer func() { <-s.slots }()
	if a.slowed() {
		return verdict{outcome: throttled, why: whys[throttled]}, nil
	}
	body, err := json.Marshal(questionOf(a))
	if err != nil {
		return verdict{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return verdict{}, withoutURL(err)
	}
	request.Header.Set("Content-Type", "application/json")
	text, err := exchange(s.client, request, maxAnswer)
	if err != nil {
		return verdict{}, err
	}
	return judge(text, a.Username)
}

func questionOf(a *attempt) question {
	q := question{ClientID: a.ClientID, Address: host(a.Remote)}
	if a.HasUsername {
		q.Username = &a.Username
	}
	if a.HasPassword {
		password := string(a.Password)
		q.Password = &password
	}
	if c := a.Certificate; c != nil {
		q.Certificate = &questionCertificate{c.Name, c.CommonName, c.Serial}
	}
	return q
}

// host gives the address without its port.
func host(remote net.Addr) string {
	if tcp, ok := remote.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String()
	}
	return ""
}

// judge reads what the service answered. What is not clear is an error, and so lets nobody in.
func judge(text []byte, username string) (verdict, error) {
	var r reply
	if json.Unmarshal(text, &r) != nil {
		return verdict{}, errors.New("the answer is not the JSON that is expected")
	}
	switch r.Result {
	case "allow":
		return r.allow(username)
	case "deny":
		return verdict{outcome: refused, why: "denied by the service"}, nil
	case "ignore":
		return verdict{}, nil
	}
	return verdict{}, errors.New(`the result in the answer is not "allow", "deny" or "ignore"`)
}

// allow gives the identity that the service names, or the user name that it found right.
func (r reply) allow(username string) (verdict, error) {
	id := &mqtt.Identity{Name: cmp.Or(r.Identity, username)}
	switch {
	case r.Identity != "" && !ValidName(r.Identity):
		return verdict{}, errors.New("the identity in the answer " + NameRule)
	case !ValidName(id.Name):
		return verdict{outcome: refused, why: "the user name is no name, and the service gives none"}, nil
	case r.Expires == nil:
		return verdict{outcome: accepted, identity: id}, nil
	case *r.Expires <= 0:
		return verdict{}, errors.New("expires_in in the answer is not positive")
	}
	id.Until = time.Now().Add(time.Duration(min(*r.Expires, maxSeconds)) * time.Second)
	return verdict{outcome: accepted, identity: id}, nil
}
