package config

import (
	"strings"
	"testing"
)

// cluster is base with more fields in kafka, from line 5 on.
func cluster(fields string) string { return strings.Replace(base, "publish:", fields+"publish:", 1) }

func TestACertificateAndItsKeyBelongTogether(t *testing.T) {
	refuse(t, cluster("  tls: {certificate: c.pem}\n"), "5:9: certificate needs key")
	refuse(t, cluster("  tls: {key: c.key}\n"), "5:9: key needs certificate")
	refuse(t, cluster("  tls: {ca: '', server_name: ''}\n"), "5:13: ca is empty", "5:30: server_name is empty")
	refuse(t, cluster("  tls: true\n"), "5:8: tls must be a mapping")
	parse(t, cluster("  tls: {}\n"))
	parse(t, cluster("  tls: {certificate: c.pem, key: c.key}\n"))
}

func TestEachMechanismHasItsFields(t *testing.T) {
	sasl := func(fields string, want ...string) {
		t.Helper()
		refuse(t, cluster("  sasl: {"+fields+"}\n"), want...)
	}
	sasl("username: u, password: p", "5:3: mechanism is missing")
	sasl("mechanism: GSSAPI", `5:21: mechanism must be PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, not "GSSAPI"`)
	sasl("mechanism: plain, username: u, password: p", `5:21: mechanism must be PLAIN`)
	for _, m := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		sasl("mechanism: "+m, "5:3: username is missing: "+m+" needs it", "5:3: password is missing: "+m+" needs it")
	}
	sasl("mechanism: PLAIN, username: u, password: p, scopes: [x], client_id: c", "5:54: scopes does not go with PLAIN", "5:67: client_id does not go with PLAIN")
	sasl("mechanism: OAUTHBEARER, client_id: c, username: u", "5:3: token_url is missing: OAUTHBEARER needs it",
		"5:3: client_secret is missing: OAUTHBEARER needs it", "5:48: username does not go with OAUTHBEARER")
	sasl("mechanism: PLAIN, username: '', password: ''", "5:38: username is empty", "5:52: password is empty")
}

func TestSecretsAreNotSentInTheOpen(t *testing.T) {
	url := func(text, want string) {
		t.Helper()
		refuse(t, cluster("  sasl: {mechanism: OAUTHBEARER, client_id: c, client_secret: s, token_url: '"+text+"'}\n"), want)
	}
	url("login.example/token", "5:77: token_url must be a URL such as")
	url("ftp://login.example", "5:77: token_url must be a URL such as")
	url("https://", "5:77: token_url must be a URL such as")
	url("https://a b/", "5:77: token_url must be a URL such as")
	url("http://login.example/token", "5:77: token_url must begin with https://")
	url("http://127.0.0.1.example/", "5:77: token_url must begin with https://")
	url("https://u:p@login.example/", "5:77: token_url must not hold a user or a password")
	url("https://login.example/#a", "5:77: token_url must not have a fragment")
	for _, text := range []string{"https://login.example/token?x=y", "http://localhost:1/", "http://127.0.0.2/", "http://[::1]:8080/t"} {
		parse(t, cluster("  sasl: {mechanism: OAUTHBEARER, client_id: c, client_secret: s, token_url: '"+text+"'}\n"))
	}
}

func TestTheTokenEndpointMayHaveACAOfItsOwn(t *testing.T) {
	const oauth = "  sasl: {mechanism: OAUTHBEARER, client_id: c, client_secret: s, token_url: "
	refuse(t, cluster(oauth+"'http://localhost/', token_tls: {ca: a.pem}}\n"), "5:98: token_tls is only for token_url that begins with https://")
	refuse(t, cluster(oauth+"'https://a', token_tls: {key: k, ca: ''}}\n"), "5:102: key needs certificate", "5:114: ca is empty")
	refuse(t, cluster("  sasl: {mechanism: PLAIN, username: u, password: p, token_tls: {}}\n"), "5:54: token_tls does not go with PLAIN")
	parse(t, cluster(oauth+"'HTTPS://a', token_tls: {ca: a.pem}}\n"))
}

func TestIdentitiesHaveNames(t *testing.T) {
	identities := func(text string, want ...string) {
		t.Helper()
		refuse(t, cluster("  identities: "+text+"\n"), want...)
	}
	identities("[]", "5:15: identities must be a mapping")
	identities("{a b: {client_id: x}, 'a.b': {client_id: x}}", `5:16: "a b" is no name`, `5:37: "a.b" is no name`)
	identities("{a: {client_id: x}, a: {client_id: y}}", `5:35: duplicate field "a"`)
	identities("{a: }", "5:16: identities[a] has no value")
	identities("{a: {}}", "5:16: identities[a] says nothing; give it client_id, tls or sasl")
	identities("{a: x}", "5:19: identities[a] must be a mapping")
	identities("{a: {clientid: x, tls: {}}}", `5:20: unknown field "clientid" (did you mean "client_id"?)`)
	identities("{a: {client_id: ''}}", "5:31: client_id is empty")
	identities("{a: {sasl: {mechanism: PLAIN, username: u}, tls: {key: k}}}", "5:20: password is missing: PLAIN needs it", "5:65: key needs certificate")
	identities("{a: {sasl: {username: u}}}", "5:20: mechanism is missing")
	parse(t, cluster("  identities: {a-1_B: {client_id: x}}\n")) // one that no rule uses is fine
}

func TestRulesNameIdentitiesThatThereAre(t *testing.T) {
	const identities = "  identities: {plants: {client_id: x}}\n" // in line 5, so a rule goes on in line 9
	refuse(t, cluster(identities)+"    identity: plant\n", `9:15: identity: "plant" is not in kafka.identities (did you mean "plants"?)`)
	refuse(t, base+"    identity: plants\n", `8:15: identity: "plants" is not in kafka.identities`)
	refuse(t, base+"    identity: ''\n", "8:15: identity is empty")
	refuse(t, cluster(identities)+"    identity: plants\n    exactly_once: true\n", "9:15: identity can't go with exactly_once")
	refuse(t, cluster("  identities: {plants: {}}\n")+"    identity: plants\n", "5:16: identities[plants] says nothing") // and nothing that follows from it
	refuse(t, cluster("  identities: 5\n")+"    identity: plants\n", "5:15: identities must be a mapping")
	parse(t, cluster(identities)+"    identity: plants\n")
}
