#include "device/gpu_api.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "base/text.h"

namespace kgen::gpu {
namespace {

// Looks functions up under the name that the loaded driver gives them and keeps the first that is missing.
struct Binder {
  void* library;
  bool cuda;
  std::string missing{};

  template <class F>
  void both(F*& function, const char* cuda_name, const char* hip_name) {
    one(function, cuda ? cuda_name : hip_name);
  }
  template <class F>
  void perhaps(F*& function, const char* name) {
    function = reinterpret_cast<F*>(dlsym(library, name));
  }
  template <class F>
  void one(F*& function, const char* name) {
    perhaps(function, name);
    if (function == nullptr && missing.empty()) missing = name;
  }
};

std::string bind(GpuApi& api, void* library) {
  const bool cuda = api.vendor == Vendor::kNvidia;
  Binder b{library, cuda};
  b.both(api.init, "cuInit", "hipInit");
  b.both(api.driver_version, "cuDriverGetVersion", "hipRuntimeGetVersion");
  b.both(api.device_count, "cuDeviceGetCount", "hipGetDeviceCount");
  b.both(api.device_get, "cuDeviceGet", "hipDeviceGet");
  b.both(api.device_name, "cuDeviceGetName", "hipDeviceGetName");
  b.both(api.device_attribute, "cuDeviceGetAttribute", "hipDeviceGetAttribute");
  b.both(api.device_memory, "cuDeviceTotalMem_v2", "hipDeviceTotalMem");
  b.both(api.device_pci_bus, "cuDeviceGetPCIBusId", "hipDeviceGetPCIBusId");
  b.both(api.allocate, "cuMemAlloc_v2", "hipMalloc");
  b.both(api.release, "cuMemFree_v2", "hipFree");
  b.both(api.fill, "cuMemsetD8Async", "hipMemsetD8Async");
  b.both(api.module_load, "cuModuleLoadDataEx", "hipModuleLoadDataEx");
  b.both(api.module_unload, "cuModuleUnload", "hipModuleUnload");
  b.both(api.module_function, "cuModuleGetFunction", "hipModuleGetFunction");
  b.both(api.launch, "cuLaunchKernel", "hipModuleLaunchKernel");
  b.both(api.stream_create, "cuStreamCreate", "hipStreamCreateWithFlags");
  b.both(api.stream_destroy, "cuStreamDestroy_v2", "hipStreamDestroy");
  b.both(api.stream_synchronize, "cuStreamSynchronize", "hipStreamSynchronize");
  b.both(api.event_create, "cuEventCreate", "hipEventCreateWithFlags");
  b.both(api.event_destroy, "cuEventDestroy_v2", "hipEventDestroy");
  b.both(api.event_record, "cuEventRecord", "hipEventRecord");
  b.both(api.event_synchronize, "cuEventSynchronize", "hipEventSynchronize");
  b.both(api.event_elapsed_ms, "cuEventElapsedTime", "hipEventElapsedTime");
  b.both(api.capture_begin, "cuStreamBeginCapture_v2", "hipStreamBeginCapture");
  b.both(api.capture_end, "cuStreamEndCapture", "hipStreamEndCapture");
  b.both(api.graph_instantiate, "cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags");
  b.both(api.graph_launch, "cuGraphLaunch", "hipGraphLaunch");
  b.both(api.graph_destroy, "cuGraphDestroy", "hipGraphDestroy");
  b.both(api.graph_exec_destroy, "cuGraphExecDestroy", "hipGraphExecDestroy");
  if (cuda) {
    b.one(api.cuda_context_current, "cuCtxGetCurrent");
    b.one(api.cuda_context_set, "cuCtxSetCurrent");
    b.one(api.cuda_context_device, "cuCtxGetDevice");
    b.one(api.cuda_primary_retain, "cuDevicePrimaryCtxRetain");
    b.one(api.cuda_primary_release, "cuDevicePrimaryCtxRelease_v2");
    b.one(api.cuda_copy, "cuMemcpy");
    b.one(api.cuda_function_attribute, "cuFuncSetAttribute");
    b.one(api.cuda_uuid, "cuDeviceGetUuid");
    b.perhaps(api.cuda_tensor_map, "cuTensorMapEncodeTiled");
    b.perhaps(api.cuda_tensor_map_pixels, "cuTensorMapEncodeIm2col");
    b.one(api.cuda_error_name, "cuGetErrorName");
    b.one(api.cuda_error_text, "cuGetErrorString");
  } else {
    b.one(api.hip_device_current, "hipGetDevice");
    b.one(api.hip_device_set, "hipSetDevice");
    b.one(api.hip_copy, "hipMemcpy");
    b.one(api.hip_error_name, "hipGetErrorName");
    b.one(api.hip_error_text, "hipGetErrorString");
    // Since ROCm 6 the plain name fills the structure of ROCm 5.
    api.hip_properties = reinterpret_cast<decltype(api.hip_properties)>(dlsym(library, "hipGetDevicePropertiesR0600"));
    if (api.hip_properties == nullptr) b.one(api.hip_properties, "hipGetDeviceProperties");
  }
  return b.missing;
}

// Why there can be no AMD GPU, found without the driver's library: some versions of it are slow to load, and some
// abort, where the kernel has no driver.
std::string kfd_problem() {
  if (access("/dev/kfd", F_OK) != 0)
    return "no AMD GPU: /dev/kfd is absent; load the kernel driver amdgpu and install ROCm's libamdhip64";
  if (access("/dev/kfd", R_OK | W_OK) != 0)
    return "no permission for /dev/kfd; add the user to the groups render and video, then log in again";
  return {};
}

}  // namespace

std::string GpuApi::error(int code) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (vendor == Vendor::kNvidia) {
    if (cuda_error_name(code, &name) != 0) name = nullptr;
    if (cuda_error_text(code, &text) != 0) text = nullptr;
  } else {
    name = hip_error_name(code);
    text = hip_error_text(code);
  }
  const std::string title = name != nullptr ? name : fmt::format("error {}", code);
  return text != nullptr && title != text ? fmt::format("{} ({})", title, text) : title;
}

