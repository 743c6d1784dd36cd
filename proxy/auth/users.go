package auth

import (
	"errors"
	"fmt"
	"hash/maphash"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFaults is how many faults of a users file are reported.
const maxFaults = 20

// maxBrackets is how deep brackets may nest; the parser recurses once for each.
const maxBrackets = 8

// users are the content of a users file. They do not change.
type users struct {
	hashes map[string]hash
	list   []hash // of all, to have one for who is not there
	seed   maphash.Seed
}

// decoy gives a hash for a name that is not there, always the same for a name. A login with it takes as long
// as one of a user in the file, whatever mixture of hashes that has.
func (u *users) decoy(name string) hash {
	return u.list[maphash.String(u.seed, name)%uint64(len(u.list))]
}

// nobody is a hash that users without an entry are checked against if the file has no entry at all.
var nobody = hash{argon: &argon{memory: hashMemory, time: hashTime, threads: 1, salt: make([]byte, 16), sum: make([]byte, 32)}}

// A usersParser collects users and all faults.
type usersParser struct {
	users  *users
	lines  map[string]int
	faults []error
}

// parseUsers reads the text of a users file.
func parseUsers(src []byte) (*users, error) {
	p := &usersParser{users: &users{hashes: map[string]hash{}, seed: maphash.MakeSeed()}, lines: map[string]int{}}
	if body, err := parseYAML(src); err != nil {
		p.faults = append(p.faults, err)
	} else if body == nil {
		p.fault(nil, `"users" is missing`)
	} else {
		p.root(body)
	}
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults[:min(len(p.faults), maxFaults)]...)
	}
	if len(p.users.list) == 0 {
		p.users.list = []hash{nobody}
	}
	return p.users, nil
}

// parseYAML gives the one document. The messages of the parser are left out: they may quote a password.
func parseYAML(src []byte) (body ast.Node, err error) {
	defer func() {
		// The parser is somebody else's and reads what people type: a panic there is a fault of the file here.
		if recover() != nil {
			body, err = nil, &SyntaxError{1, "cannot read this as YAML"}
		}
	}()
	if !utf8.Valid(src) {
		return nil, &SyntaxError{1, "the file is not UTF-8 text"}
	}
	tokens := lexer.Tokenize(string(src))
	if err := unsupported(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var located yaml.Error
		if errors.As(err, &located) {
			return nil, &SyntaxError{lineOf(located.GetToken()), "cannot read this as YAML"}
		}
		return nil, &SyntaxError{1, "cannot read this as YAML"}
	}
	return only(file)
}

func only(file *ast.File) (ast.Node, error) {
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case body != nil:
			return nil, &SyntaxError{lineOf(doc.Body.GetToken()), "a second document begins here; a users file is one"}
		default:
			body = doc.Body
		}
	}
	return body, nil
}

// unsupported refuses what a list of users does not need before the parser sees it.
func unsupported(tokens token.Tokens) error {
	depth, line, entries := 0, 0, 0
	for _, tk := range tokens {
		if l := lineOf(tk); l != line {
			line, entries = l, 0
		}
		switch tk.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType, token.MappingKeyType, token.DirectiveType:
			return &SyntaxError{line, "anchors, aliases, merge keys, tags, complex keys and directives are not supported"}
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType:
			entries++
		}
		if depth > maxBrackets || entries > maxBrackets {
			return &SyntaxError{line, "nested too deep"}
		}
	}
	return nil
}

func lineOf(tk *token.Token) int {
	if tk == nil || tk.Position == nil {
		return 1
	}
	return max(tk.Position.Line, 1)
}

func (p *usersParser) fault(n ast.Node, format string, args ...any) {
	line := 1
	if n != nil {
		line = lineOf(n.GetToken())
	}
	p.faults = append(p.faults, &SyntaxError{line, fmt.Sprintf(format, args...)})
}

// root reads the mapping with the one field users.
func (p *usersParser) root(body ast.Node) {
	fields := p.mapping(body, "the file", "users")
	list, ok := fields["users"]
	if !ok {
		p.fault(body, `"users" is missing`)
		return
	}
	sequence, ok := list.(*ast.SequenceNode)
	if !ok {
		p.fault(list, `"users" must be a list`)
		return
	}
	for _, entry := range sequence.Values {
		if len(p.faults) >= maxFaults {
			return
		}
		p.user(entry)
	}
}

// user reads one entry of the list.
func (p *usersParser) user(n ast.Node) {
	before := len(p.faults)
	fields := p.mapping(n, "a user", "name", "password")
	name, password := p.text(n, fields, "name"), p.text(n, fields, "password")
	if len(p.faults) > before {
		return
	}
	if !ValidName(name) {
		p.fault(n, "name %q %s", name, NameRule)
		return
	}
	if line, ok := p.lines[name]; ok {
		p.fault(n, "duplicate name %q; it is in line %d already", name, line)
		return
	}
	h, err := parseHash(password)
	if err != nil {
		p.fault(n, "%s of %q", err, name)
		return
	}
	p.lines[name] = lineOf(n.GetToken())
	p.users.hashes[name] = h
	p.users.list = append(p.users.list, h)
}

// text gives a field that must be there and be text.
func (p *usersParser) text(n ast.Node, fields map[string]ast.Node, field string) string {
	value, ok := fields[field]
	if !ok {
		p.fault(n, "%q is missing", field)
		return ""
	}
	text, ok := value.(*ast.StringNode)
	if !ok {
		p.fault(value, "%q must be text; put it in quotes", field)
		return ""
	}
	return text.Value
}

// mapping gives the fields of n, which may have those names. An unknown field is not quoted: who forgets a
// colon may have typed a password there.
func (p *usersParser) mapping(n ast.Node, what string, names ...string) map[string]ast.Node {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		p.fault(n, "%s must be a mapping of %q", what, names)
		return nil
	}
	fields := make(map[string]ast.Node, len(m.Values))
	for _, pair := range m.Values {
		name := ""
		for _, known := range names {
			if key, ok := pair.Key.(*ast.StringNode); ok && key.Value == known {
				name = known
			}
		}
		switch _, twice := fields[name]; {
		case name == "":
			p.fault(pair, "unknown field; %s has %q", what, names)
		case twice:
			p.fault(pair, "duplicate field %q", name)
		default:
			fields[name] = pair.Value
		}
	}
	return fields
}
