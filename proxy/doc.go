// Package proxy is the policy between the two sides: it opens the listeners of package mqtt, routes every
// message by the rules of package topicmap, produces it with package kafka, and turns the outcome of the
// record into the acknowledgement of the message. A message is acknowledged as stored when, and only when,
// its record is.
//
// It also owns the life of the process: start in the right order, readiness, metrics, an orderly end.
package proxy

//go:generate go run ./internal/metricsdoc ../docs/metrics.md
