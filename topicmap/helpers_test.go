package topicmap

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// text makes the pointer a Rule's Key wants.
func text(s string) *string { return &s }

// compile is Compile for rules that are good.
func compile(tb testing.TB, rules ...Rule) *Map {
	tb.Helper()
	m, err := Compile(rules)
	require.NoError(tb, err)
	return m
}

// onTopic is a message of which only the topic matters.
func onTopic(mqttTopic string) *Message {
	return &Message{Topic: []byte(mqttTopic), ClientID: "c1"}
}

// refusal routes a message that must be refused.
func refusal(tb testing.TB, m *Map, msg *Message) *Refusal {
	tb.Helper()
	var refused *Refusal
	err := m.Route(msg, &Route{})
	require.ErrorAs(tb, err, &refused)
	require.NotErrorIs(tb, err, ErrNoRule)
	return refused
}

// ruleErrors takes apart what Compile returned.
func ruleErrors(tb testing.TB, err error) []*RuleError {
	tb.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(tb, ok, "Compile must join its errors, got %v", err)
	var all []*RuleError
	for _, e := range joined.Unwrap() {
		var re *RuleError
		require.True(tb, errors.As(e, &re), "not a RuleError: %v", e)
		all = append(all, re)
	}
	return all
}
