-- The tuned database, version 7. New files are made from this text; older files reach the same schema through
-- migrate/NNN.sql, and every file that is opened is compared with it: no other tables, no views, no triggers.
-- Meanings never change; a new meaning is a new column. docs/database.md says it in prose.

CREATE TABLE device (
  id INTEGER PRIMARY KEY,
  arch TEXT NOT NULL,
  name TEXT NOT NULL,
  driver TEXT NOT NULL,
  uuid TEXT NOT NULL,
  compute_units INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  l2_bytes INTEGER NOT NULL,
  clock_khz INTEGER NOT NULL,
  UNIQUE (arch, name, driver, uuid)
) STRICT;

CREATE TABLE compiler (
  id INTEGER PRIMARY KEY,
  version TEXT NOT NULL,
  options TEXT NOT NULL,
  kgen_version TEXT NOT NULL,
  UNIQUE (version, options, kgen_version)
) STRICT;

-- An op with its attributes. Defaults are part of the key: when an op definition changes them, stored dims keep their meaning.
CREATE TABLE op (
  id INTEGER PRIMARY KEY,
  signature TEXT NOT NULL,
  op TEXT NOT NULL,
  dims TEXT NOT NULL,
  dim_defaults TEXT NOT NULL,
  attributes TEXT NOT NULL,
  UNIQUE (signature, dims, dim_defaults, attributes)
) STRICT;

CREATE TABLE problem (
  id INTEGER PRIMARY KEY,
  op INTEGER NOT NULL REFERENCES op,
  dims_key TEXT NOT NULL,
  dims_json TEXT NOT NULL,
  label TEXT NOT NULL,
  flops REAL NOT NULL CHECK (flops >= 0),
  bytes REAL NOT NULL CHECK (bytes >= 0),
  UNIQUE (op, dims_key)
) STRICT;

CREATE TABLE trial (
  id INTEGER PRIMARY KEY,
  problem INTEGER NOT NULL REFERENCES problem,
  device INTEGER NOT NULL REFERENCES device,
  compiler INTEGER NOT NULL REFERENCES compiler,
  config TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('compile_failed', 'compile_timeout', 'compiled', 'pruned', 'wrong',
                                         'launch_failed', 'hung', 'crashed', 'stopped_early', 'timed')),
  reason TEXT NOT NULL,
  source_hash TEXT NOT NULL,
  op_hash TEXT NOT NULL,
  timing TEXT NOT NULL CHECK (timing IN ('', 'cold', 'warm', 'graph')),
  time_us REAL CHECK (time_us >= 0 AND time_us < 1e15),
  mad_us REAL CHECK (mad_us >= 0 AND mad_us < 1e15),
  compile_seconds REAL CHECK (compile_seconds >= 0 AND compile_seconds < 1e9),
  verify_seconds REAL CHECK (verify_seconds >= 0 AND verify_seconds < 1e9),
  max_error_ratio REAL CHECK (max_error_ratio >= 0),
  relative_l2 REAL CHECK (relative_l2 >= 0),
  registers INTEGER,
  spills INTEGER,
  lds_bytes INTEGER,
  occupancy_waves INTEGER,
  clock_mhz INTEGER CHECK (clock_mhz >= 0),
  is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
  recorded_at INTEGER NOT NULL DEFAULT 0,
  temperature_c INTEGER,
  throttle TEXT NOT NULL DEFAULT '',
  energy_uj REAL CHECK (energy_uj >= 0 AND energy_uj < 1e15),
  energy_mad_uj REAL CHECK (energy_mad_uj >= 0 AND energy_mad_uj < 1e15),
  deterministic INTEGER CHECK (deterministic IN (0, 1)),
  CHECK (status NOT IN ('timed', 'stopped_early') OR (time_us IS NOT NULL AND timing <> '')),
  CHECK (status <> 'compiled' OR (time_us IS NULL AND timing = ''))
) STRICT;
CREATE INDEX trial_by_problem ON trial (problem, device);

-- Raw samples, float32 little-endian microseconds in the order taken, and beside each the card's state: 2 bytes clock in
-- MHz, 1 byte temperature in degrees C (0 = not known), 1 byte 1 where something held the clock down; empty where nothing
-- is known. A table of its own keeps scans of trials short.
CREATE TABLE sample (
  trial INTEGER PRIMARY KEY REFERENCES trial,
  us BLOB NOT NULL CHECK (length(us) % 4 = 0),
  states BLOB NOT NULL DEFAULT x'' CHECK (length(states) IN (0, length(us)))
) STRICT;

-- Launch plans (base/plan.h), addressed by the hash of the text; one plan serves many shapes.
CREATE TABLE plan (
  id INTEGER PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  json TEXT NOT NULL
) STRICT;

-- Code objects, zstd frames, addressed by the hash of the bytes before compression.
CREATE TABLE object (
  id INTEGER PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  arch TEXT NOT NULL,
  kind TEXT NOT NULL,
  size INTEGER NOT NULL CHECK (size >= 0),
  zstd BLOB NOT NULL
) STRICT;

-- What the runtime launches for a problem on a device under a goal: how it was timed, what counts, whether its results had to
-- be the same bits on every launch. Where `dim` is not '', the row serves the sizes first … last of that dim, whatever the
-- problem's own size of it is (the trial's); `loss` is how much slower than the best kernel for such a size it is
-- expected to be (0.02 = 2 %).
CREATE TABLE winner (
  id INTEGER PRIMARY KEY,
  problem INTEGER NOT NULL REFERENCES problem,
  device INTEGER NOT NULL REFERENCES device,
  timing TEXT NOT NULL CHECK (timing IN ('cold', 'warm', 'graph')),
  objective TEXT NOT NULL CHECK (objective IN ('time', 'energy')),
  deterministic INTEGER NOT NULL CHECK (deterministic IN (0, 1)),
  is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
  trial INTEGER NOT NULL REFERENCES trial,
  plan INTEGER NOT NULL REFERENCES plan,
  object INTEGER NOT NULL REFERENCES object,
  dim TEXT NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  loss REAL NOT NULL CHECK (loss >= 0 AND loss < 1e15),
  CHECK (first <= last AND (dim <> '' OR (first = 0 AND last = 0 AND loss = 0))),
  UNIQUE (problem, device, timing, objective, deterministic, is_default, dim, first)
) STRICT;
CREATE INDEX winner_by_trial ON winner (trial);
CREATE INDEX winner_by_plan ON winner (plan);
CREATE INDEX winner_by_object ON winner (object);

-- Who vouches for what the runtime takes from this file: digests of it as text (Db::sign()), and the Ed25519 signature
-- of that text. A winner that comes, goes or changes afterwards does not fit any more.
CREATE TABLE signature (
  key TEXT NOT NULL UNIQUE,
  manifest TEXT NOT NULL,
  signature BLOB NOT NULL CHECK (length(signature) = 64)
) STRICT;
