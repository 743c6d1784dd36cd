package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// explained explains the record as it would be read.
func explained(t *testing.T, r *kafka.Fetched) *CommandExplanation {
	t.Helper()
	e, err := ExplainCommand(configured(t, commandsForTests), CommandSample{KafkaTopic: r.Topic, Key: r.Key, Headers: r.Headers, Value: r.Value})
	require.NoError(t, err)
	return e
}

func TestExplainShowsThePublishOfARecord(t *testing.T) {
	e := explained(t, everything())
	require.Equal(t, []any{1, "plain", "receipts", false, time.Minute, 0}, []any{e.Rule, e.Source, e.Receipts, e.Keep, e.Expiry, e.LeftOut})
	require.Empty(t, e.Refused)
	require.Nil(t, e.Cancels)
	require.Equal(t, "devices/d1/reboot", string(e.PUBLISH.Topic))
	require.Equal(t, "d1", e.PUBLISH.To)

	e = explained(t, recordOf("cmd-ulm", "null", `{"to":"x"}`, "a", "\xff"))
	require.Equal(t, []any{4, `^cmd-(?P<plant>[a-z]+)$`, "", true, time.Duration(-1), 1}, []any{e.Rule, e.Source, e.Receipts, e.Keep, e.Expiry, e.LeftOut})
	require.Equal(t, "plants/ulm/x", string(e.PUBLISH.Topic))

	require.Zero(t, explained(t, recordOf("fixed", "k", "x", "mqtt.expiry", "0")).Expiry, "over at once is not never")
}

func TestExplainShowsWhyARecordMakesNoCommand(t *testing.T) {
	f := func(r *kafka.Fetched, rule int, receipts, want string) {
		t.Helper()
		e := explained(t, r)
		require.Nil(t, e.PUBLISH)
		require.Nil(t, e.Cancels)
		require.Equal(t, []any{rule, receipts}, []any{e.Rule, e.Receipts})
		require.True(t, strings.HasPrefix(e.Refused, want), e.Refused)
	}
	f(recordOf("elsewhere", "k", "x"), 0, "", "no_rule: ")
	f(recordOf("fixed", "k", "x", "mqtt.qos", "3"), 3, "receipts", "invalid_header: mqtt.qos is not 0, 1 or 2")
	f(recordOf("plain", "null", "x", "name", "reboot"), 1, "receipts", "missing_value: publish needs {key}")
	f(recordOf("cmd-ulm", "null", "x"), 4, "", "not_json: ")
}

func TestExplainShowsThatARecordCancels(t *testing.T) {
	e := explained(t, recordOf("fixed", "k", "x", headerCancel, "7", headerCancel, "8"))
	require.Equal(t, &CommandExplanation{Cancels: []byte("7"), Expiry: -1}, e)
	require.Equal(t, []byte{}, explained(t, recordOf("fixed", "k", "x", headerCancel, "null")).Cancels, "not nil: it cancels all the same")
	require.Equal(t, []byte("7"), explained(t, recordOf("cmd-ulm", "k", "x", headerCancel, "7")).Cancels)
	for _, notRead := range []string{"elsewhere", "cmd-", "__cmd-ulm"} {
		e := explained(t, recordOf(notRead, "k", "x", headerCancel, "7"))
		require.Nil(t, e.Cancels)
		require.Equal(t, "no_rule: no rule takes this record", e.Refused)
	}
}

// TestExplainSparesInternalTopics, which a pattern never reads.
func TestExplainSparesInternalTopics(t *testing.T) {
	cfg := configured(t, "commands: [{pattern: '^.*$', publish: x}]")
	for topic, read := range map[string]bool{"a": true, "__consumer_offsets": false, "sluice-x": false} {
		for _, headers := range [][]kafka.Header{nil, {{Key: []byte(headerCancel)}}} {
			e, err := ExplainCommand(cfg, CommandSample{KafkaTopic: topic, Headers: headers})
			require.NoError(t, err)
			require.Equal(t, read, e.Refused == "", "%s %v", topic, headers)
			require.Equal(t, read && headers != nil, e.Cancels != nil)
		}
	}
}

// TestExplainAgreesWithWhatServes: both come from one translation, so that one is never a promise the other breaks.
func TestExplainAgreesWithWhatServes(t *testing.T) {
	tr, leftOut := translating(t, configured(t, commandsForTests))
	for _, r := range []*kafka.Fetched{everything(), recordOf("plain", "d1", "x"), recordOf("fixed", "\xff", "null", "mqtt.qos", "2", "\xff", "x"), recordOf("none", "", "")} {
		e := explained(t, r)
		c, err := tr.translate(r)
		if err != nil {
			require.Equal(t, err.Error(), e.Refused)
			continue
		}
		c.Expires = e.PUBLISH.Expires // which counts from now
		require.Equal(t, told(c), published(e.PUBLISH, c.written))
		require.Equal(t, *leftOut, e.LeftOut)
		*leftOut = 0
	}
}
