#!/usr/bin/env bash
# Kills the tuner, then its worker, with SIGKILL at random moments. The DB must stay clean, nothing that was recorded may be
# lost, no worker may outlive its tuner, and a resumed run must end with a winner for the same problems as an undisturbed one.
#   scripts/kill_test.sh [KGEN] [MOMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
kgen=$(realpath "${1:-out/build/release/cli/kgen}")
moments=${2:-20}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME="$work/cache"  # compiling is part of what is interrupted
RANDOM=${SEED:-1}

cat > "$work/ops.yaml" <<'YAML'
kgen: 1
ops:
  - op: gemm
    dtype: fp32
    problems: [{m: [17, 64], n: 48, k: 33}]
YAML

tune() { "$kgen" tune "$work/ops.yaml" --db "$1" --device host --budget 8 --jobs 2 >"$work/log" 2>&1; }
info() { "$kgen" db info "$1" --json | python3 -c 'import json,sys; d=json.load(sys.stdin); print(d["trials"], d["winners"])'; }
fail() { echo "kill_test: $*" >&2; sed 's/^/  | /' "$work/log" >&2; exit 1; }
runs() { [[ -r /proc/$1/stat ]] && [[ $(sed 's/.*) //' "/proc/$1/stat") != [ZX]* ]]; }  # a zombie has ended
pause() { sleep "$(python3 -c "print(0.1 + $RANDOM % 4000 / 1000)")"; }

echo "undisturbed run"
tune "$work/calm.db" || fail "the undisturbed run failed"
calm=$("$kgen" show "$work/calm.db" --format csv | cut -d, -f1-3 | sort)

echo "killing the tuner at $moments moments"
before=0
for ((i = 1; i <= moments; ++i)); do
  tune "$work/killed.db" & shell=$!
  pause
  tuner=$(pgrep -P "$shell" -f ' tune ' || true)
  [[ -n $tuner ]] || { wait "$shell" || fail "run $i failed by itself"; continue; }
  workers=$(pgrep -P "$tuner" -f __worker || true)
  kill -9 "$tuner" 2>/dev/null || true
  wait "$shell" 2>/dev/null || true
  sleep 0.5
  for worker in $workers; do ! runs "$worker" || fail "worker $worker outlived its tuner"; done
  [[ -f $work/killed.db ]] || continue
  "$kgen" db check "$work/killed.db" >"$work/log" 2>&1 || fail "db check after kill $i"
  read -r trials _ <<<"$(info "$work/killed.db")"
  ((trials >= before)) || fail "kill $i: $trials trials, there were $before"
  before=$trials
done
tune "$work/killed.db" || fail "the resumed run failed"
[[ $("$kgen" show "$work/killed.db" --format csv | cut -d, -f1-3 | sort) == "$calm" ]] || fail "other winners than in the undisturbed run"

echo "killing the worker at $moments moments"
tune "$work/worker.db" & shell=$!
kills=0
while ((kills < moments)); do
  pause
  if ! kill -0 "$shell" 2>/dev/null; then
    wait "$shell" || fail "a run whose worker was killed failed"
    rm -f "$work/worker.db"*
    tune "$work/worker.db" & shell=$!
    continue
  fi
  tuner=$(pgrep -P "$shell" -f ' tune ' || true)
  worker=$([[ -n $tuner ]] && pgrep -P "$tuner" -f __worker || true)
  [[ -n $worker ]] && kill -9 $worker 2>/dev/null && kills=$((kills + 1))
done
wait "$shell" || fail "the run whose worker was killed failed"
"$kgen" db check "$work/worker.db" >"$work/log" 2>&1 || fail "db check after killing workers"
[[ $("$kgen" show "$work/worker.db" --format csv | cut -d, -f1-3 | sort) == "$calm" ]] || fail "other winners than in the undisturbed run"
echo "kill_test: passed"
