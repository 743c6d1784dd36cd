// Package bench is load for who wants to know what an MQTT server, Sluice above all, does on their machines: devices that
// publish, that only stay connected, or that receive commands. It is what `sluice bench` runs.
//
// What it promises:
//
//   - It costs little CPU time itself: for each device one goroutine that reads, and one that writes where messages are
//     paced or have QoS 0; nothing is allocated for a message.
//   - Its memory does not grow with the length of a run: times go into a Histogram, what was acknowledged into runs of
//     numbers.
//   - Every message says whose it is. The read-back compares what the devices were told with what Kafka holds.
//
// What it leaves out: sessions. A device that lost its connection connects again with Clean Start and sends again what
// was not acknowledged; such messages may be stored twice. That nothing is doubled where devices keep their sessions is
// for the tests in test, which have devices of their own.
package bench
