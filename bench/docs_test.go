package bench

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryFieldOfTheResultsIsDocumented in docs/bench.md.
func TestEveryFieldOfTheResultsIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/bench.md")
	require.NoError(t, err)
	fields := 0
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			if !f.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			require.NotEmpty(t, name, "%v.%s", typ, f.Name)
			require.Contains(t, string(page), "`"+name+"`", "%v.%s", typ, f.Name)
			fields++
			check(f.Type)
		}
	}
	for _, r := range []any{PublishResult{}, HoldResult{}, CommandsResult{}} {
		check(reflect.TypeOf(r))
	}
	require.Greater(t, fields, 50)
}
