package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"

	"sluice/mqtt"
)

// enhancedMethod is the Authentication Method of MQTT 5 by which a token comes.
const enhancedMethod = "JWT"

// tokens is a JWT with its keys.
type tokens struct {
	cfg    JWT
	parser *jwt.Parser
	keys   atomic.Pointer[keySet]
	remote *remoteSet // nil: the keys are no URL's
}

func (j JWT) build(s *shared) (method, error) {
	t := &tokens{cfg: j}
	if t.cfg.Identity == "" {
		t.cfg.Identity = "sub"
	}
	if err := errors.Join(j.check(), t.source(s)); err != nil {
		return nil, err
	}
	allowed, err := t.allowed()
	if err != nil {
		return nil, err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(allowed), jwt.WithLeeway(j.Leeway), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(),
	}
	if j.Issuer != "" {
		options = append(options, jwt.WithIssuer(j.Issuer))
	}
	if j.Audience != "" {
		options = append(options, jwt.WithAudience(j.Audience))
	}
	t.parser = jwt.NewParser(options...)
	return t, nil
}

// check says what is wrong with the fields, all at once.
func (j JWT) check() error {
	var faults []error
	sources := 0
	for _, source := range []string{j.Secret, j.Key, j.JWKS} {
		if source != "" {
			sources++
		}
	}
	if sources != 1 {
		faults = append(faults, errors.New("jwt needs exactly one of secret, key and jwks"))
	}
	if j.Secret != "" && len(j.Secret) < minSecret {
		faults = append(faults, fmt.Errorf("the secret of jwt is shorter than %d bytes", minSecret))
	}
	if !slices.Contains([]string{"", FromPassword, FromUsername}, j.From) {
		faults = append(faults, fmt.Errorf("from of jwt is %q, not %s or %s", j.From, FromPassword, FromUsername))
	}
	if j.Leeway < 0 {
		faults = append(faults, errors.New("the leeway of jwt is negative"))
	}
	return errors.Join(faults...)
}

// source takes the keys from where they are, but for those of a URL, which run reads.
func (t *tokens) source(s *shared) (err error) {
	switch {
	case t.cfg.Secret != "":
		t.keys.Store(&keySet{{public: []byte(t.cfg.Secret)}})
		return nil
	case t.cfg.Key != "":
		return s.files.add("key", t.cfg.Key, t.loader(parsePEM))
	case strings.Contains(t.cfg.JWKS, "://"):
		if err := checkURL(t.cfg.JWKS); err != nil {
			return fmt.Errorf("cannot use the key set of jwt: %w", err)
		}
		if t.remote, err = newRemoteSet(t.cfg.JWKS, t.cfg.TLS, &t.keys, s); err == nil {
			s.runs = append(s.runs, t.remote.run)
		}
		return err
	case t.cfg.JWKS != "":
		return s.files.add("key set", t.cfg.JWKS, t.loader(parseJWKS))
	}
	return nil
}

// loader gives what takes the keys of a file.
func (t *tokens) loader(parse func([]byte) (keySet, error)) func([]byte) error {
	return func(src []byte) error {
		set, err := parse(src)
		if err == nil {
			t.keys.Store(&set)
		}
		return err
	}
}

// allowed gives the algorithms that tokens may have. Which of them fit is then asked of each key.
func (t *tokens) allowed() ([]string, error) {
	possible := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	if t.cfg.Secret != "" {
		possible = algorithms([]byte(nil))
	}
	if len(t.cfg.Algorithms) == 0 {
		return possible, nil
	}
	for _, a := range t.cfg.Algorithms {
		if !slices.Contains(possible, a) {
			return nil, fmt.Errorf("the algorithm %q of jwt is not one of %s", a, strings.Join(possible, ", "))
		}
	}
	return t.cfg.Algorithms, nil
}

func (t *tokens) name() string { return "jwt" }

// text gives where the token of a login is, if it has one.
func (t *tokens) text(a *attempt) string {
	switch {
	case a.Method == enhancedMethod:
		return string(a.Data)
	case t.cfg.From == FromUsername:
		return a.Username
	}
	return string(a.Password)
}

// decide checks the token, whatever its address did before: no signature is ever guessed, and checking one
// costs less than the handshake that brought it.
func (t *tokens) decide(ctx context.Context, a *attempt) (verdict, error) {
	text := t.text(a)
	if !looksLikeToken(text) || t.cfg.Issuer != "" && issuerOf(text) != t.cfg.Issuer {
		return verdict{}, nil
	}
	id, err := t.identify(text)
	if t.remote != nil && (errors.Is(err, errUnknownKey) || errors.Is(err, errNoKeys)) {
		if err := t.remote.refresh(ctx); err != nil {
			return verdict{}, fmt.Errorf("cannot get the key of a token: %w", err)
		}
		id, err = t.identify(text)
	}
	switch {
	case errors.Is(err, errNoKeys):
		return verdict{}, err
	case err != nil:
		return verdict{outcome: refused, why: reason(err)}, nil
	}
	return verdict{outcome: accepted, identity: id}, nil
}

// identify checks a token and gives whom it names.
func (t *tokens) identify(text string) (*mqtt.Identity, error) {
	claims := jwt.MapClaims{}
	if _, err := t.parser.ParseWithClaims(text, claims, t.key); err != nil {
		return nil, err
	}
	until, err := expiry(claims)
	if err != nil {
		return nil, err
	}
	name, ok := claims[t.cfg.Identity].(string)
	if !ok || !ValidName(name) {
		return nil, errIdentity
	}
	return &mqtt.Identity{Name: name, Until: until}, nil
}

// key gives the parser the keys that may have signed a token.
func (t *tokens) key(token *jwt.Token) (any, error) {
	set := t.keys.Load()
	if set == nil {
		return nil, errNoKeys
	}
	if _, ok := token.Header["crit"]; ok {
		return nil, errCritical // RFC 7515 section 4.1.11: none is understood here
	}
	id, ok := token.Header["kid"].(string)
	if _, there := token.Header["kid"]; there && !ok {
		return nil, jwt.ErrTokenMalformed
	}
	found, known := set.find(id, token.Method.Alg())
	if !known {
		return nil, errUnknownKey
	}
	keys := make([]jwt.VerificationKey, len(found))
	for i, k := range found {
		keys[i] = k
	}
	if len(keys) == 0 {
		return nil, jwt.ErrTokenSignatureInvalid
	}
	return jwt.VerificationKeySet{Keys: keys}, nil
}
