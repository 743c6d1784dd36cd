#!/bin/sh
# Passes all tests: looks at the source (check.sh), then runs the tests of all
# packages, or of the given ones alone. It needs nothing but Go. The race detector
# is used where it can be had, and what could not run here is named at the end,
# with how to get it. The output between is go test's own; the first lines of what
# failed are shown once more at the end.
set -u
cd "$(dirname "$0")/.." || exit 1

began=$(date +%s)
# say is for the lines between, with the seconds since the beginning.
say() { echo "== $* [$(($(date +%s) - began)) s]"; }

source=0
if [ $# -eq 0 ]; then
	./test/check.sh || source=1
	set -- ./...
fi

go=${GO:-go}
notes=$(mktemp) && output=$(mktemp) || exit 1
trap 'rm -f "$notes" "$output" "$output.status"' EXIT
SLUICE_TEST_NOT_RUN=$notes
export SLUICE_TEST_NOT_RUN

# The race detector is linked by a C compiler. Linking something small is the
# only question that also finds a compiler without its headers.
race=-race
if ! "$go" test -race -c -o /dev/null errors >"$notes" 2>&1; then
	race=
	CGO_ENABLED=0 # or a compiler that does not work would still be called
	export CGO_ENABLED
	reason=$(tr "\n" " " <"$notes" | sed "s/ *$//")
fi
: >"$notes"
if [ -z "$race" ]; then
	echo "the race detector: $reason. Remedy: install a C compiler (Debian: apt-get install gcc libc6-dev)" >>"$notes"
fi

# tested FLAG… PACKAGE… is go test, whose output is kept for the end. Vet is for check.sh.
tested() {
	{ "$go" test "$@" 2>&1 || echo failed >>"$output.status"; } | tee -a "$output"
	[ ! -e "$output.status" ]
}

# Compiling uses all cores. Three packages at a time are tested, and ./test alone:
# tests that kill a Kafka and tests that measure do not go well together. Of the
# tests of a package that mostly wait, four at a time run, of ./test six, on any
# machine.
say "go build $race $*"
# shellcheck disable=SC2086 # $race is one word or none
"$go" build $race "$@" || exit 1
status=0
alone=
together=
for package in $("$go" list "$@"); do
	case $package in
	sluice/test) alone="$alone $package" ;;
	sluice/proxy | sluice/mqtt | sluice/test/cluster) together=" $package$together" ;; # they take the longest, so they come first
	*) together="$together $package" ;;
	esac
done
if [ -n "$together" ]; then
	say "go test $race -p 3 -parallel 4$together"
	# shellcheck disable=SC2086
	tested $race -vet=off -p 3 -parallel 4 -timeout 20m $together || status=1
fi
if [ -n "$alone" ]; then
	say "go test $race -p 1 -parallel 6$alone"
	# shellcheck disable=SC2086
	tested $race -vet=off -p 1 -parallel 6 -timeout 40m $alone || status=1
fi

if [ -s "$notes" ]; then
	say "not run on this machine:"
	# "name: reason" becomes each reason once, with the names under it.
	sort -u "$notes" | awk '{
		at = index($0, ": "); name = substr($0, 1, at - 1); why = substr($0, at + 2)
		if (!(why in names)) order[++n] = why
		names[why] = names[why] "\n    " name
	} END { for (i = 1; i <= n; i++) print order[i] names[order[i]] }'
fi
if [ "$status" -ne 0 ]; then
	say "failed:"
	# Ten lines of each, without the logs of the processes that it started.
	awk '/^ *--- FAIL|^FAIL|^panic:|DATA RACE/ { n = 10 } /^ *--- (PASS|SKIP)|^ok/ { n = 0 }
		n > 0 && !/^ *[{[]/ && !/^[ \t]*$/ { print substr($0, 1, 300); n-- }' "$output"
fi
[ "$source" -eq 0 ] || echo "== the source has faults, see the beginning"
[ "$status" -eq 0 ] && [ "$source" -eq 0 ]
