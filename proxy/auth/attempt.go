package auth

import (
	"context"
	"net"
	"net/netip"

	"sluice/mqtt"
)

// An outcome is what a method says of a login; a metric label.
type outcome int

const (
	unknown   outcome = iota // not known to this method; the next one is asked
	accepted                 // known, and who it says
	refused                  // known, and not who it says
	throttled                // not checked, since its address failed too often
	failed                   // nobody can say
	outcomes
)

var outcomeNames = [outcomes]string{"unknown", "accepted", "refused", "throttled", "error"}

// A verdict is an outcome and, if accepted, the identity; else why, in fixed words for the log.
type verdict struct {
	outcome  outcome
	identity *mqtt.Identity
	why      string
}

// A method is a Method that is ready to be asked. An error means that it can't say; it is never an acceptance.
type method interface {
	name() string
	decide(ctx context.Context, a *attempt) (verdict, error)
}

// An attempt is a login and what its address has done before.
type attempt struct {
	*mqtt.Login
	from   netip.Addr
	limits *limits
}

// suspect says whether too many logins failed from this address. It may change while the attempt waits.
func (a *attempt) suspect() bool { return a.limits.suspect(a.from) }

// barred says whether this user failed too often from there. Without it a suspect address could try passwords
// without end against those that are remembered.
func (a *attempt) barred() bool { return a.limits.barred(a.from, a.Username) }

// slowed says whether a password is not to be checked.
func (a *attempt) slowed() bool { return a.suspect() || a.barred() }

// originOf gives the address that failures are counted for: one of IPv4, or a /64 of IPv6, of which one
// customer has them all. What has no address shares one.
func originOf(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return prefix.Addr()
}
