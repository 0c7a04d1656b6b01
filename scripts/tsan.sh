#!/usr/bin/env bash
# Builds the runtime and its tests with ThreadSanitizer (preset tsan) and runs them: 16 threads that find, launch and reload.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -e out/build/tsan/build.ninja ]; then
  cmake --preset tsan -DKGEN_FOLDERS="base;generator;templates;device;db;tuner;runtime;tests" >/dev/null
fi
cmake --build out/build/tsan --target reload_test c_api_test runtime_options_test dispatcher_test -j "${JOBS:-$(nproc)}"
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1"
for test in reload_test c_api_test runtime_options_test dispatcher_test; do
  # Address space randomisation beyond what ThreadSanitizer of GCC 12 knows would make it stop at once.
  setarch -R "out/build/tsan/tests/runtime/$test" --gtest_brief=1
done
