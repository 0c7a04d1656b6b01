-- Rows of version6.db, a file as the sixth schema left it. Made once, and never again, by
--   cat db/migrate/00[123456].sql tests/db/data/version6.sql | sqlite3 tests/db/data/version6.db
PRAGMA application_id = 1801938286;
PRAGMA user_version = 6;
INSERT INTO device VALUES (1, 'sm_90', 'NVIDIA H100 80GB HBM3', 'CUDA 13.0', 'GPU-1', 132, 85899345920, 52428800, 1980000);
INSERT INTO compiler VALUES (1, 'nvrtc 13.0', '--gpu-architecture=sm_90', '0.1.0');
INSERT INTO op VALUES (1, 'gemm b_layout=nk dtype=bf16', 'gemm', 'm,n,k', '
1
m', 'dtype= b_layout=nk');
INSERT INTO problem VALUES (1, 1, 'k=8 m=4', '{"m":4,"n":1,"k":8}', 'first', 64.0, 96.0);
INSERT INTO trial VALUES (1, 1, 1, 1, 'matrix tile_m=128', 'timed', '', 'aa', 'bb', 'cold', 12.5, 0.25, 1.5, 0.125, 0.01,
  0.001, 128, 0, 49152, 8, 1755, 0, 1763796000000, 61, 'power cap', 5250.5, 20.25, 1);
INSERT INTO trial VALUES (2, 1, 1, 1, 'matrix tile_m=64', 'stopped_early', '', 'cc', 'bb', 'cold', 40, 0.25, 1.5, 0.125, 0.01,
  0.001, 128, 0, 49152, 8, 1755, 1, 1763796001000, NULL, '', NULL, NULL, NULL);
INSERT INTO sample VALUES (1, X'0000484100004841', X'');
INSERT INTO plan VALUES (1, '7fd9d502c4cef035c8b68be6fb393a3d',
  '{"constants":{},"dims":[],"dim_defaults":[],"params":[],"steps":[],"needs":[],"flops":"","bytes":""}');
INSERT INTO object VALUES (1, 'f6c0cb2c8db62673e129851e824c1b84', 'sm_90', 'cubin', 17,
  X'28b52ffd2411890000636f6465206f662076657273696f6e2031acb5c6d2');
INSERT INTO winner VALUES (1, 1, 1, 'cold', 'energy', 1, 0, 1, 1, 1, '', 0, 0, 0);
INSERT INTO winner VALUES (2, 1, 1, 'cold', 'time', 0, 1, 2, 1, 1, '', 0, 0, 0);
INSERT INTO winner VALUES (3, 1, 1, 'cold', 'time', 0, 0, 2, 1, 1, 'm', 1, 64, 0.02);
