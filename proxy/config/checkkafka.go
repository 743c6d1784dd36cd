package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// checkKafka checks who this process is for the brokers.
func (d *decoder) checkKafka(k *Kafka) {
	d.checkBrokers(k.Brokers)
	d.checkClientTLS("kafka.tls", k.TLS)
	d.checkSASL("kafka.sasl", k.SASL)
	for name, identity := range k.Identities {
		path := fmt.Sprintf("kafka.identities[%s]", name)
		if !d.isBad(path) && !d.has(path+".client_id") && !d.has(path+".tls") && !d.has(path+".sasl") {
			d.fail(path, d.places[path].key, "identities[%s] says nothing; give it client_id, tls or sasl", name)
		}
		d.checkClientTLS(path+".tls", identity.TLS)
		d.checkSASL(path+".sasl", identity.SASL)
	}
}

func (d *decoder) checkBrokers(brokers []string) {
	seen := make(map[string]bool)
	for i, b := range brokers {
		path := fmt.Sprintf("kafka.brokers[%d]", i)
		if d.places[path].bad {
			continue
		}
		if err := checkAddress(b, true); err != nil {
			d.report(path, err.offset, "%s: %s", name(path), err.text)
		} else if seen[b] {
			d.report(path, -1, "broker %s is in the list twice", b)
		}
		seen[b] = true
	}
}

// checkClientTLS checks that a certificate has its key.
func (d *decoder) checkClientTLS(path string, t *ClientTLS) {
	if t == nil || d.isBad(path) {
		return
	}
	if !d.has(path + ".key") {
		d.refuse("needs key, the file of its private key", path+".certificate")
	}
	if !d.has(path + ".certificate") {
		d.refuse("needs certificate, the file of what it is the key of", path+".key")
	}
}

// The fields that mechanisms need.
var (
	passwordFields = []string{"username", "password"}
	tokenFields    = []string{"token_url", "client_id", "client_secret"}
)

// checkSASL checks that the fields are those of the mechanism.
func (d *decoder) checkSASL(path string, s *SASL) {
	if s == nil || d.isBad(path) {
		return
	}
	d.checkURL(path+".token_url", s.TokenURL)
	if d.has(path + ".token_url") {
		d.checkURLTLS(path+".token_tls", s.TokenTLS, "token_url", s.TokenURL)
	}
	if !d.has(path+".mechanism") || d.isBad(path+".mechanism") {
		return
	}
	needed, others := passwordFields, append([]string{"scopes", "token_tls"}, tokenFields...)
	if s.Mechanism == MechanismOAuthBearer {
		needed, others = tokenFields, passwordFields
	}
	d.require(path, s.Mechanism+" needs it", needed...)
	for _, field := range others {
		d.refuse("does not go with "+s.Mechanism, path+"."+field)
	}
}

// checkURL checks the URL of a service that is sent secrets, or sends what must not be forged. The text is not
// repeated, because it may hold a password.
func (d *decoder) checkURL(path, text string) {
	if !d.has(path) || d.isBad(path) {
		return
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		d.report(path, -1, "%s must be a URL such as https://login.example/token", name(path))
	case u.User != nil:
		d.report(path, -1, "%s must not hold a user or a password, which would be seen in logs", name(path))
	case u.Fragment != "":
		d.report(path, -1, "%s must not have a fragment (#)", name(path))
	case u.Scheme == "http" && !loopback(u.Hostname()):
		d.report(path, -1, "%s must begin with https:// (http:// is for this machine only: localhost, 127.0.0.1 or [::1])", name(path))
	}
}

// checkURLTLS checks the TLS of a service, and that its URL, which is in field, is one where it counts.
func (d *decoder) checkURLTLS(path string, t *ClientTLS, field, text string) {
	d.checkClientTLS(path, t)
	if !strings.HasPrefix(strings.ToLower(text), "https://") {
		d.refuse("is only for "+field+" that begins with https://", path)
	}
}

// loopback tells whether the host is this machine.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// checkIdentity checks as whom the records of a rule are written.
func (d *decoder) checkIdentity(path string, r *Rule, identities map[string]KafkaIdentity) {
	at := path + ".identity"
	if !d.has(at) || d.isBad(at) || d.isBad("kafka.identities") {
		return
	}
	switch {
	case !d.has(join("kafka.identities", r.Identity)):
		d.report(at, -1, "identity: %q is not in kafka.identities%s", r.Identity, didYouMean(r.Identity, slices.Sorted(maps.Keys(identities))))
	case r.ExactlyOnce:
		d.report(at, -1, "identity can't go with exactly_once: a transaction holds records of several rules and is written as kafka itself")
	}
}
