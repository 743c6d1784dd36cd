package performance

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:generate env SLUICE_WRITE_PAGE=1 go test -count=1 -run ^TestPage .

// TestPageIsMadeOfTheFigures: the page and its charts are what the committed figures make, and these come from a whole run
// on a machine that had nothing else to do.
func TestPageIsMadeOfTheFigures(t *testing.T) {
	r, err := Read("../../docs/performance/figures.json")
	require.NoError(t, err)
	if os.Getenv("SLUICE_WRITE_PAGE") == "1" {
		require.NoError(t, WritePage("../../docs/performance.md", "../../docs", r))
		return
	}
	page, err := os.ReadFile("../../docs/performance.md")
	require.NoError(t, err)
	made, charts, err := Page(string(page), r)
	require.NoError(t, err)
	require.Equal(t, made, string(page), "go generate ./test/performance writes it anew")
	there, err := filepath.Glob("../../docs/performance/*.svg")
	require.NoError(t, err)
	require.Len(t, there, len(charts))
	for name, svg := range charts {
		b, err := os.ReadFile(filepath.Join("../../docs/performance", name))
		require.NoError(t, err)
		require.Equal(t, svg, string(b), "go generate ./test/performance writes it anew")
	}
	for _, p := range r.Parts {
		require.False(t, p.Short, "%s is of a short run", p.Name)
		require.GreaterOrEqual(t, p.Idle, quiet, "the machine had other work before %s", p.Name)
	}
}

// TestPageOfEveryPart: what a short run gave makes the page in testdata.
func TestPageOfEveryPart(t *testing.T) {
	r, err := Read("testdata/figures.json")
	require.NoError(t, err)
	made, charts, err := Page("before\n"+begin+"what was there\n"+end+"after\n", r)
	require.NoError(t, err)
	if os.Getenv("SLUICE_WRITE_PAGE") == "1" {
		require.NoError(t, os.WriteFile("testdata/page.md", []byte(made), 0o644))
	}
	want, err := os.ReadFile("testdata/page.md")
	require.NoError(t, err)
	require.Equal(t, string(want), made)
	require.Len(t, r.Parts, 5)
	for name, svg := range charts {
		require.Contains(t, made, "(performance/"+name+")")
		wellFormed(t, svg)
	}
	again, _, err := Page(made, new(Report))
	require.NoError(t, err)
	require.Equal(t, "before\n"+begin+end+"after\n", again)
	_, _, err = Page("no lines", r)
	require.Error(t, err)
}

func wellFormed(t *testing.T, svg string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else {
			require.NoError(t, err)
		}
	}
}

func TestMedian(t *testing.T) {
	c := &Case{Rounds: []Round{{CPU: 3}, {CPU: 1}, {CPU: 2, P99: 7}}}
	for name, want := range map[string]float64{CPU: 2, P99: 7} {
		got, ok := c.Median(name)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	_, ok := c.Median(P50)
	require.False(t, ok)
}

// TestChartHoldsItsPoints: whatever the figures are, nothing is drawn outside.
func TestChartHoldsItsPoints(t *testing.T) {
	for _, points := range [][][2]float64{{{1, 0}}, {{0, 5}, {1_000_000, 1e9}}, {{1, 0.003}, {10, 0.001}, {10, 0.002}}, {{7, 1}, {7, 2}}} {
		svg := chart{title: "a < b & c", x: "x", y: "y", lines: []line{{"one", points}, {"none", nil}}}.svg()
		wellFormed(t, svg)
		require.NotContains(t, svg, "NaN")
		require.NotContains(t, svg, "Inf")
		require.NotContains(t, svg, `"-`)
		require.Equal(t, len(points), strings.Count(svg, "<circle"))
	}
	require.InDelta(t, 0.5, position(100, 1, 10_000), 1e-9)
	for most, want := range map[float64]float64{5: 1, 11: 2, 250_000: 50_000, 0.8: 0.2, 0: 1} {
		require.InDelta(t, want, niceStep(most), 1e-9, "%v", most)
	}
	for v, want := range map[float64]string{0: "0", 2.5: "2.5", 16384: "16.4k", 1e6: "1M"} {
		require.Equal(t, want, short(v))
	}
}
