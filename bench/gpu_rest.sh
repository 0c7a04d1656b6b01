#!/usr/bin/env bash
# What of the tuner only a machine with a GPU tells, in about five minutes: candidates a second, the parts of isolation and what displacing the
# caches costs (OUT/throughput.md), and whether repeated tunes agree (OUT/repeat/repeat.md).
#
#   bench/gpu_rest.sh KGEN ISOLATION_BENCH OUT
set -euo pipefail
kgen=$(realpath "$1") isolation=$(realpath "$2") out=$3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
"$here/throughput.sh" "$kgen" "$out" "$isolation"
# One problem misses what is asked of it by a run in twenty (docs/results/repeat.md).
python3 "$here/repeat.py" "$kgen" "$here/repeat.yaml" "$out/repeat" --runs 20 --budget 48 --seconds 150 || true
