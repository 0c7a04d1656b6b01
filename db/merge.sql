-- Takes what the attached database `other` has and `main` has not: one transaction, run by Db::merge(). Rows are the same
-- where everything that they say is the same; ids are the file's own affair. The outcome does not depend on the order in
-- which files are merged, and merging a file again changes nothing.

INSERT INTO main.device (arch, name, driver, uuid, compute_units, memory_bytes, l2_bytes, clock_khz)
SELECT arch, name, driver, uuid, compute_units, memory_bytes, l2_bytes, clock_khz FROM other.device WHERE true
ON CONFLICT DO UPDATE SET compute_units = max(compute_units, excluded.compute_units),
  memory_bytes = max(memory_bytes, excluded.memory_bytes), l2_bytes = max(l2_bytes, excluded.l2_bytes),
  clock_khz = max(clock_khz, excluded.clock_khz);
INSERT INTO main.compiler (version, options, kgen_version)
SELECT version, options, kgen_version FROM other.compiler WHERE true ON CONFLICT DO NOTHING;
INSERT INTO main.op (signature, op, dims, dim_defaults, attributes)
SELECT signature, op, dims, dim_defaults, attributes FROM other.op WHERE true ON CONFLICT DO NOTHING;

CREATE TEMP TABLE device_of AS
SELECT o.id AS theirs, m.id AS ours FROM other.device o JOIN main.device m USING (arch, name, driver, uuid);
CREATE TEMP TABLE compiler_of AS
SELECT o.id AS theirs, m.id AS ours FROM other.compiler o JOIN main.compiler m USING (version, options, kgen_version);
CREATE TEMP TABLE op_of AS
SELECT o.id AS theirs, m.id AS ours FROM other.op o JOIN main.op m USING (signature, dims, dim_defaults, attributes);

INSERT INTO main.problem (op, dims_key, dims_json, label, flops, bytes)
SELECT op_of.ours, p.dims_key, p.dims_json, p.label, p.flops, p.bytes FROM other.problem p JOIN op_of ON op_of.theirs = p.op
WHERE true
ON CONFLICT (op, dims_key) DO UPDATE SET label = max(label, excluded.label), flops = max(flops, excluded.flops),
  bytes = max(bytes, excluded.bytes);
CREATE TEMP TABLE problem_of AS
SELECT o.id AS theirs, m.id AS ours FROM other.problem o JOIN op_of ON op_of.theirs = o.op
JOIN main.problem m ON m.op = op_of.ours AND m.dims_key = o.dims_key;
CREATE UNIQUE INDEX temp.device_theirs ON device_of (theirs);
CREATE UNIQUE INDEX temp.compiler_theirs ON compiler_of (theirs);
CREATE UNIQUE INDEX temp.problem_theirs ON problem_of (theirs);

-- Trials. `trial_of` tells which of ours is the same as theirs; `fresh` those that are new here. Only their problems are looked
-- at, here and below: what a small file costs does not depend on how much has been merged before it.
CREATE TEMP TABLE known AS SELECT id, problem, device, config, recorded_at FROM main.trial
WHERE problem IN (SELECT ours FROM problem_of);
CREATE INDEX temp.known_by ON known (problem, device, config, recorded_at);
CREATE TEMP TABLE trial_of (theirs INTEGER PRIMARY KEY, ours INTEGER NOT NULL);
INSERT INTO trial_of
SELECT t.id, min(m.id)
FROM other.trial t
CROSS JOIN problem_of p ON p.theirs = t.problem CROSS JOIN device_of d ON d.theirs = t.device
CROSS JOIN compiler_of c ON c.theirs = t.compiler
CROSS JOIN known k ON k.problem = p.ours AND k.device = d.ours AND k.config = t.config AND k.recorded_at = t.recorded_at
CROSS JOIN main.trial m ON m.id = k.id AND m.compiler = c.ours
LEFT JOIN other.sample os ON os.trial = t.id LEFT JOIN main.sample ms ON ms.trial = m.id
WHERE m.status = t.status AND m.reason = t.reason AND m.source_hash = t.source_hash AND m.op_hash = t.op_hash
  AND m.timing = t.timing AND m.time_us IS t.time_us AND m.mad_us IS t.mad_us AND m.compile_seconds IS t.compile_seconds
  AND m.verify_seconds IS t.verify_seconds AND m.max_error_ratio IS t.max_error_ratio AND m.relative_l2 IS t.relative_l2
  AND m.registers IS t.registers AND m.spills IS t.spills AND m.lds_bytes IS t.lds_bytes
  AND m.occupancy_waves IS t.occupancy_waves AND m.clock_mhz IS t.clock_mhz AND m.is_default = t.is_default
  AND m.temperature_c IS t.temperature_c AND m.throttle = t.throttle AND m.energy_uj IS t.energy_uj
  AND m.energy_mad_uj IS t.energy_mad_uj AND m.deterministic IS t.deterministic
  AND os.us IS ms.us AND os.states IS ms.states
