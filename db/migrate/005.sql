-- Version 5: a winner may serve a range of sizes of one dim, with the loss that is expected there. Those of before serve
-- their problem alone.
ALTER TABLE winner RENAME TO winner_of_version_4;
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
INSERT INTO winner (id, problem, device, timing, objective, deterministic, is_default, trial, plan, object, dim, first,
                    last, loss)
  SELECT id, problem, device, timing, objective, deterministic, is_default, trial, plan, object, '', 0, 0, 0
  FROM winner_of_version_4;
DROP TABLE winner_of_version_4;
CREATE INDEX winner_by_trial ON winner (trial);
CREATE INDEX winner_by_plan ON winner (plan);
CREATE INDEX winner_by_object ON winner (object);
