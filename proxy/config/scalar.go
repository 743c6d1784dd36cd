package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// text decodes a string and puts the environment in. Numbers and true/false are refused rather than turned
// into texts: YAML would already have changed some of them (1.10, 0x1F).
func (d *decoder) text(path string, n ast.Node) (string, bool) {
	p := d.places[path]
	switch n := n.(type) {
	case *ast.StringNode:
		p.at = d.src.locate(n.Token)
		return d.expand(path, n.Token.Value)
	case *ast.LiteralNode:
		p.at = slices.Repeat([]pos{p.value}, len(n.Value.Value))
		return d.expand(path, n.Value.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		d.fail(path, p.value, "%s must be a text; write it in quotes: %q", name(path), n.GetToken().Value)
		return "", false
	case *ast.MappingNode:
		if whole := joined(n); whole != "" {
			p.at = slices.Repeat([]pos{p.value}, len(whole))
			return d.expand(path, whole)
		}
	}
	d.mismatch(path, n, "a text")
	return "", false
}

// joined undoes a misreading of the YAML library: inside braces it takes kafka-1:9092 for a mapping, although
// a colon separates only before a blank (YAML 1.2, section 7.3.3). It gives "" for what is a mapping.
func joined(m *ast.MappingNode) string {
	if len(m.Values) != 1 || m.IsFlowStyle {
		return ""
	}
	line := m.Values[0]
	key, colon, value := line.Key.GetToken(), line.Start, line.Value.GetToken()
	if !plain(key) || !plain(value) || key.Position.Line != value.Position.Line ||
		colon.Position.Column != key.Position.Column+utf8.RuneCountInString(key.Value) || value.Position.Column != colon.Position.Column+1 {
		return ""
	}
	return key.Value + ":" + value.Value
}

// plain says whether tk is a scalar without quotes.
func plain(tk *token.Token) bool {
	return tk.Type == token.StringType || tk.Type == token.IntegerType || tk.Type == token.FloatType
}

// scalar gives the text of a number, a size or a duration. Those may come from the environment, and then may
// be quoted; fromEnv tells.
func (d *decoder) scalar(path string, n ast.Node, want string) (text string, fromEnv, ok bool) {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return n.Token.Value, false, true
	case *ast.StringNode:
		text, ok = d.text(path, n)
		return text, ok && text != n.Token.Value, ok
	}
	d.mismatch(path, n, want)
	return "", false, false
}

// word decodes a string, which for some fields is one of a few.
func (d *decoder) word(path string, n ast.Node, v reflect.Value) {
	text, ok := d.text(path, n)
	if !ok {
		return
	}
	v.SetString(text)
	if text == "" && mustSay(path) {
		d.fail(path, d.places[path].value, "%s is empty; give it a value or leave it out", name(path))
		return
	}
	if words := factOf(path).words; words != nil && !slices.Contains(words, text) {
		d.fail(path, d.places[path].value, "%s must be %s, not %q%s", name(path), oneOf(words), text, didYouMean(text, words))
	}
}

// secret decodes a text whose value must not be in what is reported.
func (d *decoder) secret(path string, n ast.Node, v reflect.Value) {
	switch m := n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		d.word(path, n, v)
		return
	case *ast.MappingNode:
		if joined(m) != "" {
			d.word(path, n, v)
			return
		}
	}
	d.fail(path, d.places[path].value, "%s must be a text; write it in quotes", name(path))
}

// integer decodes a decimal number.
func (d *decoder) integer(path string, n ast.Node, v reflect.Value) {
	const want = "a whole number"
	text, fromEnv, ok := d.scalar(path, n, want)
	if !ok {
		return
	}
	if _, quoted := n.(*ast.StringNode); quoted && !fromEnv {
		d.fail(path, d.places[path].value, "%s must be %s, not the text %q", name(path), want, text)
		return
	}
	i, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(i, 10) != text {
		d.fail(path, d.places[path].value, "%s must be %s in decimal digits, not %q", name(path), want, text)
		return
	}
	if d.inRange(path, i, i) {
		v.SetInt(i)
	}
}

