// Package cluster gives a test a real Apache Kafka: one node or several, on
// loopback, started in seconds and gone with the test.
//
// It knows three ways to have one and takes the first that works here: the
// cluster named by KAFKA_BROKERS, a local Java 17 with Kafka's jars from Maven
// Central, or a container engine. A test asks with [Need] or [Shared] and is
// skipped, naming the reason and the remedy, where no way works; with
// SLUICE_TEST_KAFKA=required it fails instead.
//
// Nodes can be killed, restarted over the same data, stopped in their tracks
// and resumed. Each has a listener CLIENT, whose advertised address a test may
// replace by a proxy's ([Config.Advertise]), and a listener DIRECT, by which
// the harness and the test's own verification go past such a proxy.
//
// The package does not hide Kafka: it has no producer or consumer of its own.
// It runs on Unix systems.
package cluster
