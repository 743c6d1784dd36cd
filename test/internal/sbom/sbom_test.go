package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheBillNamesEveryModuleOfTheBinary(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "sluice")
	said, err := exec.Command("go", "build", "-o", binary, "sluice/cmd/sluice").CombinedOutput()
	require.NoError(t, err, string(said))
	var out bytes.Buffer
	require.NoError(t, write(&out, binary))
	var got bom
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	require.Equal(t, "CycloneDX", got.Format)
	byName := map[string]component{}
	for _, c := range got.Components {
		byName[c.Name] = c
	}
	require.True(t, strings.HasPrefix(byName["std"].Version, "go1."), byName["std"].Version)
	require.Equal(t, "sluice", got.Metadata.Component.Name)
	lib := byName["github.com/IBM/sarama"]
	require.Equal(t, "pkg:golang/github.com/IBM/sarama@"+lib.Version, lib.PURL)
	require.True(t, strings.HasPrefix(lib.Properties[0].Value, "h1:"))
}

func TestAFileThatIsNoGoBinaryHasNoBill(t *testing.T) {
	require.ErrorContains(t, write(&bytes.Buffer{}, "sbom.go"), `"sbom.go"`)
}
