package config

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/proxy/acl"
)

const longSecret = "0123456789abcdef0123456789abcdef"

func TestOneMethodNeedsNoList(t *testing.T) {
	require.Equal(t, []AuthMethod{{File: "users.yaml"}}, parse(t, base+"auth: {file: users.yaml}\n").Auth)
	require.Equal(t, parse(t, base+"auth:\n- jwt: {key: k.pem}\n").Auth, parse(t, base+"auth:\n  jwt:\n    key: k.pem\n").Auth)
	require.Nil(t, parse(t, base).Auth)
	refuse(t, base+"auth: users.yaml\n", "8:7: auth must be a list, not a text")
	refuse(t, base+"auth: []\n", "8:7: auth must have at least one entry")
	refuse(t, base+"auth:\n", "8:1: auth has no value")
}

func TestAnEntryIsOneMethod(t *testing.T) {
	refuse(t, base+"auth: {file: u, http: {url: 'https://a'}}\n", "8:7: this has file and http at once, so their order is not clear; write a list")
	refuse(t, base+"auth:\n  - file: u\n  - {}\n", "10:5: an entry of auth needs file, jwt, mtls or http")
	refuse(t, base+"auth:\n  - file: u\n  - flie: u\n", `10:5: unknown field "flie" (did you mean "file"?)`, "10:5: an entry of auth needs")
	refuse(t, base+"auth: [u]\n", "8:8: auth[0] must be a mapping")
	refuse(t, base+"auth: {file: ''}\n", "8:14: file is empty")
}

func TestCertificatesCountOnlyWhereTheyAreAskedFor(t *testing.T) {
	refuse(t, base+"auth: {mtls: {}}\n", "8:8: mtls needs a listener with tls and client_auth: request or require")
	refuse(t, listening(serverTLS)+"auth: {mtls: {}}\n", "11:8: mtls needs a listener")
	refuse(t, base+"auth: {mtls: true}\n", "8:14: mtls must be a mapping")
	parse(t, listening(serverTLS+"      client_auth: request\n      client_ca: ca.pem\n")+"auth: {mtls: {}}\n")
}

func TestTokensHaveOneKindOfKey(t *testing.T) {
	jwt := func(fields string, want ...string) {
		t.Helper()
		refuse(t, base+"auth: {jwt: {"+fields+"}}\n", want...)
	}
	jwt("", "8:8: jwt needs exactly one of secret, key and jwks")
	jwt("key: k.pem, jwks: j.json", "8:8: jwt needs exactly one of secret, key and jwks")
	jwt("secret: "+longSecret[1:], "8:22: secret must have at least 32 bytes")
	jwt("secret: ''", "8:22: secret is empty")
	jwt("secret: "+longSecret+", algorithms: [HS256, RS256]", "8:76: RS256 needs key or jwks")
	jwt("key: k.pem, algorithms: [ES256, HS256]", "8:46: HS256 needs secret: a public key is known to everybody")
	jwt("jwks: j.json, algorithms: [HS512]", "8:41: HS512 needs secret")
	jwt("key: k.pem, algorithms: [none]", `8:39: algorithms[0] must be HS256,`)
	jwt("key: k.pem, algorithms: []", "8:38: algorithms must have at least one entry")
	jwt("jwks: 'http://keys.example/'", "8:20: jwks must begin with https://")
	jwt("key: '', issuer: '', audience: '', identity: ''", "8:19: key is empty", "8:31: issuer is empty", "8:45: audience is empty", "8:59: identity is empty")
	jwt("key: k, from: topic", `8:28: from must be password or username, not "topic"`)
	jwt("key: k, leeway: 1h", "8:30: leeway must be 0s to 10m, not 1h")
	jwt("jwks: keys.json, tls: {ca: ca.pem}", "8:31: tls is only for jwks that begins with https://")
	jwt("key: k, tls: {}", "8:22: tls is only for jwks that begins with https://")
	jwt("jwks: 'http://localhost/', tls: {}", "8:41: tls is only for jwks that begins with https://")
	jwt("jwks: 'https://a', tls: {key: k, ca: ''}", "8:39: key needs certificate", "8:51: ca is empty")
	parse(t, base+"auth: {jwt: {jwks: 'https://a', tls: {ca: ca.pem}}}\n")
	parse(t, base+"auth: {jwt: {secret: "+longSecret+", algorithms: [HS256, HS384, HS512]}}\n")
	parse(t, base+"auth: {jwt: {jwks: keys.json, algorithms: [EdDSA, PS256]}}\n")
}

