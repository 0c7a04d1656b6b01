-- Version 4: winners are per goal: how they were timed, what counts (time or energy), and whether their results had to be
-- the same bits on every launch. Trials have their energy a call, whether launches gave the same bits (NULL = not
-- checked), and the state of the card at each sample.
ALTER TABLE trial ADD COLUMN energy_uj REAL CHECK (energy_uj >= 0 AND energy_uj < 1e15);
ALTER TABLE trial ADD COLUMN energy_mad_uj REAL CHECK (energy_mad_uj >= 0 AND energy_mad_uj < 1e15);
ALTER TABLE trial ADD COLUMN deterministic INTEGER CHECK (deterministic IN (0, 1));
ALTER TABLE sample ADD COLUMN states BLOB NOT NULL DEFAULT x'' CHECK (length(states) IN (0, length(us)));
ALTER TABLE winner RENAME TO winner_of_version_3;
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
  UNIQUE (problem, device, timing, objective, deterministic, is_default)
) STRICT;
INSERT INTO winner (id, problem, device, timing, objective, deterministic, is_default, trial, plan, object)
  SELECT w.id, w.problem, w.device, t.timing, 'time', 0, w.is_default, w.trial, w.plan, w.object
  FROM winner_of_version_3 w JOIN trial t ON t.id = w.trial;
DROP TABLE winner_of_version_3;
CREATE INDEX winner_by_trial ON winner (trial);
CREATE INDEX winner_by_plan ON winner (plan);
CREATE INDEX winner_by_object ON winner (object);
