package auth

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/mqtt"
)

func TestTokenOfEachKindOfKeyGetsIn(t *testing.T) {
	f := func(j JWT, alg string, key any) {
		t.Helper()
		b := newBench(t, 0, j)
		id := b.accepts(bearer(good(t, alg, key)), "dev1")
		require.WithinDuration(t, time.Now().Add(time.Hour), id.Until, 5*time.Second)
	}
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		f(JWT{Secret: secret}, alg, []byte(secret))
	}
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		f(JWT{Key: keyFile(t, rsaKey())}, alg, rsaKey())
	}
	f(JWT{Key: keyFile(t, ecKey())}, "ES256", ecKey())
	f(JWT{Key: keyFile(t, ec384())}, "ES384", ec384())
	f(JWT{Key: keyFile(t, edwardsKey())}, "EdDSA", edwardsKey())

	set := JWT{JWKS: jwksFile(t, jwk(t, "r", rsaKey(), nil), jwk(t, "e", ecKey(), nil), jwk(t, "d", edwardsKey(), nil))}
	f(set, "RS256", rsaKey()) // without a key ID every key that fits is tried
	f(set, "ES256", ecKey())
	f(set, "EdDSA", edwardsKey())
	newBench(t, 0, set).accepts(bearer(sign(t, "PS512", rsaKey(), claims(nil), kid("r"))), "dev1")
}

// refusesTokens checks that tokens are refused, on a clock that costs nothing.
func refusesTokens(t *testing.T, j JWT, tokens func(t *testing.T) []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, j)
		for _, token := range tokens(t) {
			require.True(t, looksLikeToken(token), token)
			b.refuses(bearer(token), mqtt.BadUserNameOrPassword)
			v, err := b.decides(bearer(token))
			require.NoError(t, err)
			require.Equal(t, refused, v.outcome)
		}
		for line := range strings.Lines(b.log.String()) {
			require.NotContains(t, line, "eyJ")
		}
	})
}

func TestTokenWithoutSignatureIsRefused(t *testing.T) {
	none := func(t *testing.T) (tokens []string) {
		payload, err := json.Marshal(claims(nil))
		require.NoError(t, err)
		for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
			header := `{"typ":"JWT","alg":"` + alg + `"}`
			tokens = append(tokens, forge(header, string(payload), func(string) []byte { return nil }))
			tokens = append(tokens, forge(header, string(payload), func(string) []byte { return []byte("x") }))
		}
		whole := good(t, "HS256", []byte(secret))
		return append(tokens, whole[:strings.LastIndex(whole, ".")+1], forge(`{"typ":"JWT"}`, string(payload), func(string) []byte { return nil }),
			forge(`{"alg":7}`, string(payload), func(string) []byte { return nil }))
	}
	for _, j := range []JWT{{Secret: secret}, {Key: keyFile(t, rsaKey())}, {JWKS: jwksFile(t, jwk(t, "e", ecKey(), nil))}} {
		refusesTokens(t, j, none)
	}
}

// TestPublicKeyIsNeverTheSecretOfAnHMAC is the confusion of algorithms: the public key is known to everybody, so a
// token signed with its bytes as a secret must not get in.
func TestPublicKeyIsNeverTheSecretOfAnHMAC(t *testing.T) {
	for _, private := range []crypto.Signer{rsaKey(), ecKey(), edwardsKey()} {
		text := publicPEM(t, private)
		forged := func(t *testing.T) (tokens []string) {
			for _, material := range []string{text, strings.TrimSpace(text), jwks(t, jwk(t, "k", private, nil))} {
				for _, alg := range []string{"HS256", "HS384", "HS512"} {
					tokens = append(tokens, good(t, alg, []byte(material)), sign(t, alg, []byte(material), claims(nil), kid("k")))
				}
			}
			return tokens
		}
		refusesTokens(t, JWT{Key: keyFile(t, private)}, forged)
		refusesTokens(t, JWT{JWKS: jwksFile(t, jwk(t, "k", private, nil))}, forged)
	}
}

