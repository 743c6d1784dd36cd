// Package mqtt is the device side of Sluice: it accepts connections, speaks MQTT 3.1, 3.1.1 and 5, and hands
// every PUBLISH to a Handler. It promises that
//
//   - a PUBLISH is acknowledged only after the Handler said how it ended, and acknowledgements leave in the
//     order in which the messages came [MQTT-4.6.0-2], joined into few writes;
//   - a QoS 2 message is handed over once, however often it is sent, as long as its session lives in this
//     process;
//   - a Command reaches every session with a matching subscription, in the order of Send, once with QoS 2 and at
//     least once with QoS 1, within the device's Receive Maximum and Maximum Packet Size; what became of it is
//     told exactly once for each of them;
//   - a device that does not read, sends nonsense, or sends half of something costs a bounded number of
//     bytes and at most its own connection.
//
// It knows nothing of Kafka and of rules. Sessions live in the memory of this process, and a [Store] may
// keep them beyond that.
// DESIGN.md beside this file has the reasons.
package mqtt
