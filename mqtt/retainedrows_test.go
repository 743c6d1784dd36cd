package mqtt

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestMatchFindsWhatTheFilterMatches: whatever the topics and filters, in steps of any size, and while topics come and
// go between the steps.
func TestMatchFindsWhatTheFilterMatches(t *testing.T) {
	level := rapid.SampledFrom([]string{"", "a", "b", "a-", "a0", "$a", "ab", "\x7f"})
	topics := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(level, 1, 4).Draw(t, "levels"), "/")
	}).Filter(func(s string) bool { return s != "" })
	filters := rapid.Custom(func(t *rapid.T) string {
		levels := rapid.SliceOfN(rapid.OneOf(level, rapid.Just("+")), 1, 4).Draw(t, "levels")
		if rapid.Bool().Draw(t, "#") {
			levels = append(levels, "#")
		}
		return strings.Join(levels, "/")
	}).Filter(validFilter)
	rapid.Check(t, func(t *rapid.T) {
		x, err := NewRetained(RetainedConfig{Messages: 1, Bytes: 1})
		require.NoError(t, err)
		have := map[string]bool{}
		change := func(n int) {
			for _, topic := range rapid.SliceOfN(topics, n, n).Draw(t, "topics") {
				if have[topic] && rapid.Bool().Draw(t, "delete") {
					x.Delete([]byte(topic))
					delete(have, topic)
					continue
				}
				require.NoError(t, x.Set(&RetainedMessage{Topic: []byte(topic), Payload: []byte(topic)}))
				have[topic] = true
			}
		}
		change(rapid.IntRange(0, 60).Draw(t, "n"))
		filter := filters.Draw(t, "filter")
		steps := rapid.IntRange(1, 9).Draw(t, "steps")
		var got, want []string
		from := ""
		for more := true; more; {
			refuse := rapid.IntRange(0, 3).Draw(t, "refuse")
			from, more = x.Match(filter, from, steps, func(m *RetainedMessage) bool {
				if refuse--; refuse == 0 {
					return false
				}
				require.Equal(t, string(m.Topic), string(m.Payload))
				got = append(got, string(m.Topic))
				return true
			})
			change(rapid.IntRange(0, 1).Draw(t, "changes"))
			want = want[:0]
			for _, topic := range slices.Sorted(maps.Keys(have)) {
				if more && topic >= from {
					break
				}
				if filterMatches(filter, topic) {
					want = append(want, topic)
				}
			}
			// What came or went behind the search is not held against it.
			got = slices.DeleteFunc(got, func(s string) bool { return !have[s] })
			for _, topic := range got {
				require.Contains(t, want, topic)
			}
		}
		require.Equal(t, len(have), x.Len())
	})
}

// TestMatchMissesNothing that is there all the time.
func TestMatchMissesNothing(t *testing.T) {
	x, err := NewRetained(RetainedConfig{Messages: 1, Bytes: 1})
	require.NoError(t, err)
	var topics []string
	for i := range 20 {
		for _, l := range []string{"a", "a-b", "a/b", "$x/y", "a/b/c", "b", "a/c/c", "/a", "a/"} {
			topics = append(topics, fmt.Sprint(l, i), fmt.Sprint(i, "/", l), l)
		}
	}
	for _, topic := range topics {
		x.keep(t, topic, "x", 0)
	}
	slices.Sort(topics)
	topics = slices.Compact(topics)
	for _, filter := range []string{"#", "+", "+/+", "a/#", "a/b", "+/b", "+/a/+", "+/+/+", "a/+/c", "$x/#", "$x/+", "+/#", "/+", "3/#", "+/a/b/c", "+/a/+/c", "nothing", "a/b/c/d", "+/+/c"} {
		var want []string
		for _, topic := range topics {
			if filterMatches(filter, topic) {
				want = append(want, topic)
			}
		}
		for steps := range 5 {
			var got []string
			from := ""
			for more := true; more; {
				from, more = x.Match(filter, from, steps+1, func(m *RetainedMessage) bool {
					got = append(got, string(m.Topic))
					return true
				})
			}
			require.Equal(t, want, got, filter)
		}
	}
}

