#!/bin/sh
# Looks at what the program is made of: known vulnerabilities, licences, and a
# bill of materials in dist/. What can't be reached from here is named.
set -u
cd "$(dirname "$0")/.." || exit 1

go=${GO:-go}
govulncheck=${GOVULNCHECK:-golang.org/x/vuln/cmd/govulncheck@v1.8.0}
golicenses=${GOLICENSES:-github.com/google/go-licenses@v1.6.0}
# Licences that ask for nothing but their text to be passed on, or for changes
# to their own files to be published.
licences=Apache-2.0,BSD-2-Clause,BSD-2-Clause-FreeBSD,BSD-3-Clause,ISC,MIT,MPL-2.0
status=0
said=$(mktemp) || exit 1
trap 'rm -f "$said"' EXIT

echo "== $govulncheck"
if ! "$go" run "$govulncheck" -version >/dev/null 2>&1; then
	echo "NOT RUN: govulncheck, which go could not get or build. Remedy: let go reach a module proxy (GOPROXY) once"
elif "$go" run "$govulncheck" ./... >"$said" 2>&1; then
	cat "$said"
elif grep -q 'vuln.go.dev' "$said"; then
	echo "NOT RUN: $(head -n 1 "$said"). Remedy: let it reach its database, https://vuln.go.dev"
else
	cat "$said"
	status=1
fi

# Of the modules in the binary; our own is --ignored.
echo "== $golicenses"
if ! "$go" run "$golicenses" help >/dev/null 2>&1; then
	echo "NOT RUN: go-licenses, which go could not get or build. Remedy: let go reach a module proxy (GOPROXY) once"
elif ! GOROOT=$("$go" env GOROOT) "$go" run "$golicenses" check ./cmd/sluice --ignore sluice --allowed_licenses "$licences" >"$said" 2>&1; then
	grep -iE 'not allowed|error|fail|unknown' "$said" || cat "$said"
	status=1
fi

echo "== dist/sluice.cdx.json"
mkdir -p dist
CGO_ENABLED=0 "$go" build -trimpath -o dist/sluice ./cmd/sluice &&
	"$go" run ./test/internal/sbom dist/sluice >dist/sluice.cdx.json || status=1
exit "$status"
