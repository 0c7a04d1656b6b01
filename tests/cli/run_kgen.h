// Runs the kgen binary as a user does: arguments in, exit code, stdout and stderr out.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace kgen {

struct Ran {
  int code = -1;  // exit status; 128 + signal when one ended it
  std::string out, err;
};

struct RunOptions {
  std::string folder{};                        // working directory; "" = the test's
  std::vector<std::string> environment{};      // "NAME=value", replacing those of the test
  bool unprivileged = false;                   // as nobody, when the test itself runs as root
  std::function<void(pid_t)> while_running{};  // called once after the start
};
Ran run_kgen(const std::vector<std::string>& args, const RunOptions& options = {});

// A folder of its own for one test, removed at the end.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  // Writes a file and gives its path.
  std::string write(const std::string& name, const std::string& text) const;

 private:
  std::string path_;
};

}  // namespace kgen
