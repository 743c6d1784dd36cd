// Package embedded runs an in-memory Kafka inside this process, for trying things out and for tests. It is
// kfake, of franz-go: it speaks Kafka's protocol on a loopback port, keeps nothing on disk, and forgets old
// records so that a process may run for long. It is no place for data.
package embedded
