package auth

import (
	"errors"
	"fmt"

	"sluice/mqtt"
)

// errBusy says that a login waited for its turn in vain. The device may try again.
var errBusy = errors.New("too many logins are being checked")

// errNoKeys says that a key set was never read, so that no token can be judged.
var errNoKeys = errors.New("no key is known yet")

// A SyntaxError is a fault in a users file.
type SyntaxError struct {
	Line    int // from 1
	Message string
}

// Error gives the line and the fault. It never quotes what may be a password.
func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// refusal is what a device is told that is not let in. A name nobody knows and a wrong password are the same
// to it. Bad User Name or Password exists in CONNACK alone, so whoever comes by AUTH is not authorized.
func refusal(l *mqtt.Login) error {
	if l.Method != "" {
		return &mqtt.ProtocolFault{Code: mqtt.NotAuthorized, Detail: "the credentials are not accepted"}
	}
	return &mqtt.ProtocolFault{Code: mqtt.BadUserNameOrPassword, Detail: "the user name or the password is wrong"}
}

// slowDown is what a device is told whose address failed too often. The code is one after which it may try
// again, since its password may well be right.
func slowDown() error {
	return &mqtt.ProtocolFault{Code: mqtt.ServerBusy, Detail: "too many logins failed from this address"}
}

// failure is what a device is told when nobody could say who it is. In DISCONNECT there is no Server unavailable.
func failure(l *mqtt.Login, err error) error {
	if l.Again != nil || errors.Is(err, errBusy) {
		return &mqtt.ProtocolFault{Code: mqtt.ServerBusy, Detail: "authentication is busy"}
	}
	return &mqtt.ProtocolFault{Code: mqtt.ServerUnavailable, Detail: "authentication is not available"}
}
