// The host device: kernels compiled by the system's C++ compiler, work-items as fibers, blocks over a pool of threads.
#pragma once

#include <memory>

#include "device/device.h"

namespace kgen::host {

// As many threads as the process may use CPUs, or KGEN_HOST_THREADS of them. KGEN_HOST_ORDER=reverse starts the
// work-items of a block from the last one.
Result<std::unique_ptr<Device>> open_host();

// What open_host()->info() would say, without reserving anything.
Result<DeviceInfo> host_info();

}  // namespace kgen::host
