// Docgen writes what is generated from the doc comments of package config: the table of comments that the
// program carries, the manual and the JSON Schema. It runs by go generate in the folder of package config,
// once with "comments" and then, built anew with that table, with "docs".
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sluice/proxy/config"
)

// Where things are, seen from package config.
const (
	sourceDir    = "."
	commentsFile = "comments_gen.go"
	manualFile   = "../../docs/configuration.md"
	schemaFile   = "../../docs/sluice.schema.json"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: docgen comments|docs")
	}
	files, err := generate(args[0], sourceDir)
	if err != nil {
		return err
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate gives the files of one step, by path relative to the folder of package config, which is at dir.
func generate(step, dir string) (map[string][]byte, error) {
	switch step {
	case "comments":
		text, err := commentTable(dir)
		return map[string][]byte{commentsFile: text}, err
	case "docs":
		schema, err := config.Schema()
		return map[string][]byte{manualFile: manual(config.Fields()), schemaFile: append(schema, '\n')}, err
	}
	return nil, fmt.Errorf("unknown step %q", step)
}
