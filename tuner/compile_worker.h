// NVRTC in child processes: it may crash, hang or leak without harm to the tuner, and several compile at once, whatever
// locks the library holds.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "tuner/process.h"

namespace kgen {

class NvrtcPool {
 public:
  // `self`: the kgen executable; "" = NVRTC is not used.
  explicit NvrtcPool(std::string self) : self_(std::move(self)) {}

  struct Info {
    std::string version;  // "13.0"
    std::set<int> archs;  // 75, 80, …
  };
  // kNoCompiler when the library cannot be loaded. Found once.
  Result<Info> info();
  // Starts children until `count` are there and has each compile a few words, which loads what a first compile loads;
  // waits for none of it. What goes wrong shows in compile().
  void get_ready(int count, const std::vector<std::string>& options);

  struct Outcome {
    enum class End { kCompiled, kFailed, kTimeout, kCrashed };
    End end = End::kFailed;
    std::string log;  // kCrashed: how the child ended
    std::string cubin;
    double seconds = 0;
  };
  // A kIo error means that no child could be started.
  Result<Outcome> compile(const std::string& source, const std::vector<std::string>& options, double timeout_seconds);

 private:
  struct Worker {
    ChildProcess process;
    int compiles = 0;
    bool greeted = false;  // its greeting was read
    bool warming = false;  // the answer of get_ready()'s compile was not
  };
  Result<Worker> start() const;
  Result<void> greet(Worker&);

  const std::string self_;
  std::mutex mutex_;
  std::vector<Worker> idle_;
  std::unique_ptr<Result<Info>> info_;
};

}  // namespace kgen
