package acl_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/mqtt"
	"sluice/proxy/acl"
)

var _ mqtt.Access = (*acl.Access)(nil)

const all = acl.Publish | acl.Subscribe | acl.Will | acl.Retain

func allow(filter string) acl.Rule { return acl.Rule{Rights: all, Filter: filter} }

func deny(filter string) acl.Rule { return acl.Rule{Deny: true, Rights: all, Filter: filter} }

// device is one whose names are all plain.
var device = acl.Who{ClientID: "d1", Username: "u1", CommonName: "n1"}

func access(t *testing.T, who acl.Who, rules ...acl.Rule) *acl.Access {
	t.Helper()
	list, err := acl.Compile(rules)
	require.NoError(t, err)
	return list.Access(who)
}

// yes and no are topics, or filters, that a device may publish to, or subscribe to.
func publishes(t *testing.T, a *acl.Access, yes, no string) {
	t.Helper()
	for topic := range strings.FieldsSeq(yes) {
		require.True(t, a.Publish([]byte(topic)), topic)
	}
	for topic := range strings.FieldsSeq(no) {
		require.False(t, a.Publish([]byte(topic)), topic)
	}
}

func subscribes(t *testing.T, a *acl.Access, yes, no string) {
	t.Helper()
	for filter := range strings.FieldsSeq(yes) {
		require.True(t, a.Subscribe(filter, ""), filter)
	}
	for filter := range strings.FieldsSeq(no) {
		require.False(t, a.Subscribe(filter, ""), filter)
	}
}

func TestWhatNoRuleAllowsIsDenied(t *testing.T) {
	publishes(t, access(t, device), "", "a a/b $SYS")
	publishes(t, access(t, device, allow("a")), "a", "b a/b /a a/ A")
	subscribes(t, access(t, device), "", "a # +")
}

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	publishes(t, access(t, device, deny("a/b"), allow("a/#")), "a a/c a/b/c", "a/b b")
	publishes(t, access(t, device, allow("a/#"), deny("a/b")), "a a/b", "b")
}

func TestWildcardsMatchAsInMQTT(t *testing.T) {
	publishes(t, access(t, device, allow("a/+/c")), "a/b/c a//c a/$x/c", "a/c a/b/c/d a/b/c/")
	publishes(t, access(t, device, allow("a/#")), "a a/ a/b a/b/c", "b ab a1/b")
	publishes(t, access(t, device, allow("+/a")), "b/a /a", "$SYS/a a")
	publishes(t, access(t, device, allow("#")), "a a/b /", "$SYS $SYS/a $")
	publishes(t, access(t, device, allow("$SYS/#")), "$SYS $SYS/a", "SYS/a $SYSX/a")
	publishes(t, access(t, device, deny("#"), allow("$SYS/+")), "$SYS/a", "a")
}

func TestEachRightIsItsOwn(t *testing.T) {
	for _, right := range []acl.Right{acl.Publish, acl.Subscribe, acl.Will, acl.Retain} {
		a := access(t, device, acl.Rule{Rights: right, Filter: "a/#"})
		topic := []byte("a/b")
		require.Equal(t, right == acl.Publish, a.Publish(topic))
		require.Equal(t, right == acl.Will, a.Will(topic))
		require.Equal(t, right == acl.Retain, a.Retain(topic))
		require.Equal(t, right == acl.Subscribe, a.Receive(topic))
		require.Equal(t, right == acl.Subscribe, a.Subscribe("a/b", ""))
	}
	publishes(t, access(t, device, acl.Rule{Deny: true, Rights: acl.Will, Filter: "a"}, allow("#")), "a", "")
}

func TestVariablesAreTheNamesOfTheDevice(t *testing.T) {
	a := access(t, device, allow("c/{mqtt.client_id}/#"), allow("u/x-{mqtt.username}-y"), allow("{cert.cn}/{mqtt.client_id}{mqtt.username}"), allow("{{a}}/b"))
	publishes(t, a, "c/d1 c/d1/x u/x-u1-y n1/d1u1 {a}/b", "c/d2 c/d11 c/d u/x-u1 u/u1 u/x-u2-y n1/d1 n1/d1u1x {{a}}/b c/{mqtt.client_id}/x")
	subscribes(t, a, "c/d1/# c/d1/+ c/d1 n1/d1u1", "c/# c/+ c/+/x c/+/# # +/# n1/+ +/d1u1")
}

// hostile are names that would be more than a text if they were put into a filter.
var hostile = []string{"", "#", "+", "a/b", "/", "a+", "a#", "+/#", "../#", "a/#", "\x00", "a\x00b"}

func TestNoNameWidensAFilter(t *testing.T) {
	for _, name := range hostile {
		who := acl.Who{ClientID: name, Username: name, CommonName: name}
		for _, variable := range []string{"{mqtt.client_id}", "{mqtt.username}", "{cert.cn}"} {
			a := access(t, who, allow("c/"+variable+"/x"), allow("d/p"+variable+"s"), allow(variable))
			publishes(t, a, "", "c/a/x c//x c/x c/a/b/x c/+/x c/#/x d/ps d/pas d/pa/bs d/p/s a a/b x")
			subscribes(t, a, "", "c/# c/+/x c/a/x # + +/# d/+ c/"+name+"/x "+name)
		}
	}
}

