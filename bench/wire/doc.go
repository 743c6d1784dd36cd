// Package wire writes and reads the packets of an MQTT client, byte by byte. It shares no code with the server, so that
// a mistake there can't hide here: `sluice bench` and the tests' fleets of devices speak by it.
package wire
