package cluster

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The listeners that Secure gives each node.
const (
	// SASL is TLS with each SASL mechanism.
	SASL = "SASL"
	// Mutual is TLS that asks clients for a certificate.
	Mutual = "MUTUAL"
)

// A Listener is one that each node has besides those of the harness.
type Listener struct {
	Name     string // as Kafka wants it: letters only
	Protocol string // SSL, SASL_SSL, SASL_PLAINTEXT or PLAINTEXT
	// Properties are set under the listener's own prefix, listener.name.NAME.
	Properties map[string]string
	// Advertise is Config.Advertise for this listener.
	Advertise func(node int, addr string) string
}

// Secure makes a cluster that lets in who can say who it is, and does for it what its ACLs allow. The harness itself, at
// DIRECT, may do everything.
type Secure struct {
	// Certificate and Key of the nodes, and the CA of clients, are PEM files.
	Certificate, Key, ClientCA string
	// Users are the passwords of PLAIN. Those of SCRAM are made when the cluster runs.
	Users map[string]string
	// JWKS is the URL of the keys that OAUTHBEARER's tokens are signed with; their audience is "kafka".
	JWKS string
	// Superusers may do everything.
	Superusers []string
	// Session is after how many milliseconds a client has to authenticate anew (KIP-368); 0 is never.
	Session int
}

// Config gives the configuration of a single node. It needs a node that is a process.
func (s Secure) Config() (Config, error) {
	tls, err := s.tls()
	if err != nil {
		return Config{}, err
	}
	sasl := maps.Clone(tls)
	maps.Copy(sasl, s.mechanisms())
	mutual := maps.Clone(tls)
	mutual["ssl.client.auth"] = "required"
	mutual["ssl.principal.mapping.rules"] = "RULE:^CN=([^,]*).*$/$1/"
	super := "User:ANONYMOUS" // who comes to a listener without authentication: the harness
	for _, name := range s.Superusers {
		super += ";User:" + name
	}
	return Config{
		Listeners: []Listener{{Name: SASL, Protocol: "SASL_SSL", Properties: sasl}, {Name: Mutual, Protocol: "SSL", Properties: mutual}},
		Properties: map[string]string{
			"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users":           super,
		},
		JVM: []string{"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + s.JWKS},
	}, nil
}

// tls are the properties of any listener with TLS.
func (s Secure) tls() (map[string]string, error) {
	p := map[string]string{"ssl.keystore.type": "PEM", "ssl.truststore.type": "PEM"}
	for name, file := range map[string]string{
		"ssl.keystore.certificate.chain": s.Certificate, "ssl.keystore.key": s.Key, "ssl.truststore.certificates": s.ClientCA,
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		p[name] = string(b)
	}
	return p, nil
}

// mechanisms are the properties of a listener with every SASL mechanism.
func (s Secure) mechanisms() map[string]string {
	const module = "org.apache.kafka.common.security."
	plain := module + "plain.PlainLoginModule required"
	for _, user := range slices.Sorted(maps.Keys(s.Users)) {
		plain += fmt.Sprintf(" user_%s=%q", user, s.Users[user])
	}
	p := map[string]string{
		"sasl.enabled.mechanisms":                               "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		"plain.sasl.jaas.config":                                plain + ";",
		"scram-sha-256.sasl.jaas.config":                        module + "scram.ScramLoginModule required;",
		"scram-sha-512.sasl.jaas.config":                        module + "scram.ScramLoginModule required;",
		"oauthbearer.sasl.jaas.config":                          module + "oauthbearer.OAuthBearerLoginModule required;",
		"oauthbearer.sasl.server.callback.handler.class":        module + "oauthbearer.OAuthBearerValidatorCallbackHandler",
		"oauthbearer.sasl.oauthbearer.jwks.endpoint.url":        s.JWKS,
		"oauthbearer.sasl.oauthbearer.expected.audience":        "kafka",
		"oauthbearer.sasl.oauthbearer.clock.skew.seconds":       "1",
		"oauthbearer.sasl.oauthbearer.header.urlencode":         "false",
		"oauthbearer.sasl.oauthbearer.jwks.endpoint.refresh.ms": "60000",
	}
	if s.Session > 0 {
		for _, mechanism := range strings.Split(p["sasl.enabled.mechanisms"], ",") {
			p[strings.ToLower(mechanism)+".connections.max.reauth.ms"] = strconv.Itoa(s.Session)
		}
	}
	return p
}

// At returns the addresses of a listener of Config.Listeners, as its clients are told them.
func (c *Cluster) At(listener string) (addrs []string) {
	for _, e := range c.ends {
		addrs = append(addrs, e.told[listener])
	}
	return addrs
}

// add puts a listener of its own into the properties of node e.
func (l Listener) add(p map[string]string, e endpoints) {
	p["listeners"] += fmt.Sprintf(",%s://%s:%d", l.Name, e.bind, e.more[l.Name])
	p["advertised.listeners"] += fmt.Sprintf(",%s://%s", l.Name, e.told[l.Name])
	p["listener.security.protocol.map"] += fmt.Sprintf(",%s:%s", l.Name, l.Protocol)
	for name, value := range l.Properties {
		p["listener.name."+strings.ToLower(l.Name)+"."+name] = value
	}
}
