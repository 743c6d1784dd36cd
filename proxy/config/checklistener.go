package config

import (
	"fmt"
	"net/url"
	"strings"
)

// checkListener checks what stands in one listener besides its address.
func (d *decoder) checkListener(path string, l *Listener) {
	d.checkTrusted(path+".proxy_protocol.trusted", l.ProxyProtocol)
	if l.Protocol == ProtocolMQTT {
		d.refuse("is for protocol: websocket", path+".path", path+".origins")
	}
	d.checkPath(path+".path", l.Path)
	for i, origin := range l.Origins {
		if at := fmt.Sprintf("%s.origins[%d]", path, i); !d.isBad(at) && !legalOrigin(origin) {
			d.report(at, -1, `%s: %q is not "*" and no origin such as https://console.example`, name(at), origin)
		}
	}
	if l.TLS != nil {
		d.checkListenerTLS(path+".tls", l.TLS)
	}
}

// refuse reports each field at paths that is in the file, with the reason.
func (d *decoder) refuse(reason string, paths ...string) {
	for _, path := range paths {
		if p := d.places[path]; p != nil && !p.bad {
			d.fail(path, p.key, "%s %s", name(path), reason)
		}
	}
}

// require reports each field at section that is not in the file.
func (d *decoder) require(section, reason string, fields ...string) {
	for _, field := range fields {
		if d.places[section+"."+field] == nil {
			d.fail("", d.places[section].key, "%s is missing: %s", field, reason)
		}
	}
}

func (d *decoder) has(path string) bool { return d.places[path] != nil }

func (d *decoder) checkPath(path, text string) {
	if !d.has(path) || d.isBad(path) {
		return
	}
	u, err := url.Parse(text)
	if err != nil || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || u.Path != text || strings.ContainsAny(text, "?# ") {
		d.report(path, -1, "path: %q is no path of a URL such as /mqtt", text)
	}
}

// legalOrigin accepts what a browser sends as Origin, or "*".
func legalOrigin(text string) bool {
	u, err := url.Parse(text)
	return text == "*" || err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.Scheme+"://"+u.Host == text &&
		strings.ToLower(text) == text
}

// checkListenerTLS checks that what is asked of devices can be checked, and that what could be checked is asked for.
func (d *decoder) checkListenerTLS(path string, t *ListenerTLS) {
	if d.isBad(path) || d.isBad(path+".client_auth") {
		return
	}
	ca, crl := path+".client_ca", path+".crl"
	switch {
	case t.ClientAuth != ClientAuthNone && !d.has(ca):
		d.report(path+".client_auth", -1, "client_auth: %s needs client_ca, the authorities that sign the devices' certificates", t.ClientAuth)
	case t.ClientAuth == ClientAuthNone:
		d.refuse("does nothing unless client_auth is request or require", ca, path+".identity")
	}
	if !d.has(ca) {
		d.refuse("needs client_ca, the authorities whose lists these are", crl)
	}
}
