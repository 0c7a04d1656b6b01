#!/usr/bin/env bash
# Installs what the tests need, builds the preset `dev` (ASan, UBSan, warnings are errors) and runs every test. Each leg
# leaves a line in out/test-results/legs, which .ci/run reads; what could not run is said aloud and counted as skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh
results=$PWD/out/test-results
rm -rf "$results"
mkdir -p "$results"

failed=0
leg() { # name command…
  local name=$1
  shift
  echo "== $name"
  if "$@"; then
    echo "$name passed" >>"$results/legs"
  else
    echo "$name FAILED" | tee -a "$results/legs"
    failed=1
  fi
}
packages() { install_packages "${kgen_build_packages[@]}" "${kgen_test_packages[@]}"; }
format() {
  git ls-files '*.h' '*.cpp' '*.c' | grep -v '^tests/golden/' | xargs clang-format-19 --dry-run -Werror
}
build() { cmake --preset dev >/dev/null && cmake --build --preset dev; }
# One more than cores: some tests wait for limits to pass.
tests() { GTEST_OUTPUT="xml:$results/" ctest --preset dev -j "$(($(nproc) + 1))" --output-log "$results/ctest.log"; }

# AMD kernels run in an instruction emulator where there is one.
if [ -z "${KGEN_AMD_EMU:-}" ] && [ -e ../shared/tools/amd_emu/run_co.py ]; then KGEN_AMD_EMU=$(realpath ../shared/tools/amd_emu); fi
if [ -z "${TINYGRAD_DIR:-}" ] && [ -d ../tinygrad ]; then TINYGRAD_DIR=$(realpath ../tinygrad); fi
if [ -n "${KGEN_AMD_EMU:-}" ] && [ -n "${TINYGRAD_DIR:-}" ]; then
  export KGEN_AMD_EMU TINYGRAD_DIR
else
  echo "SKIPPED: emulator tests of AMD kernels (set KGEN_AMD_EMU to the folder of run_co.py and TINYGRAD_DIR to tinygrad)"
fi

# The shape lists of real models are checked where they are.
if [ -z "${KGEN_SHAPES:-}" ] && [ -d ../shared/ops/shapes ]; then KGEN_SHAPES=$(realpath ../shared/ops/shapes); fi
if [ -n "${KGEN_SHAPES:-}" ]; then
  export KGEN_SHAPES
else
  echo "SKIPPED: shape lists of models (set KGEN_SHAPES to their folder)"
fi

leg packages packages
leg format format
leg build build
leg tests tests
python3 scripts/count_tests.py "$results" || failed=1
cat "$results/legs"
exit $failed
