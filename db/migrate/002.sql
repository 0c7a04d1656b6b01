-- Version 2: when a trial was recorded, in Unix milliseconds; 0 = unknown, for trials of version 1. Tells trials of one
-- config apart when files of several machines are merged.
ALTER TABLE trial ADD COLUMN recorded_at INTEGER NOT NULL DEFAULT 0;
