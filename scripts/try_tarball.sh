#!/usr/bin/env bash
# From the archive to running programs, with nothing of kgen but what is in it: unpacks, tunes examples/quickstart.yaml on the device,
# then a C program, a C++ program and a Python script look the kernels up, launch them and compare the results.
#
#   scripts/try_tarball.sh kgen-VERSION-Linux-ARCH.tar.gz [auto|host|nvidia:N|amd:N] [FOLDER]
#
# Needs cc, c++, python3 (no package), what `kgen tune` compiles with for that device, and pkg-config if there is one. FOLDER: where all
# of it goes, a temporary one by default. Ends with 1 where one of the three did not run or had a wrong result.
set -euo pipefail
archive=$(realpath "$1") device=${2:-auto} folder=${3:-}
if [ -z "$folder" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder"
cd "$folder"
rm -rf prefix tuned.db
mkdir prefix
tar xzf "$archive" -C prefix --strip-components 1
prefix=$folder/prefix examples=$folder/prefix/share/kgen/examples
unset KGEN_LIBRARY KGEN_SOURCES PYTHONPATH LD_LIBRARY_PATH # the machine's own kgen, if there is one, takes no part

if command -v pkg-config >/dev/null; then
  export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
  flags=$(pkg-config --cflags --libs kgen)
  echo "flags by pkg-config: $flags"
else
  flags="-I$prefix/include -L$prefix/lib -lkgen"
  echo "no pkg-config here; flags: $flags"
fi
flags="$flags -Wl,-rpath,$prefix/lib -lm"
kgen() { "$prefix/bin/kgen" "$@"; }

echo "== $(kgen --version); shared libraries of the program, then of the library"
ldd "$prefix/bin/kgen" | awk '{print "  " $1}'
ldd "$prefix/lib/libkgen.so" | awk '{print "  " $1}'
kgen devices
kgen tune "$examples/quickstart.yaml" --db tuned.db --device "$device" >tune.txt 2>tune.log || { cat tune.log; exit 1; }
tail -n 4 tune.txt

status=0
try() { # NAME COMMAND…
  local name=$1
  shift
  echo "== $name"
  if "$@"; then echo "$name: right"; else
    echo "$name: WRONG or not run"
    status=1
  fi
}
c_program() { # the words of $flags are apart on purpose
  # shellcheck disable=SC2086
  cc -std=c11 -O1 -Wall -Wextra "$examples/c/gemm.c" -o gemm_c $flags && ./gemm_c tuned.db "$device"
}
cpp_program() {
  # shellcheck disable=SC2086
  c++ -std=c++20 -O1 -Wall -Wextra "$examples/cpp/gemm.cpp" -o gemm_cpp $flags && ./gemm_cpp tuned.db "$device"
}
python_script() {
  PYTHONPATH=$prefix/lib/python python3 -S "$examples/python/gemm.py" tuned.db "$device" # -S: without site-packages
}
try "C program" c_program
try "C++ program" cpp_program
try "Python script" python_script
exit $status
