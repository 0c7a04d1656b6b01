#!/usr/bin/env bash
# Tunes the listed shapes on the first NVIDIA GPU, then times every winner beside cuBLAS and cuDNN in one run.
#
#   bench/h100.sh KGEN LIBKGEN SHAPES_FOLDER OUT_FOLDER [BUDGET] [SECONDS_TO_TUNE]
#
# SHAPES_FOLDER holds qwen2_vl_patchify.yaml, vit_base.yaml and llama2_7b.yaml. OUT_FOLDER/tuned.db is resumed when it exists.
# Two passes: the second searches on from what won on the other shapes in the first.
# Writes OUT_FOLDER/{tuned.db,tune.json,side_by_side.jsonl,side_by_side.md}.
set -euo pipefail
kgen=$1 lib=$2 shapes=$3 out=$4 budget=${5:-48} seconds=${6:-400}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
# A tune that the limit ends (SIGINT: it stops after the running candidate) leaves a valid DB, and what is tuned is compared.
begin=$(date +%s)
tune() { # budget
  local left=$((seconds - $(date +%s) + begin))
  [ "$left" -gt 0 ] && timeout --signal=INT "$left" "$kgen" tune "$shapes/qwen2_vl_patchify.yaml" "$shapes/vit_base.yaml" \
    "$shapes/llama2_7b.yaml" --op '{gemm,conv3d_patchify}' --device nvidia:0 --budget "$1" --db "$out/tuned.db" --json
}
tune $((budget / 2)) >"$out/tune_first.json" || true
tune "$budget" >"$out/tune.json" || true
echo "tuned in $(($(date +%s) - begin)) s"
python3 "$here/side_by_side.py" "$out/tuned.db" --kgen "$kgen" --lib "$lib" --jsonl "$out/side_by_side.jsonl" --markdown "$out/side_by_side.md"
