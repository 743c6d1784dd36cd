// Package kafka is the cluster side: a producer that answers for every record exactly once, the budget of
// bytes it may hold, and the few administrative questions a proxy asks. It is the only package that imports
// sarama, and no sarama type appears in its exported names.
//
// What it promises:
//
//   - Produce never blocks on Kafka, and a topic or partition that is stuck delays no other topic.
//   - Every record completes exactly once, with its partition and offset or with an error, also at shutdown.
//   - Records of one topic with one key are stored in the order of Produce, through retries.
//   - An error for which Final is true is a verdict about the record: it can never be stored. Everything else
//     leaves open whether it was stored.
//
// What it leaves out: it persists nothing, so a record that was not completed when the process dies is gone,
// and it consumes nothing.
package kafka
