package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"sluice/topicmap"
)

// A Field is what the manual says of one field of the file.
type Field struct {
	Path     string // kafka.producer.linger; an entry of a list is publish[], one with a name kafka.identities[NAME]
	Type     string // in the words of the manual
	Default  string // as it would stand in the file; "" if there is none
	Allowed  string // the range or the words; "" if the type says it all
	Required bool
	Doc      string // the doc comment, with the name of the file's field for that of Go
	Section  bool   // it has fields below it
}

// Fields gives every field of the file in the order of the structs, each section before its fields.
func Fields() []Field {
	defaults := Default()
	return fieldsOf("", reflect.ValueOf(defaults))
}

// fieldsOf gives the fields of struct v, which holds the defaults, and those below them.
func fieldsOf(path string, v reflect.Value) []Field {
	var all []Field
	for i := range v.NumField() {
		f, value := v.Type().Field(i), v.Field(i)
		child := join(path, tag(f))
		field := Field{Path: child, Type: typeName(f.Type), Doc: docOf(v.Type(), f)}
		below, section := sectionOf(f.Type, value)
		if section {
			field.Section = true
			child += entryMark[f.Type.Kind()]
		}
		plain := withoutIndices(field.Path)
		fact := factOf(plain)
		field.Required = fact.required && fact.instead == ""
		if !section {
			field.Default = defaultOf(plain, value)
			field.Allowed = allowed(fact, value)
		}
		all = append(all, field)
		if section {
			all = append(all, fieldsOf(child, below)...)
		}
	}
	return all
}

// entryMark stands behind the path of a field that has several sections.
var entryMark = map[reflect.Kind]string{reflect.Slice: "[]", reflect.Map: "[NAME]"}

// sectionOf gives the struct of defaults below a field, if it has fields of its own.
func sectionOf(t reflect.Type, v reflect.Value) (reflect.Value, bool) {
	switch {
	case t == unmatchedType || t == refusedType || t == userPropsType || t == fieldsType:
		return reflect.Value{}, false
	case t.Kind() == reflect.Struct:
		return v, true
	case composite(t.Kind()) && t.Elem().Kind() == reflect.Struct:
		return defaultEntry(t.Elem()), true
	}
	return reflect.Value{}, false
}

// composite tells whether types of this kind are made of another one.
func composite(k reflect.Kind) bool {
	return k == reflect.Pointer || k == reflect.Slice || k == reflect.Map
}

// typeName gives the word of the manual for a Go type.
func typeName(t reflect.Type) string {
	switch t {
	case durationType:
		return "duration"
	case bytesType:
		return "size"
	case unmatchedType, refusedType:
		return "word or mapping"
	case userPropsType:
		return "word or list of texts"
	case fieldsType:
		return "mapping of texts"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Struct:
		return "mapping"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "list of mappings"
		}
		return "list of texts"
	case reflect.Map:
		return "mapping of names to mappings"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	}
	return "number"
}

// defaultKey is the key of a rule that names none, as the manual says it.
const defaultKey = `"{mqtt.client_id}"`

// defaultOf writes the default of a field as the file would.
func defaultOf(path string, v reflect.Value) string {
	if path == "publish.key" {
		return defaultKey
	}
	switch x := v.Interface().(type) {
	case Unmatched:
		return x.Mode.String()
	case Refused:
		return x.String()
	case Bytes:
		return x.String()
	case UserProperties:
		return x.String()
	case []topicmap.Field:
		return ""
	case string:
		return x
	case bool:
		return strconv.FormatBool(x)
	}
	if v.CanInt() && (!v.IsZero() || !factOf(path).required) {
		return show(v.Interface(), v.Int())
	}
	return ""
}

// allowed writes what a field may be.
func allowed(f fact, v reflect.Value) string {
	switch {
	case f.words != nil:
		return oneOf(f.words)
	case f.ranged():
		from, to := f.bounds(v.Interface())
		return fmt.Sprintf("%s to %s", from, to)
	}
	return ""
}

// docOf gives the doc comment of a field of struct t, and after it what the comment of its type adds. They
// begin with Go's names; the manual speaks of the field of the file.
func docOf(t reflect.Type, f reflect.StructField) string {
	own := rename(comments[t.Name()+"."+f.Name], f.Name, tag(f))
	element := f.Type
	for composite(element.Kind()) {
		element = element.Elem()
	}
	ofType := rename(comments[element.Name()], element.Name(), tag(f))
	if ofType == "" || ofType == own {
		return own
	}
	return own + "\n\n" + ofType
}

// rename puts the field of the file in place of the Go name at the beginning of a doc comment.
func rename(doc, goName, field string) string {
	if rest, ok := strings.CutPrefix(doc, goName+" "); ok {
		return "`" + field + "` " + rest
	}
	if rest, ok := strings.CutPrefix(doc, "A "+goName+" "); ok {
		return "A " + strings.ToLower(goName) + " " + rest
	}
	return doc
}