// TestSearchLeapsOverWhatCannotMatch: it does not look at each of a million topics.
func TestSearchLeapsOverWhatCannotMatch(t *testing.T) {
	x, err := NewRetained(RetainedConfig{Messages: 1, Bytes: 1})
	require.NoError(t, err)
	for i := range 100 {
		for j := range 100 {
			x.keep(t, fmt.Sprintf("dev%d/value%d", i, j), "x", 0)
			x.keep(t, fmt.Sprintf("$dev%d/value%d", i, j), "x", 0)
		}
	}
	search := func(filter string, steps, found int) {
		t.Helper()
		n := 0
		_, more := x.Match(filter, "", steps, func(*RetainedMessage) bool { n++; return true })
		require.False(t, more, filter)
		require.Equal(t, found, n, filter)
	}
	search("dev7/value7", 5, 1)
	search("dev7/#", 105, 100)
	search("+/value7", 310, 100)
	search("+/value7/x", 310, 0)
	search("zzz", 3, 0)
	search("+", 210, 0)
	search("a/#", 3, 0)
}

func TestRowsKeepTheirOrderThroughAllChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rows rows
		model := map[string]row{}
		topics := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.IntRange(0, 3000).Draw(t, "topic")) })
		for range rapid.IntRange(1, 12).Draw(t, "phases") {
			removing := rapid.Bool().Draw(t, "removing")
			from, n := rapid.IntRange(0, 3000).Draw(t, "from"), rapid.IntRange(0, 900).Draw(t, "n")
			for i := range n {
				topic := fmt.Sprint(from + i)
				if rapid.IntRange(0, 9).Draw(t, "elsewhere") == 0 {
					topic = topics.Draw(t, "at")
				}
				if removing {
					require.Equal(t, model[topic], rows.remove(topic))
					delete(model, topic)
					continue
				}
				r := (&RetainedMessage{Topic: []byte(topic), Payload: fmt.Append(nil, i)}).row()
				require.Equal(t, model[topic], rows.put(r))
				model[topic] = r
			}
		}
		var all []string
		for s := rows.seek(""); ; s = rows.after(s) {
			r, ok := rows.at(s)
			if !ok {
				break
			}
			require.Equal(t, model[r.topic()], r)
			all = append(all, r.topic())
		}
		require.Equal(t, slices.Sorted(maps.Keys(model)), append([]string(nil), all...))
		require.Equal(t, len(model), rows.n)
		for _, c := range rows.chunks {
			require.NotEmpty(t, c)
			require.LessOrEqual(t, len(c), rowsFull)
		}
	})
}

func TestRowGivesTheMessageBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.Custom(func(t *rapid.T) []byte {
			if rapid.Bool().Draw(t, "absent") {
				return nil
			}
			return append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "part")...)
		})
		want := RetainedMessage{
			Topic: []byte(rapid.StringN(1, 200, 65535).Draw(t, "topic")), Payload: append([]byte{1}, part.Draw(t, "payload")...),
			ContentType: part.Draw(t, "content type"), ResponseTopic: part.Draw(t, "response topic"), CorrelationData: part.Draw(t, "correlation data"),
			QoS: byte(rapid.IntRange(0, 2).Draw(t, "qos")), ClientID: rapid.String().Draw(t, "client ID"),
			Place: Place{rapid.Int32Range(-64, 0).Draw(t, "stream"), rapid.Int64Range(0, 1<<48-1).Draw(t, "offset")},
		}
		for range rapid.IntRange(0, 3).Draw(t, "properties") {
			want.User = append(want.User, Property{append([]byte{}, part.Draw(t, "key")...), append([]byte{}, part.Draw(t, "value")...)})
		}
		if rapid.Bool().Draw(t, "expires") {
			want.Expires = time.UnixMilli(rapid.Int64Range(1, 1<<45).Draw(t, "expiry"))
		}
		var got RetainedMessage
		r := want.row()
		r.message(&got)
		require.Equal(t, want.Expires.UnixMilli(), got.Expires.UnixMilli())
		got.Expires = want.Expires
		require.Equal(t, want, got)
		require.Equal(t, string(want.Topic), r.topic())
		require.LessOrEqual(t, int(r.memory()), want.RetainedBytes()+16)
	})
}
