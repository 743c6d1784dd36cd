// Package auth says who a device is. A [Chain] asks its methods in order, a users file, JSON Web Tokens, the
// certificate of the connection or an HTTP service, and the first that knows the user decides.
//
// It promises that nobody is let in because something failed: a method that cannot say ends the login with
// "server unavailable", and no later method is asked. It promises that guessing is slow and costs the fleet
// nothing: a wrong password is answered late, an address that fails too often is not checked any more, and
// what all this remembers has a constant size.
//
// What a device may do once it is in is not said here; an identity leaves this package without Access.
package auth