func TestTheCallOutIsEncrypted(t *testing.T) {
	refuse(t, base+"auth: {http: {}}\n", "8:8: url is missing")
	refuse(t, base+"auth: {http: {url: 'http://auth.example/'}}\n", "8:20: url must begin with https://")
	refuse(t, base+"auth: {http: {url: 'https://a', max_concurrent: 0, timeout: 0s, cache_size: 0, tls: {key: k}}}\n", "8:49: max_concurrent must be 1 to 10000",
		"8:61: timeout must be 10ms to 1m", "8:77: cache_size must be 1 to 1000000", "8:86: key needs certificate")
	parse(t, base+"auth: {http: {url: 'http://localhost:1/', cache: 0, cache_refused: 0s}}\n")
}

func TestEntriesOfTheACLAllowOrDeny(t *testing.T) {
	entry := func(fields string, want ...string) {
		t.Helper()
		refuse(t, base+"acl: [{"+fields+"}]\n", want...)
	}
	entry("filter: a", "8:7: an entry of acl needs exactly one of allow and deny")
	entry("allow: [publish], deny: [will], filter: a", "8:7: an entry of acl needs exactly one of allow and deny")
	entry("allow: [publish]", "8:7: filter is missing")
	entry("allow: [], filter: a", "8:15: allow must have at least one entry")
	entry("allow: publish, filter: a", "8:15: allow must be a list, not a text")
	entry("allow: [publish, read], filter: a", `8:25: allow[1] must be publish, subscribe, will or retain, not "read"`)
	entry("deny: [subscrbe], filter: a", `8:15: deny[0] must be publish, subscribe, will or retain, not "subscrbe" (did you mean "subscribe"?)`)
	entry("allow: [publish], filter: 'a/#/b+'", "8:37: filter: # must be the last level", "8:40: filter: + must be a whole level")
	entry("allow: [publish], filter: 'a/{device}'", `8:37: filter: unknown name "device"; known here: mqtt.client_id, mqtt.username, cert.cn`)
	entry("allow: [publish], filter: ''", "8:34: filter is empty")
	entry("allow: [publish], filter: a, username: '', client_id: ''", "8:47: username is empty", "8:62: client_id is empty")
	refuse(t, base+"acl: []\n", "8:6: acl must have at least one entry")
	refuse(t, base+"acl: [x, {allow: [will], filter: +a}]\n", "8:7: acl[0] must be a mapping", "8:34: filter: + must be a whole level")
}

func TestTheACLOfAParsedFileCompiles(t *testing.T) {
	none, err := parse(t, base).AccessList()
	require.NoError(t, err)
	require.Nil(t, none)
	list, err := parse(t, base+"acl:\n  - {deny: [publish, will], filter: a/b}\n  - {allow: [publish, retain], filter: 'a/{mqtt.username}', username: u, client_id: c}\n"+
		"  - {allow: [subscribe, will], filter: 'a/#'}\n").AccessList()
	require.NoError(t, err)
	a := list.Access(acl.Who{Username: "u", ClientID: "c"})
	require.True(t, a.Publish([]byte("a/u")) && a.Retain([]byte("a/u")) && a.Will([]byte("a/u")) && a.Subscribe("a/#", ""))
	require.False(t, a.Publish([]byte("a/b")) || a.Will([]byte("a/b")) || a.Publish([]byte("a/x")))
	require.False(t, list.Access(acl.Who{Username: "u"}).Publish([]byte("a/u")))
}
