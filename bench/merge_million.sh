#!/usr/bin/env bash
# How long `kgen db merge` takes for a million trials (with their samples) that nobody has yet, and for the same file a second
# time. The trials are made up by SQL: 2,000 problems on one device, 500 candidates each.
#
#   bench/merge_million.sh KGEN [TRIALS] [FOLDER]
set -euo pipefail
kgen=$(realpath "$1") trials=${2:-1000000} folder=${3:-}
if [ -z "$folder" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi
cd "$folder"
rm -f big.db all.db empty.t4
echo '{"metadata": {"timeunit": "microseconds"}, "schema_version": "1.0.0", "results": []}' >empty.t4
schema=$("$kgen" db import seed.db empty.t4 >/dev/null 2>&1; sqlite3 seed.db .schema)
sqlite3 big.db <<SQL
PRAGMA page_size=4096;
$schema
PRAGMA application_id=$(sqlite3 seed.db 'PRAGMA application_id');
PRAGMA user_version=$(sqlite3 seed.db 'PRAGMA user_version');
BEGIN;
INSERT INTO device VALUES (1, 'sm_90', 'NVIDIA H100 80GB HBM3', 'CUDA 13.0', 'GPU-1', 132, 85899345920, 52428800, 1980000);
INSERT INTO compiler VALUES (1, 'nvrtc 13.0', '--gpu-architecture=sm_90', '0.1.0');
INSERT INTO op VALUES (1, 'gemm b_layout=nk dtype=bf16', 'gemm', 'm,n,k', '', 'dtype= b_layout=nk');
INSERT INTO problem SELECT value, 1, printf('k=4096 m=%d n=4096', value), printf('{"m":%d,"n":4096,"k":4096}', value), '', 1e9, 1e6
  FROM generate_series(1, 2000);
INSERT INTO trial (id, problem, device, compiler, config, status, reason, source_hash, op_hash, timing, time_us, mad_us, compile_seconds,
    verify_seconds, max_error_ratio, relative_l2, registers, spills, lds_bytes, occupancy_waves, clock_mhz, is_default, recorded_at)
  SELECT value, 1 + value % 2000, 1, 1, printf('matrix tile_m=%d tile_n=%d tile_k=32 waves=4 stages=%d', 16 * (value / 2000 % 20), 32 * (value / 40000), value % 7),
    CASE WHEN value % 9 = 0 THEN 'wrong' ELSE 'timed' END, CASE WHEN value % 9 = 0 THEN 'element 17: 3.5, not 2.5' ELSE '' END,
    printf('%032x', value * 2654435761), 'a5f0c0ffee', CASE WHEN value % 9 = 0 THEN '' ELSE 'cold' END,
    CASE WHEN value % 9 <> 0 THEN 10.0 + value % 997 END, 0.25, 1.5, 0.125, 0.01, 0.001, 128, 0, 49152, 8, 1755, value % 500 = 0, 1763796000000 + value
  FROM generate_series(1, $trials);
INSERT INTO sample SELECT id, x'0000204100002041000020410000204100002041000020410000204100002041000020410000204100002041000020410000204100002041000020410000204100002041000020410000204100002041', x'' FROM trial WHERE status = 'timed';
COMMIT;
SQL
rm -f seed.db*
ls -l big.db | awk '{print "file: " $5 / 1e6 " MB"}'
TIMEFORMAT='%R s (user %U, system %S)'
echo "check:"; time "$kgen" db check big.db
echo "merge into a new file:"; time "$kgen" db merge big.db -o all.db
echo "the same again:"; time "$kgen" db merge big.db -o all.db
test "$(sqlite3 all.db 'SELECT count(*) FROM trial')" = "$trials"
