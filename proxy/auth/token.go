package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxToken is the longest token that is looked at, in bytes.
const maxToken = 16 << 10

// maxExpiry is the latest exp, in the last second of the year 9999; beyond it there are no times.
const maxExpiry = 253402300799

var (
	errUnknownKey = errors.New("the token is signed with a key that is not known")
	errCritical   = errors.New("the token has critical extensions")
	errExpiry     = errors.New("the token has no usable expiry")
	errIdentity   = errors.New("the token has no usable identity")
)

// looksLikeToken says whether s has the form of a JSON Web Token: a header that is a JSON object, and two more
// parts in base64.
func looksLikeToken(s string) bool {
	header, rest, _ := strings.Cut(s, ".")
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || len(s) > maxToken || !isBase64(payload) || !isBase64(signature) {
		return false
	}
	var object map[string]json.RawMessage
	raw, err := base64.RawURLEncoding.DecodeString(header)
	return err == nil && json.Unmarshal(raw, &object) == nil && object != nil
}

func isBase64(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// issuerOf gives the claim iss of a token that nobody has checked yet; "" if there is none to be read.
func issuerOf(token string) string {
	var claims struct {
		Issuer string `json:"iss"`
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(raw, &claims) != nil {
		return ""
	}
	return claims.Issuer
}

// expiry gives the claim exp if it is still to come. There is no leeway: what is let in ends there.
func expiry(claims jwt.MapClaims) (time.Time, error) {
	seconds, ok := claims["exp"].(float64)
	switch {
	case !ok || seconds > maxExpiry || seconds < 0:
		return time.Time{}, errExpiry
	case !time.Unix(int64(seconds), 0).After(time.Now()):
		return time.Time{}, jwt.ErrTokenExpired
	}
	return time.Unix(int64(seconds), 0), nil
}

// reasons say for the log what is wrong with a token, in fixed words: errors of the library may quote it.
var reasons = []struct {
	err error
	why string
}{
	{errUnknownKey, "the token's key is not known"},
	{errCritical, "the token has critical extensions"},
	{errIdentity, "the token has no usable identity"},
	{errExpiry, "the token has no usable expiry"},
	{jwt.ErrTokenExpired, "the token has expired"},
	{jwt.ErrTokenRequiredClaimMissing, "the token lacks a claim"},
	{jwt.ErrTokenNotValidYet, "the token is not valid yet"},
	{jwt.ErrTokenUsedBeforeIssued, "the token is issued in the future"},
	{jwt.ErrTokenInvalidAudience, "the token is for another audience"},
	{jwt.ErrTokenInvalidIssuer, "the token is of another issuer"},
	{jwt.ErrTokenSignatureInvalid, "the token's signature or algorithm is wrong"},
}

func reason(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.why
		}
	}
	return "the token is malformed"
}
