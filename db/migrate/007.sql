-- Version 7: a candidate that was compiled and not run: a default that serves where nothing was tuned. What refers to trials is
-- made again with them.
ALTER TABLE sample RENAME TO sample_of_version_6;
ALTER TABLE winner RENAME TO winner_of_version_6;
ALTER TABLE trial RENAME TO trial_of_version_6;
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
CREATE TABLE sample (
  trial INTEGER PRIMARY KEY REFERENCES trial,
  us BLOB NOT NULL CHECK (length(us) % 4 = 0),
  states BLOB NOT NULL DEFAULT x'' CHECK (length(states) IN (0, length(us)))
) STRICT;
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
INSERT INTO trial (id, problem, device, compiler, config, status, reason, source_hash, op_hash, timing, time_us, mad_us,
compile_seconds, verify_seconds, max_error_ratio, registers, spills, lds_bytes, occupancy_waves, clock_mhz,
is_default, recorded_at, temperature_c, throttle, energy_uj, energy_mad_uj, deterministic)
SELECT id, problem, device, compiler, config, status, reason, source_hash, op_hash, timing, time_us, mad_us,
compile_seconds, verify_seconds, max_error_ratio, registers, spills, lds_bytes, occupancy_waves, clock_mhz,
is_default, recorded_at, temperature_c, throttle, energy_uj, energy_mad_uj, deterministic
FROM trial_of_version_6;
INSERT INTO sample (trial, us, states)
SELECT trial, us, states
FROM sample_of_version_6;
INSERT INTO winner (id, problem, device, timing, objective, deterministic, is_default, trial, plan, object, dim, first, last, loss)
SELECT id, problem, device, timing, objective, deterministic, is_default, trial, plan, object, dim, first, last, loss
FROM winner_of_version_6;
DROP TABLE sample_of_version_6;
DROP TABLE winner_of_version_6;
DROP TABLE trial_of_version_6;
CREATE INDEX trial_by_problem ON trial (problem, device);
CREATE INDEX winner_by_trial ON winner (trial);
CREATE INDEX winner_by_plan ON winner (plan);
CREATE INDEX winner_by_object ON winner (object);
