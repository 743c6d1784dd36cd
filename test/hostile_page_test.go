package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:generate env SLUICE_WRITE_PAGE=1 go test -count=1 -run ^TestSecurityPageHasTheWholeTable$ .

const (
	securityPage = "../docs/security.md"
	tableBegin   = "<!-- the table of hostile input: written by go generate ./test -->\n"
	tableEnd     = "<!-- end of the table -->\n"
	tableHead    = "| what is sent | MQTT 3.1.1 | MQTT 5 | where it stands |\n|---|---|---|---|\n"
	notInVersion = "–"
)

// TestSecurityPageHasTheWholeTable: the page says what the tests demand, row by row.
func TestSecurityPageHasTheWholeTable(t *testing.T) {
	page, err := os.ReadFile(securityPage)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(page), tableBegin)
	require.True(t, ok, "the page has no table")
	_, after, ok := strings.Cut(rest, tableEnd)
	require.True(t, ok, "the table has no end")
	want := before + tableBegin + hostileTable() + tableEnd + after
	if os.Getenv("SLUICE_WRITE_PAGE") == "1" {
		require.NoError(t, os.WriteFile(securityPage, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(page), "go generate ./test writes it anew")
}

func hostileTable() string {
	var b strings.Builder
	for _, g := range append(openGroups(), guardedGroups()...) {
		fmt.Fprintf(&b, "\n### %s\n\n%s", g.title, tableHead)
		for _, r := range g.rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(r.name), cell(r.old), cell(r.new), cell(r.clause))
		}
	}
	return b.String() + "\n"
}

func cell(text string) string {
	if text == "" {
		return notInVersion
	}
	return strings.NewReplacer("|", `\|`, "*", `\*`, "__", `\_\_`, "<", "&lt;").Replace(text)
}
