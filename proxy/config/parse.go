package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxSource is the largest file that is read; it keeps a wrong path, such as that of a log, from being parsed.
const maxSource = 1 << 20

// maxNesting is how deep brackets and list entries may nest; the parser recurses once for each.
const maxNesting = 64

// Load reads and parses the file at path. getenv looks up ${NAME}; os.LookupEnv does. The names of files in it are
// relative to its own folder, so that it means the same wherever the process was started.
func Load(path string, getenv func(string) (string, bool)) (*Config, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	cfg, err := Parse(path, src, getenv)
	if err != nil {
		return nil, err
	}
	cfg.resolve(filepath.Dir(path))
	return cfg, nil
}

// Parse decodes src, the text of the file called name, into a copy of Default and checks it. The error is
// Errors with every fault that was found. getenv looks up ${NAME}; nil means that no name is set.
func Parse(name string, src []byte, getenv func(string) (string, bool)) (*Config, error) {
	if getenv == nil {
		getenv = func(string) (string, bool) { return "", false }
	}
	s := newSource(name, src)
	if len(src) > maxSource {
		return nil, Errors{s.fault(pos{1, 1}, "the file is larger than %s", Bytes(maxSource))}
	}
	if err := s.illegal(); err != nil {
		return nil, Errors{err}
	}
	body, errs := s.parse()
	if errs != nil {
		return nil, errs.sort()
	}
	d := &decoder{src: s, getenv: getenv, places: make(map[string]*place)}
	cfg := Default()
	d.root(body, reflect.ValueOf(&cfg).Elem())
	d.check(&cfg)
	if len(d.errs) > 0 {
		return nil, d.errs.sort()
	}
	return &cfg, nil
}

// parse gives the one document of the file, nil if it is empty.
func (s *source) parse() (body ast.Node, errs Errors) {
	defer func() {
		// The parser is somebody else's and reads what people type: a panic there is a fault of the file here.
		if p := recover(); p != nil {
			errs = Errors{s.fault(pos{1, 1}, "cannot read this as YAML: %v", p)}
		}
	}()
	tokens := lexer.Tokenize(s.text)
	if err := s.unsupported(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, Errors{s.syntax(err)}
	}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			return doc.Body, nil
		}
	}
	return nil, nil
}

// refused are the parts of YAML that are left out: with them one place of the file would be several places of
// the configuration, or the other way round.
var refused = map[token.Type]string{
	token.AnchorType:     "anchors (&name) are not supported; write the value where it is used",
	token.AliasType:      "aliases (*name) are not supported; write the value here",
	token.MergeKeyType:   "merge keys (<<) are not supported; write the fields here",
	token.TagType:        "tags (!name) are not supported; the field decides on the type",
	token.MappingKeyType: "complex keys (?) are not supported; write name: value",
	token.DirectiveType:  "directives (%) are not supported",
}

// unsupported finds what is refused before the parser sees it.
func (s *source) unsupported(tokens token.Tokens) (errs Errors) {
	for _, tk := range tokens {
		if text, ok := refused[tk.Type]; ok {
			errs = append(errs, s.fault(positionOf(tk), "%s", text))
		}
	}
	if tk := secondDocument(tokens); tk != nil && errs == nil {
		errs = append(errs, s.fault(positionOf(tk), "a second document begins here; the configuration is one document"))
	}
	if tk := tooDeep(tokens); tk != nil {
		errs = append(errs, s.fault(positionOf(tk), "nested deeper than %d levels", maxNesting))
	}
	return errs
}

// secondDocument finds where a second document begins: at a --- after anything, or at anything after an end.
func secondDocument(tokens token.Tokens) *token.Token {
	begun, ended := false, false
	for _, tk := range tokens {
		switch tk.Type {
		case token.CommentType, token.DirectiveType:
			continue
		case token.DocumentEndType:
			ended = true
			continue
		case token.DocumentHeaderType:
			if begun {
				return tk
			}
		}
		if ended {
			return tk
		}
		begun = true
	}
	return nil
}

// tooDeep finds nesting that would make the parser recurse deeply: of brackets, or of list entries in a line.
// By indentation alone, a file of the allowed size can't nest deeper than the parser bears.
func tooDeep(tokens token.Tokens) *token.Token {
	depth, line, entries := 0, 0, 0
	for _, tk := range tokens {
		if p := positionOf(tk); p.line != line {
			line, entries = p.line, 0
		}
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth = max(0, depth-1)
		case token.SequenceEntryType:
			entries++
		}
		if depth > maxNesting || entries > maxNesting {
			return tk
		}
	}
	return nil
}

// syntax turns what the parser says into a fault.
func (s *source) syntax(err error) *Error {
	var located yaml.Error
	if !errors.As(err, &located) {
		return s.fault(pos{1, 1}, "cannot read this as YAML: %v", err)
	}
	message := located.GetMessage()
	for _, h := range hints {
		if strings.Contains(message, h.part) {
			message += "; " + h.hint
		}
	}
	return s.fault(positionOf(located.GetToken()), "%s", message)
}

// hints help with what the parser says when a common slip makes it see something else.
var hints = []struct{ part, hint string }{
	{"must be specified", "a text with braces or brackets needs quotes here"},
	{"found character '\t'", "indent with blanks, not with tabs"},
	{"mapping value is not allowed", `a text with ": " needs quotes`},
}
