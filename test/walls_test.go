package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A wall says which folders alone may import what begins with a path.
type wall struct {
	path    string
	allowed []string // folders, with all below them
}

var walls = []wall{
	{"github.com/mochi-mqtt", []string{"mqtt"}},
	{"github.com/IBM/sarama", []string{"kafka"}},
	{"github.com/klauspost/compress", []string{"kafka"}},
	{"github.com/pierrec/lz4", []string{"kafka"}},
	{"github.com/pires/go-proxyproto", []string{"mqtt"}},
	{"crypto/tls", []string{"tls"}},
	{"github.com/twmb/franz-go", []string{"kafka", "test", "examples"}}, // an example is what a user would write
	{"github.com/eclipse/paho.golang", []string{"test"}},
	{"sluice/mqtt", []string{"proxy", "cmd"}},
	{"sluice/kafka", []string{"proxy", "cmd", "bench", "kafka", "test", "fleet/driver", "fleet/sim"}},
	{"sluice/topicmap", []string{"proxy"}},
	{"sluice/fleet", []string{"proxy", "fleet"}},
	{"sluice/proxy", []string{"cmd", "proxy"}},
	{"sluice/bench", []string{"cmd", "bench", "test"}},
	{"sluice/test", []string{"test"}},
}

// pure lists the only imports that package topicmap may have outside its tests: nothing with I/O, nothing
// with a clock.
var pure = map[string]bool{
	"bytes": true, "cmp": true, "errors": true, "fmt": true, "iter": true, "maps": true, "math": true, "math/bits": true,
	"hash/maphash": true, "regexp": true, "regexp/syntax": true, "slices": true, "sort": true, "strconv": true, "strings": true,
	"sync": true, "sync/atomic": true, "unicode": true, "unicode/utf8": true, "unsafe": true,
	"github.com/buger/jsonparser": true, "github.com/hashicorp/golang-lru/v2": true,
}

// TestWallsBetweenRooms holds the rule that a reader can trust: what a room may not know, it does not import.
func TestWallsBetweenRooms(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		rel, err := filepath.Rel(root, path)
		require.NoError(t, err)
		files++
		checkImports(t, path, filepath.ToSlash(rel))
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, files, 50, "the walk must have seen the tree")
}

func checkImports(t *testing.T, path, rel string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		for _, w := range walls {
			if below(imported, w.path) && !behind(rel, w) {
				t.Errorf("%s imports %s; only %v may", rel, imported, w.allowed)
			}
		}
		if strings.HasPrefix(rel, "fleet/") && !strings.HasPrefix(rel, "fleet/driver/") && !strings.HasSuffix(rel, "_test.go") && strings.Contains(imported, ".") {
			t.Errorf("%s imports %s; fleet has the standard library alone", rel, imported)
		}
		if strings.HasPrefix(rel, "topicmap/") && !strings.HasSuffix(rel, "_test.go") && !pure[imported] {
			t.Errorf("%s imports %s; topicmap is pure", rel, imported)
		}
	}
}

func below(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func behind(rel string, w wall) bool {
	for _, folder := range w.allowed {
		if strings.HasPrefix(rel, folder+"/") {
			return true
		}
	}
	// A room may import its own subpackages and be imported by its own tests.
	return below("sluice/"+filepath.ToSlash(filepath.Dir(rel)), w.path)
}
