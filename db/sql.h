// The texts of db/schema.sql and db/migrate/NNN.sql, embedded by CMake.
#pragma once

namespace kgen::sql {

extern const char* const kSchema;        // a new file of version kVersion
extern const char* const kMigrations[];  // [i] turns version i into i+1; [0] makes version 1 in an empty file
extern const char* const kMerge;         // merge.sql
extern const char* const kPrune;         // prune.sql
extern const int kVersion;               // PRAGMA user_version of this build

}  // namespace kgen::sql
