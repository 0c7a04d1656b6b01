// The guard: a kernel against the operator's default one, timed once on the caller's device.
#pragma once

#include <optional>

#include "device/launch.h"
#include "runtime/handles.h"

namespace kgen {

// A kernel that may be launched: its code, and the shape it is bound to.
struct Contender {
  std::shared_ptr<Code> code;
  BoundLaunch launch;
};

struct GuardTimes {
  double chosen_us = 0, default_us = 0;  // medians of launches in turns
};

// Loads both and launches them on buffers of their own (zeros), on the default stream; waits for the device. An error
// where memory is short or a launch fails.
Result<GuardTimes> guard(Device&, Contender& chosen, Contender& fallback);

// Loads a code object's kernels unless that was done.
Result<void> load(Device&, Code&);

}  // namespace kgen
