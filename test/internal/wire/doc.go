// Package wire builds MQTT packets byte for byte and reads the answers, for tests that say what no library would say. It
// knows the layout of packets and none of the rules: what it builds may be as wrong as a test wants.
package wire
