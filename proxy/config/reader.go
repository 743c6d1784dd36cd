package config

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// A reader reads one flow scalar (plain, single-quoted or double-quoted) from the text of a file and keeps
// the place of every byte it yields. It serves carets, so it may give up on anything rare.
type reader struct {
	text   string
	i      int
	at     pos // of text[i]
	out    []byte
	places []pos
}

// next gives the next character, 0 at the end, without taking it.
func (r *reader) next() rune {
	if r.i >= len(r.text) {
		return 0
	}
	c, _ := utf8.DecodeRuneInString(r.text[r.i:])
	return c
}

// skip takes n characters.
func (r *reader) skip(n int) {
	for ; n > 0 && r.i < len(r.text); n-- {
		c, size := utf8.DecodeRuneInString(r.text[r.i:])
		r.i += size
		r.at.column++
		if c == '\n' {
			r.at = pos{r.at.line + 1, 1}
		}
	}
}

// yield adds s to the value, with the place p for all of its bytes.
func (r *reader) yield(s string, p pos) {
	r.out = append(r.out, s...)
	for range len(s) {
		r.places = append(r.places, p)
	}
}

// take yields the next character as it stands, and folds line breaks as YAML does: one becomes a blank,
// n become n-1 line breaks, and the blanks around them vanish.
func (r *reader) take() {
	start, rest := r.at, r.text[r.i:]
	run := rest[:len(rest)-len(strings.TrimLeft(rest, " \t\n"))]
	breaks := strings.Count(run, "\n")
	if breaks == 0 {
		for range max(len(run), 1) {
			r.yield(string(r.next()), r.at)
			r.skip(1)
		}
		return
	}
	if breaks == 1 {
		r.yield(" ", start)
	}
	r.yield(strings.Repeat("\n", breaks-1), start)
	r.skip(len(run))
}

// plain reads until n bytes are out.
func (r *reader) plain(n int) {
	for len(r.out) < n && r.i < len(r.text) {
		r.take()
	}
}

func (r *reader) singleQuoted() {
	r.skip(1)
	for r.i < len(r.text) {
		if r.next() != '\'' {
			r.take()
			continue
		}
		quote := r.at
		r.skip(1)
		if r.next() != '\'' {
			return
		}
		r.yield("'", quote)
		r.skip(1)
	}
}

func (r *reader) doubleQuoted() {
	r.skip(1)
	for r.i < len(r.text) {
		switch r.next() {
		case '"':
			return
		case '\\':
			r.escape()
		default:
			r.take()
		}
	}
}

// escapes are those of YAML 1.2, section 5.7, that stand for one character.
var escapes = map[rune]string{
	'0': "\x00", 'a': "\a", 'b': "\b", 't': "\t", '\t': "\t", 'n': "\n", 'v': "\v", 'f': "\f", 'r': "\r",
	'e': "\x1b", ' ': " ", '"': `"`, '/': "/", '\\': `\`, 'N': "\u0085", '_': "\u00a0", 'L': "\u2028", 'P': "\u2029",
}

// hexDigits is how many digits follow each numeric escape.
var hexDigits = map[rune]int{'x': 2, 'u': 4, 'U': 8}

// escape reads one escape sequence of a double-quoted scalar.
func (r *reader) escape() {
	start := r.at
	r.skip(1)
	kind := r.next()
	r.skip(1)
	if kind == '\n' { // an escaped line break joins the lines
		rest := r.text[r.i:]
		r.skip(len(rest) - len(strings.TrimLeft(rest, " \t")))
		return
	}
	digits, ok := hexDigits[kind]
	if !ok {
		r.yield(escapes[kind], start)
		return
	}
	code, err := strconv.ParseUint(r.text[r.i:min(r.i+digits, len(r.text))], 16, 32)
	if err == nil {
		r.yield(string(rune(code)), start)
	}
	r.skip(digits)
}
