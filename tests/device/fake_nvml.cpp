// As much of libnvidia-ml as device/telemetry.cpp asks for. The clock reasons come from the environment, so that a test
// can set them.
#include <cstdlib>
#include <cstring>

namespace {
int card = 0;
}

#pragma GCC visibility push(default)
extern "C" {

int nvmlInit_v2() { return 0; }

int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  if (std::strcmp(uuid, "GPU-00000000-1111-2222-3333-444444444444") != 0) return 6;  // NVML_ERROR_NOT_FOUND
  *device = &card;
  return 0;
}

int nvmlDeviceGetClockInfo(void* device, int type, unsigned* mhz) {
  if (device != &card || type != 1) return 2;  // NVML_ERROR_INVALID_ARGUMENT
  *mhz = 1755;
  return 0;
}

int nvmlDeviceGetTemperature(void* device, int sensor, unsigned* celsius) {
  if (device != &card || sensor != 0) return 2;
  *celsius = 64;
  return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* millijoules) {
  *millijoules = 5000000000ULL;
  return 0;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* reasons) {
  const char* set = std::getenv("FAKE_NVML_REASONS");
  *reasons = set == nullptr ? 0 : std::strtoull(set, nullptr, 0);
  return 0;
}
}
