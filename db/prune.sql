-- Removes what a rule names: run by Db::prune() in one transaction. Before it, temp.rule has one row (keep_top or NULL, failures,
-- stale, winners), temp.rule_op the operators that it is about, temp.rule_arch the architectures that go as a whole.

CREATE TEMP TABLE subject AS
SELECT t.id, t.problem, t.device, t.timing, t.config, t.time_us, t.recorded_at, t.is_default, t.source_hash, t.op_hash,
  t.status IN ('timed', 'stopped_early') AS verified, c.version AS compiler, o.op, d.arch, d.name, d.uuid, d.driver
FROM main.trial t JOIN main.problem p ON p.id = t.problem JOIN main.op o ON o.id = p.op JOIN main.device d ON d.id = t.device
JOIN main.compiler c ON c.id = t.compiler
WHERE o.op IN (SELECT op FROM rule_op);
CREATE TEMP TABLE doomed (trial INTEGER PRIMARY KEY, why TEXT NOT NULL);

INSERT INTO doomed SELECT id, 'arch' FROM subject WHERE arch IN (SELECT arch FROM rule_arch);

INSERT OR IGNORE INTO doomed SELECT s.id, 'failure' FROM subject s JOIN rule WHERE failures AND NOT verified;

-- Stale: what the newest trial says is how things are now. The driver of a device, the compiler of an architecture, the text of an
-- operator, and the source of a candidate; what is not known ('': imported trials) makes nothing stale.
INSERT OR IGNORE INTO doomed
SELECT s.id, 'stale' FROM rule, subject s JOIN (
  SELECT id,
    first_value(driver) OVER (PARTITION BY arch, name, uuid ORDER BY driver = '', recorded_at DESC, id DESC) AS driver,
    first_value(compiler) OVER (PARTITION BY arch ORDER BY compiler = '', recorded_at DESC, id DESC) AS compiler,
    first_value(op_hash) OVER (PARTITION BY op ORDER BY op_hash = '', recorded_at DESC, id DESC) AS op_hash,
    first_value(source_hash) OVER (PARTITION BY problem, arch, name, uuid, config
                                   ORDER BY source_hash = '', recorded_at DESC, id DESC) AS source_hash
  FROM subject) AS now USING (id)
WHERE rule.stale
  AND ((s.driver <> '' AND s.driver <> now.driver) OR (s.compiler <> '' AND s.compiler <> now.compiler)
       OR (s.op_hash <> '' AND s.op_hash <> now.op_hash) OR (s.source_hash <> '' AND s.source_hash <> now.source_hash));

-- Of what is left, the trials of the fastest candidates of each problem, device and timing stay, and the default's, which gains
-- are told against.
INSERT OR IGNORE INTO doomed
SELECT id, 'slow' FROM (
  SELECT id, is_default, dense_rank() OVER (PARTITION BY problem, device, timing ORDER BY best, config) AS rank
  FROM (SELECT *, min(time_us) OVER (PARTITION BY problem, device, timing, config) AS best
        FROM subject WHERE verified AND id NOT IN (SELECT trial FROM doomed)))
JOIN rule WHERE rank > keep_top AND NOT is_default;

-- A winner stays with its trial, but where its architecture goes or the rule says so.
DELETE FROM doomed WHERE why <> 'arch' AND NOT (SELECT winners FROM rule) AND trial IN (SELECT trial FROM main.winner);
DELETE FROM main.winner WHERE trial IN (SELECT trial FROM doomed);
DELETE FROM main.sample WHERE trial IN (SELECT trial FROM doomed);
DELETE FROM main.trial WHERE id IN (SELECT trial FROM doomed);
DELETE FROM main.plan WHERE id NOT IN (SELECT plan FROM main.winner);
DELETE FROM main.object WHERE id NOT IN (SELECT object FROM main.winner);
DELETE FROM main.problem WHERE id NOT IN (SELECT problem FROM main.trial) AND op IN (SELECT id FROM main.op WHERE op IN (SELECT op FROM rule_op));
DELETE FROM main.op WHERE id NOT IN (SELECT op FROM main.problem) AND op IN (SELECT op FROM rule_op);
DELETE FROM main.device WHERE id NOT IN (SELECT device FROM main.trial);
DELETE FROM main.compiler WHERE id NOT IN (SELECT compiler FROM main.trial);
