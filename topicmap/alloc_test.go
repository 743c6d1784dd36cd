package topicmap

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRouteDoesNotAllocate on the paths of a message that is routed.
func TestRouteDoesNotAllocate(t *testing.T) {
	f := func(name string, msg *Message, rules ...Rule) {
		t.Helper()
		m := compile(t, append([]Rule{{Match: "other/{x}", Topic: "other"}}, rules...)...)
		var r Route
		require.NoError(t, m.Route(msg, &r)) // the first makes the scratch and the topic's name
		m.Settle(&r, true)
		got := testing.AllocsPerRun(200, func() {
			if err := m.Route(msg, &r); err != nil {
				t.Error(err)
			}
		})
		require.Zero(t, got, name)
	}
	d1 := onTopic("devices/d1/telemetry/temp/cpu")
	f("literal topic with captures", d1, Rule{Match: "devices/{device}/telemetry/{metric...}", Topic: "telemetry", Key: text("{device}"),
		Headers: []Field{{"metric", "{metric}"}, {"all", "{mqtt.topic}:{mqtt.client_id}"}, {"none", "{mqtt.username}"}, {"lit", "x"}}})
	f("template topic made before", d1, Rule{Match: "devices/{device}/#", Topic: "t-{device}"})
	f("payload path", &Message{Topic: []byte("plants/p1/x"), Payload: []byte(`{"ts":1,"machines":[{"id":"a"},{"id":"b\u00e9"}],"x":-1.5e3}`)},
		Rule{Match: "plants/{plant}/#", Topic: "plant", Key: text("{payload.machines.1.id}"),
			Headers: []Field{{"x", "{payload.x}"}, {"none", "{payload.none.0}"}}})
	f("condition", &Message{Topic: []byte("a/b"), ClientID: "c", UserProperties: []Property{{[]byte("kind"), []byte("x")}}},
		Rule{Match: "a/+", Topic: "no", When: []Field{{"mqtt.user.kind", "y"}}},
		Rule{Match: "a/+", Topic: "yes", When: []Field{{"mqtt.user.kind", "x"}}})
	f("regex on a topic seen before", d1, Rule{Regex: "^devices/(?P<d>[^/]+)/.*$", Topic: "t-{d}", Key: text("{d}")})
}
