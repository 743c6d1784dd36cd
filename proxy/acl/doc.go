// Package acl is what devices may do: a list of entries that allow or deny rights on the topics their filters match,
// compiled once and immutable, so that any goroutine may ask it.
//
// The first entry that matches decides, and what none allows is denied. Variables in filters are taken literally: no
// client ID or user name makes an entry match more than it would for a plain one, and none makes it deny less. How that
// holds is in variable.go.
package acl
