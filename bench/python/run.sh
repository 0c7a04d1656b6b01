#!/bin/bash
# The Python package on a GPU, in about two minutes: every operator in torch (eager, CUDA graph, torch.compile), the back end on small
# models, trace → tune → optimize on Qwen2-VL's encoder; with MODELS_DB (tuned by examples/models/run.py) whole models by the back end. KGEN and
# KGEN_LIBRARY: a build; OUT: results, $OUT/python.md as docs/results has it.
here=$(cd "$(dirname "$0")" && pwd)
device=${DEVICE:-nvidia:0}
kgen=${KGEN:-$here/../../out/build/release/cli/kgen}
export KGEN_LIBRARY=${KGEN_LIBRARY:-$here/../../out/build/release/runtime/libkgen.so} PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=${KGEN_PYTHON:-$here/../../python}:$here
limit=${LIMIT:-140}
start=$(date +%s)
since() { echo $(( $(date +%s) - start )); }
tune() { db=$1; shift; [ -s "$OUT/$db" ] || timeout 80 "$kgen" tune "$@" --db "$OUT/$db" --device "$device" > "$OUT/$db.tune" 2> "$OUT/$db.err"; echo "$db: rc $? after $(since) s"; }
mkdir -p "$OUT"
jobs=()
for part in products rows rest; do tune $part.db "$here/$part.yaml" --budget 1 & jobs+=($!); done
{ python3 "$here/problems.py" "$device" "$OUT" > "$OUT/problems.txt" 2>&1; echo "problems: rc $? after $(since) s"; tune blocks.db "$OUT"/problems?.yaml --budget 2; } & blocks=$!
timeout $limit python3 "$here/qwen2_vl.py" "$kgen" "$device" "$OUT" $LAYERS > "$OUT/qwen2_vl.txt" 2>&1 & encoder=$!
if [ -s "$MODELS_DB" ]; then timeout $limit python3 "$here/whole.py" "$MODELS_DB" "$device" "$OUT" > "$OUT/whole.txt" 2>&1 & whole=$!; fi
wait $blocks
export SECONDS_LEFT=$(( limit - 10 - $(since) ))
timeout $(( SECONDS_LEFT + 8 )) python3 "$here/backend.py" "$OUT/blocks.db" "$device" "$OUT" > "$OUT/backend.txt" 2>&1 & backend=$!
wait "${jobs[@]}"
export SECONDS_LEFT=$(( limit - 10 - $(since) ))
timeout $(( SECONDS_LEFT + 8 )) python3 "$here/check.py" "$OUT/products.db,$OUT/rows.db,$OUT/rest.db" "$device" "$OUT" > "$OUT/check.txt" 2>&1; echo "operators: rc $? after $(since) s"
grep -c '^ok' "$OUT/check.txt"; grep -v '^ok' "$OUT/check.txt" | cut -c1-300 | tail -20
wait $backend; echo "back end: rc $? after $(since) s"; cut -c1-260 "$OUT/backend.txt" | tail -50
wait $encoder; echo "encoder: rc $? after $(since) s"; cut -c1-170 "$OUT/qwen2_vl.txt" | tail -60
touch "$OUT/go"
[ -n "$whole" ] && { wait $whole; echo "whole models: rc $? after $(since) s"; cut -c1-400 "$OUT/whole.txt"; }
python3 "$here/table.py" "$OUT" > "$OUT/python.md"; echo "table: rc $?"
