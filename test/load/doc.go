// Package load is a fleet of MQTT devices for tests and measurements. It writes and reads packets byte by byte and
// shares no code with the server, so that a mistake there can't hide here. Every payload says which device sent it
// and its place in that device's order; [Verify] reads a Kafka topic back and compares.
package load
