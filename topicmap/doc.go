// Package topicmap says where in Kafka an MQTT message goes: which Kafka topic, which key, which headers. And for
// the way back, where in MQTT a record goes: which MQTT topic, which client, which properties.
//
// The rules of the configuration (publish:) are compiled once into an immutable [Map]. [Map.Route] then finds the
// first rule that matches a [Message] and renders its templates into a caller's [Route], without allocating.
//
// The rules of commands: are compiled into a [CommandMap], whose [CommandMap.Route] does the same with a [Record]
// and a [CommandRoute].
//
// It promises that a routed Kafka topic is always a legal and never an internal name, that a routed MQTT topic is
// always a legal one, that no character is ever replaced to make them so, and that a template makes at most
// [Rule.MaxTopics] different Kafka topics. What cannot be routed is answered by [ErrNoRule] or a [Refusal]; both are
// final: the same message gets the same answer from the same Map for as long as it lives.
//
// It leaves out everything else: it opens nothing, reads no clock, starts no goroutine and knows neither the MQTT
// packets nor Kafka's client. Whether a Kafka topic exists, and whether a device may publish, is asked elsewhere.
package topicmap
