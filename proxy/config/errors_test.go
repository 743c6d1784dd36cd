package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFaultsPrintLikeACompilers(t *testing.T) {
	_, err := Parse("sluice.yaml", []byte(strings.Replace(base, "topic", "topci", 1)+"log: {level: loud}\n"), noEnv)
	require.EqualError(t, err, `sluice.yaml:7:5: unknown field "topci" (did you mean "topic"?)
      topci: t
      ^
sluice.yaml:8:14: level must be trace, debug, info, warn or error, not "loud"
  log: {level: loud}
               ^`)
}

func TestTheCaretStandsUnderItsColumn(t *testing.T) {
	caret := func(column int, source, want string) {
		t.Helper()
		e := Error{File: "f", Line: 1, Column: column, Message: "m", Source: source}
		require.Equal(t, fmt.Sprintf("f:1:%d: m\n", column)+want, e.Error())
	}
	caret(1, "", "  \n  ^")
	caret(3, "abc", "  abc\n    ^")
	caret(4, "abc", "  abc\n     ^")
	caret(99, "abc", "  abc\n     ^")
	caret(0, "abc", "  abc\n  ^")
	caret(3, "äöü", "  äöü\n    ^")
	caret(3, "a\tb", "  a\tb\n   \t^")                  // a tab is as wide above as below
	caret(2, "\x1b[31m", "  \uFFFD[31m\n   ^")          // no escape sequence reaches the terminal
	caret(1, "a\u202eb\u2028", "  a\uFFFDb\uFFFD\n  ^") // nor what turns the text around
	long := strings.Repeat("x", 500)
	caret(300, long, "  "+strings.Repeat("x", 160)+"\n  "+strings.Repeat(" ", 80)+"^")
}

func TestEveryFaultCanBeReached(t *testing.T) {
	_, err := Parse("sluice.yaml", []byte(base+"a: 1\nb: 2\n"), noEnv)
	wrapped := fmt.Errorf("check: %w", err)
	var first *Error
	require.True(t, errors.As(wrapped, &first))
	require.Equal(t, Error{File: "sluice.yaml", Line: 8, Column: 1, Message: first.Message, Source: "a: 1"}, *first)
	var all Errors
	require.True(t, errors.As(wrapped, &all))
	require.Len(t, all, 2)
	require.ErrorIs(t, wrapped, all[1])
}

func TestFaultsAreToldInTheOrderOfTheFileAndBounded(t *testing.T) {
	var src strings.Builder
	src.WriteString(base)
	for i := range 1500 {
		fmt.Fprintf(&src, "  - {match: a, topic: 'x y%d'}\n", i)
	}
	_, err := Parse("f", []byte(src.String()), noEnv)
	var all Errors
	require.True(t, errors.As(err, &all))
	require.Len(t, all, maxFaults)
	for i, e := range all {
		require.Equal(t, 8+i, e.Line)
	}
	require.True(t, strings.HasSuffix(all[maxFaults-1].Message, " (and 500 more faults)"))
}
