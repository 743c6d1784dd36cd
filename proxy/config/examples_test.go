package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// anyName stands for an environment in which every name is set, to what is legal as a host and long enough for a secret.
func anyName(string) (string, bool) { return "a-host-of-thirty-two-letters.example", true }

// exampleFiles gives the configurations in examples/, by name.
func exampleFiles(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "examples", "*.yaml"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 2)
	examples := make(map[string]string)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		examples[f] = string(text)
	}
	return examples
}

var yamlBlock = regexp.MustCompile("(?ms)^[ \t]*```yaml\n(.*?)^[ \t]*```")

// pageExamples gives the whole configurations among the YAML blocks of README.md and docs/. They are those
// with listeners; the others are excerpts.
func pageExamples(t *testing.T) map[string]string {
	t.Helper()
	examples := make(map[string]string)
	add := func(path string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range yamlBlock.FindAllSubmatchIndex(text, -1) {
			block := string(text[m[2]:m[3]])
			if strings.HasPrefix(block, "listeners:") || strings.Contains(block, "\nlisteners:") {
				line := 1 + strings.Count(string(text[:m[2]]), "\n")
				examples[path+strings.Repeat("\n", line)] = block
			}
		}
	}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			add(path)
		}
		return err
	})
	require.NoError(t, err)
	if readme := filepath.Join(root, "README.md"); exists(readme) {
		add(readme)
	}
	require.NotEmpty(t, examples)
	return examples
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestEveryExampleLoads(t *testing.T) {
	for name, text := range exampleFiles(t) {
		_, err := Parse(name, []byte(text), anyName)
		require.NoError(t, err)
	}
	for place, text := range pageExamples(t) {
		name, lines, _ := strings.Cut(place, "\n")
		// The block is moved down to its line, so that a fault names the place in the page.
		_, err := Parse(name, []byte(lines+text), anyName)
		require.NoError(t, err)
	}
}

// TestTheFullExampleHasEveryField keeps examples/full.yaml whole when fields are added.
func TestTheFullExampleHasEveryField(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "examples", "full.yaml"))
	require.NoError(t, err)
	var file any
	require.NoError(t, yaml.Unmarshal(text, &file))
	seen := make(map[string]bool)
	collectPaths("", file, seen)
	for _, f := range Fields() {
		// One mechanism can't have all fields of SASL; those of the others stand at the identities.
		elsewhere := strings.Replace(f.Path, "kafka.sasl", "kafka.identities[NAME].sasl", 1)
		require.True(t, seen[f.Path] || seen[elsewhere], "examples/full.yaml lacks %s", f.Path)
	}
}

func collectPaths(path string, v any, seen map[string]bool) {
	seen[path] = true
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if path == "kafka.identities" {
				name = "[NAME]"
			}
			collectPaths(strings.TrimPrefix(strings.ReplaceAll(path+"."+name, ".[", "["), "."), value, seen)
		}
	case []any:
		for _, value := range v {
			collectPaths(path+"[]", value, seen)
		}
	}
}

// TestDefaultsInTheFullExampleAreTheDefaults: where a comment says so, the value is that of Default.
func TestDefaultsInTheFullExampleAreTheDefaults(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "examples", "full.yaml"))
	require.NoError(t, err)
	defaults := make(map[string]string)
	for _, f := range Fields() {
		defaults[f.Path[strings.LastIndexByte(f.Path, '.')+1:]] += f.Default + "\n"
	}
	said := regexp.MustCompile(`(?m)^ *(\w+): (\S+) +# default($|[;:])`).FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(said), 10)
	for _, m := range said {
		if m[3] != ":" {
			require.Contains(t, defaults[m[1]], strings.Trim(m[2], `"`)+"\n", "%s", m[0])
		}
	}
}
