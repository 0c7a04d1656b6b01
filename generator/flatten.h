// Template headers, from a user's folder or from the binary, with their local includes put in place.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/result.h"

namespace kgen {

// Collects headers into one text, each once, in the order they are first needed. `folder` is the user's own op folder,
// looked at first ("" = none); paths are relative to it or to templates/ ("gemm.h", "mma/mfma.h", "templates/gemm.h").
class Flattener {
 public:
  explicit Flattener(std::string folder) : folder_(std::move(folder)) {}

  // kBadInput when the header or one that it includes does not exist.
  Result<void> add(const std::string& path);
  // Headers whose path matches a pattern with '*', sorted.
  std::vector<std::string> matching(const std::string& pattern) const;

  const std::string& text() const { return text_; }

 private:
  struct File {
    bool own = false;  // in the user's folder
    std::string path;  // from that folder, or from the repository root
    std::string content;
  };
  Result<File> find(const std::string& path, const File* includer) const;
  Result<void> append(const File& file, int depth);

  std::string folder_;
  std::string text_;
  std::set<std::pair<bool, std::string>> seen_;
};

}  // namespace kgen
