// Package produce decides what an answer of Kafka means for a batch of records, and which sequence numbers a batch is
// sent with. It is pure: no clock, no connection, no record. Its caller has at most one batch out for each partition.
//
// What it promises, for whatever Kafka answers or fails to:
//
//   - Records that end as stored are in the log once and in their order; records that are refused are not in it.
//   - Records end as uncertain only if an attempt may have stored them and Kafka will not say.
//   - An answer that is no verdict about the records is none: they wait.
//
// It leaves out who leads a partition, when to send, and how records are encoded.
package produce