// TestNoNameEscapesADenial: a device can't choose a name that makes an entry that denies miss it.
func TestNoNameEscapesADenial(t *testing.T) {
	for _, name := range append(hostile, "$SYS") {
		who := acl.Who{ClientID: name, Username: name, CommonName: name}
		for _, variable := range []string{"{mqtt.client_id}", "{mqtt.username}", "{cert.cn}"} {
			if name != "$SYS" {
				a := access(t, who, deny("c/x"+variable+"/secret"), allow("#"))
				publishes(t, a, "b cc/x", "c/xa/secret c/xa/b/secret c/x/secret c/x"+name+"/secret c c/y")
				subscribes(t, a, "b/#", "# c/# c/+ c/x/secret c/xa/b/secret +/+ c/x"+name+"/secret")
			}
			a := access(t, who, deny(variable+"/secret"), allow("#"), allow("$SYS/#"))
			publishes(t, a, "", "a/secret a/b/secret $SYS/secret a "+name+"/secret")
			subscribes(t, a, "", "# + a/secret $SYS/# $SYS/secret")
		}
	}
}

func TestANameWithADollarDoesNotOpenTheTopicsThatWildcardsSpare(t *testing.T) {
	who := acl.Who{ClientID: "$SYS", Username: "$share", CommonName: "$"}
	a := access(t, who, allow("{mqtt.client_id}/#"), allow("{mqtt.username}/#"), allow("{cert.cn}SYS/#"))
	publishes(t, a, "", "$SYS $SYS/a $share/g/a")
	subscribes(t, a, "", "$SYS/# $SYS/a $share/a")
	publishes(t, access(t, who, allow("c/{mqtt.client_id}"), allow("x{cert.cn}")), "c/$SYS x$", "")
}

func TestRulesForOneDevice(t *testing.T) {
	rules := []acl.Rule{
		{Rights: all, Filter: "u", Username: "u1"},
		{Deny: true, Rights: all, Filter: "x", ClientID: "d1"},
		{Rights: all, Filter: "x"},
		{Rights: all, Filter: "both", Username: "u1", ClientID: "d1"},
		{Deny: true, Rights: all, Filter: "late", Username: "u1"},
		{Rights: all, Filter: "late"},
		{Rights: all, Filter: "later"},
		{Deny: true, Rights: all, Filter: "later", Username: "u1"},
	}
	publishes(t, access(t, device, rules...), "u both later", "x late")
	publishes(t, access(t, acl.Who{ClientID: "d2", Username: "u1"}, rules...), "u x later", "both late")
	publishes(t, access(t, acl.Who{ClientID: "d1", Username: "u2"}, rules...), "late later", "u x both")
	publishes(t, access(t, acl.Who{}, rules...), "x late later", "u both")
	publishes(t, access(t, acl.Who{ClientID: "u1", Username: "d1"}, rules...), "x late later", "u both")
}

func TestAFilterIsAllowedOnlyAsAWhole(t *testing.T) {
	a := access(t, device, deny("a/secret/#"), allow("a/#"), allow("+/b"), allow("$x/+"))
	subscribes(t, a, "a/b a/b/# a/b/+ +/b x/b $x/+ $x/a", "a/# a/+ a/+/x # + +/# a/secret a/secret/x $x/# $x b")
	subscribes(t, access(t, device, deny("a/b/c"), allow("#")), "a a/b a/b/+/d a/+", "a/b/c a/b/# a/b/+ a/+/c +/b/c # $SYS/#")
	subscribes(t, access(t, device, allow("+/#")), "# +/# + a/# +/a", "$SYS/#")
	subscribes(t, access(t, device, allow("a/+/#")), "a/+/# a/b a/+", "a/# a #")
	subscribes(t, access(t, device, allow("a"), allow("b")), "a b", "+ #")
	// A denial of what # does not match is none of #.
	subscribes(t, access(t, device, deny("$SYS/#"), allow("#")), "# +/a", "$SYS/# $SYS/a")
}

func TestRulesForShareNames(t *testing.T) {
	named := func(r acl.Rule, share string) acl.Rule { r.Share = share; return r }
	a := access(t, device, named(allow("jobs/#"), "team-*"), named(deny("a/#"), "*"), allow("a/#"))
	require.True(t, a.Subscribe("jobs/x", "team-1"))
	require.False(t, a.Subscribe("jobs/x", "other"))
	require.False(t, a.Subscribe("jobs/x", ""), "it is for shared subscriptions alone")
	require.True(t, a.Subscribe("a/b", ""))
	require.False(t, a.Subscribe("a/b", "g"))
	require.True(t, a.Receive([]byte("jobs/x")), "as a member of the share")
	require.True(t, a.Receive([]byte("a/b")), "by the subscription that is not shared")
	require.False(t, a.Receive([]byte("b")))
}

func TestShareNamesMatchPatterns(t *testing.T) {
	f := func(pattern, yes, no string) {
		t.Helper()
		for name := range strings.FieldsSeq(yes) {
			require.True(t, acl.MatchShare(pattern, name), name)
		}
		for name := range strings.FieldsSeq(no) {
			require.False(t, acl.MatchShare(pattern, name), name)
		}
	}
	f("workers", "workers", "worker workers1 Workers")
	f("team-*", "team- team-1 team-a-b team-*", "team teams xteam-1")
	f("*", "a abc *", "")
	f("*-x", "-x a-x -x-x", "x a-xy")
	f("a*b*c", "abc aXbYc abbcc abcbc", "ab ac abcd acb")
	f("a*a", "aa aba", "a")
	f("**", "a ab", "")
	require.True(t, acl.MatchShare("*", ""))
}

func TestChecksDoNotAllocate(t *testing.T) {
	a := access(t, device, deny("a/+/secret/{mqtt.username}"), allow("devices/{mqtt.client_id}/#"))
	topic, filter := []byte("devices/d1/telemetry/"+strings.Repeat("x", 100)), "devices/d1/"+strings.Repeat("x", 100)+"/#"
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if !a.Publish(topic) || !a.Retain(topic) || !a.Will(topic) || !a.Receive(topic) || !a.Subscribe(filter, "") {
			t.Error("denied")
		}
	}))
}
