package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"

	"sluice/proxy/config"
)

// head is the part of the manual that no single field tells.
//
//go:embed head.md
var head string

// manual writes the page of all fields.
func manual(fields []config.Field) []byte {
	var b bytes.Buffer
	b.WriteString("<!-- Generated from the doc comments of package config by `go generate ./proxy/config`. Do not edit. -->\n\n")
	b.WriteString(head)
	for _, f := range fields {
		level := 2 + min(strings.Count(f.Path, "."), 2)
		fmt.Fprintf(&b, "\n%s `%s`\n\n%s\n\n%s\n", strings.Repeat("#", level), shown.Replace(f.Path), facts(f), f.Doc)
	}
	return b.Bytes()
}

// shown writes a path as the reader of a file sees it.
var shown = strings.NewReplacer("[]", "", "[NAME]", ".NAME")

// facts is the line under the heading of a field.
func facts(f config.Field) string {
	parts := []string{f.Type}
	if f.Required {
		parts = append(parts, "required")
	}
	if f.Default != "" {
		parts = append(parts, "default `"+f.Default+"`")
	}
	if f.Allowed != "" {
		parts = append(parts, "allowed: "+f.Allowed)
	}
	return "*" + strings.Join(parts, " · ") + "*"
}
