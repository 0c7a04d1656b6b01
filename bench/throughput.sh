#!/usr/bin/env bash
# How many candidates a tune gets through: kernels under 0.1 ms, mostly of matrix cores (small) and one of every operator (operators), and
# kernels under 1 ms (medium; bench/throughput/*.yaml), each with an empty compile cache and DB; what the worker processes cost; beside it torch.compile's max-autotune on three of the GEMMs.
#
#   bench/throughput.sh KGEN OUT [ISOLATION_BENCH] [LIBKGEN]
#
# BUDGET (environment): candidates a problem, 60 by default. DEVICE: nvidia:0 by default. SIZES: which of the three. Without ISOLATION_BENCH or LIBKGEN those parts are
# left out. Writes OUT/{small,operators,medium,isolation}.json, OUT/max_autotune.jsonl and OUT/throughput.md.
set -euo pipefail
kgen=$(realpath "$1") out=$2 isolation=${3:-} lib=${4:-}
here=$(cd "$(dirname "$0")" && pwd)
device=${DEVICE:-nvidia:0} budget=${BUDGET:-60}
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The driver's and NVRTC's own caches of earlier runs would count as compiled.
export CUDA_CACHE_DISABLE=1
for size in ${SIZES:-small operators medium}; do
  XDG_CACHE_HOME=$scratch/$size "$kgen" tune "$here/throughput/$size.yaml" --device "$device" --budget "$budget" \
    --db "$scratch/$size.db" --json >"$out/$size.json" 2>"$out/$size.log"
done
if [ -n "$isolation" ]; then
  XDG_CACHE_HOME=$scratch/isolation timeout 60 "$isolation" "$here/throughput/isolation.yaml" "$device" 16 7 >"$out/isolation.json" || rm -f "$out/isolation.json"
fi
if [ -n "$lib" ]; then
  "$kgen" db merge "$scratch"/*.db -o "$scratch/tuned.db" >/dev/null
  timeout "${AUTOTUNE_SECONDS:-100}" python3 "$here/max_autotune.py" "$scratch/tuned.db" --kgen "$kgen" --lib "$lib" vit_base.fc1_gelu vit_base.qkvo \
    llama2_7b.prefill512.wqkv >"$out/max_autotune.jsonl" 2>"$out/max_autotune.log" || true
fi
python3 "$here/throughput_report.py" "$out" | tee "$out/throughput.md"
