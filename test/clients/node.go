package clients

import (
	"context"
	_ "embed" // for the driver and its lock file
	"os"
	"path/filepath"
	"testing"

	"sluice/test/internal/cache"
)

//go:embed node/publish.mjs
var nodeDriver string

//go:embed node/subscribe.mjs
var nodeSubscriber string

//go:embed node/package.json
var nodePackage string

//go:embed node/package-lock.json
var nodeLock string

// Node returns MQTT.js on Node.js.
func Node(t testing.TB) Runner {
	t.Helper()
	return obtain(t, "MQTT.js",
		"install Node.js 16 or newer with npm (Debian: apt-get install nodejs npm) and let npm reach a registry",
		installNode)
}

func installNode(ctx context.Context) (Runner, error) {
	if _, _, err := execute(ctx, nil, "node", "--version"); err != nil {
		return Runner{}, err
	}
	dir, err := nodeDir(ctx)
	if err != nil {
		return Runner{}, err
	}
	return Runner{Name: "mqttjs", Versions: []byte{V311, V5},
		run:       driver("node", filepath.Join(dir, "publish.mjs")),
		subscribe: subscribeDriver("mqttjs", "node", filepath.Join(dir, "subscribe.mjs"))}, nil
}

// nodeDir gives the folder with MQTT.js and the drivers.
func nodeDir(ctx context.Context) (string, error) {
	name := "clients/node-" + fingerprint(nodePackage, nodeLock, nodeDriver, nodeSubscriber)
	return cache.Once(ctx, name, func(work string) error { return makeNodeModules(ctx, work) })
}

func makeNodeModules(ctx context.Context, work string) error {
	for name, content := range map[string]string{
		"publish.mjs": nodeDriver, "subscribe.mjs": nodeSubscriber, "package.json": nodePackage, "package-lock.json": nodeLock,
	} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return install(ctx, work, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
}
