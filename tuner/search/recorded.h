// Search spaces that somebody measured: Kernel Tuner cache files, T4 files (both as JSON, gzip or not), kgen databases.
#pragma once

#include <string>
#include <vector>

#include "db/db.h"
#include "tuner/search/prior.h"

namespace kgen {

// Everything that was tried of one problem on one device. Foreign files give what they have: the kernel's name is the
// operator, the problem size its dims, and a trial has status, time, samples and compile time.
struct Recording {
  std::string file;
  OpRecord op;
  ProblemRecord problem;
  DeviceRecord device;
  std::vector<TrialRecord> trials;
  std::string name() const;  // the file's, and the problem's and device's where one file has several
  bool alone = true;         // in its file
};

// kBadInput with the file's name for anything else. Samples of the trials only where asked for.
Result<std::vector<Recording>> read_recordings(const std::string& path, bool with_samples = false);

// A recording as T4 text, times in microseconds; what T4 has no place for stands under "kgen", so that read_recordings
// gives the same trials again.
std::string to_t4(const std::vector<Recording>&);
Result<std::vector<Recording>> from_t4(const std::string& text, const std::string& file);

// "matrix tile_m=128 …" → {{"variant", "matrix"}, {"tile_m", "128"}, …}
Config parse_config(const std::string& key);

// The space that a recording spans: its configurations, each once (the last trial counts), and their times.
struct RecordedSpace {
  std::vector<Config> configs;
  std::vector<double> times_us;  // kFailed for failures
};
RecordedSpace recorded_space(const Recording&);
Elsewhere elsewhere(const RecordedSpace&);

}  // namespace kgen
