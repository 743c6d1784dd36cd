package fleet

import (
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPackageIsPure holds what doc.go says: nothing with a clock, I/O, a lock, or a dependency.
func TestPackageIsPure(t *testing.T) {
	allowed := map[string]bool{
		"bytes": true, "cmp": true, "container/heap": true, "encoding/json": true, "errors": true, "fmt": true, "iter": true,
		"maps": true, "math": true, "slices": true, "strconv": true, "strings": true,
	}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, 0)
		require.NoError(t, err)
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			require.True(t, allowed[path], "%s imports %s", file.Name(), path)
		}
	}
}

// kafka is one partition in memory, and what reads it.
type kafka struct {
	t     *testing.T
	log   []Record
	now   int64
	table *Table
}

func newKafka(t *testing.T) *kafka { return &kafka{t: t, now: 1_000_000, table: new(Table)} }

// put appends a record and reads it. It returns the offset.
func (k *kafka) put(key, value []byte) int64 {
	k.t.Helper()
	offset := k.append(key, value)
	k.read()
	return offset
}

func (k *kafka) append(key, value []byte) int64 {
	k.log = append(k.log, Record{Key: key, Value: value, Offset: int64(len(k.log)), Time: k.now})
	return int64(len(k.log)) - 1
}

func (k *kafka) read() {
	k.t.Helper()
	for _, rec := range k.log[k.table.Next():] {
		_, _, err := k.table.Apply(rec)
		require.NoError(k.t, err)
	}
}

func (k *kafka) session(client, inc string, s *Session) int64 {
	k.t.Helper()
	return k.put(SessionKey(client, inc), encode(k.t, s))
}

func (k *kafka) verdict(inc string) {
	k.t.Helper()
	value, err := (&Instance{Dead: true, TxIDs: []string{"tx-" + inc}}).Encode()
	require.NoError(k.t, err)
	k.put(VerdictKey(inc), value)
}

func (k *kafka) view(client string) View {
	v, _ := k.table.Client(client)
	return v
}

func encode(t *testing.T, s *Session) []byte {
	t.Helper()
	value, err := s.Encode()
	require.NoError(t, err)
	return value
}

// run carries out the writes of acts at once, and returns all other actions in their order.
func (k *kafka) run(c *Claimer, acts []Action) []Action {
	k.t.Helper()
	var others []Action
	for len(acts) > 0 {
		a := acts[0]
		acts = acts[1:]
		if a.Kind != ActWrite {
			others = append(others, a)
			continue
		}
		offset := k.session("c", c.by.Inc, a.Value)
		acts = append(acts, c.Wrote(offset, k.view("c"))...)
	}
	return others
}

func kinds(acts []Action) []ActionKind {
	all := make([]ActionKind, len(acts))
	for i, a := range acts {
		all[i] = a.Kind
	}
	return all
}
