#!/bin/sh
# Runs random schedules: schedules.sh N [FIRST], the seeds from FIRST on, divided among a process for each core. A process
# runs one schedule at a time, because a seed repeats its schedule on one processor alone.
set -u
cd "$(dirname "$0")" || exit 1
n=$1 first=${2:-0} procs=${PROCS:-$(nproc)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
"${GO:-go}" test -c -o "$work/sim" . || exit 1
each=$(((n + procs - 1) / procs))
i=0 pids=
while [ "$i" -lt "$procs" ]; do
	SLUICE_FIRST=$((first + i * each)) SLUICE_SCHEDULES=$each "$work/sim" -test.v -test.timeout 24h -test.run TestProtocolHoldsInAnySchedule &
	pids="$pids $!"
	i=$((i + 1))
done
status=0
for pid in $pids; do
	wait "$pid" || status=1
done
exit $status
