#!/usr/bin/env bash
# What of the tuner waits for a machine with a GPU, in about four minutes: the parts of isolation and what displacing the instruction caches
# costs (OUT/throughput.md), and whether repeated tunes agree now that every sample begins with cold code (OUT/repeat/repeat.md).
#
#   bench/gpu_rest.sh KGEN ISOLATION_BENCH OUT
set -euo pipefail
kgen=$(realpath "$1") isolation=$(realpath "$2") out=$3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
"$here/throughput.sh" "$kgen" "$out" "$isolation"
# Two problems miss what is asked of them; all five are timed again, for displaced code changes every one.
python3 "$here/repeat.py" "$kgen" "$here/repeat.yaml" "$out/repeat" --runs 20 --budget 48 --seconds 150 || true
