#!/bin/sh
# Looks at the source without running it: gofmt, go vet (for other platforms
# too), staticcheck. Goes through all of them before it fails.
set -u
cd "$(dirname "$0")/.." || exit 1

go=${GO:-go}
staticcheck=${STATICCHECK:-honnef.co/go/tools/cmd/staticcheck@v0.8.2}
status=0
# As the binary is built, whose packages need not be compiled anew for this.
CGO_ENABLED=0
export CGO_ENABLED

echo '== gofmt'
unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	printf 'not formatted:\n%s\n' "$unformatted"
	status=1
fi

echo '== go vet'
"$go" vet -tags trips ./... || status=1

# Other systems and another processor. All packages that are imported are compiled for each once, so there are no more of them.
echo '== go vet, darwin/arm64'
GOOS=darwin GOARCH=arm64 "$go" vet ./... || status=1

# The tests of proxy and test stop processes by signals that Windows lacks; proxy itself is compiled for cmd.
echo '== go vet, windows/amd64'
GOOS=windows GOARCH=amd64 "$go" vet ./bench/... ./cmd/... ./fleet/... ./kafka/... ./mqtt/... ./tls/... ./topicmap/... || status=1

echo "== $staticcheck"
if "$go" run "$staticcheck" -version; then
	# ST1005 wants errors to begin in lower case; ours may begin with a name,
	# such as Kafka's.
	"$go" run "$staticcheck" -checks inherit,-ST1005 ./... || status=1
else
	echo 'NOT RUN: staticcheck, which go could not get or build. Remedy: let go reach a module proxy (GOPROXY) once'
fi
exit "$status"
