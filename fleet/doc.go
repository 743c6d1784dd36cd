// Package fleet is the protocol by which equal instances share sessions through Kafka, as pure state machines:
// records in, records and actions out. DESIGN.md tells the protocol with a sequence for each case.
//
// Its parts:
//
//   - [Table] folds one partition of the sessions topic; a [View] of it answers for one client ID.
//   - [Claimer] is one instance's side for one client ID: claim, clear the way, open, save, release, remove.
//   - [Owner] is the owner of one sessions partition: verdicts, fences, wills and removal for the dead. [Pulse]
//     tells it who is silent.
//   - [Ledger] folds the ledger: packet ids taken in with QoS 2, and wills that are settled.
//   - [Progress] is how far a session has got in the command topics.
//
// What it promises: it opens nothing, reads no clock, starts no goroutine, takes no lock and imports nothing but
// the standard library. Times are parameters, in milliseconds since 1970 where nothing else is said. Every method
// of one value must be called by one goroutine at a time, and [Action]s must be carried out in their order.
//
// How to drive a [Claimer]: it has at most one ActWrite under way, which is answered by Wrote, or by Failed when
// Kafka refused it for good; a write whose outcome is unknown is repeated until one of the two is known. ActFence
// is answered by Fenced, ActLedger by LedgerRead, ActWait by Waited, ActWill by WillDone. ActLost and ActRefused
// are answered by closing the connection and calling Gone, or End. Read is called whenever the table has moved
// and a record of this client was in it, and once when it reaches [Claimer.Awaits].
//
// It leaves out how records get to Kafka and back, what a session's state means, and when a connection ends.
package fleet
