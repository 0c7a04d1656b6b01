-- Version 6: signatures over what the runtime takes from the file.
CREATE TABLE signature (
  key TEXT NOT NULL UNIQUE,
  manifest TEXT NOT NULL,
  signature BLOB NOT NULL CHECK (length(signature) = 64)
) STRICT;
