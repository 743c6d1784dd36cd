// Package oracle says what a session of MQTT 3.1.1 or 5 may do, straight from the specifications, and holds a running
// Sluice to it.
//
// A [Script] is what two devices and a back end do: connects, publishes, subscriptions, connections that break between
// any two packets, takeovers. [Draw] makes one of a seed. A [World] runs scripts against instances, any number at a time,
// each with client IDs and topics of its own, and gives a [History]: every packet that a device sent and got, and every
// record that Kafka has of it, in the order in which they were seen. [Judge] compares a history with the model; each
// [Violation] names the clause. Shrink makes a script that fails as short as it can.
//
// Nothing here is shared with the server: packets are built by test/internal/wire, records are written and read by
// franz-go, and the model knows nothing of how Sluice works, only of what it promises.
package oracle
