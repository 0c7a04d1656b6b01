#include <fmt/format.h>

#include <charconv>

#include "base/text.h"
#include "device/device.h"
#include "device/gpu.h"
#include "device/host.h"

namespace kgen {
namespace {

constexpr Vendor kGpuVendors[] = {Vendor::kNvidia, Vendor::kAmd};

Result<std::unique_ptr<Device>> open_first() {
  for (const Vendor vendor : kGpuVendors) {
    const auto api = gpu::load_gpu_api(vendor);
    if (!api) continue;
    int count = 0;
    if (api->device_count(&count) != 0) continue;
    for (int ordinal = 0; ordinal < count; ++ordinal)
      if (auto device = gpu::open_gpu(*api, ordinal)) return device;
  }
  return host::open_host();
}

}  // namespace

Result<std::unique_ptr<Device>> open_device(const std::string& id) {
  if (id == "auto") return open_first();
  if (id == "host") return host::open_host();
  const auto colon = id.find(':');
  const std::string vendor = id.substr(0, colon);
  if (vendor != "nvidia" && vendor != "amd") {
    const std::vector<std::string> known = {"auto", "host", "nvidia", "amd"};
    return fail(ErrorKind::kBadInput, fmt::format("no device is called '{}'; use auto, host, nvidia:N or amd:N{}", id,
                                                  did_you_mean(vendor, known)));
  }
  int ordinal = 0;  // "nvidia" alone is the first one
  if (colon != std::string::npos) {
    const char* begin = id.data() + colon + 1;
    const auto [end, error] = std::from_chars(begin, id.data() + id.size(), ordinal);
    if (error != std::errc{} || end != id.data() + id.size() || ordinal < 0)
      return fail(ErrorKind::kBadInput,
                  fmt::format("'{}': the number of a device follows the colon, as in {}:0", id, vendor));
  }
  KGEN_TRY(const gpu::GpuApi api, gpu::load_gpu_api(vendor == "nvidia" ? Vendor::kNvidia : Vendor::kAmd));
  return gpu::open_gpu(api, ordinal);
}

DeviceProbe probe_devices() {
  DeviceProbe probe;
  for (const Vendor vendor : kGpuVendors) {
    const auto api = gpu::load_gpu_api(vendor);
    if (!api) {
      probe.notes.push_back(api.error().message);
      continue;
    }
    int count = 0;
    if (api->device_count(&count) != 0) count = 0;
    for (int ordinal = 0; ordinal < count; ++ordinal) {
      std::string note;
      auto info = gpu::describe(*api, ordinal, &note);
      if (info) {
        probe.devices.push_back(std::move(*info));
        if (!note.empty()) probe.notes.push_back(note);
      } else {
        probe.notes.push_back(info.error().message);
      }
    }
  }
  if (auto host = host::host_info()) {
    probe.devices.push_back(std::move(*host));
  } else {
    probe.notes.push_back(host.error().message);
  }
  return probe;
}

}  // namespace kgen
