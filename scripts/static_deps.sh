#!/usr/bin/env bash
# Puts the archives that the static release links (preset `release`) into out/deps.
#
# Debian's sqlite3 and zstd archives cannot go into a shared library (libkgen.so), so these two are built from its own source
# packages, patches included. The rest is copied.
set -euo pipefail
cd "$(dirname "$0")/.."
deps=$PWD/out/deps
work=$deps/work
mkdir -p "$deps/lib" "$work/sources" "$work/lists/partial"
export CMAKE_C_COMPILER_LAUNCHER=${CMAKE_C_COMPILER_LAUNCHER-} CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER-}
jobs=$(nproc)

sources() { # the source package $1, unpacked and patched, in $work/$1-*
  if compgen -G "$work/$1-[0-9]*/" >/dev/null; then return; fi
  # The machine's own package sources, as deb-src, kept apart from the system's lists.
  if [ ! -e "$work/updated" ]; then
    rm -f "$work"/sources/*
    for list in /etc/apt/sources.list.d/*.sources; do
      if [ -e "$list" ]; then sed 's/^Types:.*/Types: deb-src/' "$list" >"$work/sources/$(basename "$list")"; fi
    done
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
      if [ -e "$list" ]; then sed -n 's/^deb /deb-src /p' "$list" >"$work/sources/$(basename "$list" .list).list"; fi
    done
    apt-get -qq "${apt[@]}" update
    touch "$work/updated"
  fi
  (cd "$work" && apt-get -qq "${apt[@]}" source "$1" >/dev/null)
}
apt=(-oDir::Etc::sourcelist=/dev/null -oDir::Etc::sourceparts="$work/sources" -oDir::State::Lists="$work/lists"
  -oAPT::Sandbox::User=root)

if [ ! -e "$deps/lib/libsqlite3.a" ]; then
  sources sqlite3
  (
    cd "$work"/sqlite3-[0-9]*/
    ./configure --disable-tcl --disable-shared >/dev/null
    make sqlite3.c >/dev/null
    gcc -O2 -fPIC -fvisibility=hidden -DNDEBUG -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_THREADSAFE=1 -c sqlite3.c -o sqlite3.o
    ar rcs "$deps/lib/libsqlite3.a" sqlite3.o
  )
fi

if [ ! -e "$deps/lib/libzstd.a" ]; then
  sources libzstd
  make -C "$work"/libzstd-[0-9]*/lib -j "$jobs" CFLAGS="-O2 -fPIC -fvisibility=hidden" libzstd.a-release >/dev/null
  cp "$work"/libzstd-[0-9]*/lib/libzstd.a "$deps/lib/"
fi

for name in sodium xxhash yaml-cpp boost_context; do
  cp -u "$(g++ -print-file-name=lib$name.a)" "$deps/lib/"
done
ls -l "$deps/lib"
