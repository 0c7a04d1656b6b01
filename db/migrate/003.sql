-- Version 3: the state of the card while a trial was timed: temperature (NULL = not known) and what held its clock down
-- ('' = nothing, or not known).
ALTER TABLE trial ADD COLUMN temperature_c INTEGER;
ALTER TABLE trial ADD COLUMN throttle TEXT NOT NULL DEFAULT '';
