// A tuned file for the host device, made by hand: the op of host_kernel.cpp.
#pragma once

#include <string>
#include <vector>

#include "base/plan.h"
#include "base/result.h"
#include "db/db.h"

namespace kgen::testing {

// The launch plan of host_kernel.cpp. `needs` are its conditions; its sums are computed `repeats` times.
Plan host_plan(bool with_bias, const std::vector<std::string>& needs, int repeats = 1);

struct HostWinner {
  std::string dims_key = "cols=16 rows=8";
  std::string config = "plain";
  std::vector<std::string> needs = {};
  bool is_default = false;
  bool with_bias = false;
  double time_us = 10;
  Goal goal = {};
  bool same_bits = false;
  int repeats = 1;
  std::string code_suffix = {};  // appended to the code object, so that winners have objects of their own
  std::string first_role = {};   // what the plan calls the role of its first parameter, where not as it is
};

OpRecord host_op(bool with_bias);

// Writes a file with these winners, tuned on this machine's host device; `kernels` is the path of the code object. With
// another architecture, as if on a stand-in of it (tests/device/fake_driver.h).
Result<void> make_host_db(const std::string& path, const std::string& kernels, const std::vector<HostWinner>& winners,
                          const std::string& arch = "host");

}  // namespace kgen::testing
