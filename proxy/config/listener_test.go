package config

import (
	"strings"
	"testing"
)

// listening is base with more fields in its one listener, from line 3 on.
func listening(fields string) string {
	return strings.Replace(base, "0.0.0.0:1883\n", "0.0.0.0:1883\n"+fields, 1)
}

const serverTLS = "    tls:\n      certificate: s.pem\n      key: s.key\n" // lines 3 to 5

func TestListenersSayWhatTheySpeak(t *testing.T) {
	refuse(t, listening("    protocol: ws\n"), `3:15: protocol must be mqtt or websocket, not "ws"`)
	refuse(t, listening("    path: /mqtt\n    origins: ['*']\n"), "3:5: path is for protocol: websocket", "4:5: origins is for protocol: websocket")
	web := func(field, want string) {
		t.Helper()
		refuse(t, listening("    protocol: websocket\n    "+field+"\n"), want)
	}
	for _, path := range []string{"mqtt", "//a/b", "/a?b=c", "/a#b", "/a b", "/%zz", "/%41", "https://a/b"} {
		web("path: '"+path+"'", `4:11: path: "`+path+`" is no path of a URL such as /mqtt`)
	}
	web("path: ''", "4:11: path is empty")
	for _, origin := range []string{"console.example", "https://a/", "https://a/b", "ftp://a", "https://", "https://A.example", "https://u@a"} {
		web("origins: ['"+origin+"']", `4:15: origins[0]: "`+origin+`" is not "*" and no origin such as https://console.example`)
	}
	web("origins: ['*', '']", "4:20: origins[1] is empty")
	web("origins: []", "4:14: origins must have at least one entry")
	parse(t, listening("    protocol: websocket\n    path: /\n    origins: ['*', 'http://localhost:8080', 'https://[::1]:1']\n"+serverTLS))
}

func TestTheTLSOfAListenerIsWhole(t *testing.T) {
	refuse(t, listening("    tls: {}\n"), "3:5: certificate is missing", "3:5: key is missing")
	refuse(t, listening("    tls: {certificate: '', key: ''}\n"), "3:24: certificate is empty", "3:33: key is empty")
	more := func(fields string, want ...string) {
		t.Helper()
		refuse(t, listening(serverTLS+fields), want...)
	}
	more("      client_auth: require\n", "6:20: client_auth: require needs client_ca")
	more("      client_auth: request\n", "6:20: client_auth: request needs client_ca")
	more("      client_auth: always\n", `6:20: client_auth must be none, request or require, not "always"`)
	more("      client_ca: ca.pem\n", "6:7: client_ca does nothing unless client_auth is request or require")
	more("      client_ca: ca.pem\n      client_auth: none\n", "6:7: client_ca does nothing unless client_auth is request or require")
	more("      identity: san_dns\n", "6:7: identity does nothing unless client_auth")
	more("      identity: dns\n", "6:17: identity must be cn, san_dns, san_email or san_uri")
	more("      crl: crl.pem\n", "6:7: crl needs client_ca, the authorities whose lists these are")
	more("      client_auth: require\n      crl: crl.pem\n", "6:20: client_auth: require needs client_ca", "7:7: crl needs client_ca")
	more("      min_version: 1.2\n", `6:20: min_version must be a text; write it in quotes: "1.2"`)
	more("      min_version: '1.1'\n", `6:20: min_version must be 1.2 or 1.3, not "1.1"`)
	parse(t, listening(serverTLS+"      client_auth: none\n"))
	parse(t, listening(serverTLS+"      client_auth: require\n      client_ca: ca.pem\n      crl: crl.pem\n"))
}
