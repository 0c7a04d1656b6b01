#!/usr/bin/env bash
# Tunes every timing entry of the shape lists on the first NVIDIA GPU into one DB, then times every winner beside the vendor in one run.
#
#   bench/h100.sh KGEN LIBKGEN SHAPES_FOLDER OUT_FOLDER [BUDGET] [SECONDS_TO_TUNE] [SECONDS_TO_COMPARE]
#
# Entries with `count: 0` are alternatives or edge cases and are left out. OUT_FOLDER/tuned.db is resumed when it exists, so a run that the
# time ended goes on with the next one. BUDGET: candidates a problem. SECONDS_TO_TUNE or SECONDS_TO_COMPARE of 0 leaves that part out.
# Writes OUT_FOLDER/{tuned.db,tune.json,side_by_side.jsonl,side_by_side.md}.
set -euo pipefail
kgen=$1 lib=$2 shapes=$3 out=$4 budget=${5:-20} tune_seconds=${6:-480} compare_seconds=${7:-480}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
begin=$(date +%s)
if [ "$tune_seconds" -gt 0 ]; then
  python3 - "$shapes" "$out/timed.yaml" <<'PY'
import glob, json, sys, yaml
loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
entries = [e for path in sorted(glob.glob(sys.argv[1] + "/*.yaml")) for e in yaml.load(open(path), loader)["entries"] if e.get("count", 0) > 0]
with open(sys.argv[2], "w") as out:
    json.dump({"entries": entries}, out)  # JSON is YAML
print(len(entries), "timing entries")
PY
  # A tune that the limit ends (SIGINT: it stops after the running candidate) leaves a valid DB, and what is tuned is compared.
  timeout --signal=INT "$tune_seconds" "$kgen" tune "$out/timed.yaml" --device nvidia:0 --budget "$budget" --db "$out/tuned.db" --json \
    >"$out/tune.json" || echo "tune ended with $?"
  echo "tuned in $(($(date +%s) - begin)) s"
fi
if [ "$compare_seconds" -gt 0 ]; then
  begin=$(date +%s)
  export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/kgen-inductor} TORCHINDUCTOR_COMPILE_THREADS=1
  shards=$(nproc)
  for ((i = 0; i < shards; ++i)); do
    python3 "$here/side_by_side.py" "$out/tuned.db" --kgen "$kgen" --lib "$lib" --precompile "$i/$shards" --seconds $((compare_seconds / 3)) \
      >/dev/null 2>"$out/precompile.$i.log" &
  done
  wait
  cat "$out"/precompile.*.log | head -c 20000 >"$out/precompile.log"
  rm -f "$out"/precompile.*.log
  echo "compiled the vendor's side in $(($(date +%s) - begin)) s"
  python3 "$here/side_by_side.py" "$out/tuned.db" --kgen "$kgen" --lib "$lib" --jsonl "$out/side_by_side.jsonl" \
    --markdown "$out/side_by_side.md" --seconds $((compare_seconds - $(date +%s) + begin)) --budget-ms 45 --repeats 30
fi