// boolean decodes true or false.
func (d *decoder) boolean(path string, n ast.Node, v reflect.Value) {
	const want = "true or false"
	switch n := n.(type) {
	case *ast.BoolNode:
		v.SetBool(n.Value)
	case *ast.StringNode:
		text, ok := d.text(path, n)
		fromEnv := text != n.Token.Value
		switch {
		case !ok:
		case fromEnv && (text == "true" || text == "false"):
			v.SetBool(text == "true")
		default:
			d.fail(path, d.places[path].value, "%s must be %s, not the text %q", name(path), want, text)
		}
	default:
		d.mismatch(path, n, want)
	}
}

// bytes decodes a size.
func (d *decoder) bytes(path string, n ast.Node, v reflect.Value) {
	text, _, ok := d.scalar(path, n, "a size such as 64MiB")
	if !ok {
		return
	}
	b, err := ParseBytes(text)
	if err != nil {
		d.fail(path, d.places[path].value, "%s: %v", name(path), err)
		return
	}
	if d.inRange(path, int64(b), b) {
		v.SetInt(int64(b))
	}
}

// duration decodes a duration in Go's notation.
func (d *decoder) duration(path string, n ast.Node, v reflect.Value) {
	text, _, ok := d.scalar(path, n, "a duration such as 10s")
	if !ok {
		return
	}
	t, err := time.ParseDuration(text)
	if err != nil {
		d.fail(path, d.places[path].value, "%s: %q is no duration such as 5ms, 10s, 1h30m", name(path), text)
		return
	}
	switch {
	case !d.inRange(path, int64(t), t):
	case factOf(path).whole && t%time.Second != 0:
		d.fail(path, d.places[path].value, "%s must be whole seconds, not %s", name(path), text)
	default:
		v.SetInt(int64(t))
	}
}

// inRange reports i if the field at path may not have it. example has the type in which numbers are written.
func (d *decoder) inRange(path string, i int64, example any) bool {
	f := factOf(path)
	if !f.ranged() || f.min <= i && i <= f.max {
		return true
	}
	from, to := f.bounds(example)
	d.fail(path, d.places[path].value, "%s must be %s to %s, not %s", name(path), from, to, show(example, i))
	return false
}

// reference is ${NAME}, or $${, which stands for ${ itself, or what looks like the beginning of one of them.
var reference = regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{[^}]*\}?`)

// expand puts the environment into a text. The bytes of a value get the place of its reference.
func (d *decoder) expand(path, text string) (string, bool) {
	p, ok := d.places[path], true
	var out strings.Builder
	var at []pos
	rest := 0
	for _, m := range reference.FindAllStringSubmatchIndex(text, -1) {
		out.WriteString(text[rest:m[0]])
		at = append(at, p.at[rest:m[0]]...)
		value, err := d.resolve(text[m[0]:m[1]])
		if err != nil {
			d.fail(path, p.at[m[0]], "%v", err)
			ok = false
		}
		out.WriteString(value)
		at = append(at, slices.Repeat(p.at[m[0]:m[0]+1], len(value))...)
		rest = m[1]
	}
	p.at = append(at, p.at[rest:]...)
	out.WriteString(text[rest:])
	return out.String(), ok
}

// resolve gives what a match of reference stands for.
func (d *decoder) resolve(ref string) (string, error) {
	if ref == "$${" {
		return "${", nil
	}
	name := reference.FindStringSubmatch(ref)[1]
	if name == "" {
		return "", errors.New("this ${ is not ${NAME} with a name of letters, digits and underscores; write $${ for the characters themselves")
	}
	value, ok := d.getenv(name)
	if !ok {
		return "", fmt.Errorf("environment variable %s is not set", name)
	}
	return value, nil
}
