#!/usr/bin/env bash
# Tunes every timing entry of the shape lists on the first NVIDIA GPU into one DB, then times and verifies the winners beside the
# vendor in one run, and writes the table of the groups (bench/groups.yaml).
#
#   bench/h100.sh KGEN LIBKGEN SHAPES_FOLDER OUT_FOLDER [PLAN] [SECONDS_TO_TUNE] [SECONDS_TO_COMPARE] [SECONDS_OF_HEAVY]
#
# Entries with `count: 0` are alternatives or edge cases and are left out. PLAN: candidates a problem, or a file like bench/h100_plan.txt
# that gives them by entry. OUT_FOLDER/tuned.db is resumed when it exists, and h100.jsonl is continued as a further run: what the time
# ended goes on with the next call. SECONDS_TO_TUNE or SECONDS_TO_COMPARE of 0 leaves that part out; SECONDS_OF_HEAVY (of those to
# compare) is what torch.compile's coordinate descent and max-autotune may take.
# SHARDS (environment): processes that compile the vendor's side, one a core by default. VERIFY_SECONDS: for `kgen verify` of all
# winners at the end, 60 by default, 0 leaves it out.
# Writes OUT_FOLDER/{tuned.db,tune.N.json,verified.json,h100.jsonl,h100.md}. Ends with 1 where a result was wrong, 3 where the DB has
# 16 MiB or more.
set -euo pipefail
kgen=$1 lib=$2 shapes=$3 out=$4 plan=${5:-20} tune_seconds=${6:-480} compare_seconds=${7:-480} heavy_seconds=${8:-90}
here=$(cd "$(dirname "$0")" && pwd)
status=0
mkdir -p "$out"
begin=$(date +%s)
if [ "$tune_seconds" -gt 0 ]; then
  if [ ! -f "$plan" ]; then
    echo "* * $plan" >"$out/plan.txt"
    plan=$out/plan.txt
  fi
  rm -f "$out"/timed.*.yaml "$out"/budgets
  python3 - "$here" "$shapes" "$plan" "$out" <<'PY'
import json, sys
here, shapes, plan, out = sys.argv[1:]
sys.path.insert(0, here)
from shape_lists import ShapeLists, matches
lists = ShapeLists(shapes)
lines = [line.split() for line in open(plan) if line.split("#")[0].strip()]
parts = [[] for _ in lines]
by_id = {entry["id"]: entry for entry in lists.entries}
for problem in lists.in_order():  # entries of one problem go together, with the first line that any of them fits
    entries = [by_id[name] for name in lists.ids[problem]]
    fits = [n for n, (label, op, _) in enumerate(lines) if any(matches(label, e["id"]) and matches(op, e["op"]) for e in entries)]
    if fits:
        parts[fits[0]] += entries
with open(out + "/budgets", "w") as budgets:
    for number, (part, line) in enumerate(zip(parts, lines)):
        if not part:
            continue
        with open(f"{out}/timed.{number}.yaml", "w") as file:
            json.dump({"entries": [{k: v for k, v in e.items() if k != "file"} for e in part]}, file)  # JSON is YAML
        budgets.write(f"{number} {line[2]} {len(part)}\n")
print(sum(map(len, parts)), "timing entries of", len(lists.entries))
PY
  # A tune that the limit ends (SIGINT: it stops after the running candidate) leaves a valid DB, and what is tuned is compared.
  while read -r number budget count <&3; do
    left=$((tune_seconds - $(date +%s) + begin))
    [ "$left" -gt 0 ] || { echo "no time to tune part $number ($count entries)"; continue; }
    timeout --signal=INT "$left" "$kgen" tune "$out/timed.$number.yaml" --device nvidia:0 --budget "$budget" --db "$out/tuned.db" --json \
      >"$out/tune.$number.json" || echo "tune of part $number ended with $?"
    echo "part $number: $count entries, budget $budget, at $(($(date +%s) - begin)) s"
  done 3<"$out/budgets"
  rm -f "$out"/timed.*.yaml "$out"/budgets
  echo "tuned in $(($(date +%s) - begin)) s"
fi
size=$(stat -c %s "$out/tuned.db")
echo "tuned.db: $size bytes"
if [ "$size" -ge $((16 << 20)) ]; then
  echo "tuned.db has 16 MiB or more"
  status=3
fi
if [ "$compare_seconds" -gt 0 ]; then
  begin=$(date +%s)
  export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/kgen-inductor} TORCHINDUCTOR_COMPILE_THREADS=1
  sbs=(python3 "$here/side_by_side.py" "$out/tuned.db" --kgen "$kgen" --lib "$lib" --shapes "$shapes" --jsonl "$out/h100.jsonl" --heavy "$out/heavy.txt")
  shards=${SHARDS:-$(nproc)}
  for ((i = 0; i < shards; ++i)); do
    "${sbs[@]}" --precompile "$i/$shards" --seconds $((compare_seconds / 3)) >/dev/null 2>"$out/precompile.$i.log" &
  done
  wait
  cat "$out"/precompile.*.log | head -c 20000 >"$out/precompile.log" || true
  rm -f "$out"/precompile.*.log
  echo "compiled the vendor's side in $(($(date +%s) - begin)) s"
  if [ "$heavy_seconds" -gt 0 ]; then
    TORCHINDUCTOR_COMPILE_THREADS=$(nproc) timeout "$((heavy_seconds + 30))" "${sbs[@]}" --precompile-heavy --seconds "$heavy_seconds" \
      >/dev/null 2>"$out/heavy.log" || echo "heavy compilations ended with $?"
    echo "heavy compilations until $(($(date +%s) - begin)) s: $(cat "$out/heavy.txt" 2>/dev/null | tr '\n' ' ')"
  fi
  "${sbs[@]}" --markdown "$out/h100.md" --seconds $((compare_seconds - $(date +%s) + begin)) --budget-ms 45 --repeats 30 || status=1
  echo "compared until $(($(date +%s) - begin)) s"
fi
if [ "${VERIFY_SECONDS:-60}" -gt 0 ]; then
  # Every winner against kgen's own reference, on this device; side_by_side.py has compared each with PyTorch.
  begin=$(date +%s)
  timeout "${VERIFY_SECONDS:-60}" "$kgen" verify "$out/tuned.db" --device nvidia:0 --json >"$out/verified.json" || { echo "verify ended with $?"; status=1; }
  echo "verified in $(($(date +%s) - begin)) s: $(tail -c 200 "$out/verified.json" | tr -d '\n' | grep -o '"failed".*')"
fi
exit $status
