#!/usr/bin/env bash
# From a fresh checkout to a tuned kernel that a C program launches: installs packages, builds, tunes
# examples/quickstart.yaml on the best device found, shows the result, runs examples/c on it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh
install_packages "${kgen_build_packages[@]}"

build=out/build/quickstart
prefix=$PWD/out/quickstart
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DCMAKE_C_FLAGS_RELEASE=-O1 \
  -DKGEN_TESTS=OFF -DCMAKE_INSTALL_PREFIX="$prefix" >/dev/null
cmake --build $build
cmake --install $build >/dev/null
kgen=$prefix/bin/kgen

echo
echo "== devices"
"$kgen" devices
echo
echo "== kgen tune examples/quickstart.yaml"
"$kgen" tune examples/quickstart.yaml --db out/quickstart.db
echo
echo "== kgen show"
"$kgen" show out/quickstart.db
echo
echo "== the C example on that file"
cmake -S examples/c -B out/build/quickstart-c -G Ninja -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
cmake --build out/build/quickstart-c >/dev/null
out/build/quickstart-c/kgen_example out/quickstart.db
