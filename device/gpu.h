// NVIDIA and AMD GPUs through their drivers: one launch path, two tables of driver symbols (gpu_api.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "device/device.h"
#include "device/gpu_api.h"

namespace kgen::gpu {

// A row of the architecture table for a device, and a line about it where the row is not the device's own.
struct ArchMatch {
  Arch arch = nullptr;
  std::string note;
};
// sm_XY runs code of sm_XZ for Z <= Y, so a device that has no row takes the greatest such. Else kNoDevice.
Result<ArchMatch> match_nvidia_arch(int major, int minor);
// "gfx90a:sramecc+:xnack-" → gfx90a. AMD code runs on its own architecture alone, so one without a row is kNoDevice.
Result<ArchMatch> match_amd_arch(std::string_view name);

// What device `ordinal` is; `note` may receive a line about it.
Result<DeviceInfo> describe(const GpuApi& api, int ordinal, std::string* note);

// Uses the context that is current in this thread when it belongs to the device, else the device's primary context.
Result<std::unique_ptr<Device>> open_gpu(const GpuApi& api, int ordinal);

}  // namespace kgen::gpu
