#include "device/vendor.h"

#include <fmt/format.h>
#include <glob.h>

#include <cstdlib>

#include "base/text.h"
#include "device/vendor_library.h"

namespace kgen {
namespace vendor {
namespace {

// Paths of the library, and its bare name for the loader.
std::vector<std::string> places(const std::string& name) {
  std::vector<std::string> found;
  const auto add = [&](const std::string& pattern) {
    glob_t matches{};
    if (::glob(pattern.c_str(), 0, nullptr, &matches) == 0)
      for (std::size_t i = 0; i < matches.gl_pathc; ++i) found.emplace_back(matches.gl_pathv[i]);
    ::globfree(&matches);
  };
  const char* chosen = std::getenv("KGEN_VENDOR_PATH");
  if (chosen != nullptr)
    for (const std::string& folder : split(chosen, ':')) {
      if (folder.empty()) continue;
      add(folder + "/" + name);
      add(folder + "/nvidia/*/lib/" + name);
    }
  found.push_back(name);
  if (const char* home = std::getenv("CUDA_HOME"); home != nullptr && *home != '\0')
    add(std::string(home) + "/lib64/" + name);
  add("/usr/local/cuda/lib64/" + name);
  add("/opt/rocm/lib/" + name);
  return found;
}

}  // namespace

Result<std::unique_ptr<VendorLibrary>> find_library(const std::vector<std::string>& names, const Open& open) {
  std::string refused;
  for (const std::string& name : names)
    for (const std::string& place : places(name)) {
      void* const handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);  // for good: drivers use what it started
      if (handle == nullptr) {
        // A file that is there and cannot be loaded has a reason worth telling.
        const char* why = dlerror();
        if (place != name && refused.empty() && why != nullptr) refused = why;
        continue;
      }
      auto library = open(Library(handle));
      if (library) return library;
      refused = fmt::format("{}: {}", place, library.error().message);
    }
  return fail(ErrorKind::kNoDevice, refused.empty() ? fmt::format("no vendor library ({} not found)", join(names, ", "))
                                                    : fmt::format("no vendor library that works ({})", refused));
}

}  // namespace vendor

Result<std::unique_ptr<VendorLibrary>> open_vendor_library(const DeviceInfo& device, VendorOp op) {
  const bool product = op == VendorOp::kProduct;
  switch (device.arch->vendor) {
    case Vendor::kNvidia:
      return product ? vendor::open_cublaslt() : vendor::open_cudnn();
    case Vendor::kAmd:
      return product ? vendor::open_hipblaslt() : vendor::open_miopen();
    default:
      return fail(ErrorKind::kNoDevice, "no vendor library (there is none for the host)");
  }
}

}  // namespace kgen
