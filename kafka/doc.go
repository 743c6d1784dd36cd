// Package kafka is the cluster side: a producer that answers for every record exactly once, the budget of
// bytes it may hold, a consumer that follows whole topics, a reader of pieces of them, transactions, the fencing of
// those of others, membership in consumer groups, and the few administrative questions a proxy asks.
// It is the only package that imports sarama, and no sarama type appears in its exported names.
//
// What it promises:
//
//   - Produce never blocks on Kafka, and a topic or partition that is stuck delays no other topic.
//   - Every record completes exactly once, with its partition and offset or with an error, also at shutdown.
//   - Records of one topic with one key are stored in the order of Produce, through retries.
//   - An error for which Final is true is a verdict about the record: it can never be stored. Everything else
//     leaves open whether it was stored.
//
// The consumer promises:
//
//   - Once Positioned is closed, no committed record that is appended to a topic it follows is missed, and none
//     is given twice while it runs, through every outage. What Kafka deleted before it could be read is counted.
//   - Records of one partition are given in their order.
//   - A partition that is stuck, in Kafka or in the caller, delays no other.
//
// A Transactor promises that a group of records is in Kafka whole or not at all, in the order of Write, and says when
// it can't know; a Group, that of its members one has a partition, as far as Kafka's time-outs tell.
//
// What it leaves out: it persists nothing. A record that was not completed when the process dies is gone, and a
// consumer begins at the end, or the beginning, of the logs again.
package kafka