Result<GpuApi> load_gpu_api(Vendor vendor) {
  const bool cuda = vendor == Vendor::kNvidia;
  GpuApi api;
  api.vendor = vendor;
  api.prefix = cuda ? "nvidia" : "amd";
  const char* chosen = std::getenv(cuda ? "KGEN_CUDA_LIBRARY" : "KGEN_HIP_LIBRARY");
  std::vector<std::string> names;
  if (chosen != nullptr && *chosen != '\0') {
    names = {chosen};
  } else if (cuda) {
    names = {"libcuda.so.1"};
  } else {
    if (const std::string problem = kfd_problem(); !problem.empty())
      return fail(ErrorKind::kNoDevice, fmt::format("{}: {}", api.prefix, problem));
    names = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so",
             "/opt/rocm/lib/libamdhip64.so"};
  }
  void* library = nullptr;
  for (const std::string& name : names) {
    library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);  // for good: drivers do not survive being unloaded
    api.library = name;
    if (library != nullptr) break;
  }
  if (library == nullptr)
    return fail(ErrorKind::kNoDevice,
                fmt::format("{}: {} not found; install {}", api.prefix, join(names, ", "),
                            cuda ? "the NVIDIA driver" : "ROCm's HIP runtime (Debian: libamdhip64-5)"));
  if (const std::string missing = bind(api, library); !missing.empty())
    return fail(ErrorKind::kNoDevice,
                fmt::format("{}: {} has no {}; install a newer driver", api.prefix, api.library, missing));
  if (const int code = api.init(0); code != 0)
    return fail(ErrorKind::kNoDevice,
                fmt::format("{}: no usable device: {} says {}", api.prefix, api.library, api.error(code)));
  int count = 0;
  if (const int code = api.device_count(&count); code != 0)
    return fail(ErrorKind::kNoDevice,
                fmt::format("{}: no usable device: {} says {}", api.prefix, api.library, api.error(code)));
  if (count == 0) return fail(ErrorKind::kNoDevice, fmt::format("{}: {} finds no device", api.prefix, api.library));
  return api;
}

}  // namespace kgen::gpu
