#!/bin/sh
# exports.sh LIBRARY HEADER [tuner]: LIBRARY exports exactly the functions that HEADER declares with KGEN_API, and needs no
# library of the tuner, unless it is one.
set -eu
exported=$(nm -D --defined-only "$1" | awk '$2 != "A" {sub(/@.*/, "", $3); print $3}' | sort)
declared=$(sed -n 's/^KGEN_API .*[ *]\(kgen_[a-z_]*\)(.*/\1/p' "$2" | sort)
[ -n "$declared" ]
if [ "$exported" != "$declared" ]; then
  echo "exported:" "$exported"
  echo "declared:" "$declared"
  exit 1
fi
if [ "${3-}" != tuner ] && readelf -d "$1" | grep -E 'NEEDED.*(yaml|cuda|hip)'; then
  echo "the runtime must not need these"
  exit 1
fi
