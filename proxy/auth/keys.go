package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
)

const (
	minSecret  = 32 // bytes, as RFC 7518 section 3.2 asks for HS256
	minRSA     = 2048
	maxRSA     = 8192 // bits; larger ones make each login slow
	maxKeys    = 64   // of a set: a token without a key ID may be tried with all
	maxKeyFile = 1 << 20
)

// A key checks signatures: a []byte, an *rsa.PublicKey, an *ecdsa.PublicKey or an ed25519.PublicKey.
type key struct {
	id     string // "": fits every key ID
	alg    string // the only one it is for; "": what fits its type
	public any
}

// A keySet is what tokens are checked with at a time. It does not change.
type keySet []key

// algorithms gives those that fit the type of a key. That a public key is never taken for the secret of an
// HMAC follows from here.
func algorithms(public any) []string {
	switch k := public.(type) {
	case []byte:
		return []string{"HS256", "HS384", "HS512"}
	case *rsa.PublicKey:
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		name, ok := map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]
		if ok {
			return []string{name}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	return nil
}

// usable says why a key cannot be used.
func usable(public any) error {
	if k, ok := public.(*rsa.PublicKey); ok && (k.N.BitLen() < minRSA || k.N.BitLen() > maxRSA) {
		return fmt.Errorf("an RSA key of %d bits is not taken; it must have %d to %d", k.N.BitLen(), minRSA, maxRSA)
	}
	if algorithms(public) == nil {
		return fmt.Errorf("a key of type %T is not taken; it must be RSA, EC (P-256, P-384, P-521) or Ed25519", public)
	}
	return nil
}

// find gives the keys that may have signed a token with that key ID ("": none) and algorithm, and whether the
// ID is known at all.
func (s keySet) find(id, alg string) (found []any, known bool) {
	for _, k := range s {
		if id != "" && k.id != "" && k.id != id {
			continue
		}
		known = true
		if (k.alg == "" || k.alg == alg) && slices.Contains(algorithms(k.public), alg) {
			found = append(found, k.public)
		}
	}
	return found, known
}

// parsePEM reads the one public key of a PEM file.
func parsePEM(src []byte) (keySet, error) {
	block, rest := pem.Decode(src)
	if block == nil {
		return nil, errors.New("it is no PEM file")
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, errors.New("it has more than one key; a set of keys is a JWKS")
	}
	public, err := parseBlock(block)
	if err != nil {
		return nil, err
	}
	if err := usable(public); err != nil {
		return nil, err
	}
	return keySet{{public: public}}, nil
}

func parseBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	}
	return nil, fmt.Errorf("it holds %q where a public key or a certificate is needed", block.Type)
}

// parseJWKS reads a key set. Keys of a kind that is not used here are left out, as RFC 7517 section 5 asks;
// so are secrets, which nobody publishes on purpose. A set without any key to use is a fault.
func parseJWKS(src []byte) (keySet, error) {
	var file struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if len(src) > maxKeyFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxKeyFile)
	}
	if json.Unmarshal(src, &file) != nil {
		return nil, errors.New("it is no JSON Web Key Set")
	}
	if len(file.Keys) > maxKeys {
		return nil, fmt.Errorf("it has more than %d keys", maxKeys)
	}
	var set keySet
	for _, raw := range file.Keys {
		if k, ok := parseJWK(raw); ok {
			set = append(set, k)
		}
	}
	if len(set) == 0 {
		return nil, errors.New("it has no key for signatures of type RSA, EC or OKP (Ed25519)")
	}
	return set, nil
}

// parseJWK reads one key, of which only what is public is looked at.
func parseJWK(raw json.RawMessage) (key, bool) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(raw, &m) != nil || m.KTY == jwkset.KtyOct || !signs(m) {
		return key{}, false
	}
	public := jwkset.JWKMarshal{KTY: m.KTY, ALG: m.ALG, KID: m.KID, CRV: m.CRV, X: m.X, Y: m.Y, N: m.N, E: m.E}
	jwk, err := jwkset.NewJWKFromMarshal(public, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil || usable(jwk.Key()) != nil {
		return key{}, false
	}
	return key{m.KID, string(m.ALG), jwk.Key()}, true
}

// signs says whether a key is for signatures.
func signs(m jwkset.JWKMarshal) bool {
	return (m.USE == "" || m.USE == jwkset.UseSig) &&
		(len(m.KEYOPS) == 0 || slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify))
}
