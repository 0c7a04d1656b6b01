// Verification of candidates against the op's reference, on the device (docs/verification.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/plan.h"
#include "device/device.h"
#include "device/launch.h"
#include "device/vendor.h"
#include "generator/emit.h"
#include "tuner/measure.h"

namespace kgen {

// What verification has to know of one problem; made by the parent from the op's definition, sent to the worker.
struct CheckCase {
  // Code objects of emit_reference(), emit_checks() and, on a GPU, emit_displace().
  std::vector<std::string> code_paths;
  BoundPlan problem;  // the op's tensor, scalar and dim parameters for this shape
  struct Fill {
    int distribution = 0;  // as templates/check.h: normal, uniform, integer, constant; -1: init_<argument>()
    double a = 0, b = 1;
  };
  std::vector<Fill> fills;  // beside the tensor parameters
  struct Output {
    std::string name;
    double factor = 0;  // 4 sqrt(K) u_acc
    double u_out = 0, tiny = 0;
    double l2_limit = 0;  // of the relative L2 error
  };
  std::vector<Output> outputs;  // those that are present
  struct Stage {
    std::string name;
    std::int64_t items = 0, width = 1;  // doubles: items * width
  };
  std::vector<Stage> stages;           // of the reference, in order
  std::string projected;               // output with a Freivalds check; "" = none
  std::int64_t projection_length = 0;  // doubles of the intermediate vector
  std::uint64_t seed = 1;
  bool rotate = false;  // keep copies of all buffers, to rotate through (graph timing)
};
// `reference` is emit_reference() of the same spec.
Result<CheckCase> make_check_case(const OpSpec&, Arch, const KernelSource& reference,
                                  std::vector<std::string> code_paths, std::uint64_t seed);

// What each output of the op may differ from its reference by. `settled` has one value for each attribute
// (generator/space.h), so that a candidate is held to the tolerance of the compute type that it uses.
Result<std::vector<CheckCase::Output>> output_limits(const OpSpec& settled, Arch, const std::vector<BoundParam>&);

// Limit of the relative L2 error (OPS 0.1) for an output type, accumulation type and number of terms.
double relative_l2_limit(DType output, DType accumulate, double terms);

// Row-major indices of the elements that are compared one by one where the whole reference is too expensive, each once,
// ascending: the output seen as rows × last axis, all crossings of the first, second and last rows and columns and of
// those on both sides of the first and the last multiple of 8, 16 … 256 (tile edges and corners of every tile size, the
// partial last tile included), and one random element from each of `count` equal runs of the output.
std::vector<std::int64_t> sample_elements(const std::vector<std::int64_t>& shape, std::int64_t count,
                                          std::uint64_t seed);

struct Verdict {
  bool passed = false;
  std::string reason;          // not passed: worst element, damaged zone, …; passed: "" or a remark
  double max_error_ratio = 0;  // worst |got - ref| / allowed
  double relative_l2 = 0;
  double launch_us = 0;             // device time of the checked launch, cold code included
  std::optional<bool> same_bits{};  // further launches gave the same bits; absent: none was made
};

// Further launches on the same inputs, whose bits are compared with the first one's: none; a difference is told; a
// difference is wrong.
enum class Repeats { kNone, kTold, kDemanded };

// Device memory that is released with its owner.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  static Result<DeviceBuffer> allocate(Device&, std::int64_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) device_->release(data_);
  }
  char* at(std::int64_t offset) const { return static_cast<char*>(data_) + offset; }
  explicit operator bool() const { return data_ != nullptr; }
  std::int64_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  DevicePtr data_ = nullptr;
  std::int64_t bytes_ = 0;
};

// The inputs and expected values of a problem in the host's memory, for those who run kernels elsewhere.
struct CaseData {
  struct Tensor {
    std::string name;
    std::vector<std::byte> bytes;  // gaps between rows included; outputs and their gaps are poisoned
  };
  struct Output {
    std::string name;
    std::vector<std::int64_t> index;  // elements that are compared; empty: the first ones, all in a small problem
    std::vector<double> value, magnitude;
  };
  std::vector<Tensor> tensors;  // those that are present
  std::vector<Output> outputs;
};

// A candidate on the device: its code, and its workspace and prepared buffers between guard zones.
struct LoadedCandidate {
  Plan plan;  // steps and kinds of parameters only; the shapes are in `bound`
  BoundPlan bound;
  std::vector<CheckCase::Output> limits;  // instead of the case's, where the candidate chose its compute type
  LoadedPlan code;
  BoundLaunch launch;  // of `bound`
  DeviceBuffer scratch;
  // Instead of code: a call of a vendor's library, and which of its algorithms. `bound` has its workspace.
  std::shared_ptr<VendorKernel> vendor{};
  int algorithm = 0;
};

// The inputs, the reference values and the buffers of one problem on one device, kept while its candidates come and go.
// Used by one thread. Every error is a refusal or a fault of the device.
class Bench {
 public:
  // Fills the inputs and computes the reference. `probed` is called once the device has run a known-good kernel and
  // given the right bytes back.
  static Result<std::unique_ptr<Bench>> open(Device&, const CheckCase&, const std::function<void()>& probed);
  ~Bench();

  // Looks the kernels up and allocates the scratch. The plan's tensors must be those of the case.
  Result<LoadedCandidate> load(const BoundPlan&, std::span<const std::byte> code);
  // The same for a vendor's kernel: its workspace lies between guard zones, too.
  Result<LoadedCandidate> load(std::shared_ptr<VendorKernel>);
  // Poison, prepare steps, one launch, all checks. Repeats are two: one at once, one with the cache displaced (on a
  // GPU), so that blocks end in another order.
  Result<Verdict> verify(const LoadedCandidate&, Repeats);
  // Enqueues one run on buffer set `set`, after a verify().
  Result<void> launch(const LoadedCandidate&, int set, Stream);
  // Does the device still run a known-good kernel? After an error: false means that the fault has stuck.
  bool healthy();
  int sets() const;
  std::int64_t bytes() const;  // of the device's memory that it holds, the flush buffer included
  Measurer& measurer();
  // "whole reference in 0.12 s", "projection and 4913 of 1e+08 elements".
  const std::string& method() const;
  Result<CaseData> data() const;

 private:
  struct Impl;
  explicit Bench(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kgen
