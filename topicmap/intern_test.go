package topicmap

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestTopicsOfATemplateAreBounded: the bound holds for each rule alone, known names go on, new ones are refused.
func TestTopicsOfATemplateAreBounded(t *testing.T) {
	m := compile(t,
		Rule{Match: "a/{x}", Topic: "t-{x}", MaxTopics: 3, Creates: true},
		Rule{Match: "b/{x}", Topic: "t-{x}", MaxTopics: 1, Creates: true},
		Rule{Match: "c/{x}", Topic: "t-{x}", Creates: true})
	var r Route
	for range 2 {
		for _, name := range []string{"a/1", "a/2", "a/3", "b/9"} {
			require.NoError(t, m.Route(onTopic(name), &r))
			require.Equal(t, "t-"+name[2:], r.Topic)
		}
		for rule, name := range []string{"a/4", "b/1"} {
			require.Equal(t, &Refusal{rule, ReasonTooManyTopics, strconv.Quote("t-"+name[2:]) + " would be one more Kafka topic than the rule may create"},
				refusal(t, m, onTopic(name)))
		}
		require.Equal(t, ReasonIllegalTopic, refusal(t, m, onTopic("a/ä")).Reason, "an illegal name is told as such")
	}
	for i := range DefaultMaxTopics {
		require.NoError(t, m.Route(onTopic(fmt.Sprint("c/", i)), &r))
	}
	require.Equal(t, ReasonTooManyTopics, refusal(t, m, onTopic("c/x")).Reason)
}

// TestBoundHoldsForManyGoroutines: however they race, exactly MaxTopics names are let in, a name that was let in
// stays in, and all get one string for it.
func TestBoundHoldsForManyGoroutines(t *testing.T) {
	const goroutines, names, limit = 16, 300, 100
	m := compile(t, Rule{Match: "a/{x}", Topic: "t-{x}", MaxTopics: limit, Creates: true})
	routed := make([]map[string]*byte, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		routed[g] = map[string]*byte{}
		wg.Go(func() { routed[g] = routeAll(t, m, g*7, names) })
	}
	wg.Wait()
	all := map[string]*byte{}
	for g := range goroutines {
		for name, at := range routed[g] {
			if all[name] == nil {
				all[name] = at
			}
			require.Same(t, all[name], at, "one string for %s", name)
		}
	}
	require.Len(t, all, limit)
	require.Len(t, routeAll(t, m, 0, names), limit)
}

// routeAll routes the names twice, from one of them on, and returns those that were let in, with their place in memory.
func routeAll(t *testing.T, m *Map, from, names int) map[string]*byte {
	let := map[string]*byte{}
	var (
		r       Route
		refused *Refusal
	)
	for i := range 2 * names {
		name := strconv.Itoa((from + i) % names)
		err := m.Route(onTopic("a/"+name), &r)
		if errors.As(err, &refused) {
			if refused.Reason != ReasonTooManyTopics || let["t-"+name] != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		m.Settle(&r, true)
		if r.Topic != "t-"+name {
			t.Errorf("%s went to %s", name, r.Topic)
		}
		let[r.Topic] = unsafe.StringData(r.Topic)
	}
	return let
}

// TestOnlyTopicsThatExistCount: names that there is no topic of are no topics, however many.
func TestOnlyTopicsThatExistCount(t *testing.T) {
	for _, creates := range []bool{false, true} {
		m := compile(t, Rule{Match: "a/{x}", Topic: "t-{x}", MaxTopics: 2, Creates: creates})
		var r Route
		for i := range 100 {
			require.NoError(t, m.Route(onTopic(fmt.Sprint("a/invented", i)), &r))
			require.True(t, r.Tried)
			m.Settle(&r, false)
			require.False(t, r.Tried, "once")
		}
		for _, name := range []string{"one", "two"} {
			require.NoError(t, m.Route(onTopic("a/"+name), &r))
			require.Equal(t, "t-"+name, r.Topic)
			m.Settle(&r, true)
			require.NoError(t, m.Route(onTopic("a/"+name), &r))
			require.False(t, r.Tried)
			m.Settle(&r, false) // nothing
		}
		require.Equal(t, ReasonTooManyTopics, refusal(t, m, onTopic("a/three")).Reason)
		require.NoError(t, m.Route(onTopic("a/one"), &r))
		require.Empty(t, m.names[0].tried)
	}
}

// TestTopicsThatAreBeingCreatedCount: as many as may be made are tried at once, also by several records each.
func TestTopicsThatAreBeingCreatedCount(t *testing.T) {
	m := compile(t, Rule{Match: "a/{x}", Topic: "t-{x}", MaxTopics: 2, Creates: true})
	var one, again, two, three Route
	require.NoError(t, m.Route(onTopic("a/1"), &one))
	require.NoError(t, m.Route(onTopic("a/1"), &again))
	require.NoError(t, m.Route(onTopic("a/2"), &two))
	require.Error(t, m.Route(onTopic("a/3"), &three))
	m.Settle(&one, false)
	require.Error(t, m.Route(onTopic("a/3"), &three), "the other record may still make it")
	m.Settle(&again, false)
	require.NoError(t, m.Route(onTopic("a/3"), &three))
	m.Settle(&three, true)
	m.Settle(&two, true)
	require.Error(t, m.Route(onTopic("a/1"), &one))
}
