// Package tlstest makes what tests of TLS need: CAs, certificates of servers and clients, revocation lists, the files with
// all of these, and the two ends of connections. Only tests import it.
package tlstest