GROUP BY t.id;
-- The same trial twice in their file is one. Few can be, so few are compared in full.
CREATE TEMP TABLE twins AS
SELECT problem, device, config, recorded_at FROM other.trial GROUP BY problem, device, config, recorded_at HAVING count(*) > 1;
CREATE TEMP TABLE first_of AS
SELECT t.id AS theirs, min(t.id) OVER (PARTITION BY t.problem, t.device, t.compiler, t.config, t.recorded_at, t.status, t.reason, t.source_hash, t.op_hash, t.timing, t.time_us, t.mad_us, t.compile_seconds,
  t.verify_seconds, t.max_error_ratio, t.relative_l2, t.registers, t.spills, t.lds_bytes, t.occupancy_waves, t.clock_mhz,
  t.is_default, t.temperature_c, t.throttle, t.energy_uj, t.energy_mad_uj, t.deterministic, s.us, s.states) AS first
FROM other.trial t JOIN twins USING (problem, device, config, recorded_at) LEFT JOIN other.sample s ON s.trial = t.id
UNION ALL
SELECT id, id FROM other.trial WHERE (problem, device, config, recorded_at) NOT IN (SELECT * FROM twins);
CREATE TEMP TABLE fresh (theirs INTEGER PRIMARY KEY, ours INTEGER NOT NULL);
INSERT INTO fresh
SELECT theirs, (SELECT coalesce(max(id), 0) FROM main.trial) + row_number() OVER (ORDER BY theirs)
FROM first_of WHERE theirs = first AND theirs NOT IN (SELECT theirs FROM trial_of);
INSERT INTO main.trial (id, problem, device, compiler, config, status, reason, source_hash, op_hash, timing, time_us, mad_us,
  compile_seconds, verify_seconds, max_error_ratio, relative_l2, registers, spills, lds_bytes, occupancy_waves, clock_mhz,
  is_default, recorded_at, temperature_c, throttle, energy_uj, energy_mad_uj, deterministic)
SELECT f.ours, p.ours, d.ours, c.ours, config, status, reason, source_hash, op_hash, timing, time_us, mad_us,
  compile_seconds, verify_seconds, max_error_ratio, relative_l2, registers, spills, lds_bytes, occupancy_waves, clock_mhz,
  is_default, recorded_at, temperature_c, throttle, energy_uj, energy_mad_uj, deterministic
FROM fresh f CROSS JOIN other.trial t ON t.id = f.theirs CROSS JOIN problem_of p ON p.theirs = t.problem
CROSS JOIN device_of d ON d.theirs = t.device CROSS JOIN compiler_of c ON c.theirs = t.compiler;
INSERT INTO main.sample (trial, us, states)
SELECT f.ours, s.us, s.states FROM fresh f CROSS JOIN other.sample s ON s.trial = f.theirs;
INSERT INTO trial_of SELECT x.theirs, f.ours FROM first_of x JOIN fresh f ON f.theirs = x.first;

