package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"sluice/topicmap"
)

// A decoder walks the syntax tree along the Go structs and keeps every fault it meets. It remembers where
// each field stands, for the checks that come after.
type decoder struct {
	src    *source
	getenv func(string) (string, bool)
	errs   Errors
	places map[string]*place // of the fields in the file, by path: publish[2].headers.metric
	known  []Field           // all there are, once an unknown one was met
}

// A place is where a field stands in the file.
type place struct {
	key   pos   // its name
	value pos   // what follows
	keyAt []pos // of each byte of the name
	at    []pos // of each byte of the value, for texts
	bad   bool  // a fault was reported; its value is not what the file says
}

// fail reports a fault at p and marks the field at path as bad.
func (d *decoder) fail(path string, p pos, format string, args ...any) {
	d.errs = append(d.errs, d.src.fault(p, format, args...))
	if place := d.places[path]; place != nil {
		place.bad = true
	}
}

// root decodes the document. An empty one is a mapping without fields, so that what is missing gets named.
func (d *decoder) root(body ast.Node, v reflect.Value) {
	d.places[""] = &place{key: pos{1, 1}, value: pos{1, 1}}
	if isNull(body) {
		body = &ast.MappingNode{}
	}
	d.value("", body, v)
}

var (
	durationType  = reflect.TypeFor[time.Duration]()
	bytesType     = reflect.TypeFor[Bytes]()
	unmatchedType = reflect.TypeFor[Unmatched]()
	refusedType   = reflect.TypeFor[Refused]()
	userPropsType = reflect.TypeFor[UserProperties]()
	fieldsType    = reflect.TypeFor[[]topicmap.Field]()
	secretType    = reflect.TypeFor[Secret]()
)

// defaultEntries are the values of what the file leaves out of a section that may not be there, or may be there more
// than once.
var defaultEntries = map[reflect.Type]reflect.Value{
	reflect.TypeFor[Rule]():        reflect.ValueOf(defaultRule()),
	reflect.TypeFor[Command]():     reflect.ValueOf(defaultCommand()),
	reflect.TypeFor[Listener]():    reflect.ValueOf(defaultListener()),
	reflect.TypeFor[ListenerTLS](): reflect.ValueOf(defaultListenerTLS()),
	reflect.TypeFor[JWT]():         reflect.ValueOf(defaultJWT()),
	reflect.TypeFor[HTTPAuth]():    reflect.ValueOf(defaultHTTPAuth()),
}

// defaultEntry gives a section of that type, with the values of what the file leaves out.
func defaultEntry(t reflect.Type) reflect.Value {
	if v, ok := defaultEntries[t]; ok {
		return v
	}
	return reflect.Zero(t)
}