func TestTokenOfAnotherKeyOrAlgorithmIsRefused(t *testing.T) {
	refusesTokens(t, JWT{Key: keyFile(t, rsaKey())}, func(t *testing.T) []string {
		return []string{good(t, "RS256", otherRSA()), good(t, "ES256", ecKey()), good(t, "EdDSA", edwardsKey()), good(t, "HS256", []byte(secret))}
	})
	refusesTokens(t, JWT{Key: keyFile(t, rsaKey()), Algorithms: []string{"PS256"}}, func(t *testing.T) []string {
		return []string{good(t, "RS256", rsaKey()), good(t, "PS384", rsaKey())}
	})
	refusesTokens(t, JWT{Secret: secret, Algorithms: []string{"HS512"}}, func(t *testing.T) []string {
		return []string{good(t, "HS256", []byte(secret))}
	})
	set := jwksFile(t, jwk(t, "r", rsaKey(), map[string]any{"alg": "RS256"}), jwk(t, "e", ecKey(), nil))
	refusesTokens(t, JWT{JWKS: set}, func(t *testing.T) []string {
		return []string{
			sign(t, "RS512", rsaKey(), claims(nil), kid("r")), // the key is for RS256 alone
			sign(t, "RS256", rsaKey(), claims(nil), kid("e")), // somebody else's key ID
			sign(t, "RS256", rsaKey(), claims(nil), kid("x")),
			sign(t, "RS256", otherRSA(), claims(nil), kid("r")),
			sign(t, "RS256", rsaKey(), claims(nil), map[string]any{"kid": 7}),
		}
	})
}

func TestKeysThatATokenBringsAreNotUsed(t *testing.T) {
	refusesTokens(t, JWT{Key: keyFile(t, rsaKey())}, func(t *testing.T) []string {
		mine := otherRSA()
		return []string{
			sign(t, "RS256", mine, claims(nil), map[string]any{"jwk": jwk(t, "k", mine, nil)}),
			sign(t, "RS256", mine, claims(nil), map[string]any{"jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1/x"}),
			sign(t, "RS256", rsaKey(), claims(nil), map[string]any{"crit": []string{"b64"}, "b64": false}),
		}
	})
}

func TestTokenWithAWrongClaimIsRefused(t *testing.T) {
	j := JWT{Secret: secret, Issuer: "https://issuer", Audience: "sluice", Leeway: 30 * time.Second}
	right := map[string]any{"iss": "https://issuer", "aud": []string{"other", "sluice"}}
	with := func(name string, value any) map[string]any {
		return map[string]any{"iss": right["iss"], "aud": right["aud"], name: value}
	}
	refusesTokens(t, j, func(t *testing.T) (tokens []string) {
		later := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
		for _, c := range []map[string]any{
			with("exp", nil), with("exp", later(0)), with("exp", later(-time.Second)), with("exp", "tomorrow"), with("exp", 0), with("exp", -1),
			with("exp", 1e300), with("exp", 1e18), with("exp", true), with("exp", []int{1}),
			with("nbf", later(5*time.Minute)), with("nbf", "x"), with("iat", later(5*time.Minute)), with("iat", "x"),
			with("aud", nil), with("aud", "sluic"), with("aud", []string{}), with("aud", 7),
			with("sub", nil), with("sub", ""), with("sub", 7), with("sub", []string{"dev1"}), with("sub", "a/b"), with("sub", "+"), with("sub", "a\x00"),
			with("sub", "#"), with("sub", strings.Repeat("x", 1025)),
		} {
			tokens = append(tokens, sign(t, "HS256", []byte(secret), claims(c), nil))
		}
		whole := sign(t, "HS256", []byte(secret), claims(right), nil)
		changed := tampered(whole, "dev1", "dev2")
		require.NotEqual(t, whole, changed)
		return append(tokens, changed)
	})
	b := newBench(t, 0, j)
	for _, c := range []map[string]any{right, with("aud", "sluice"), with("nbf", time.Now().Add(10*time.Second).Unix()), with("iat", time.Now().Add(10*time.Second).Unix())} {
		b.accepts(bearer(sign(t, "HS256", []byte(secret), claims(c), nil)), "dev1")
	}
	// Of another issuer is unknown, not wrong, so that two issuers can stand in one chain.
	for _, issuer := range []any{nil, "https://other", 7} {
		v, err := b.decides(bearer(sign(t, "HS256", []byte(secret), claims(with("iss", issuer)), nil)))
		require.NoError(t, err)
		require.Equal(t, refused, v.outcome)
		require.Equal(t, "no method knows the user", v.why)
	}
}

