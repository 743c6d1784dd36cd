package mqtt

import (
	"context"
	"net"
	"time"

	"sluice/tls"
)

// An Authenticator decides who a device is. Without one every device is who its user name says.
type Authenticator interface {
	// Authenticate is called from the connection's goroutine at CONNECT, before anything is done in the device's name,
	// and when it authenticates again; nothing of that connection is read meanwhile. It may block until ctx ends, which
	// is after ConnectTimeout or when the connection is to end, and is called for many connections at once. l and the
	// memory it points to are the caller's again when it returns.
	//
	// An error that is a *ProtocolFault is told to the device, any other means Server unavailable. A method that the
	// Authenticator does not know, see Login.Method, is BadAuthenticationMethod.
	Authenticate(ctx context.Context, l *Login) (*Identity, error)
}

// A Login is what a device says of itself in CONNECT, or in AUTH when it authenticates again.
type Login struct {
	ClientID    string // chosen by the device, or assigned if it chose none
	Username    string
	HasUsername bool
	Password    []byte // of CONNECT alone
	HasPassword bool
	// Certificate is that of the TLS connection; nil: there is none.
	Certificate *tls.Identity
	Remote      net.Addr
	// Method and Data are those of the enhanced authentication of MQTT 5 (section 4.12), which is one step here; "": it
	// is not asked for.
	Method string
	Data   []byte
	// Again is who the device is by now, if it authenticates again.
	Again *Identity
}

// An Identity is who a device is. It must not change once an Authenticator has returned it; several connections may
// share one.
type Identity struct {
	// Name is the principal: it owns sessions and is the Username of messages.
	Name string
	// CommonName is that of the device's certificate; "": it has none.
	CommonName string
	// Until is when its credentials end, and its connection with them; zero: never.
	Until time.Time
	// Withdrawn says whether its credentials are no longer any, which ends its connection; nil: never. It is asked once
	// a second for each connection, under locks of this package; it must be cheap and not block.
	Withdrawn func() bool
	// Access is what it may do; nil: everything.
	Access Access
}

// Access says what a device may do. Its methods are called from any goroutine, for each message, with locks of this
// package held; they must not block and should not allocate. Their answers may change as rights are given and withdrawn.
type Access interface {
	Publish(topic []byte) bool
	Retain(topic []byte) bool
	Will(topic []byte) bool
	// Subscribe is asked with a topic filter; of a shared subscription with the one inside and the ShareName, else with
	// "" for that.
	Subscribe(filter, share string) bool
	// Receive is asked before each delivery, since a right may be withdrawn while a message waits.
	Receive(topic []byte) bool
}

// principal gives the name that owns the session, "" before CONNECT was authenticated.
func (c *Conn) principal() string {
	if who := c.identity.Load(); who != nil {
		return who.Name
	}
	return ""
}

// Identity gives who published the message; nil for a will that the server has from elsewhere.
func (m *Message) Identity() *Identity { return m.identity }
