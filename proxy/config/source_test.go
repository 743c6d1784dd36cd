package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestEveryByteOfAScalarIsFound writes a random text in every quoting at a random place and checks that each
// of its bytes is found where it was put.
func TestEveryByteOfAScalarIsFound(t *testing.T) {
	alphabet := []rune("abc{}/.#+-_ä😀'\"\\ \t")
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.SampledFrom(alphabet), 1, 12, -1).Draw(t, "text")
		style := rapid.SampledFrom([]func(rune) string{single, double, hex}).Draw(t, "style")
		quote := "'"
		if fmt.Sprint(style('"')) != `"` {
			quote = `"`
		}
		before := rapid.SampledFrom([]string{"", "# ä\n", "ä: {x: 'ü', ", "- - "}).Draw(t, "before")
		src := before + "k: " + quote
		var want []pos
		at := pos{1 + strings.Count(src, "\n"), 1 + len([]rune(src[strings.LastIndex(src, "\n")+1:]))}
		for _, r := range text {
			for range len(string(r)) {
				want = append(want, at)
			}
			src += style(r)
			at.column += len([]rune(style(r)))
		}
		src += quote
		require.Equal(t, want, newSource("f", []byte(src)).locate(scalarOf(t, src, text)))
	})
}

func single(r rune) string { return strings.ReplaceAll(string(r), "'", "''") }

func double(r rune) string {
	switch r {
	case '"', '\\':
		return `\` + string(r)
	case '\t':
		return `\t`
	}
	return string(r)
}

func hex(r rune) string { return fmt.Sprintf(`\U%08x`, r) }

// scalarOf finds the token of the quoted text in src.
func scalarOf(t *rapid.T, src, text string) *token.Token {
	for _, tk := range lexer.Tokenize(src) {
		if tk.Value == text && (tk.Type == token.SingleQuoteType || tk.Type == token.DoubleQuoteType) {
			return tk
		}
	}
	t.Fatalf("no scalar %q in %q", text, src)
	return nil
}

func TestLinesOfASource(t *testing.T) {
	s := newSource("f", []byte("a\r\nö\n\nlast"))
	require.Equal(t, []string{"", "a", "ö", "", "last", ""}, []string{s.line(0), s.line(1), s.line(2), s.line(3), s.line(4), s.line(5)})
	require.Equal(t, 2, s.offset(pos{2, 1}))
	require.Equal(t, 4, s.offset(pos{2, 2}))
	require.Equal(t, len(s.text), s.offset(pos{9, 1}))
}

func TestPlacesOutsideTheFileMoveInside(t *testing.T) {
	s := newSource("f", []byte("ab\ncd"))
	place := func(p, want pos) {
		t.Helper()
		e := s.fault(p, "m")
		require.Equal(t, want, pos{e.Line, e.Column})
	}
	place(pos{0, 0}, pos{1, 1})
	place(pos{1, 9}, pos{1, 3})
	place(pos{9, 9}, pos{2, 3})
	place(pos{-1, -1}, pos{1, 1})
}
