package acl_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/proxy/acl"
)

func TestFaultsOfFiltersHaveTheirPlace(t *testing.T) {
	refuse := func(filter string, want ...string) {
		t.Helper()
		_, err := acl.Compile([]acl.Rule{allow("fine"), allow(filter)})
		joined, ok := err.(interface{ Unwrap() []error })
		require.True(t, ok, "%q: %v", filter, err)
		require.Len(t, joined.Unwrap(), len(want), "%v", err)
		for i, err := range joined.Unwrap() {
			var fault *acl.RuleError
			require.True(t, errors.As(err, &fault))
			require.Equal(t, 1, fault.Rule)
			got := fmt.Sprintf("%d: %v", fault.Offset, fault.Err)
			require.True(t, strings.HasPrefix(got, want[i]), "got %s, want %s", got, want[i])
		}
	}
	refuse("", "0: a topic filter is not empty")
	refuse("a/#/b", "2: # must be the last level")
	refuse("a+/b#", "1: + must be a whole level", "4: # must be a whole level")
	refuse("a/{mqtt.client_id", "2: this { is not closed in its level")
	refuse("{a/b}", "0: this { is not closed in its level", "4: this } closes nothing")
	refuse("a/}", "2: this } closes nothing")
	refuse("x{device}", `1: unknown name "device"; known here: mqtt.client_id, mqtt.username, cert.cn`)
	refuse("{mqtt.topic}/{}", `0: unknown name "mqtt.topic"`, `13: unknown name ""`)
	refuse("a\x00b", "1: a topic filter has no null character")
	refuse("ab\xff", "2: a topic filter is valid UTF-8")
	refuse("$share/g/a", "0: write the filter without $share/")
	refuse(strings.Repeat("a", 65536), "65535: a topic filter has at most 65535 bytes")
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	_, err := acl.Compile([]acl.Rule{allow("#/"), {Filter: "a"}, deny("+a")})
	require.ErrorContains(t, err, "rule 0: filter, byte 0: # must be the last level")
	require.ErrorContains(t, err, "rule 1: filter, byte 0: a rule needs at least one right")
	require.ErrorContains(t, err, "rule 2: filter, byte 0: + must be a whole level")
}

// FuzzCompile: no filter and no name makes Compile or a check panic, and a topic that has wildcards is never what a
// device may publish to by its name.
func FuzzCompile(f *testing.F) {
	f.Add("devices/{mqtt.client_id}/#", "d1", "devices/d1/x", true)
	f.Add("+/{{x}}{cert.cn}", "#", "a/b", false)
	f.Add("{mqtt.username}", "$SYS/#", "$SYS/#", true)
	f.Fuzz(func(t *testing.T, filter, name, topic string, refuse bool) {
		list, err := acl.Compile([]acl.Rule{{Deny: refuse, Rights: all, Filter: filter}})
		if err != nil {
			var fault *acl.RuleError
			require.True(t, errors.As(err, &fault))
			require.True(t, 0 <= fault.Offset && fault.Offset <= len(filter), "%d in %q", fault.Offset, filter)
			return
		}
		a := list.Access(acl.Who{ClientID: name, Username: name, CommonName: name})
		allowed := a.Publish([]byte(topic))
		subscribed := a.Subscribe(topic, "")
		require.False(t, refuse && (allowed || subscribed), "nothing is allowed here")
		if !strings.ContainsAny(topic, "+#") {
			require.Equal(t, allowed, subscribed, "a filter without wildcards is its one topic")
		}
	})
}
