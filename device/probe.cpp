#include <fmt/format.h>

#include "device/device.h"
#include "device/host.h"

namespace kgen {

Result<std::unique_ptr<Device>> open_device(const std::string& id) {
  if (id == "host" || id == "auto") return host::open_host();
  return fail(ErrorKind::kNoDevice, fmt::format("{}: no such device", id));
}

DeviceProbe probe_devices() {
  DeviceProbe probe;
  if (auto host = host::host_info(); host) probe.devices.push_back(std::move(*host));
  return probe;
}

}  // namespace kgen
