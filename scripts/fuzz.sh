#!/usr/bin/env bash
# Fuzzes what comes from outside: YAML specs, operator definitions, expressions, database files (through the runtime and the tools),
# recordings (T4, Kernel Tuner caches) and traces, under ASan and UBSan.
#
#   scripts/fuzz.sh [SECONDS] [TARGET…]
#
# SECONDS for each target, 120 by default; every target at once on as many cores as there are, FUZZ_JOBS=N: N at a time. Seeds are in
# tests/fuzz/corpus; what libFuzzer finds beyond them is kept in out/fuzz/TARGET for the next run, and what fails in out/fuzz/found: put
# it into the corpus with the fix. Prints a line a target: executions, seconds of CPU, crashes, leaks, hangs (60 s), inputs of more
# than a second of CPU, the slowest input.
# Exit code 1 where there was any.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-120}
shift $(($# > 0 ? 1 : 0))
targets=("${@:-}")
if [ -z "${targets[0]}" ]; then targets=(spec op expr db recording trace); fi
jobs=${FUZZ_JOBS:-$(nproc)}
command -v clang-19 >/dev/null || { echo "clang-19 is missing (Debian: clang-19 libclang-rt-19-dev)"; exit 3; }
if [ -z "${FUZZ_BUILT:-}" ]; then
  cmake --preset fuzz >/dev/null && cmake --build --preset fuzz --target "${targets[@]/%/_fuzz}" || exit 3
fi
found=$PWD/out/fuzz/found
mkdir -p "$found"
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

fuzz() { # TARGET
  local kept=out/fuzz/$1 log=out/fuzz/$1.log
  mkdir -p "$kept"
  local TIMEFORMAT='%U %S'
  { time out/build/fuzz/tests/fuzz/"$1"_fuzz "$kept" "tests/fuzz/corpus/$1" -max_total_time="$seconds" -timeout=60 \
    -rss_limit_mb=3000 -max_len=65536 -close_fd_mask=1 -print_final_stats=1 -artifact_prefix="$found/$1-" >"$log" 2>&1
    echo $? >"out/fuzz/$1.rc"; } 2>"out/fuzz/$1.cpu"
}
for target in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  fuzz "$target" &
done
wait

status=0
printf '| %-9s | %10s | %6s | %7s | %5s | %5s | %8s | %9s | %9s |\n' target executions 'cpu s' crashes leaks hangs '> 1 s' 'slowest' 'corpus'
echo '|---|--:|--:|--:|--:|--:|--:|--:|--:|'
for target in "${targets[@]}"; do
  log=out/fuzz/$target.log
  stat() { sed -n "s/^stat::$1: *//p" "$log"; }
  executions=$(stat number_of_executed_units)
  leaks=$(grep -c 'LeakSanitizer: detected memory leaks' "$log")
  hangs=$(grep -c 'libFuzzer: timeout' "$log")
  slow=$(sed -n 's/^slowest input:.*more than a second: //p' "$log" | tail -1)
  slowest=$(sed -n 's/^slowest input: \([0-9.]*\).*/\1/p' "$log" | tail -1)
  crashes=$(grep -cE 'ERROR: (AddressSanitizer|libFuzzer: (deadly|out-of-memory))|runtime error:|broken promise' "$log")
  if [ "$(cat "out/fuzz/$target.rc")" != 0 ] && [ $((crashes + leaks + hangs)) = 0 ]; then crashes=1; fi
  if [ $((crashes + leaks + hangs + ${slow:-0})) != 0 ]; then
    status=1
    grep -hE 'ERROR:|runtime error:|broken promise|Test unit written' "$log" | head -5
  fi
  printf '| %-9s | %10s | %6s | %7s | %5s | %5s | %8s | %9s | %9s |\n' "$target" "${executions:-?}" \
    "$(awk '{printf "%.0f", $1 + $2}' "out/fuzz/$target.cpu")" "$crashes" "$leaks" "$hangs" "${slow:-?}" \
    "${slowest:-?}" "$(find "out/fuzz/$target" -type f | wc -l)"
done
exit $status
