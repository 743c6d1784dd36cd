package acl_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"sluice/proxy/acl"
)

// The model says what an ACL means by trying every topic of up to four levels over a few names. Filters have up to three
// levels and never the name "z", so each stands for more topics of the model than one, as it does in MQTT. The empty topic, which MQTT refuses, is one here.

// topics are those of the model, and levels of each.
var (
	topics = modelTopics()
	levels = splitTopics()
)

func modelTopics() (all []string) {
	names := []string{"a", "$b", "", "z", "aa", "a$b"}
	level := names
	for range 4 {
		all = append(all, level...)
		var next []string
		for _, t := range level {
			for _, n := range names {
				next = append(next, t+"/"+n)
			}
		}
		level = next
	}
	return all
}

func splitTopics() map[string][]string {
	levels := make(map[string][]string)
	for _, t := range topics {
		levels[t] = strings.Split(t, "/")
	}
	return levels
}

// set is a set of topics.
type set map[string]bool

// inMQTT tells whether a filter without variables matches a topic, by the rules of MQTT 5, section 4.7.
func inMQTT(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	return levelsMatch(strings.Split(filter, "/"), levels[topic])
}

func levelsMatch(filter, topic []string) bool {
	switch {
	case len(filter) > 0 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	case filter[0] != "+" && filter[0] != topic[0]:
		return false
	}
	return levelsMatch(filter[1:], topic[1:])
}

// meaning gives the topics of a rule for a device whose client ID is legal or not.
func meaning(r acl.Rule, client string) set {
	matched := set{}
	before, _, found := strings.Cut(r.Filter, "{mqtt.client_id}")
	filter, widest := r.Filter, ""
	if found {
		filter = strings.ReplaceAll(r.Filter, "{mqtt.client_id}", client)
		if client == "" || strings.ContainsAny(client, "/+#") || before == "" && client[0] == '$' {
			if filter = ""; r.Deny {
				widest = before[:strings.LastIndexByte(before, '/')+1] // everything from that level on
			}
		}
	}
	for _, t := range topics {
		switch {
		case filter != "" && inMQTT(filter, t),
			filter == "" && r.Deny && (strings.HasPrefix(t, widest) || t+"/" == widest || inMQTT(widest+"#", t)):
			matched[t] = true
		}
	}
	return matched
}

func name(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "$b", "", "+", "{mqtt.client_id}", "a{mqtt.client_id}"}).Draw(t, "level")
}

func filter(t *rapid.T) string {
	levels := rapid.SliceOfN(rapid.Custom(name), 1, 3).Draw(t, "levels")
	if rapid.Bool().Draw(t, "rest") {
		levels[len(levels)-1] = "#"
	}
	if f := strings.Join(levels, "/"); f != "" {
		return f
	}
	return "a"
}

func aRule(t *rapid.T) acl.Rule {
	return acl.Rule{Deny: rapid.Bool().Draw(t, "deny"), Rights: acl.Subscribe | acl.Right(rapid.IntRange(0, 1).Draw(t, "publish")), Filter: filter(t)}
}

func TestTheListIsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(aRule), 0, 4).Draw(t, "rules")
		client := rapid.SampledFrom([]string{"a", "$b", "", "+", "#", "a/z", "z/"}).Draw(t, "client")
		list, err := acl.Compile(rules)
		require.NoError(t, err)
		a := list.Access(acl.Who{ClientID: client})
		meanings := make([]set, len(rules))
		for i, r := range rules {
			meanings[i] = meaning(r, client)
		}
		for _, topic := range topics {
			require.Equal(t, modelMay(rules, meanings, acl.Publish, topic), a.Publish([]byte(topic)), "publish %q", topic)
			require.Equal(t, modelMay(rules, meanings, acl.Subscribe, topic), a.Receive([]byte(topic)), "receive %q", topic)
		}
		checkSubscribe(t, a, rules, meanings)
	})
}

// modelMay is the first rule that has the topic.
func modelMay(rules []acl.Rule, meanings []set, right acl.Right, topic string) bool {
	for i, r := range rules {
		if r.Rights&right != 0 && meanings[i][topic] {
			return !r.Deny
		}
	}
	return false
}

// checkSubscribe compares the answer with that of the sets of topics.
func checkSubscribe(t *rapid.T, a *acl.Access, rules []acl.Rule, meanings []set) {
	f := strings.ReplaceAll(filter(t), "{mqtt.client_id}", "a")
	var wanted []string
	for _, topic := range topics {
		if inMQTT(f, topic) {
			wanted = append(wanted, topic)
		}
	}
	require.NotEmpty(t, wanted)
	want := modelSubscribe(wanted, rules, meanings)
	require.Equal(t, want, a.Subscribe(f, ""), "subscribe %q", f)
	for _, topic := range wanted {
		require.True(t, !want || a.Receive([]byte(topic)), "%q is allowed and has %q", f, topic)
	}
}

func modelSubscribe(wanted []string, rules []acl.Rule, meanings []set) bool {
	for i, r := range rules {
		has := func(topic string) bool { return meanings[i][topic] }
		switch {
		case r.Rights&acl.Subscribe == 0:
		case r.Deny && slices.ContainsFunc(wanted, has):
			return false
		case !r.Deny && !slices.ContainsFunc(wanted, func(topic string) bool { return !has(topic) }):
			return true
		}
	}
	return false
}

// TestAnyNameIsTakenLiterally: whatever a client calls itself, it gets what its own legal name stands for, or nothing.
func TestAnyNameIsTakenLiterally(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		client := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a+#/$]{0,4}`)).Draw(t, "client")
		list, err := acl.Compile([]acl.Rule{{Rights: acl.Publish | acl.Subscribe, Filter: "c/{mqtt.client_id}/x"}})
		require.NoError(t, err)
		a := list.Access(acl.Who{ClientID: client})
		legal := client != "" && !strings.ContainsAny(client, "/+#\x00")
		require.Equal(t, legal, a.Publish([]byte("c/"+client+"/x")))
		other := rapid.StringMatching(`[a+#/$]{0,4}`).Draw(t, "other")
		if other != client {
			require.False(t, a.Publish([]byte("c/"+other+"/x")))
			require.False(t, a.Subscribe("c/"+other+"/x", ""))
		}
	})
}
