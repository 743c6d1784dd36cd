package acl

import "fmt"

// Right is something a device may do; several are joined by |.
type Right uint8

// The rights.
const (
	Publish   Right = 1 << iota // PUBLISH to a topic
	Subscribe                   // SUBSCRIBE to a topic filter, and get what is published to a topic
	Will                        // leave a will message for a topic
	Retain                      // set the RETAIN flag of a message or a will for a topic
)

// Rule is one entry as it stands in the configuration.
type Rule struct {
	Deny     bool   // these rights; else they are allowed
	Rights   Right  // at least one
	Filter   string // a topic filter with variables
	Username string // of the only device it is for; "": all
	ClientID string // of the only device it is for; "": all
	Share    string // pattern of the ShareNames it is for, see MatchShare; "": it is for all subscriptions
}

// Who is the device that asks. What is empty is missing.
type Who struct {
	ClientID   string
	Username   string // the name that was proven, if devices have to
	CommonName string // of its certificate
}

// A RuleError is one fault of a rule.
type RuleError struct {
	Rule   int // index in the list
	Offset int // of the byte of Filter that is wrong
	Err    error
}

// Error names the rule and the byte.
func (e *RuleError) Error() string {
	return fmt.Sprintf("rule %d: filter, byte %d: %v", e.Rule, e.Offset, e.Err)
}

// Unwrap gives what is wrong.
func (e *RuleError) Unwrap() error { return e.Err }
