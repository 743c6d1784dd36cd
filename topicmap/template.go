package topicmap

import "strings"

// template is a parsed text: literals and values in turn. With no value in it, literal is the whole.
type template struct {
	parts   []part
	literal []byte // not nil exactly when there are no values
}

// part is a piece of a template: a literal, or else a value.
type part struct {
	literal string
	isValue bool
	value   *source
	name    string // of the value, for messages
	offset  int    // in the template's text; of the name, for a value
}

// resolver knows the names that may stand in a template; each kind of rule has its own.
type resolver func(name string) (*source, error)

// parseTemplate reads text and asks resolve for each name, reporting every fault.
func parseTemplate(text string, resolve resolver) (*template, []fault) {
	p := templateParser{text: text, resolve: resolve}
	for p.pos < len(text) {
		p.next()
	}
	p.endLiteral()
	return p.template(), p.faults
}

// templateParser holds the place up to which text is read, and the literal that grows there.
type templateParser struct {
	text    string
	resolve resolver
	pos     int
	lit     strings.Builder
	litAt   int
	parts   []part
	faults  []fault
}

// next reads one brace with what belongs to it, or the literal up to the next brace.
func (p *templateParser) next() {
	rest := p.text[p.pos:]
	switch {
	case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
		p.addLiteral(rest[:1], 2)
	case rest[0] == '{':
		p.endLiteral()
		p.name(rest)
	case rest[0] == '}':
		p.faults = append(p.faults, faultf(p.pos, "this } closes nothing; write }} for the character"))
		p.pos++
	default:
		n := strings.IndexAny(rest, "{}")
		if n < 0 {
			n = len(rest)
		}
		p.addLiteral(rest[:n], n)
	}
}

// name reads {…} at the start of rest.
func (p *templateParser) name(rest string) {
	end := strings.IndexAny(rest[1:], "{}") + 1
	if end == 0 || rest[end] == '{' {
		p.faults = append(p.faults, faultf(p.pos, "this { is not closed; write {{ for the character"))
		p.pos++
		return
	}
	name, at := rest[1:end], p.pos+1
	value, err := p.resolve(name)
	if err != nil {
		p.faults = append(p.faults, fault{at, err})
	}
	p.parts = append(p.parts, part{isValue: true, value: value, name: name, offset: at})
	p.pos += end + 1
}

// addLiteral takes width bytes of the text, which mean s.
func (p *templateParser) addLiteral(s string, width int) {
	if p.lit.Len() == 0 {
		p.litAt = p.pos
	}
	p.lit.WriteString(s)
	p.pos += width
}

func (p *templateParser) endLiteral() {
	if p.lit.Len() > 0 {
		p.parts = append(p.parts, part{literal: p.lit.String(), offset: p.litAt})
		p.lit.Reset()
	}
}

func (p *templateParser) template() *template {
	switch {
	case len(p.parts) == 0:
		return &template{literal: []byte{}}
	case len(p.parts) == 1 && !p.parts[0].isValue:
		return &template{parts: p.parts, literal: []byte(p.parts[0].literal)}
	}
	return &template{parts: p.parts}
}

// render appends what the template says of the subject to sc.buf. It returns the piece that was added, which is never
// nil, or the part whose value is missing. The piece stays good while sc.buf grows: append moves the buffer and leaves
// the old bytes alone.
func (t *template) render(of subject, sc *scratch) (text []byte, missing *part) {
	if t.literal != nil {
		return t.literal, nil
	}
	start := len(sc.buf)
	for i := range t.parts {
		p := &t.parts[i]
		if !p.isValue {
			sc.buf = append(sc.buf, p.literal...)
			continue
		}
		var ok bool
		if sc.buf, ok = p.value.appendTo(sc.buf, of, sc); !ok {
			return nil, p
		}
	}
	end := len(sc.buf)
	return sc.buf[start:end:end], nil
}
