package acl_test

import (
	"fmt"
	"testing"

	"sluice/proxy/acl"
)

func BenchmarkPublish(b *testing.B) {
	for _, others := range []int{0, 20, 10_000} {
		b.Run(fmt.Sprintf("rules of others %d", others), func(b *testing.B) {
			rules := []acl.Rule{deny("devices/+/config")}
			for i := range others {
				rules = append(rules, acl.Rule{Rights: all, Filter: "x/#", Username: fmt.Sprint("other", i)})
			}
			rules = append(rules, allow("devices/{mqtt.client_id}/#"))
			list, err := acl.Compile(rules)
			if err != nil {
				b.Fatal(err)
			}
			a, topic := list.Access(acl.Who{ClientID: "d1", Username: "u1"}), []byte("devices/d1/telemetry/temperature")
			b.ReportAllocs()
			for b.Loop() {
				if !a.Publish(topic) {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkAccess(b *testing.B) {
	list, err := acl.Compile([]acl.Rule{deny("devices/+/config"), allow("devices/{mqtt.client_id}/#")})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		list.Access(acl.Who{ClientID: "d1", Username: "u1"})
	}
}
