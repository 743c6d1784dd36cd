package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
)

// Schema gives the JSON Schema of the file, for editors: it knows every field with its description, default
// and range. It says less than Parse does, because some rules are between fields, but refuses nothing that
// Parse accepts.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{
		Anonymous:                  true,
		ExpandedStruct:             true,
		DoNotReference:             true,
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		Mapper:                     leaf,
	}
	root := r.Reflect(&Config{})
	root.Title = "Sluice configuration"
	describe(root, "", Fields())
	root.AnyOf = []*jsonschema.Schema{{Required: []string{"publish"}}, oneCommand()}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot write the JSON Schema: %w", err)
	}
	return text, nil
}

// fromEnv is the pattern of a text that takes a value from the environment, which any field may.
const fromEnv = `\$\{`

// leaf gives the schema of the types that are not what their Go kind says.
func leaf(t reflect.Type) *jsonschema.Schema {
	text := &jsonschema.Schema{Type: "string"}
	switch t {
	case durationType:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Type: "string", Pattern: `^[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)`}, env(), {Const: 0}, {Const: "0"}}}
	case bytesType:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Type: "integer", Minimum: "0"}, {Type: "string", Pattern: byteSyntax.String()}, env()}}
	case fieldsType:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: text}
	case userPropsType:
		one := uint64(1)
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Enum: []any{"all", "none"}}, env(), {Type: "array", Items: text, MinItems: &one}}}
	case unmatchedType:
		return wordOrTopic(unmatchedWords)
	case refusedType:
		return wordOrTopic(refusedWords)
	}
	return nil
}

// wordOrTopic is the schema of a field with a word, or with a mapping of a dead-letter topic.
func wordOrTopic(words []string) *jsonschema.Schema {
	topic := jsonschema.NewProperties()
	topic.Set("dead_letter", &jsonschema.Schema{Type: "string"})
	return &jsonschema.Schema{AnyOf: append(oneOfWords(words).AnyOf,
		&jsonschema.Schema{Type: "object", Properties: topic, Required: []string{"dead_letter"}, AdditionalProperties: jsonschema.FalseSchema})}
}

func env() *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Pattern: fromEnv} }

// describe adds to the schema s of the section at path what fields say.
func describe(s *jsonschema.Schema, path string, fields []Field) {
	switch {
	case s.Items != nil:
		s, path = s.Items, path+entryMark[reflect.Slice]
	case s.Properties == nil && s.AdditionalProperties != nil:
		s, path = s.AdditionalProperties, path+entryMark[reflect.Map]
	}
	for _, f := range fields {
		property, ok := strings.CutPrefix(f.Path, path)
		property = strings.TrimPrefix(property, ".")
		if !ok || strings.ContainsAny(property, ".[") {
			continue
		}
		child, ok := s.Properties.Get(property)
		if !ok {
			continue
		}
		fill(child, f)
		if f.Required {
			s.Required = append(s.Required, property)
		}
		if f.Section {
			describe(child, f.Path, fields)
		}
		if factOf(f.Path).single {
			orOne(child)
		}
	}
	if either := alternatives[path]; either != nil {
		for _, property := range either {
			s.OneOf = append(s.OneOf, &jsonschema.Schema{Required: []string{property}})
		}
	}
}

// alternatives are the properties of an entry of which it has exactly one.
var alternatives = map[string][]string{
	"publish[]":  {"match", "regex"},
	"commands[]": {"topic", "pattern"},
	"auth[]":     methods,
	"auth[].jwt": keys,
	"acl[]":      {"allow", "deny"},
}

// orOne lets the only entry of a list stand there without the list.
func orOne(s *jsonschema.Schema) {
	list := &jsonschema.Schema{Type: s.Type, Items: s.Items, MinItems: s.MinItems}
	s.Type, s.Items, s.MinItems, s.AnyOf = "", nil, nil, []*jsonschema.Schema{list.Items, list}
}

// oneCommand accepts a file with a command rule.
func oneCommand() *jsonschema.Schema {
	properties := jsonschema.NewProperties()
	properties.Set("commands", &jsonschema.Schema{MinItems: entries(1)})
	return &jsonschema.Schema{Required: []string{"commands"}, Properties: properties}
}

func entries(n uint64) *uint64 { return &n }

// fill describes one property.
func fill(s *jsonschema.Schema, f Field) {
	s.Description = f.Doc
	fact := factOf(f.Path)
	if s.Type == "array" && !fact.empty {
		s.MinItems = entries(1)
	}
	if f.Default != "" {
		s.Default = jsonDefault(s, f)
	}
	switch {
	case fact.words != nil && s.Items != nil:
		s.Items = oneOfWords(fact.words)
	case fact.words != nil:
		s.Type, s.AnyOf = "", oneOfWords(fact.words).AnyOf
	case s.Type == "integer":
		number := &jsonschema.Schema{Type: "integer", Minimum: json.Number(fmt.Sprint(fact.min)), Maximum: json.Number(fmt.Sprint(fact.max))}
		s.Type, s.AnyOf = "", []*jsonschema.Schema{number, env()}
	case s.Type == "boolean":
		s.Type, s.AnyOf = "", []*jsonschema.Schema{{Type: "boolean"}, env()}
	case f.Allowed != "":
		s.Description += " Allowed: " + f.Allowed + "."
	}
}

func oneOfWords(words []string) *jsonschema.Schema {
	enum := &jsonschema.Schema{}
	for _, w := range words {
		enum.Enum = append(enum.Enum, w)
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{enum, env()}}
}

// jsonDefault writes the default as JSON would: numbers as numbers, true and false as such.
func jsonDefault(s *jsonschema.Schema, f Field) any {
	switch s.Type {
	case "integer":
		return json.Number(f.Default)
	case "boolean":
		return f.Default == "true"
	}
	return strings.Trim(f.Default, `"`)
}