// value decodes n into v. The kinds of the struct fields decide what n may be.
func (d *decoder) value(path string, n ast.Node, v reflect.Value) {
	if isNull(n) {
		d.null(path)
		return
	}
	switch v.Type() {
	case durationType:
		d.duration(path, n, v)
		return
	case bytesType:
		d.bytes(path, n, v)
		return
	case unmatchedType:
		if word, topic, ok := d.wordOrTopic(path, n, unmatchedWords); ok && topic {
			v.Set(reflect.ValueOf(Unmatched{DeadLetter, word}))
		} else if ok {
			v.Set(reflect.ValueOf(Unmatched{Mode: Mode(slices.Index(unmatchedWords, word))}))
		}
		return
	case refusedType:
		if word, topic, ok := d.wordOrTopic(path, n, refusedWords); ok && topic {
			v.Set(reflect.ValueOf(Refused{DeadLetter: word}))
		} else if ok {
			v.Set(reflect.ValueOf(Refused{Acknowledge: word == RefusedAcknowledge}))
		}
		return
	case userPropsType:
		d.userProperties(path, n, v)
		return
	case fieldsType:
		d.fields(path, n, v)
		return
	case secretType:
		d.secret(path, n, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		v.Elem().Set(defaultEntry(v.Type().Elem()))
		d.value(path, n, v.Elem())
	case reflect.Struct:
		d.structure(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	case reflect.Map:
		d.named(path, n, v)
	case reflect.String:
		d.word(path, n, v)
	case reflect.Bool:
		d.boolean(path, n, v)
	default:
		d.integer(path, n, v)
	}
}

func isNull(n ast.Node) bool {
	_, null := n.(*ast.NullNode)
	return null || n == nil
}

// null refuses a field without a value: it is a line somebody has not finished, or one that was meant to be
// commented out as a whole.
func (d *decoder) null(path string) {
	hint := "give it one or leave it out"
	if strings.HasSuffix(path, ".key") {
		hint = `write "" for no key, or leave it out for {mqtt.client_id}`
	}
	d.fail(path, d.places[path].key, "%s has no value; %s", name(path), hint)
}

// structure decodes a mapping into the struct v.
func (d *decoder) structure(path string, n ast.Node, v reflect.Value) {
	pairs, ok := d.mapping(path, n)
	if !ok {
		return
	}
	var misspelt []string
	for _, p := range pairs {
		child := join(path, p.name)
		field, ok := fieldOf(v, p.name)
		if !ok {
			misspelt = append(misspelt, d.unknown(path, p.name, v.Type()))
			continue
		}
		d.value(child, p.value, field)
	}
	d.missing(path, v.Type(), misspelt)
}

// missing reports the fields of t that must be in the file and are not. One that is there under a slightly
// wrong name was reported under that name.
func (d *decoder) missing(path string, t reflect.Type, misspelt []string) {
	for i := range t.NumField() {
		field := tag(t.Field(i))
		child := join(path, field)
		fact := factOf(child)
		if !fact.required || d.places[child] != nil || slices.Contains(misspelt, field) {
			continue
		}
		if fact.instead != "" && (d.places[join(path, fact.instead)+"[0]"] != nil || slices.Contains(misspelt, fact.instead)) {
			continue
		}
		d.fail("", d.places[path].key, "%s is missing", name(child))
	}
}

// fieldOf finds the field of struct v with this yaml tag.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if t := tag(v.Type().Field(i)); t == key && t != "" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func tag(f reflect.StructField) string { return f.Tag.Get("yaml") }

// The words of the fields that may have a mapping with a dead-letter topic instead.
var (
	unmatchedWords = []string{Reject.String(), Drop.String()}
	refusedWords   = []string{RefusedClose, RefusedAcknowledge}
)

// wordOrTopic decodes one of two words, or a mapping with the dead-letter topic.
func (d *decoder) wordOrTopic(path string, n ast.Node, words []string) (text string, topic, ok bool) {
	allowed := strings.Join(words, ", ") + " or {dead_letter: TOPIC}"
	switch n.(type) {
	case *ast.StringNode:
		if text, ok = d.text(path, n); ok && !slices.Contains(words, text) {
			d.fail(path, d.places[path].value, "%s must be %s, not %q", name(path), allowed, text)
			ok = false
		}
		return text, false, ok
	case *ast.MappingNode:
		var m struct {
			DeadLetter string `yaml:"dead_letter"`
		}
		d.structure(path, n, reflect.ValueOf(&m).Elem())
		return m.DeadLetter, true, true
	}
	d.mismatch(path, n, allowed)
	return "", false, false
}

// userProperties decodes one of the words, or a list of names.
func (d *decoder) userProperties(path string, n ast.Node, v reflect.Value) {
	var u UserProperties
	switch n.(type) {
	case *ast.SequenceNode:
		d.list(path, n, reflect.ValueOf(&u.Names).Elem())
		v.Set(reflect.ValueOf(u))
		return
	case *ast.StringNode:
	default:
		d.mismatch(path, n, "all, none or a list of names")
		return
	}
	text, ok := d.text(path, n)
	u.None = text == "none"
	switch {
	case !ok:
	case u.None || text == "all":
		v.Set(reflect.ValueOf(u))
	default:
		d.fail(path, d.places[path].value, "user_properties must be all, none or a list of names, not %q", text)
	}
}

// A pair is one line of a mapping.
type pair struct {
	name  string
	value ast.Node
}

// mapping gives the lines of a mapping and notes their places. A name that comes twice is a fault; its first
// value counts.
func (d *decoder) mapping(path string, n ast.Node) (pairs []pair, ok bool) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.mismatch(path, n, "a mapping (name: value)")
		return nil, false
	}
	for _, line := range m.Values {
		tk := line.Key.GetToken()
		key := pair{tk.Value, line.Value}
		child := join(path, key.name)
		if first := d.places[child]; first != nil {
			d.fail("", positionOf(tk), "duplicate field %q; it is in line %d already", key.name, first.key.line)
			continue
		}
		d.places[child] = &place{key: positionOf(tk), keyAt: d.src.locate(tk), value: d.place(line.Value)}
		pairs = append(pairs, key)
	}
	return pairs, true
}

// place is where a node begins, in the eyes of a reader: at its first character.
func (d *decoder) place(n ast.Node) pos {
	switch n := n.(type) {
	case nil:
		return pos{1, 1}
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return positionOf(n.Values[0].Key.GetToken())
		}
	}
	return positionOf(n.GetToken())
}

// mismatch reports a value of the wrong kind.
func (d *decoder) mismatch(path string, n ast.Node, want string) {
	what := name(path)
	if path == "" {
		what = "the configuration"
	}
	d.fail(path, d.place(n), "%s must be %s, not %s%s", what, want, kindOf(n), braces(n))
}

// braces recognises a template without quotes, which YAML reads as a mapping.
func braces(n ast.Node) string {
	m, ok := n.(*ast.MappingNode)
	if !ok || !m.IsFlowStyle || len(m.Values) != 1 {
		return ""
	}
	if !isNull(m.Values[0].Value) {
		return ""
	}
	return fmt.Sprintf(`; write templates in quotes: "{%s}"`, m.Values[0].Key.GetToken().Value)
}

// kindOf names what n is.
func kindOf(n ast.Node) string {
	switch n := n.(type) {
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + n.GetToken().Value
	case *ast.BoolNode:
		return n.Token.Value
	}
	return "this"
}

// join makes the path of a field of the mapping at path. A name that no struct has and that would read as a
// path itself is quoted; the free names of headers and conditions have nothing below them and stay.
func join(path, name string) string {
	if strings.ContainsAny(name, ".[") && !strings.HasSuffix(path, ".headers") && !strings.HasSuffix(path, ".when") {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// name is how a fault calls the field at path: the last part of it, with its index for an entry of a list.
func name(path string) string {
	for _, free := range []string{".headers.", ".when."} {
		if _, after, ok := strings.Cut(path, free); ok {
			return strconv.Quote(after)
		}
	}
	return path[strings.LastIndexByte(path, '.')+1:]
}
