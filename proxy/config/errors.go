package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Error is one fault and its place in the file.
type Error struct {
	File    string
	Line    int    // from 1
	Column  int    // from 1, in characters
	Message string // what is wrong, and what would be right
	Source  string // the line it is in
}

// Error prints the fault as a compiler does: file, line, column and message, then the line and a caret.
func (e *Error) Error() string {
	source, caret := e.excerpt()
	return fmt.Sprintf("%s:%d:%d: %s\n  %s\n  %s^", e.File, e.Line, e.Column, e.Message, source, caret)
}

// excerptWidth is how many characters of a line are shown on each side of the fault.
const excerptWidth = 80

// excerpt gives the part of the source line around the column, and the blanks that put a caret under it.
// Control characters are made visible, save tabs, which the blanks repeat so that the caret stays in place.
func (e *Error) excerpt() (source, caret string) {
	shown := clip(e.Source, e.Column-1+excerptWidth)
	before := clip(shown, e.Column-1)
	hidden := len(clip(before, utf8.RuneCountInString(before)-excerptWidth))
	printable := func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}
	blank := func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}
	return strings.Map(printable, shown[hidden:]), strings.Map(blank, before[hidden:])
}

// clip cuts s after n characters.
func clip(s string, n int) string {
	for i := range s {
		if n <= 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// Errors are all faults of a file, in the order of their places.
type Errors []*Error

// Error prints them one after the other.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap makes each fault visible to errors.As.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// maxFaults is how many faults are told; who has more has given the wrong file.
const maxFaults = 1000

// sort puts the faults in the order of the file and leaves out repetitions.
func (e Errors) sort() Errors {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	e = slices.CompactFunc(e, func(a, b *Error) bool { return *a == *b })
	if more := len(e) - maxFaults; more > 0 {
		e = e[:maxFaults]
		e[maxFaults-1].Message += fmt.Sprintf(" (and %d more faults)", more)
	}
	return e
}