func TestTwoIssuersHaveAKeyEach(t *testing.T) {
	one := JWT{Secret: secret, Issuer: "one"}
	two := JWT{Key: keyFile(t, ecKey()), Issuer: "two"}
	b := newBench(t, 0, one, two)
	from := func(issuer string) map[string]any { return map[string]any{"iss": issuer} }
	b.accepts(bearer(sign(t, "HS256", []byte(secret), claims(from("one")), nil)), "dev1")
	b.accepts(bearer(sign(t, "ES256", ecKey(), claims(from("two")), nil)), "dev1")
	for _, token := range []string{sign(t, "ES256", ecKey(), claims(from("one")), nil), sign(t, "HS256", []byte(secret), claims(from("two")), nil)} {
		v, err := b.decides(bearer(token))
		require.NoError(t, err)
		require.Equal(t, refused, v.outcome)
	}
}

func TestIdentityIsTheClaimAndNotTheUserName(t *testing.T) {
	b := newBench(t, 0, JWT{Secret: secret, Identity: "device_id"})
	l := bearer(sign(t, "HS256", []byte(secret), claims(map[string]any{"device_id": "pump-7"}), nil))
	l.Username = "admin"
	b.accepts(l, "pump-7")
}

func TestTokenInTheUserName(t *testing.T) {
	b := newBench(t, 0, JWT{Secret: secret, From: FromUsername})
	b.accepts(password(good(t, "HS256", []byte(secret)), "anything"), "dev1")
	v, err := b.decides(bearer(good(t, "HS256", []byte(secret))))
	require.NoError(t, err)
	require.Equal(t, refused, v.outcome)
}

func TestUserNameThatMayBeATokenIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, JWT{Secret: secret, From: FromUsername})
		b.refuses(password("broken-token-hunter2", ""), mqtt.BadUserNameOrPassword)
		require.NotContains(t, b.log.String(), "hunter2\",\"client")
		require.Contains(t, b.log.String(), "(not shown)")
		other := newBench(t, 0, usersFileOf(t, "dev1", "one"))
		other.refuses(password(good(t, "HS256", []byte(secret)), "x"), mqtt.BadUserNameOrPassword)
		require.Contains(t, other.log.String(), `"username":"(not shown)"`)
	})
}

func TestEnhancedAuthenticationWithAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, usersFileOf(t, "dev1", "one"), JWT{Secret: secret})
		login := func(method, data string) *mqtt.Login {
			return &mqtt.Login{ClientID: "c", Username: "dev1", HasUsername: true, Remote: home, Method: method, Data: []byte(data)}
		}
		token := good(t, "HS256", []byte(secret))
		id := b.accepts(login("JWT", token), "dev1") // the users file, where dev1 has no empty password, is not asked
		again := login("JWT", sign(t, "HS256", []byte(secret), claims(map[string]any{"exp": time.Now().Add(2 * time.Hour).Unix()}), nil))
		again.Again = id
		require.Equal(t, time.Hour, b.accepts(again, "dev1").Until.Sub(id.Until))

		b.refuses(login("JWT", "no token"), mqtt.NotAuthorized)
		b.refuses(login("JWT", tampered(token, "dev1", "dev2")), mqtt.NotAuthorized)
		b.refuses(login("SCRAM-SHA-256", token), mqtt.BadAuthenticationMethod)
		b.refuses(login("jwt", token), mqtt.BadAuthenticationMethod)
		newBench(t, 0, usersFileOf(t, "dev1", "one")).refuses(login("JWT", token), mqtt.BadAuthenticationMethod)
	})
}

