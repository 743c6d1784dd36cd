package auth

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkParseUsers reads a file of a fleet.
func BenchmarkParseUsers(b *testing.B) {
	var text strings.Builder
	text.WriteString("users:\n")
	for i := range 20_000 {
		fmt.Fprintf(&text, "  - {name: device-%d, password: \"%s\"}\n", i, goodBcrypt)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseUsers([]byte(text.String())); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRememberedPassword is a login of a storm: the device was here before.
func BenchmarkRememberedPassword(b *testing.B) {
	p, err := newProofs(newSealer())
	if err != nil {
		b.Fatal(err)
	}
	limits, err := newLimits(10)
	if err != nil {
		b.Fatal(err)
	}
	a := &attempt{Login: password("dev1", "one"), from: originOf(home), limits: limits}
	h := hash{text: goodBcrypt}
	p.add(p.key(h, a), a)
	b.ReportAllocs()
	for b.Loop() {
		if a.barred() || !p.has(p.key(h, a), a) {
			b.Fatal("forgotten")
		}
	}
}
