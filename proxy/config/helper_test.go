package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// base is a whole configuration of 7 lines; tests add sections from line 8 on.
const base = `listeners:
  - address: 0.0.0.0:1883
kafka:
  brokers: [localhost:9092]
publish:
  - match: a/{b}
    topic: t
`

// rule is base up to its one publish rule; tests write the rule from line 6 on.
var rule = base[:strings.Index(base, "  - match")]

func noEnv(string) (string, bool) { return "", false }

// parse gives the configuration that src must make.
func parse(t *testing.T, src string) *Config {
	t.Helper()
	cfg, err := Parse("sluice.yaml", []byte(src), noEnv)
	require.NoError(t, err)
	return cfg
}

// refuse checks that src has exactly the faults in want, each "line:column: beginning of the message".
func refuse(t *testing.T, src string, want ...string) {
	t.Helper()
	refuseEnv(t, src, noEnv, want...)
}

func refuseEnv(t *testing.T, src string, getenv func(string) (string, bool), want ...string) {
	t.Helper()
	cfg, err := Parse("sluice.yaml", []byte(src), getenv)
	require.Nil(t, cfg)
	var errs Errors
	require.True(t, errors.As(err, &errs), "error is %v", err)
	require.Len(t, errs, len(want), "%v", err)
	for i, e := range errs {
		got := fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message)
		require.True(t, strings.HasPrefix(got, want[i]), "got  %s\nwant %s", got, want[i])
	}
}
