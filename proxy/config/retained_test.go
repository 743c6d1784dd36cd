package config

import "testing"

func TestRetainedMessagesAreBoundedAndHaveATopicOfTheirOwn(t *testing.T) {
	retained := func(field, want string) {
		t.Helper()
		refuse(t, base+"retained: {"+field+"}\n", want)
	}
	retained("messages: 0", "8:22: messages must be 1 to 100000000, not 0")
	retained("messages: 100000001", "8:22: messages must be 1 to 100000000, not 100000001")
	retained("memory: 1023", "8:20: memory must be 1KiB to 1TiB, not 1023")
	retained("topic: retained", `8:19: topic: "retained" must begin with sluice-`)
	retained("topic: sluice-", `8:19: topic: "sluice-" must begin with sluice-`)
	retained("topic: sluice-ledger", "8:19: topic: sluice-ledger is the Kafka topic of sessions.ledger")
	retained("topic: sluice-a/b", "8:19: topic: \"sluice-a/b\" is no legal")
	parse(t, base+"retained: {messages: 1, memory: 1KiB, topic: sluice-r}\n")
}
