#include "runtime/guard.h"

#include <algorithm>
#include <vector>

namespace kgen {
namespace {

constexpr int kWarmUps = 2, kSamples = 9;

// Buffers of one call, released with it.
class Call {
 public:
  Call(Device& device, const Contender& kernel) : device_(device), kernel_(kernel) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    for (const DevicePtr pointer : owned_) device_.release(pointer);
  }

  Result<void> make(std::span<const DevicePtr> tensors) {
    tensors_.assign(tensors.begin(), tensors.end());
    KGEN_TRY(workspace_, allocate(kernel_.launch.workspace_bytes()));
    KGEN_TRY(prepared_, allocate(kernel_.launch.prepared_bytes()));
    return run(Phase::kPrepare);
  }
  Result<void> run(Phase phase) {
    const CallArgs args{.tensors = tensors_, .scalars = {}, .workspace = workspace_, .prepared = prepared_};
    return kernel_.launch.run(device_, kernel_.code->plan->plan, kernel_.code->loaded, args, phase, nullptr);
  }
  Result<double> time() {
    KGEN_CHECK_OK(device_.record(from_, nullptr));
    KGEN_CHECK_OK(run(Phase::kRun));
    KGEN_CHECK_OK(device_.record(to_, nullptr));
    return device_.elapsed_us(from_, to_);
  }
  Result<DevicePtr> allocate(std::int64_t bytes) {
    if (bytes == 0) return nullptr;
    KGEN_TRY(const DevicePtr pointer, device_.allocate(static_cast<std::size_t>(bytes)));
    owned_.push_back(pointer);
    KGEN_CHECK_OK(device_.fill(pointer, 0, static_cast<std::size_t>(bytes), nullptr));
    return pointer;
  }

 private:
  Device& device_;
  const Contender& kernel_;
  std::vector<DevicePtr> owned_, tensors_;
  DevicePtr workspace_ = nullptr, prepared_ = nullptr;
  Event from_ = nullptr, to_ = nullptr;
};

double median(std::vector<double> samples) {
  std::nth_element(samples.begin(), samples.begin() + kSamples / 2, samples.end());
  return samples[kSamples / 2];
}

}  // namespace

Result<void> load(Device& device, Code& code) {
  if (code.ready.load(std::memory_order_acquire)) return {};
  const std::lock_guard lock(code.mutex);
  if (code.ready.load(std::memory_order_relaxed)) return {};
  KGEN_TRY(code.loaded, load_plan(device, code.plan->plan, code.bytes));
  code.bytes = {};
  code.ready.store(true, std::memory_order_release);
  return {};
}

Result<GuardTimes> guard(Device& device, Contender& chosen, Contender& fallback) {
  KGEN_CHECK_OK(load(device, *chosen.code));
  KGEN_CHECK_OK(load(device, *fallback.code));
  Call first(device, chosen), second(device, fallback);
  // Both take the same operands, those of the handle.
  std::vector<DevicePtr> tensors;
  for (std::size_t i = 0; i < chosen.launch.layout().operands().size(); ++i) {
    KGEN_TRY(tensors.emplace_back(), first.allocate(chosen.launch.operand_bytes(i).value_or(0)));
  }
  KGEN_CHECK_OK(first.make(tensors));
  KGEN_CHECK_OK(second.make(tensors));
  std::vector<double> chosen_us, default_us;
  for (int i = -kWarmUps; i < kSamples; ++i) {
    KGEN_TRY(const double a, first.time());
    KGEN_TRY(const double b, second.time());
    if (i < 0) continue;
    chosen_us.push_back(a);
    default_us.push_back(b);
  }
  return GuardTimes{median(std::move(chosen_us)), median(std::move(default_us))};
}

}  // namespace kgen
