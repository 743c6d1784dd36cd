// Package tls is certificates and their rotation: the listener's side of TLS as a record layer without a goroutine,
// and the configuration of the client's side towards Kafka and HTTP. It is the only package that imports crypto/tls.
//
// What it promises:
//
//   - A certificate, a list of client CAs or a revocation list that changes on disk is taken by the next handshake;
//     connections that are open are not touched. A file that is broken, or half written, changes nothing.
//   - A client certificate is checked against CAs, dates and revocation lists in each handshake, also in one that resumes a
//     session. The name it gives has no character that means something in a topic filter.
//   - An established connection is a state machine over bytes: it has no goroutine and no socket, and holds no more of
//     what the other side sent than one incomplete record.
//   - What a handshake may send is bounded, and who calls Accept is asked for room for what crypto/tls keeps of it.
//
// What it leaves out: OCSP, revocation lists fetched from a network, encrypted private keys, TLS below 1.2, renegotiation
// and early data. It sets no deadlines; who calls Accept bounds it.
package tls
