// Package config is the configuration: one YAML file, decoded into plain structs. Parse refuses what it does
// not understand and names every fault of a file at once, each with its line, its column and a caret.
//
// What Parse accepts is complete: defaults are filled in, ranges are kept, the rules compile. It promises
// nothing about the world: that an address can be bound or that a Kafka broker answers shows at start.
//
// The doc comments of the exported structs are the manual. docs/configuration.md, the JSON Schema and the
// table of comments in comments_gen.go are generated from them.
package config

//go:generate go run ./internal/docgen comments
//go:generate go run ./internal/docgen docs
