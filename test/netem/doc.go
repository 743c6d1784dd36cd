// Package netem puts a TCP forwarder between a client and a server and breaks
// the network between them as a test asks: connections refused, or every byte
// swallowed while all sockets stay open.
//
// What it cannot do from user space: take bytes back that the client's kernel
// has already seen acknowledged. So nothing is lost on a connection that
// outlives a Swallow; it arrives after Heal, as after a retransmission.
package netem
