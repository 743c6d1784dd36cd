package kafka

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"sluice/tls"
)

const (
	// tokenTimeout bounds one question for a token. Whoever opens a connection waits for it.
	tokenTimeout = 3 * time.Second
	// tokenPause is between two questions, so that connections which fail one after the other ask for all of them.
	tokenPause = time.Second
	// tokenUse is the part of its life, in percent, for which a token is given out. A broker ends the session with
	// the token's life, and sarama authenticates anew at 85 % of that or later: it must then get another token.
	tokenUse = 80
	// tokenUnknown is for how long a token is used that does not say when it ends.
	tokenUnknown = 5 * time.Minute
)

// prepareTokens makes what asks for tokens.
func (s *SASL) prepareTokens() error {
	u, err := url.Parse(s.TokenURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("SASL OAUTHBEARER needs the URL of a token endpoint") // which may have a secret in it
	case s.ClientID == "":
		return errors.New("SASL OAUTHBEARER needs a client ID")
	}
	s.tokens = &tokenSource{
		endpoint: u.Scheme + "://" + u.Host + u.Path,
		ask:      clientcredentials.Config{ClientID: s.ClientID, ClientSecret: s.ClientSecret, TokenURL: s.TokenURL, Scopes: s.Scopes},
		http: &http.Client{
			// A token is asked for a few times an hour.
			Transport: &http.Transport{DialTLSContext: tls.Dialer(s.TokenTLS), DisableKeepAlives: true},
			// The secret is for this endpoint and none that it points to, nor for a proxy named in the environment.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	return nil
}

// A tokenSource gets tokens for an identity and keeps the last. Many connections use it.
type tokenSource struct {
	endpoint string // the URL without what may be secret
	ask      clientcredentials.Config
	http     *http.Client

	mu    sync.Mutex // guards what follows; held while a token is fetched, for which all wait
	token *oauth2.Token
	err   error     // of the last fetch
	asked time.Time // when that was
	until time.Time // the token is used without question
}

// Token gives a token; sarama calls it for each authentication. If there is no new one, the old one serves while it
// lives.
func (t *tokenSource) Token() (*sarama.AccessToken, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !now.Before(t.until) && now.Sub(t.asked) >= tokenPause {
		t.fetch(now)
	}
	if t.token != nil && (t.token.Expiry.IsZero() || now.Before(t.token.Expiry)) {
		return &sarama.AccessToken{Token: t.token.AccessToken}, nil
	}
	return nil, t.err
}

// fetch asks for a new token. The caller holds mu.
func (t *tokenSource) fetch(now time.Time) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), oauth2.HTTPClient, t.http), tokenTimeout)
	defer cancel()
	token, err := t.ask.Token(ctx)
	t.asked = now
	if t.err = t.explain(err); t.err != nil {
		return
	}
	t.token, t.until = token, now.Add(tokenUnknown)
	if !token.Expiry.IsZero() {
		t.until = now.Add(token.Expiry.Sub(now) * tokenUse / 100)
	}
}

// doubt has the next token asked for: the cluster did not accept the last one. t may be nil.
func (t *tokenSource) doubt() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = time.Time{}
}

// explain says what went wrong without what the endpoint said in its own words, which may repeat what it was sent.
func (t *tokenSource) explain(err error) error {
	var (
		refused *oauth2.RetrieveError
		failed  *url.Error
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		status := refused.Response.StatusCode
		return &noProof{fmt.Errorf("no token from %s: %d %s %q", t.endpoint, status, http.StatusText(status), oauthError(refused.ErrorCode)),
			status >= 300 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests}
	case errors.As(err, &failed):
		return &noProof{fmt.Errorf("no token from %s: %w", t.endpoint, failed.Err), distrusted(err)}
	}
	return &noProof{fmt.Errorf("no token from %s: its answer can't be read", t.endpoint), true}
}

// oauthErrors are the codes of RFC 6749, section 5.2.
var oauthErrors = map[string]bool{"invalid_request": true, "invalid_client": true, "invalid_grant": true,
	"unauthorized_client": true, "unsupported_grant_type": true, "invalid_scope": true}

// oauthError gives the code if it is one of those.
func oauthError(code string) string {
	if oauthErrors[code] {
		return code
	}
	return ""
}
