// What a GPU says of itself beside its launches: clock, heat, what holds the clock down, energy used. NVIDIA: NVML,
// dlopened. AMD: the kernel driver's files under /sys, which need no library. The host device has none.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "device/device.h"

namespace kgen {

struct DeviceState {
  std::optional<int> clock_mhz;           // of the compute units, now
  std::optional<int> temperature_c;       // of the die
  std::optional<std::int64_t> energy_uj;  // used since some fixed moment; grows in steps of 10 to 100 ms
  // What holds the clock down now, "thermal, power cap"; "" nothing, or not known.
  std::string throttle;
  // The card slows down for a reason that passes (heat, a power brake); a power cap is how the card runs a heavy load.
  bool passing = false;
};

class Telemetry {
 public:
  virtual ~Telemetry() = default;
  // Never fails: what cannot be read is absent. Costs 0.05 to 0.3 ms, so not once a sample.
  virtual DeviceState read() = 0;
};

// Null where the device or its driver offers nothing. KGEN_NVML_LIBRARY names another library than libnvidia-ml.so.1,
// KGEN_SYSFS another root than /sys.
std::unique_ptr<Telemetry> open_telemetry(const DeviceInfo&);

}  // namespace kgen
