# Sourced by quickstart.sh and test.sh: installs the Debian packages that are missing.
kgen_build_packages=(g++ cmake ninja-build libexpected-dev libfmt-dev libcli11-dev nlohmann-json3-dev
  libyaml-cpp-dev libsqlite3-dev libzstd-dev libsodium-dev libxxhash-dev libboost-context-dev)
kgen_test_packages=(libgtest-dev libgmock-dev clang-19 lld-19 llvm-19 clang-format-19 clang-tidy-19 hipcc python3 python3-numpy
  python3-pip python3-yaml chromium zsh fish groff man-db mandoc pkg-config mkdocs mkdocs-material)
if ! command -v npm >/dev/null; then kgen_build_packages+=(nodejs npm); fi  # for the page of kgen report; not always Debian's

install_packages() { # names…
  local missing=() name
  for name in "$@"; do
    if ! dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q "ok installed"; then missing+=("$name"); fi
  done
  if [ ${#missing[@]} -eq 0 ]; then return 0; fi
  echo "installing: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then as_root=(sudo); fi
  "${as_root[@]}" apt-get -qq update
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}
