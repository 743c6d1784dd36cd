package config

import (
	"fmt"
	"net/netip"
)

// parseNetwork reads an IP address or a network.
func parseNetwork(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no IP address and no network such as 10.0.0.0/8", s)
		}
		n = netip.PrefixFrom(ip, ip.BitLen())
	}
	switch {
	case n.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 address written as IPv6; write the IPv4 address", s)
	case n != n.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its %d; did you mean %s?", s, n.Bits(), n.Masked())
	}
	return n, nil
}

// checkTrusted checks the networks of a listener's load balancers.
func (d *decoder) checkTrusted(path string, p *ProxyProtocol) {
	if p == nil {
		return
	}
	for i, s := range p.Trusted {
		entry := fmt.Sprintf("%s[%d]", path, i)
		if d.isBad(entry) {
			continue
		}
		if _, err := parseNetwork(s); err != nil {
			d.report(entry, -1, "%s: %v", name(entry), err)
		}
	}
}
