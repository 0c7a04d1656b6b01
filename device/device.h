// One machine that runs kernels: an NVIDIA GPU (libcuda), an AMD GPU (libamdhip64) or this CPU ("host"). Drivers are
// dlopened; nothing here links against one. At most 12 virtuals.
//
// Thread-safety: a Device may be used from several threads; a Stream is used by one thread at a time.
// Ownership: pointers from allocate() belong to the caller until release(). Modules outlive the Functions taken from
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/arch.h"
#include "base/plan.h"
#include "base/result.h"

namespace kgen {

struct DeviceInfo {
  std::string id;         // "host", "nvidia:0", "amd:1": what --device takes
  std::string name;       // "NVIDIA H100 80GB HBM3", "AMD Radeon RX 7900 XTX", CPU model
  Arch arch = nullptr;    // row of the architecture table that code is compiled for
  std::string arch_name;  // as the driver reports it, e.g. "gfx90a:sramecc+:xnack-" or "sm_90"
  std::string driver;     // driver and its version, part of a trial's provenance
  std::string uuid;       // PCI or driver UUID, "" for host
  int compute_units = 0;  // multiprocessors, compute units, or CPU threads
  std::int64_t memory_bytes = 0;
  std::int64_t l2_bytes = 0;  // last-level cache that `cold` timing must displace
  int clock_khz = 0;          // peak clock
  int lds_per_block = 0;      // most dynamic LDS a block may ask for
};

using DevicePtr = void*;
using Stream = void*;    // CUstream / hipStream_t; null = default stream; ignored by host
using Function = void*;  // one kernel of a module
using Event = void*;
using Graph = void*;  // an instantiated, replayable graph

// A kernel parameter that the driver makes: how the copy engine walks the tensor at `base` (CUtensorMap).
struct TensorMapArg {
  std::size_t param = 0;  // its place among the parameters
  const TensorMapShape* shape = nullptr;
  DevicePtr base = nullptr;
};

struct LaunchShape {
  static constexpr std::size_t kMostMaps = 4;
  std::uint32_t grid[3] = {1, 1, 1};
  std::uint32_t block = 1;
  std::uint32_t lds_bytes = 0;
  std::span<const TensorMapArg> maps = {};  // only on devices with such a copy engine
};

// A loaded code object. Destroying it unloads.
class Module {
 public:
  virtual ~Module() = default;
  virtual Result<Function> function(const std::string& name) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  // 256-byte aligned device memory. Zero bytes gives a valid non-null pointer.
  virtual Result<DevicePtr> allocate(std::size_t bytes) = 0;
  virtual void release(DevicePtr) = 0;
  // Any of the two may be host or device memory; blocks until done.
  virtual Result<void> copy(void* to, const void* from, std::size_t bytes) = 0;
  // Sets `bytes` bytes to `value`, in stream order.
  virtual Result<void> fill(DevicePtr to, unsigned char value, std::size_t bytes, Stream) = 0;
  // Loads a code object made for this device's architecture (AMD ELF, cubin or PTX, host shared object).
  virtual Result<std::unique_ptr<Module>> load(std::span<const std::byte> code) = 0;
  // `params[i]` points at the i-th kernel parameter's value, where that is a tensor map at anything: the launch
  // replaces it. Asynchronous on GPUs, also raises the LDS limit if needed.
  virtual Result<void> launch(Function, const LaunchShape&, void** params, Stream) = 0;
  // Waits for everything on the stream and reports a fault of earlier launches.
  virtual Result<void> synchronize(Stream) = 0;
  // Records the point in time into `event` (created when null) on the stream.
  virtual Result<void> record(Event& event, Stream) = 0;
  // Waits for `to`, gives the time between two recorded events in microseconds.
  virtual Result<double> elapsed_us(Event from, Event to) = 0;
  // Captures what `work` launches on the stream it is given into a graph; replay(graph) launches it on the stream.
  virtual Result<Graph> capture(const std::function<Result<void>(Stream)>& work) = 0;
  virtual Result<void> replay(Graph, Stream) = 0;
};
// Events and graphs live until their device is destroyed.

// "host", "nvidia:N", "amd:N", or "auto": first NVIDIA or AMD GPU that works, else host. kNoDevice with one line
// otherwise.
Result<std::unique_ptr<Device>> open_device(const std::string& id);

struct DeviceProbe {
  std::vector<DeviceInfo> devices;  // usable ones, host last
  std::vector<std::string> notes;   // one line for each driver that is absent or unusable, and why
};
DeviceProbe probe_devices();

}  // namespace kgen
