// Package clients drives MQTT clients that were not written here: Eclipse
// Paho for Python, MQTT.js, mosquitto_pub, and Eclipse Paho for Go.
//
// Each publishes a list of messages and reports, one by one, what was
// acknowledged. A driver is strict: an error, a warning of its library, a
// closed connection or a negative acknowledgement makes the run fail, and what
// was acknowledged before is still reported.
//
// The same clients subscribe: a [Subscriber] runs until it is closed and keeps
// what it got, with every property. kcat writes records.
//
// The libraries are downloaded once into the user's cache. A client that
// cannot be had is skipped, naming the reason and the remedy; with
// SLUICE_TEST_CLIENTS=required the test fails instead.
package clients
