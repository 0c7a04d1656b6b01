#!/usr/bin/env bash
# The Debian packages on a system that has nothing else: makes a root of this machine's Debian release with debootstrap, installs them with
# apt, tunes the example spec on the host device, builds examples/c and examples/cpp with pkg-config, runs them and the Python example, and
# removes the packages again.
#
#   scripts/deb_test.sh [FOLDER]       # of the .deb files; out/build/deb by default (cmake --build --preset deb --target package)
#
# Needs root, debootstrap and the network that apt has; says so and ends with 0 where it lacks one. Two minutes and 1 GB of $TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=$(realpath "${1:-out/build/deb}")
if [ "$(id -u)" != 0 ]; then echo "SKIPPED: scripts/deb_test.sh (must be root to make a root)"; exit 0; fi
for program in debootstrap unshare chroot; do
  if ! command -v $program >/dev/null; then echo "SKIPPED: scripts/deb_test.sh ($program is not installed)"; exit 0; fi
done
if ! compgen -G "$packages/kgen_*.deb" >/dev/null; then
  echo "no kgen_*.deb in $packages; run cmake --build --preset deb --target package" >&2
  exit 2
fi

release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$release //p" | head -n 1)
if [ -z "$mirror" ]; then echo "SKIPPED: scripts/deb_test.sh (apt has no mirror of $release)"; exit 0; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/kgen-deb.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
echo "== a root of Debian $release"
debootstrap --variant=minbase "$release" "$root" "$mirror" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
if [ -d /etc/apt/apt.conf.d ]; then # a proxy, if apt has one
  apt-config dump | grep '^Acquire::.*Proxy' >"$root/etc/apt/apt.conf.d/proxy" || true
fi
mkdir "$root/packages"
cp "$packages"/*.deb "$root/packages"

# Everything from here on is in the root, with processes and mounts of its own.
cat >"$root/test.sh" <<'INSIDE'
set -euo pipefail
mount -t proc proc /proc
mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm
export DEBIAN_FRONTEND=noninteractive HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset KGEN_SOURCES KGEN_LIBRARY CXX TMPDIR
cd /root
quiet() { "$@" >/tmp/log 2>&1 || { tail -n 30 /tmp/log; echo "FAILED: $*"; exit 1; }; }
files() { find / -xdev \( -path /proc -o -path /tmp -o -path /root -o -path /var -o -path /packages \) -prune -o -type f -print | sort; }
quiet apt-get -qq update

echo "== the program and its libraries alone: no compiler"
quiet apt-get -qq install --no-install-recommends /packages/{kgen,libkgen0}_*.deb
dpkg-query -W -f '${Package} ${Version}\n' kgen libkgen0
kgen --version
kgen devices || true
status=0
kgen tune /usr/share/kgen/examples/quickstart.yaml --device host --db none.db 2>said >/dev/null || status=$?
cat said
if [ $status != 3 ] || ! grep -q 'install g++' said; then echo "FAILED: ended with $status; expected 3 and what to install"; exit 1; fi

echo "== what apt installs by default, and the development files"
quiet apt-get -qq purge kgen libkgen0 # else apt would not look at what they recommend
quiet apt-get -qq install /packages/*.deb pkg-config
dpkg-query -W -f '${Package} ${Version}\n' kgen 'libkgen*' python3-kgen g++
for file in man/man1/kgen-tune.1.gz bash-completion/completions/kgen zsh/vendor-completions/_kgen fish/vendor_completions.d/kgen.fish; do
  if [ ! -e "/usr/share/$file" ]; then echo "FAILED: no /usr/share/$file"; exit 1; fi
done

echo "== kgen tune /usr/share/kgen/examples/quickstart.yaml"
kgen tune /usr/share/kgen/examples/quickstart.yaml --db tuned.db --device host 2>/tmp/log | cut -c 1-150 || { cat /tmp/log; exit 1; }
kgen db check tuned.db
kgen report tuned.db -o report.html
for file in c/gemm.c cpp/gemm.cpp; do
  echo "== examples/$file, flags by pkg-config: $(pkg-config --cflags --libs kgen)"
  compiler="gcc -std=c11"
  if [ $file = cpp/gemm.cpp ]; then compiler="g++ -std=c++17"; fi
  $compiler -O1 -Wall -Wextra "/usr/share/kgen/examples/$file" -o example $(pkg-config --cflags --libs kgen) -lm
  ./example tuned.db host
done
echo "== examples/python/gemm.py"
python3 /usr/share/kgen/examples/python/gemm.py tuned.db host
echo "== examples/my_op, an operator of one's own"
cp -r /usr/share/kgen/examples/my_op . && kgen verify my_op/ops.yaml --device host | tail -n 3

echo "== removed again"
quiet apt-get -qq purge kgen 'libkgen*' python3-kgen
left=$(dpkg-query -W -f '${Package}\n' 2>/dev/null | grep kgen || true; files | grep kgen || true)
if [ -n "$left" ]; then echo "FAILED: left behind: $left"; exit 1; fi
echo "nothing is left"
INSIDE
unshare --mount --pid --fork --kill-child --propagation private chroot "$root" bash /test.sh
echo "== all of it worked"