-- Winners. Where both files have one for the same problem, device and goal, the one that needs less stays; of two covers of
-- a dynamic dim the one with the smaller greatest loss, as a whole. Ties are broken by what the kernels are.
INSERT INTO main.plan (hash, json) SELECT hash, json FROM other.plan WHERE true ON CONFLICT DO NOTHING;
INSERT INTO main.object (hash, arch, kind, size, zstd)
SELECT hash, arch, kind, size, zstd FROM other.object WHERE true ON CONFLICT DO NOTHING;
CREATE TEMP TABLE candidate AS
SELECT 0 AS theirs, w.problem, w.device, w.timing, w.objective, w.deterministic, w.is_default, w.trial, w.plan, w.object, w.dim,
  w.first, w.last, w.loss
FROM main.winner w WHERE w.problem IN (SELECT ours FROM problem_of)
UNION ALL
SELECT 1, p.ours, d.ours, w.timing, w.objective, w.deterministic, w.is_default, t.ours, mp.id, mo.id, w.dim, w.first, w.last,
  w.loss
FROM other.winner w JOIN problem_of p ON p.theirs = w.problem JOIN device_of d ON d.theirs = w.device
JOIN trial_of t ON t.theirs = w.trial JOIN other.plan op ON op.id = w.plan JOIN main.plan mp ON mp.hash = op.hash
JOIN other.object oo ON oo.id = w.object JOIN main.object mo ON mo.hash = oo.hash;
CREATE TEMP TABLE side AS
SELECT theirs, problem, device, timing, objective, deterministic, is_default, dim,
  max(CASE WHEN dim <> '' THEN loss WHEN objective = 'energy' THEN coalesce(energy_uj, 9e999) ELSE coalesce(time_us, 9e999) END)
    AS cost,
  group_concat(what, ' ') AS what
FROM (SELECT c.*, t.time_us, t.energy_uj,
        format('%d %d %!.17g %s %s %s %d', c.first, c.last, c.loss, t.config, o.hash, l.hash, t.recorded_at) AS what
      FROM candidate c JOIN main.trial t ON t.id = c.trial JOIN main.object o ON o.id = c.object JOIN main.plan l ON l.id = c.plan
      ORDER BY c.first)
GROUP BY theirs, problem, device, timing, objective, deterministic, is_default, dim;
CREATE TEMP TABLE taken AS
SELECT y.problem, y.device, y.timing, y.objective, y.deterministic, y.is_default, y.dim
FROM side y LEFT JOIN side m ON m.theirs = 0 AND m.problem = y.problem AND m.device = y.device AND m.timing = y.timing
  AND m.objective = y.objective AND m.deterministic = y.deterministic AND m.is_default = y.is_default AND m.dim = y.dim
WHERE y.theirs = 1 AND (m.cost IS NULL OR (y.cost, y.what) < (m.cost, m.what));
CREATE TEMP TABLE replaced AS
SELECT plan, object FROM main.winner WHERE (problem, device, timing, objective, deterministic, is_default, dim) IN (SELECT * FROM taken);
DELETE FROM main.winner WHERE (problem, device, timing, objective, deterministic, is_default, dim) IN (SELECT * FROM taken);
INSERT INTO main.winner (problem, device, timing, objective, deterministic, is_default, trial, plan, object, dim, first, last, loss)
SELECT c.problem, c.device, c.timing, c.objective, c.deterministic, c.is_default, c.trial, c.plan, c.object, c.dim, c.first, c.last,
  c.loss
FROM candidate c
WHERE c.theirs = 1
  AND (c.problem, c.device, c.timing, c.objective, c.deterministic, c.is_default, c.dim) IN (SELECT * FROM taken)
ORDER BY c.problem, c.device, c.first;
DELETE FROM main.plan WHERE (id IN (SELECT plan FROM replaced) OR hash IN (SELECT hash FROM other.plan))
  AND NOT EXISTS (SELECT 1 FROM main.winner w WHERE w.plan = plan.id);
DELETE FROM main.object WHERE (id IN (SELECT object FROM replaced) OR hash IN (SELECT hash FROM other.object))
  AND NOT EXISTS (SELECT 1 FROM main.winner w WHERE w.object = object.id);
