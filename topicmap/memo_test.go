package topicmap

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// regexRules compiles regexes whose rules have conditions, but for the last.
func regexRules(tb testing.TB, expressions ...string) []*compiledRule {
	var rules []Rule
	for _, e := range expressions {
		rules = append(rules, Rule{Regex: e, Topic: "k", When: []Field{{"mqtt.username", "joe"}}})
	}
	rules[len(rules)-1].When = nil
	return compile(tb, rules...).regexes
}

// TestMemoForgetsButNeverConfuses: in a memo far too small, used by many goroutines, each topic gets its own answer.
func TestMemoForgetsButNeverConfuses(t *testing.T) {
	rules := regexRules(t, `^a/(?P<n>\d*[02468])$`, `^a/(?P<m>\d+)(?:/x)?$`, `^.*$`)
	m := newRegexMemo(8)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var scratch [2]hit
			for i := range 2000 {
				mqttTopic := fmt.Appendf(nil, "a/%d", (i*7+g)%97)
				assert.Equal(t, appendHits(nil, rules, mqttTopic), m.hits(scratch[:0], rules, mqttTopic))
			}
		})
	}
	wg.Wait()
}

// TestMemoStaysInItsBounds: neither long topics nor those that many regexes match are kept.
func TestMemoStaysInItsBounds(t *testing.T) {
	kept := func(m *regexMemo) (n int) {
		for i := range m.slots {
			if m.slots[i].Load() != nil {
				n++
			}
		}
		return n
	}
	m := newRegexMemo(64)
	rules := regexRules(t, "^b/.*$", "^.*$")
	f := func(rules []*compiledRule, mqttTopic string, hits, keeps int) {
		t.Helper()
		for range 2 {
			require.Len(t, m.hits(nil, rules, []byte(mqttTopic)), hits)
			require.Equal(t, keeps, kept(m))
		}
	}
	f(rules, strings.Repeat("b/", maxMemoTopic/2), 2, 1)
	f(rules, strings.Repeat("b/", maxMemoTopic/2)+"b", 2, 1)
	f(rules, "a", 1, 2)
	f(regexRules(t, "^x$"), "none", 0, 3)
	many := strings.Split(strings.Repeat("^c$ ", maxMemoHits), " ")[:maxMemoHits]
	f(regexRules(t, many...), "c", maxMemoHits, 4)
	m = newRegexMemo(64)
	f(regexRules(t, append(many, "^c$")...), "c", maxMemoHits+1, 0)
}

// TestTopicInUseIsRememberedSoon, even where all its slots are taken by topics that came before, and often enough
// where a flood of topics that never come again passes through the same slots.
func TestTopicInUseIsRememberedSoon(t *testing.T) {
	m := newRegexMemo(memoWays)
	rules := regexRules(t, "^.*$")
	ask := func(mqttTopic string) bool {
		known, _ := m.find(0, []byte(mqttTopic))
		m.hits(nil, rules, []byte(mqttTopic))
		return known != nil
	}
	for i := range 100 {
		ask(fmt.Sprint("old/", i))
	}
	require.False(t, ask("new"))
	for range 3 * memoAdmission {
		ask("new")
	}
	require.True(t, ask("new"))
	remembered := 0
	const rounds = 400
	for i := range rounds {
		if ask("new") {
			remembered++
		}
		for j := range memoAdmission - 1 { // in step with the admissions, were they simply counted
			ask(fmt.Sprint("once/", i, "/", j))
		}
	}
	require.Greater(t, remembered, rounds/8)
}
