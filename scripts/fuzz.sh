#!/usr/bin/env bash
# Fuzzes what comes from outside: YAML specs, operator definitions, expressions, database files (through the runtime and the tools),
# recordings (T4, Kernel Tuner caches) and traces, under ASan and UBSan.
#
#   scripts/fuzz.sh [SECONDS] [TARGET…]
#
# SECONDS for each target, 120 by default; every target at once on as many cores as there are, FUZZ_JOBS=N: N at a time. FUZZ_EACH=N: N
# processes for each target, which share what they find; one that ends early (a crash, a leak, a hang) is followed by another as long as
# there is time. FUZZ_BUILT=FOLDER has the programs; without it they are built. Where that folder was made on another machine, tests/fuzz/corpus and
# tests/generator/fixtures beside this script are all that is needed of the tree.
# Seeds are in tests/fuzz/corpus; what libFuzzer finds beyond them is kept in out/fuzz/TARGET for the next run, and what fails in
# out/fuzz/found: put it into the corpus with the fix. Prints a line a target: executions, seconds of CPU, crashes, leaks, hangs
# (60 s), inputs of more than a second of CPU, the slowest input.
# Exit code 1 where there was any.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-120}
shift $(($# > 0 ? 1 : 0))
targets=("${@:-}")
if [ -z "${targets[0]}" ]; then targets=(spec op expr db recording trace); fi
each=${FUZZ_EACH:-1}
jobs=${FUZZ_JOBS:-$(nproc)}
programs=${FUZZ_BUILT:-}
if [ -z "$programs" ]; then
  programs=out/build/fuzz/tests/fuzz
  command -v clang-19 >/dev/null || { echo "clang-19 is missing (Debian: clang-19 libclang-rt-19-dev)"; exit 3; }
  cmake --preset fuzz >/dev/null && cmake --build --preset fuzz --target "${targets[@]/%/_fuzz}" || exit 3
fi
found=$PWD/out/fuzz/found
mkdir -p "$found"
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 KGEN_SOURCE_DIR=$PWD

fuzz() { # TARGET PROCESS
  local kept=out/fuzz/$1 log=out/fuzz/$1.$2.log end=$((SECONDS + seconds)) left
  local TIMEFORMAT='%U %S'
  : >"$log"
  : >"out/fuzz/$1.$2.rc"
  { time while left=$((end - SECONDS)); [ "$left" -gt 0 ]; do
      "$programs/$1_fuzz" "$kept" "tests/fuzz/corpus/$1" -max_total_time="$left" -timeout=60 -rss_limit_mb=3000 -max_len=65536 \
        -close_fd_mask=1 -print_final_stats=1 -artifact_prefix="$found/$1-" >>"$log" 2>&1
      echo $? >>"out/fuzz/$1.$2.rc"
      sleep 1  # where it cannot even begin
    done; } 2>"out/fuzz/$1.$2.cpu"
}
for target in "${targets[@]}"; do
  mkdir -p "out/fuzz/$target"
  rm -f "out/fuzz/$target".*.{log,rc,cpu}
  for ((process = 0; process < each; ++process)); do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    fuzz "$target" "$process" &
  done
done
wait

status=0
printf '| %-9s | %10s | %6s | %7s | %5s | %5s | %8s | %9s | %9s |\n' target executions 'cpu s' crashes leaks hangs '> 1 s' 'slowest' 'corpus'
echo '|---|--:|--:|--:|--:|--:|--:|--:|--:|'
for target in "${targets[@]}"; do
  logs=("out/fuzz/$target".*.log)
  all() { cat "${logs[@]}"; }
  executions=$(all | awk '/^stat::number_of_executed_units/ {n += $2} END {printf "%d", n}')
  leaks=$(all | grep -c 'LeakSanitizer: detected memory leaks')
  hangs=$(all | grep -c 'libFuzzer: timeout')
  slow=$(all | awk '/^slowest input:/ {n += $NF} END {printf "%d", n}')
  slowest=$(all | awk '/^slowest input:/ && $3 > n {n = $3} END {printf "%.3f", n}')
  crashes=$(all | grep -cE 'ERROR: (AddressSanitizer|libFuzzer: (deadly|out-of-memory))|runtime error:|broken promise')
  failed=$(cat "out/fuzz/$target".*.rc | grep -vc '^0$')
  if [ $((crashes + leaks + hangs)) -lt "$failed" ]; then crashes=$((failed - leaks - hangs)); fi
  if [ $((crashes + leaks + hangs + slow)) != 0 ]; then
    status=1
    all | grep -hE 'ERROR:|runtime error:|broken promise|Test unit written' | head -5
  fi
  printf '| %-9s | %10s | %6s | %7s | %5s | %5s | %8s | %9s | %9s |\n' "$target" "$executions" \
    "$(cat "out/fuzz/$target".*.cpu | awk '{n += $1 + $2} END {printf "%.0f", n}')" "$crashes" "$leaks" "$hangs" "$slow" \
    "$slowest" "$(find "out/fuzz/$target" -type f | wc -l)"
done
exit $status
