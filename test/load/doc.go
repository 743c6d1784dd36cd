// Package load is fleets of MQTT devices for tests and measurements. Their packets are those of bench/wire, which
// shares no code with the server, so that a mistake there can't hide here.
//
// A [Fleet] publishes: every payload says which device sent it and its place in that device's order, and [Verify]
// reads a Kafka topic back and compares. A [CommandFleet] subscribes: a [CommandWriter] writes numbered commands to
// Kafka, the devices keep what they got, and [CommandFleet.Report] compares; [Receipts] reads what the server says
// became of each.
package load
