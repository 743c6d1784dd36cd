package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// A pos is a place in the file; line and column count from 1, the column in characters.
type pos struct{ line, column int }

// A source is the text of a file and its lines.
type source struct {
	name  string
	text  string
	start []int    // byte offset of each line
	ascii bool     // a character is a byte, which makes long lines cheap
	shown []string // the lines without their secrets, made for the first fault
}

// byteOrderMark is allowed before the first line, where some editors leave it.
const byteOrderMark = "\uFEFF"

// newSource cuts src into lines. Line breaks of Windows become those of YAML's own text model.
func newSource(name string, src []byte) *source {
	text := strings.TrimPrefix(string(src), byteOrderMark)
	s := &source{name: name, text: strings.ReplaceAll(text, "\r\n", "\n"), start: []int{0}, ascii: true}
	for i := range len(s.text) {
		s.ascii = s.ascii && s.text[i] < utf8.RuneSelf
		if s.text[i] == '\n' {
			s.start = append(s.start, i+1)
		}
	}
	return s
}

// line gives line n without its end, "" if there is none.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.start) {
		return ""
	}
	end := len(s.text)
	if n < len(s.start) {
		end = s.start[n] - 1
	}
	return s.text[s.start[n-1]:end]
}

// offset gives the byte offset of p, or the end of its line.
func (s *source) offset(p pos) int {
	if p.line < 1 || p.line > len(s.start) {
		return len(s.text)
	}
	line := s.line(p.line)
	if s.ascii {
		return s.start[p.line-1] + min(p.column-1, len(line))
	}
	return s.start[p.line-1] + len(clip(line, p.column-1))
}

// fault makes the error at p. A place outside the file, which YAML's implicit values can have, moves to the
// nearest one inside.
func (s *source) fault(p pos, format string, args ...any) *Error {
	p.line = min(max(p.line, 1), len(s.start))
	line := s.line(p.line)
	width := len(line)
	if !s.ascii {
		width = utf8.RuneCountInString(line)
	}
	p.column = min(max(p.column, 1), width+1)
	message := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", `\n`) // of a quoted text; a message is one line
	return &Error{File: s.name, Line: p.line, Column: p.column, Message: message, Source: s.show(p.line)}
}

// show gives line n as it may be seen.
func (s *source) show(n int) string {
	if s.shown == nil {
		s.shown = mask(s.text)
	}
	return s.shown[n-1]
}

// illegal finds the first byte that is no text: broken UTF-8, or a control character that YAML excludes.
func (s *source) illegal() *Error {
	p := pos{1, 1}
	for i, r := range s.text {
		switch {
		case r == '\n':
			p = pos{p.line + 1, 0}
		case r == utf8.RuneError && !strings.HasPrefix(s.text[i:], string(utf8.RuneError)):
			return s.fault(p, "the file is not UTF-8 text")
		case r < ' ' && r != '\t', r == 0x7f:
			return s.fault(p, "control character %U is not allowed in YAML", r)
		}
		p.column++
	}
	return nil
}

// positionOf gives the place of tk. The parser counts columns from 1, save in the body of a block scalar.
func positionOf(tk *token.Token) pos {
	if tk == nil || tk.Position == nil {
		return pos{1, 1}
	}
	return pos{tk.Position.Line, max(tk.Position.Column, 1)}
}

// locate gives the place of every byte of the scalar tk, so that a fault inside a template gets its caret
// there. It reads the scalar once more; where that does not lead to what the parser read, as in a block
// scalar, all bytes get the place of the token.
func (s *source) locate(tk *token.Token) []pos {
	r := reader{text: s.text, i: s.offset(positionOf(tk)), at: positionOf(tk)}
	switch tk.Type {
	case token.SingleQuoteType:
		r.singleQuoted()
	case token.DoubleQuoteType:
		r.doubleQuoted()
	default:
		r.plain(len(tk.Value))
	}
	if string(r.out) == tk.Value {
		return r.places
	}
	places := make([]pos, len(tk.Value))
	for i := range places {
		places[i] = positionOf(tk)
	}
	return places
}
