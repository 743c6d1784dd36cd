package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/proxy/acl"
)

// checkAuth checks each method.
func (d *decoder) checkAuth(c *Config) {
	for i := range c.Auth {
		path := fmt.Sprintf("auth[%d]", i)
		if d.isBad(path) {
			continue
		}
		d.checkMethod(path)
		m := &c.Auth[i]
		if m.MTLS != nil && !asksForCertificates(c.Listeners) {
			d.refuse("needs a listener with tls and client_auth: request or require", path+".mtls")
		}
		if m.JWT != nil && !d.isBad(path+".jwt") {
			d.checkJWT(path+".jwt", m.JWT)
		}
		if m.HTTP != nil && !d.isBad(path+".http") {
			d.checkURL(path+".http.url", m.HTTP.URL)
			d.checkClientTLS(path+".http.tls", m.HTTP.TLS)
		}
	}
}

// checkShare checks a pattern of share names.
func (d *decoder) checkShare(path, pattern string) {
	if i := strings.IndexAny(pattern, "/+#"); pattern == "" || i >= 0 {
		d.report(path, max(i, 0), "a share name is not empty and has no /, + or # in it; * stands for any characters")
	}
}

// methods are the fields of AuthMethod.
var methods = []string{"file", "jwt", "mtls", "http"}

// checkMethod checks that an entry is one method.
func (d *decoder) checkMethod(path string) {
	switch found := d.present(path, methods...); {
	case len(found) == 0:
		d.fail(path, d.places[path].key, "an entry of auth needs %s", oneOf(methods))
	case len(found) > 1:
		d.fail(path, d.places[path].key, "this has %s at once, so their order is not clear; write a list, each with a hyphen of its own: the first that knows the user decides",
			strings.Join(found, " and "))
	}
}

// present gives those of the fields of a section that are in the file.
func (d *decoder) present(path string, fields ...string) (found []string) {
	for _, field := range fields {
		if d.has(path + "." + field) {
			found = append(found, field)
		}
	}
	return found
}

func asksForCertificates(listeners []Listener) bool {
	for i := range listeners {
		if t := listeners[i].TLS; t != nil && t.ClientAuth != ClientAuthNone {
			return true
		}
	}
	return false
}

// keys are the fields of JWT that say what tokens are signed with.
var keys = []string{"secret", "key", "jwks"}

// minSecret is the shortest secret of HMAC with SHA-256 that RFC 7518, section 3.2, allows. A shorter one can be found
// by trying, with any one token.
const minSecret = 32

// checkJWT checks that there is one key, and that the algorithms are for its kind: a public key taken for the secret of
// HMAC would let everybody sign who knows it.
func (d *decoder) checkJWT(path string, j *JWT) {
	if found := d.present(path, keys...); len(found) != 1 {
		d.fail("", d.places[path].key, "jwt needs exactly one of secret, key and jwks")
		return
	}
	secret := path + ".secret"
	if d.has(secret) && !d.isBad(secret) && len(j.Secret) < minSecret {
		d.report(secret, -1, "secret must have at least %d bytes", minSecret)
	}
	if strings.Contains(j.JWKS, "://") {
		d.checkURL(path+".jwks", j.JWKS)
	}
	d.checkURLTLS(path+".tls", j.TLS, "jwks", j.JWKS)
	for i, a := range j.Algorithms {
		at := fmt.Sprintf("%s.algorithms[%d]", path, i)
		switch hmac := strings.HasPrefix(a, "HS"); {
		case d.isBad(at):
		case hmac && !d.has(secret):
			d.report(at, -1, "%s needs secret: a public key is known to everybody, and who knows the key of %s can sign", a, a)
		case !hmac && d.has(secret):
			d.report(at, -1, "%s needs key or jwks; those that go with secret are HS256, HS384 and HS512", a)
		}
	}
}

// checkACL checks and compiles the entries.
func (d *decoder) checkACL(rules []ACLRule) {
	compiled := make([]acl.Rule, len(rules))
	for i := range rules {
		path := fmt.Sprintf("acl[%d]", i)
		compiled[i] = rules[i].rule()
		compiled[i].Rights |= acl.Publish // one that has none was reported
		if found := d.present(path, "allow", "deny"); !d.isBad(path) && len(found) != 1 {
			d.fail("", d.places[path].key, "an entry of acl needs exactly one of allow and deny")
		}
		if d.has(path + ".share") {
			d.checkShare(path+".share", rules[i].Share)
			if compiled[i].Rights&^acl.Publish != acl.Subscribe || slices.Contains(append(rules[i].Allow, rules[i].Deny...), RightPublish) {
				d.report(path+".share", 0, "an entry for a share is about subscribe alone")
			}
		}
	}
	_, err := acl.Compile(compiled)
	for _, err := range parts(err) {
		var rule *acl.RuleError
		if !errors.As(err, &rule) {
			continue
		}
		path := fmt.Sprintf("acl[%d].filter", rule.Rule)
		if p := d.places[path]; p != nil && !p.bad {
			d.errs = append(d.errs, d.src.fault(p.byteAt(rule.Offset), "filter: %v", rule.Err))
		}
	}
}
