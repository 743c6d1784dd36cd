package config

import "net/netip"

// The words of Listener.Protocol.
const (
	ProtocolMQTT      = "mqtt"
	ProtocolWebSocket = "websocket"
)

// A Listener takes MQTT 3.1, 3.1.1 and 5 over TCP, TLS or WebSocket.
type Listener struct {
	// Address is host:port. `0.0.0.0:1883` listens on every IPv4 address, `:1883` on every address, port 0 on
	// a free port of the system's choice. Two listeners can't share one address.
	Address string `yaml:"address"`
	// Protocol is mqtt, or websocket for browsers: HTTP connections that are upgraded with the subprotocol `mqtt`, or
	// `mqttv3.1`.
	Protocol string `yaml:"protocol"`
	// Path is where a listener with `protocol: websocket` is found, the path of its URL. Left out, it is `/mqtt`, and `/`
	// too, which clients ask for that are given no path.
	Path string `yaml:"path"`
	// Origins are the web sites whose pages may use a listener with `protocol: websocket`, each as a browser names it:
	// `https://console.example`, with the port if it is not the usual one. Pages of the listener's own host may use it
	// anyway, and so may programs that are no browsers. `"*"` lets in the pages of everybody. Left out, it is nobody
	// else.
	Origins []string `yaml:"origins"`
	// TLS encrypts the connections. Left out, they are readable on their way, passwords included.
	TLS *ListenerTLS `yaml:"tls"`
	// ProxyProtocol is for a listener behind a load balancer that tells the address of each device in a PROXY
	// protocol header, version 1 or 2; with `tls` it comes before the handshake. Left out, no header is understood.
	ProxyProtocol *ProxyProtocol `yaml:"proxy_protocol"`
}

// The words of ListenerTLS.ClientAuth.
const (
	ClientAuthNone    = "none"
	ClientAuthRequest = "request"
	ClientAuthRequire = "require"
)

// ListenerTLS says how the listener proves itself to devices, and whether they have to. All files are PEM and are read
// again when they change, without ending a connection; a faulty file leaves the one before in force and is told in
// the log.
type ListenerTLS struct {
	// Certificate is the file of the listener's certificate, the intermediate ones behind it.
	Certificate string `yaml:"certificate"`
	// Key is the file of the certificate's private key, not encrypted.
	Key string `yaml:"key"`
	// ClientCA is the file of the authorities that sign the devices' certificates. It needs `client_auth: request` or
	// `require`. A device may send a chain of 10 certificates at most, and of 16 KiB with all else that it sends with them.
	ClientCA string `yaml:"client_ca"`
	// ClientAuth says whether devices have certificates of their own. none: they are not asked. request: one that has
	// none is let in, to prove itself in another way; a bad one is refused. require: all must have a good one.
	ClientAuth string `yaml:"client_auth"`
	// CRL is the file with the lists of the certificates that the authorities in `client_ca` have revoked. Like the other
	// files here it is read again when it changes: devices whose certificate is revoked by then, or whose authority is gone
	// from `client_ca`, are disconnected; the others notice nothing. Each list must be of an authority in `client_ca`. If its
	// certificate there can't be used, as it is that of no authority or one of X.509 version 1, both are left out with a warning,
	// and nothing that has its name as issuer is trusted.
	CRL string `yaml:"crl"`
	// Identity is the name in a device's certificate that says who it is for `auth` with `mtls`. cn: the common name
	// of the subject. san_dns, san_email, san_uri: the first such alternative name. A certificate without it, or in
	// which it has control characters, `+`, `#` or `/`, is refused.
	Identity string `yaml:"identity"`
	// MinVersion is the oldest version of TLS that is spoken.
	MinVersion string `yaml:"min_version"`
}

// ProxyProtocol says whom to believe. It makes the header a must: a connection without one is closed, and so is one
// from any other address, since whoever may send the header can claim to be anywhere. Devices that connect
// directly need a listener of their own.
type ProxyProtocol struct {
	// Trusted are the addresses of the load balancers, at least one, each an IP address or a network such as
	// `10.0.0.0/8`.
	Trusted []string `yaml:"trusted"`
}

// Networks gives the trusted addresses. What Parse would have refused is left out.
func (p *ProxyProtocol) Networks() []netip.Prefix {
	var networks []netip.Prefix
	for _, s := range p.Trusted {
		if n, err := parseNetwork(s); err == nil {
			networks = append(networks, n)
		}
	}
	return networks
}

// defaultListener gives the values of what a listener leaves out.
func defaultListener() Listener { return Listener{Protocol: ProtocolMQTT} }

// defaultListenerTLS gives the values of what the TLS of a listener leaves out.
func defaultListenerTLS() ListenerTLS {
	return ListenerTLS{ClientAuth: ClientAuthNone, Identity: "cn", MinVersion: "1.2"}
}
