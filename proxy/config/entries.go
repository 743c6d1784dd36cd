package config

import (
	"reflect"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"sluice/topicmap"
)

// list decodes a sequence into the slice v.
func (d *decoder) list(path string, n ast.Node, v reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if _, mapping := n.(*ast.MappingNode); mapping && factOf(path).single {
		seq, ok = &ast.SequenceNode{Values: []ast.Node{n}}, true
	}
	if !ok {
		d.mismatch(path, n, "a list")
		return
	}
	if len(seq.Values) == 0 && !factOf(path).empty {
		d.fail(path, d.place(n), "%s must have at least one entry", name(path))
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	for i, entry := range seq.Values {
		child := path + "[" + strconv.Itoa(i) + "]"
		at := d.place(entry)
		if isNull(entry) && i < len(seq.Entries) {
			at = positionOf(seq.Entries[i].Start) // the hyphen: there is nothing else to point at
		}
		d.places[child] = &place{key: at, value: at}
		v.Index(i).Set(defaultEntry(v.Type().Elem()))
		d.value(child, entry, v.Index(i))
	}
}

// named decodes a mapping of names to sections into the map v. The path of an entry is that of one of a list, with its
// name for the index.
func (d *decoder) named(path string, n ast.Node, v reflect.Value) {
	pairs, ok := d.mapping(path, n)
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, p := range pairs {
		at := d.places[join(path, p.name)]
		if !entryName.MatchString(p.name) {
			d.fail("", at.key, "%q is no name: it is made of letters, digits, hyphens and underscores", p.name)
			continue
		}
		child := path + "[" + p.name + "]"
		d.places[child] = at
		entry := reflect.New(v.Type().Elem()).Elem()
		entry.Set(defaultEntry(entry.Type()))
		d.value(child, p.value, entry)
		v.SetMapIndex(reflect.ValueOf(p.name), entry)
	}
}

// entryName is what the name of an entry may be: with other characters it could not stand in a path.
var entryName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// fields decodes a mapping of names to texts, in the order of the file.
func (d *decoder) fields(path string, n ast.Node, v reflect.Value) {
	pairs, ok := d.mapping(path, n)
	if !ok {
		return
	}
	var out []topicmap.Field
	for _, p := range pairs {
		child := join(path, p.name)
		if isNull(p.value) {
			d.null(child)
			continue
		}
		text, _ := d.text(child, p.value)
		out = append(out, topicmap.Field{Name: p.name, Value: text})
	}
	v.Set(reflect.ValueOf(out))
}
