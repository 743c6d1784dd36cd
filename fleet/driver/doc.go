// Package driver carries out what the machines of package fleet ask for: it writes their records, reads the sessions topic
// and the ledger for them, takes transactional ids away, keeps their times, beats, and looks after the partitions that
// the instance owns. The product runs it over Kafka, and the simulator, package sim, over logs in memory and a clock that
// it turns, so that what is tried in a million schedules is what ships.
//
// # What it has, and what it asks for
//
// A [Driver] is an instance: one part for each partition of the sessions topic, with the table of what was read, a
// holder for each client ID that something is to be done for, and the owner's work. A [Conn] is its side of one
// connection: it saves the session, keeps the QoS 2 ids of exactly_once rules in the ledger with their messages, and at
// the end waits for what is under way before it leaves the session to the next.
//
// Around it are a [Producer], an [Ender], a [Fencer] and [Transactor]s, which the types of package kafka are as they are;
// the records of the two topics are handed to it. What speaks MQTT is a [Device] for each connection, and what knows of
// commands, rules and presence is the [Host]. It knows nothing of MQTT's packets, of command topics, or of configuration.
//
// # Time and goroutines
//
// It uses the clock of package time, and goroutines where something is waited for. Neither is an interface: in a bubble of
// testing/synctest the clock stands still as long as anything runs, and the simulator knows when nothing does. Everything
// that comes from outside, an end, a record, the outcome of a transaction, is an event that the simulator gives when its
// seed says so, one at a time. What the Driver does for one event it does in an order that does not depend on chance: it
// ranges over no map where that order can be seen outside. So a seed repeats its schedule.
//
// # Locks
//
// part.mu guards a partition: table, holders, owner. A Device's lock may be taken under it, never the other way round.
// What must be done without it is put off until it is given up (part.later). shard.mu and ledgerPart.mu are taken under
// it, and nothing is under those.
package driver