func TestWhatIsNoTokenIsLeftToTheNextMethod(t *testing.T) {
	b64 := func(s string) string {
		return strings.TrimSuffix(forge(s, "", func(string) []byte { return nil }), "..")
	}
	for _, text := range []string{
		"", ".", "..", "a.b", "a.b.c", "a.b.c.d", b64(`{}`), b64(`{}`) + ".a", b64(`{}`) + ".a.b.c", b64(`[]`) + ".a.b", b64(`null`) + ".a.b", b64(`{`) + ".a.b",
		b64(`{}`) + ".a=.b", b64(`{}`) + ".a.b+", b64(`{}`) + " .a.b", b64(`{}`) + ".a.é", b64(`{}`) + "." + strings.Repeat("a", maxToken) + ".b",
	} {
		require.False(t, looksLikeToken(text), text)
	}
	require.True(t, looksLikeToken(b64(`{}`)+".a.b"))
	h := usersFileOf(t, "dev1", "a.b.c")
	newBench(t, 0, JWT{Secret: secret}, h).accepts(password("dev1", "a.b.c"), "dev1")
}

func TestKeyFileIsReadAgainWhenItChanges(t *testing.T) {
	path := keyFile(t, ecKey())
	b := newBench(t, 0, JWT{Key: path}).start()
	b.accepts(bearer(good(t, "ES256", ecKey())), "dev1")
	write(t, path, publicPEM(t, otherEC()))
	eventually(t, func() bool {
		v, err := b.decides(bearer(good(t, "ES256", otherEC())))
		return err == nil && v.outcome == accepted
	})
	v, err := b.decides(bearer(good(t, "ES256", ecKey())))
	require.NoError(t, err)
	require.Equal(t, refused, v.outcome)
	write(t, path, "nothing")
	eventually(t, func() bool { return strings.Contains(b.log.String(), "it is no PEM file") })
	b.accepts(bearer(good(t, "ES256", otherEC())), "dev1")
}

func FuzzToken(f *testing.F) {
	right := good(f, "HS256", []byte(secret))
	for _, seed := range []string{
		right, "a.b.c", tampered(right, "dev1", "dev2"), tampered(right, `"exp":`, `"exp":-`), forge(`{"alg":"none"}`, `{}`, func(string) []byte { return nil }),
		forge(`{"alg":"HS256","kid":[]}`, `{"exp":1e999}`, func(string) []byte { return nil }), right[:20], right + ".",
	} {
		f.Add(seed, `{"alg":"HS256"}`, `{"sub":"dev1","exp":4e9}`)
	}
	j, err := JWT{Secret: secret}.build(&shared{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, header, payload string) {
		decide := func(text string) verdict {
			v, err := j.decide(t.Context(), &attempt{Login: bearer(text)})
			if err != nil || (v.outcome == accepted) != (v.identity != nil) {
				t.Fatalf("%v %v", v, err)
			}
			return v
		}
		if v := decide(text); v.outcome == accepted && text != right {
			t.Fatalf("%q got in", text)
		}
		// What has the right signature may still be anything.
		v := decide(forge(header, payload, func(text string) []byte {
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(text))
			return mac.Sum(nil)
		}))
		if v.outcome == accepted && (!ValidName(v.identity.Name) || !v.identity.Until.After(time.Now())) {
			t.Fatalf("%+v got in", v.identity)
		}
	})
}
