#include "tuner/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <set>

#include "base/text.h"

namespace kgen {
namespace {

// As templates/check.h writes it.
struct CheckPartial {
  double error2, reference2, worst_ratio, worst_got, worst_reference, worst_allowed;
  std::int64_t worst_element, bad;
};
static_assert(sizeof(CheckPartial) == 64);

// In CheckCase::code_paths.
constexpr std::size_t kReferenceCode = 0, kChecksCode = 1, kDisplaceCode = 2;

constexpr std::int64_t kGuard = 4096;  // bytes at least, on either side of every buffer
constexpr std::int64_t kAlign = 256;
// A page of device memory. Operands of a model lie in pages of their own, whose addresses a cold launch has translated
// anew; with all of them in one page launches under 10 us read up to 0.2 us less (H100, 2026-11-22).
constexpr std::int64_t kPage = 2 << 20;
constexpr unsigned char kPoison = 0xff;   // NaN in every floating type: what is read from there cannot stay unnoticed
constexpr int kBlock = 256;               // work-items a block of every check kernel
constexpr std::uint32_t kCheckLds = 512;  // 64 bytes a wave of 32
constexpr std::int64_t kMaxGrid = 512;    // partials of one check: 32 KiB to read back
// Time that the reference of one problem may take; above it the projection and sampled elements stand in. The host
// shares its cores with everything else and is tried with small problems mostly.
constexpr double kReferenceSecondsGpu = 1.0, kReferenceSecondsHost = 4.0;
constexpr std::int64_t kMinSamples = 1024, kMaxSamples = 65536;
constexpr std::int64_t kScratchZones = 64;  // most buffers of one plan, and one
constexpr std::int64_t kFewElements = 64;   // below it the relative L2 error is that of single roundings: not judged

std::int64_t round_up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }

std::int64_t product(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{1}, std::multiplies<>());
}

bool is_tensor(Role role) { return role == Role::kIn || role == Role::kOut || role == Role::kInOut; }
bool is_written(Role role) { return role == Role::kOut || role == Role::kInOut; }

// "d[3, 17]"
std::string element_name(const std::string& name, const std::vector<std::int64_t>& shape, std::int64_t element) {
  std::vector<std::string> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    const std::int64_t size = std::max<std::int64_t>(shape[axis], 1);
    index[axis] = std::to_string(element % size);
    element /= size;
  }
  return fmt::format("{}[{}]", name, join(index, ", "));
}

int distribution_number(const std::string& name) {
  if (name == "uniform") return 1;
  if (name == "int") return 2;
  if (name == "constant") return 3;
  if (name == "kernel") return -1;
  return 0;
}

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::kFp64:
      return 0x1p-53;
    case DType::kFp32:
      return 0x1p-24;
    case DType::kFp16:
      return 0x1p-11;
    case DType::kBf16:
      return 0x1p-8;
    default:
      return 0;
  }
}

double smallest_step(DType dtype) {  // spacing of the subnormals
  switch (dtype) {
    case DType::kFp64:
      return 0x1p-1074;
    case DType::kFp32:
      return 0x1p-149;
    case DType::kFp16:
      return 0x1p-24;
    case DType::kBf16:
      return 0x1p-133;
    default:
      return 0.5;
  }
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

double relative_l2_limit(DType output, DType accumulate, double terms) {
  if (accumulate == DType::kFp16) return terms <= 4096 ? 1.5e-2 : 4e-2;
  switch (output) {
    case DType::kFp32:
      return 1e-5;
    case DType::kFp16:
      return 4e-4;
    case DType::kBf16:
      return 3e-3;
    default:
      return 1e-12;
  }
}

std::vector<std::int64_t> sample_elements(const std::vector<std::int64_t>& shape, std::int64_t count,
                                          std::uint64_t seed) {
  const std::int64_t total = product(shape);
  if (total <= 0) return {};
  const std::int64_t columns = shape.empty() ? 1 : shape.back(), rows = total / columns;
  const auto edges = [](std::int64_t size) {
    std::set<std::int64_t> found;
    const auto add = [&](std::int64_t at) {
      if (at >= 0 && at < size) found.insert(at);
    };
    for (std::int64_t at : {std::int64_t{0}, std::int64_t{1}, size - 2, size - 1}) add(at);
    for (std::int64_t tile = 8; tile <= 256; tile *= 2)
      for (std::int64_t edge : {tile, (size - 1) / tile * tile}) add(edge - 1), add(edge);
    return found;
  };
  std::set<std::int64_t> elements;
  for (std::int64_t row : edges(rows))
    for (std::int64_t column : edges(columns)) elements.insert(row * columns + column);
  std::mt19937_64 random(seed);
  count = std::min(count, total);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto from =
        static_cast<std::int64_t>(static_cast<double>(total) / static_cast<double>(count) * static_cast<double>(i));
    const std::int64_t size = std::max<std::int64_t>(1, total / count);
    elements.insert(std::min(total - 1, from + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(size))));
  }
  return {elements.begin(), elements.end()};
}

Result<std::vector<CheckCase::Output>> output_limits(const OpSpec& settled, Arch arch,
                                                     const std::vector<BoundParam>& params) {
  DType accumulate = DType::kFp32;
  if (const auto at = settled.problem.attributes.find("accumulate"); at != settled.problem.attributes.end()) {
    KGEN_TRY(accumulate, find_dtype(at->second));
  }
  const ReferenceDef& reference = settled.op->reference;
  const Env env = problem_env(settled, arch);
  std::vector<CheckCase::Output> outputs;
  for (const BoundParam& param : params) {
    if (!is_written(param.role) || !param.present) continue;
    double terms = 1;
    if (const auto at = reference.terms_text.find(param.name); at != reference.terms_text.end()) {
      KGEN_TRY(const Expr expr, Expr::parse(at->second));
      KGEN_TRY(const std::int64_t value, expr.eval(env));
      terms = static_cast<double>(std::max<std::int64_t>(value, 1));
    }
    CheckCase::Output output{.name = param.name};
    output.u_out = unit_roundoff(param.dtype);
    output.factor = output.u_out == 0 ? 0 : 4 * std::sqrt(terms) * unit_roundoff(accumulate);
    output.tiny = smallest_step(param.dtype);
    output.l2_limit = relative_l2_limit(param.dtype, accumulate, terms);
    if (const auto at = reference.tolerance.find(param.name); at != reference.tolerance.end()) {
      const ReferenceDef::Tolerance& given = at->second;
      output.u_out = output.u_out * given.roundings + given.rtol;
      output.tiny += given.atol;
      const auto limit = given.l2_limit.find(std::string(dtype_name(param.dtype)));
      if (limit != given.l2_limit.end()) output.l2_limit = limit->second;
      if (given.exact) output.factor = output.u_out = 0, output.tiny = 0x1p-1074;
    }
    outputs.push_back(output);
  }
  return outputs;
}

Result<CheckCase> make_check_case(const OpSpec& asked, Arch arch, const KernelSource& reference,
                                  std::vector<std::string> code_paths, std::uint64_t seed) {
  const OpSpec spec = settled(asked);
  CheckCase check;
  check.code_paths = std::move(code_paths);
  check.seed = seed;
  KGEN_TRY(check.problem, kgen::bind(reference.plan, spec.problem.dims));
  const Env env = problem_env(spec, arch);
  const auto evaluate = [&](const std::string& text) -> Result<std::int64_t> {
    KGEN_TRY(const Expr expr, Expr::parse(text));
    return expr.eval(env);
  };
  std::map<std::string, InitDef> inits;
  for (const ArgumentDef& argument : spec.op->arguments) inits[argument.param.name] = argument.init;
  for (const BoundParam& param : check.problem.params) {
    if (!is_tensor(param.role)) continue;
    const InitDef& init = inits[param.name];
    CheckCase::Fill fill{.distribution = distribution_number(init.distribution)};
    fill.a = fill.distribution == 0 || fill.distribution == 3 ? init.mean : init.lo;
    fill.b = fill.distribution == 0 || fill.distribution == 3 ? init.scale : init.hi;
    check.fills.push_back(fill);
  }
  KGEN_TRY(check.outputs, output_limits(spec, arch, check.problem.params));
  for (const ReferenceDef::Stage& stage : spec.op->reference.stages) {
    KGEN_TRY(const std::int64_t items, evaluate(stage.items_text));
    KGEN_TRY(const std::int64_t width, evaluate(stage.width_text));
    check.stages.push_back({stage.name, items, width});
  }
  if (const auto& projection = spec.op->reference.projection) {
    std::int64_t offered = 1;
    if (!projection->when_text.empty()) {
      KGEN_TRY(offered, evaluate(projection->when_text));
    }
    if (offered != 0) {
      check.projected = projection->output;
      KGEN_TRY(check.projection_length, evaluate(projection->length_text));
    }
  }
  return check;
}

Result<DeviceBuffer> DeviceBuffer::allocate(Device& device, std::int64_t bytes) {
  DeviceBuffer buffer;
  KGEN_TRY(buffer.data_, device.allocate(static_cast<std::size_t>(bytes)));
  buffer.device_ = &device;
  buffer.bytes_ = bytes;
  return buffer;
}

// One arena holds every tensor, [guard][a][guard][b][guard], so that one kernel checks all guards; a second arena of
// the same layout keeps the inputs as they were made.
struct Bench::Impl {
  struct Tensor {
    const BoundParam* param;
    std::int64_t offset = 0;  // in the arena
    Function fill = nullptr, check = nullptr, projection = nullptr, gaps = nullptr;
    bool has_gaps = false;
    std::int64_t layout = 0;  // element of `layouts`
    std::int64_t elements = 0;
  };
  // Reference values of one output.
  struct Expected {
    std::size_t tensor;
    CheckCase::Output limits;
    std::int64_t count = 0;  // elements compared one by one
    DeviceBuffer index{}, value{}, magnitude{};
    std::int64_t rows = 0;  // > 0: projection
    DeviceBuffer expected{}, bound{};
  };
  // A check in flight: where its partials are and what they mean.
  struct Pending {
    enum class Kind { kElements, kProjection, kGaps, kInput } kind;
    std::size_t tensor;
    const Expected* expected;
    std::int64_t slot, blocks;
  };

  Device& device;
  CheckCase check;
  std::vector<std::unique_ptr<Module>> modules;  // beside check.code_paths
  Measurer measurer;
  Function check_pattern = nullptr;
  std::vector<Tensor> tensors;                      // present ones
  std::vector<std::vector<DevicePtr>> set_tensors;  // by set: a pointer for every tensor parameter, null when absent
  std::vector<DeviceBuffer> arenas;                 // by set
  std::int64_t arena_bytes = 0;
  std::int64_t whole = 0;  // element of `layouts`
  char* whole_layout() const { return layouts.at(whole * 8); }
  DeviceBuffer pristine, layouts, zones, results, snapshot;
  std::int64_t zone_count = 0;
  std::vector<std::string> zone_names;
  std::vector<Expected> expected;
  std::vector<DeviceBuffer> stages;  // beside check.stages
  std::string method;
  Event from = nullptr, to = nullptr;

  Impl(Device& d, CheckCase c, std::vector<std::unique_ptr<Module>> m, Measurer::Displace displace)
      : device(d), check(std::move(c)), modules(std::move(m)), measurer(d, displace) {}

  bool on_host() const { return device.info().arch->vendor == Vendor::kHost; }
  std::uint32_t grid_for(std::int64_t count) const {
    const std::int64_t most = on_host() ? std::max(1, device.info().compute_units) : kMaxGrid;
    return static_cast<std::uint32_t>(std::clamp<std::int64_t>((count + kBlock - 1) / kBlock, 1, most));
  }

  template <class... T>
  Result<void> run(Function function, std::uint32_t grid, T... values) {
    void* params[] = {&values...};
    LaunchShape shape{.grid = {grid, 1, 1}, .block = kBlock, .lds_bytes = kCheckLds};
    return device.launch(function, shape, params, nullptr);
  }

  // The op's own parameters first, as every kernel of emit_reference() takes them, then `extra`.
  template <class... T>
  Result<void> run_reference(Function function, std::int64_t work_items, T... extra) {
    std::vector<std::array<std::byte, 8>> values(check.problem.params.size());
    std::vector<void*> params;
    std::size_t tensor = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const BoundParam& param = check.problem.params[i];
      const auto put = [&](auto value) { std::memcpy(values[i].data(), &value, sizeof value); };
      if (is_tensor(param.role)) {
        put(set_tensors[0][tensor++]);
      } else if (param.role == Role::kDim) {
        put(param.value);
      } else {
        switch (param.dtype) {
          case DType::kFp64:
            put(param.default_value);
            break;
          case DType::kInt32:
            put(static_cast<std::int32_t>(param.default_value));
            break;
          case DType::kInt64:
            put(static_cast<std::int64_t>(param.default_value));
            break;
          default:
            put(static_cast<float>(param.default_value));
            break;
        }
      }
      params.push_back(values[i].data());
    }
    std::vector<DevicePtr> stage_data(check.stages.size(), nullptr);
    for (std::size_t i = 0; i < check.stages.size(); ++i) {
      if (i < stages.size()) stage_data[i] = stages[i].at(0);
      params.push_back(&stage_data[i]);
    }
    (params.push_back(&extra), ...);
    LaunchShape shape;
    shape.grid[0] = static_cast<std::uint32_t>((work_items + kBlock - 1) / kBlock);
    shape.block = kBlock;
    shape.lds_bytes = kCheckLds;
    return device.launch(function, shape, params.data(), nullptr);
  }

  // Partials of every check (elements, projection and gaps of each output, change of each input), then both zone
  // counts.
  std::int64_t result_bytes() const {
    return 3 * static_cast<std::int64_t>(tensors.size()) * kMaxGrid * static_cast<std::int64_t>(sizeof(CheckPartial)) +
           (zone_count + kScratchZones) * static_cast<std::int64_t>(sizeof(std::int64_t));
  }
  Result<void> probe();
  Result<void> lay_out();
  Result<void> fill_inputs();
  Result<void> compute(Expected& output);
  Result<void> compute_reference();
  Result<void> copy_sets();
  Result<void> make_scratch(LoadedCandidate&);
  Result<void> poison(const LoadedCandidate&);
  Result<void> enqueue(const LoadedCandidate&, int set, Phase, Stream);
  const CheckCase::Output& limits_of(const LoadedCandidate&, const Expected&) const;
  Result<void> poison_results();
  Result<void> try_checks();
  Result<void> enqueue_checks(const LoadedCandidate&, std::vector<Pending>&);
  Result<Verdict> collect(const LoadedCandidate&, const std::vector<Pending>&);
  Result<void> restore();
  Result<std::string> difference_of_repeats(const LoadedCandidate&);
};

// A constant written by a kernel and read back: does the device still work?
Result<void> Bench::Impl::probe() {
  const Tensor& tensor = tensors.front();
  const std::int64_t count = 4 * kBlock, size = dtype_bytes(tensor.param->dtype);
  KGEN_TRY(const DeviceBuffer buffer, DeviceBuffer::allocate(device, count * size));
  KGEN_CHECK_OK(device.fill(buffer.at(0), kPoison, static_cast<std::size_t>(count * size), nullptr));
  KGEN_CHECK_OK(run(tensor.fill, 4, buffer.at(0), count, std::uint64_t{1}, 3, 2.0, 0.0));
  std::vector<std::byte> bytes(static_cast<std::size_t>(count * size));
  KGEN_CHECK_OK(device.copy(bytes.data(), buffer.at(0), bytes.size()));
  const bool same = std::equal(bytes.begin() + static_cast<std::ptrdiff_t>(size), bytes.end(), bytes.begin());
  if (!same || bytes.front() == std::byte{kPoison})
    return fail(ErrorKind::kDevice, "the device gives wrong bytes for a kernel known to be right");
  return {};
}

Result<void> Bench::Impl::lay_out() {
  // Every guard runs from the last byte of a buffer to the first of the next: a write one element too far is inside it.
  std::int64_t end = 0;
  std::vector<std::int64_t> zone_list, layout_list;
  std::string before = "the start";
  const auto add_zone = [&](std::int64_t from, std::int64_t until, const std::string& after) {
    const auto add = [&](std::int64_t begin, std::int64_t length) {
      zone_list.push_back(begin);
      zone_list.push_back(length);
      zone_names.push_back(fmt::format("between {} and {}", before, after));
    };
    // Of a gap that a page has made long, the two ends are looked at.
    if (until - from > 4 * kGuard) {
      add(from, kGuard);
      add(until - kGuard, kGuard);
    } else {
      add(from, until - from);
    }
    before = after;
  };
  const bool paged = device.info().arch->vendor != Vendor::kHost;
  std::int64_t data_bytes = 0;
  for (Tensor& tensor : tensors) {
    const BoundParam& param = *tensor.param;
    tensor.offset = round_up(end + kGuard, kAlign);
    // Not all at the same place of their pages: 256 bytes further each.
    if (paged) tensor.offset = round_up(tensor.offset, kPage) + kAlign * (&tensor - tensors.data() + 1);
    data_bytes += param.bytes;
    add_zone(end, tensor.offset, param.name);
    end = tensor.offset + param.bytes;
    tensor.elements = product(param.shape);
    tensor.has_gaps = tensor.elements > 0 && param.bytes > tensor.elements * dtype_bytes(param.dtype);
    tensor.layout = static_cast<std::int64_t>(layout_list.size());
    layout_list.push_back(static_cast<std::int64_t>(param.shape.size()));
    layout_list.insert(layout_list.end(), param.shape.begin(), param.shape.end());
    layout_list.insert(layout_list.end(), param.strides.begin(), param.strides.end());
  }
  layout_list.push_back(0);  // last: rank 0, for check_gaps over a whole buffer
  whole = static_cast<std::int64_t>(layout_list.size()) - 1;
  arena_bytes = round_up(end + kGuard, kAlign);
  add_zone(end, arena_bytes, "the end");
  zone_count = static_cast<std::int64_t>(zone_names.size());

  const std::int64_t cache = device.info().l2_bytes;
  const std::int64_t memory = std::max<std::int64_t>(device.info().memory_bytes, 1);
  const std::int64_t each = std::max<std::int64_t>(data_bytes, 1);
  std::int64_t sets = check.rotate ? std::clamp<std::int64_t>((2 * cache + each - 1) / each, 1, 16) : 1;
  while (sets > 1 && sets * arena_bytes > memory / 4) --sets;
  std::vector<BoundParam*> params;
  for (std::int64_t set = 0; set < sets; ++set) {
    KGEN_TRY(DeviceBuffer arena, DeviceBuffer::allocate(device, arena_bytes));
    std::vector<DevicePtr> pointers;
    std::size_t next = 0;
    for (const BoundParam& param : check.problem.params) {
      if (!is_tensor(param.role)) continue;
      const bool here = next < tensors.size() && tensors[next].param == &param;
      pointers.push_back(here ? arena.at(tensors[next++].offset) : nullptr);
    }
    set_tensors.push_back(std::move(pointers));
    arenas.push_back(std::move(arena));
  }
  const auto upload = [&](const std::vector<std::int64_t>& values) -> Result<DeviceBuffer> {
    const auto bytes = values.size() * sizeof(std::int64_t);
    KGEN_TRY(DeviceBuffer buffer, DeviceBuffer::allocate(device, static_cast<std::int64_t>(bytes)));
    KGEN_CHECK_OK(device.copy(buffer.at(0), values.data(), bytes));
    return buffer;
  };
  KGEN_TRY(zones, upload(zone_list));
  KGEN_TRY(layouts, upload(layout_list));
  KGEN_TRY(pristine, DeviceBuffer::allocate(device, arena_bytes));
  KGEN_TRY(results, DeviceBuffer::allocate(device, result_bytes()));
  return {};
}

Result<void> Bench::Impl::fill_inputs() {
  KGEN_CHECK_OK(device.fill(arenas[0].at(0), kPoison, static_cast<std::size_t>(arena_bytes), nullptr));
  std::size_t fill_at = 0, next = 0;
  for (const BoundParam& param : check.problem.params) {
    if (!is_tensor(param.role)) continue;
    const CheckCase::Fill& fill = check.fills[fill_at++];
    if (next == tensors.size() || tensors[next].param != &param) continue;
    const Tensor& tensor = tensors[next++];
    if (param.role == Role::kOut || param.bytes == 0) continue;
    const std::int64_t count = param.bytes / dtype_bytes(param.dtype);
    const std::uint64_t seed = check.seed * 0x9e3779b97f4a7c15ull + fill_at;
    if (fill.distribution < 0) {
      KGEN_TRY(const Function init, modules[kReferenceCode]->function("init_" + param.name));
      KGEN_CHECK_OK(run_reference(init, count, seed, count, arenas[0].at(tensor.offset)));
      continue;
    }
    KGEN_CHECK_OK(
        run(tensor.fill, grid_for(count), arenas[0].at(tensor.offset), count, seed, fill.distribution, fill.a, fill.b));
  }
  KGEN_CHECK_OK(device.synchronize(nullptr));
  return device.copy(pristine.at(0), arenas[0].at(0), static_cast<std::size_t>(arena_bytes));
}

Result<void> Bench::Impl::compute(Expected& output) {
  const Tensor& tensor = tensors[output.tensor];
  const std::string& name = tensor.param->name;
  KGEN_TRY(const Function reference, modules[kReferenceCode]->function("reference_" + name));
  const std::int64_t total = tensor.elements;
  const std::int64_t slice =
      std::min<std::int64_t>(total, on_host() ? kBlock * std::max(1, device.info().compute_units) : 65536);
  const auto allocate = [&](std::int64_t count) -> Result<void> {
    KGEN_TRY(output.value, DeviceBuffer::allocate(device, count * 8));
    KGEN_TRY(output.magnitude, DeviceBuffer::allocate(device, count * 8));
    return {};
  };
  const auto evaluate = [&](std::int64_t count) -> Result<double> {
    const double start = now_seconds();
    char* const index = output.index ? output.index.at(0) : nullptr;
    KGEN_CHECK_OK(run_reference(reference, count, index, count, output.value.at(0), output.magnitude.at(0)));
    KGEN_CHECK_OK(device.synchronize(nullptr));
    return now_seconds() - start;
  };
  KGEN_CHECK_OK(allocate(slice));
  KGEN_TRY(double seconds, evaluate(slice));
  output.count = slice;
  if (slice == total) {
    method += fmt::format("{}: whole reference in {:.2g} s", name, seconds);
    return {};
  }
  // The first launch loads the code; a second one tells the rate, unless the first was long anyway.
  if (seconds < 0.05) {
    KGEN_TRY(const double again, evaluate(slice));
    seconds = std::min(seconds, again);
  }
  const double budget = on_host() ? kReferenceSecondsHost : kReferenceSecondsGpu;
  const double each = seconds / static_cast<double>(slice);
  if (each * static_cast<double>(total) <= budget &&
      total * 16 <= std::max<std::int64_t>(device.info().memory_bytes, 1) / 4) {
    KGEN_CHECK_OK(allocate(total));
    KGEN_TRY(seconds, evaluate(total));
    output.count = total;
    method += fmt::format("{}: whole reference in {:.2g} s", name, seconds);
    return {};
  }
  const double affordable = budget / std::max(each, 1e-12);
  const auto wanted = static_cast<std::int64_t>(std::clamp(affordable, double(kMinSamples), double(kMaxSamples)));
  const std::vector<std::int64_t> elements = sample_elements(tensor.param->shape, wanted, check.seed);
  output.count = static_cast<std::int64_t>(elements.size());
  KGEN_TRY(output.index, DeviceBuffer::allocate(device, output.count * 8));
  KGEN_CHECK_OK(device.copy(output.index.at(0), elements.data(), elements.size() * 8));
  KGEN_CHECK_OK(allocate(output.count));
  KGEN_CHECK_OK(evaluate(output.count).map([](double) {}));
  method += fmt::format("{}: {} of {:.3g} elements", name, output.count, static_cast<double>(total));
  if (check.projected != name || tensor.param->shape.empty()) return {};

  KGEN_TRY(const Function project_vector, modules[kReferenceCode]->function("project_vector_" + name));
  KGEN_TRY(const Function project, modules[kReferenceCode]->function("project_" + name));
  const std::int64_t length = std::max<std::int64_t>(check.projection_length, 1);
  output.rows = total / tensor.param->shape.back();
  KGEN_TRY(const DeviceBuffer vector, DeviceBuffer::allocate(device, length * 8));
  KGEN_TRY(output.expected, DeviceBuffer::allocate(device, output.rows * 8));
  KGEN_TRY(output.bound, DeviceBuffer::allocate(device, output.rows * 8));
  KGEN_CHECK_OK(run_reference(project_vector, length, check.seed, length, vector.at(0)));
  KGEN_CHECK_OK(run_reference(project, output.rows, check.seed, vector.at(0), output.rows, output.expected.at(0),
                              output.bound.at(0)));
  KGEN_CHECK_OK(device.synchronize(nullptr));
  method += " and a projection of all";
  return {};
}

Result<void> Bench::Impl::compute_reference() {
  for (const CheckCase::Stage& stage : check.stages) {
    const std::int64_t count = stage.items * stage.width;
    KGEN_TRY(DeviceBuffer buffer, DeviceBuffer::allocate(device, std::max<std::int64_t>(count, 1) * 8));
    stages.push_back(std::move(buffer));
    if (count <= 0) continue;
    KGEN_TRY(const Function function, modules[kReferenceCode]->function("reference_stage_" + stage.name));
    KGEN_CHECK_OK(run_reference(function, stage.items, stage.width, stage.items, stages.back().at(0)));
    KGEN_CHECK_OK(device.synchronize(nullptr));
  }
  for (const CheckCase::Output& limits : check.outputs)
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (tensors[t].param->name != limits.name || tensors[t].elements == 0) continue;
      if (!method.empty()) method += "; ";
      Expected output{.tensor = t, .limits = limits};
      KGEN_CHECK_OK(compute(output));
      expected.push_back(std::move(output));
    }
  return {};
}

Result<void> Bench::Impl::copy_sets() {
  for (std::size_t set = 1; set < arenas.size(); ++set)
    KGEN_CHECK_OK(device.copy(arenas[set].at(0), pristine.at(0), static_cast<std::size_t>(arena_bytes)));
  return {};
}

// Scratch of one set: [guard][workspace buffers][guard][prepared buffers][guard]. BoundLaunch starts each buffer at
// the next multiple of 256; the zones are all bytes between the buffers.
namespace {
struct ScratchLayout {
  std::int64_t workspace = kGuard, prepared = 0, bytes = 0;
  std::vector<std::int64_t> zones;  // as check_pattern takes them
  std::vector<std::string> names;
};
ScratchLayout scratch_layout(const BoundPlan& bound) {
  ScratchLayout layout;
  std::int64_t end = 0;
  std::string before = "the start of the scratch";
  const auto zone = [&](std::int64_t until, const std::string& after) {
    layout.zones.push_back(end);
    layout.zones.push_back(until - end);
    layout.names.push_back(fmt::format("between {} and {}", before, after));
    before = after;
  };
  const auto place = [&](Role role, std::int64_t base) {
    for (const BoundParam& param : bound.params) {
      if (param.role != role || !param.present) continue;
      zone(base, param.name);
      end = base + param.bytes;
      base = round_up(end, kAlign);
    }
  };
  place(Role::kWorkspace, layout.workspace);
  layout.prepared = round_up(layout.workspace + bound.workspace_bytes, kAlign) + kGuard;
  place(Role::kPrepared, layout.prepared);
  layout.bytes = round_up(layout.prepared + bound.prepared_bytes, kAlign) + kGuard;
  zone(layout.bytes, "the end of the scratch");
  return layout;
}
bool has_scratch(const BoundPlan& bound) { return bound.workspace_bytes + bound.prepared_bytes > 0; }
}  // namespace

Result<void> Bench::Impl::poison(const LoadedCandidate& candidate) {
  for (const Tensor& tensor : tensors) {
    if (tensor.param->bytes == 0) continue;
    const auto bytes = static_cast<std::size_t>(tensor.param->bytes);
    if (tensor.param->role == Role::kOut)
      KGEN_CHECK_OK(device.fill(arenas[0].at(tensor.offset), kPoison, bytes, nullptr));
    if (tensor.param->role == Role::kInOut)
      KGEN_CHECK_OK(device.copy(arenas[0].at(tensor.offset), pristine.at(tensor.offset), bytes));
  }
  if (!has_scratch(candidate.bound)) return {};
  const std::int64_t bytes = scratch_layout(candidate.bound).bytes * static_cast<std::int64_t>(arenas.size());
  return device.fill(candidate.scratch.at(0), kPoison, static_cast<std::size_t>(bytes), nullptr);
}

Result<void> Bench::Impl::enqueue(const LoadedCandidate& candidate, int set, Phase phase, Stream stream) {
  CallArgs args;
  args.tensors = set_tensors[static_cast<std::size_t>(set)];
  if (has_scratch(candidate.bound)) {
    const ScratchLayout layout = scratch_layout(candidate.bound);
    args.workspace = candidate.scratch.at(set * layout.bytes + layout.workspace);
    args.prepared = candidate.scratch.at(set * layout.bytes + layout.prepared);
  }
  if (candidate.vendor == nullptr)
    return candidate.launch.run(device, candidate.plan, candidate.code, args, phase, stream);
  if (phase == Phase::kPrepare) return {};
  return candidate.vendor->launch(candidate.algorithm, args.tensors, args.workspace, stream);
}

Result<void> Bench::Impl::make_scratch(LoadedCandidate& candidate) {
  if (!has_scratch(candidate.bound)) return {};
  const auto sets = static_cast<std::int64_t>(arenas.size());
  KGEN_TRY(candidate.scratch, DeviceBuffer::allocate(device, sets * scratch_layout(candidate.bound).bytes));
  return {};
}

const CheckCase::Output& Bench::Impl::limits_of(const LoadedCandidate& candidate, const Expected& output) const {
  for (const CheckCase::Output& own : candidate.limits)
    if (own.name == output.limits.name) return own;
  return output.limits;
}

// What a check has to write is negative before, so that one which did not run cannot pass for the one before it.
Result<void> Bench::Impl::poison_results() {
  return device.fill(results.at(0), kPoison, static_cast<std::size_t>(result_bytes()), nullptr);
}

// No candidate is judged by checks that have not been seen to run, and to refuse an output that nothing has written.
Result<void> Bench::Impl::try_checks() {
  const LoadedCandidate nobody;
  std::vector<Pending> pending;
  KGEN_CHECK_OK(poison(nobody));
  KGEN_CHECK_OK(enqueue_checks(nobody, pending));
  KGEN_TRY(const Verdict verdict, collect(nobody, pending));
  const bool poisoned = std::any_of(expected.begin(), expected.end(), [&](const Expected& output) {
    const BoundParam& param = *tensors[output.tensor].param;
    return param.role == Role::kOut && unit_roundoff(param.dtype) > 0 && output.count > 0;
  });
  if (poisoned && verdict.passed)
    return fail(ErrorKind::kDevice, "the device's checks pass an output that nothing has written");
  return {};
}

Result<void> Bench::Impl::enqueue_checks(const LoadedCandidate& candidate, std::vector<Pending>& pending) {
  KGEN_CHECK_OK(poison_results());
  const auto slot = [&](Pending::Kind kind, std::size_t tensor, const Expected* output, std::int64_t count) {
    pending.push_back({kind, tensor, output, static_cast<std::int64_t>(pending.size()), grid_for(count)});
    return results.at(pending.back().slot * kMaxGrid * static_cast<std::int64_t>(sizeof(CheckPartial)));
  };
  using Kind = Pending::Kind;
  char* const none = nullptr;
  for (const Expected& output : expected) {
    const Tensor& tensor = tensors[output.tensor];
    char* const data = arenas[0].at(tensor.offset);
    char* const layout = layouts.at(tensor.layout * 8);
    const CheckCase::Output& limits = limits_of(candidate, output);
    char* const partials = slot(Kind::kElements, output.tensor, &output, output.count);
    KGEN_CHECK_OK(run(tensor.check, grid_for(output.count), data, layout, output.index ? output.index.at(0) : none,
                      output.count, output.value.at(0), output.magnitude.at(0), limits.factor, limits.u_out,
                      limits.tiny, partials));
    // The projection's bound is that of the compute type which the reference was compiled for.
    if (output.rows > 0 && limits.factor == output.limits.factor) {
      // A block takes a whole row, so there may be as many blocks as rows.
      char* const rows = slot(Kind::kProjection, output.tensor, &output, output.rows * kBlock);
      KGEN_CHECK_OK(run(tensor.projection, grid_for(output.rows * kBlock), data, layout, check.seed, output.rows,
                        output.expected.at(0), output.bound.at(0), rows));
    }
  }
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const Tensor& tensor = tensors[t];
    const std::int64_t size = dtype_bytes(tensor.param->dtype), count = tensor.param->bytes / size;
    if (count == 0) continue;
    if (is_written(tensor.param->role)) {
      if (!tensor.has_gaps) continue;
      char* const before = tensor.param->role == Role::kInOut ? pristine.at(tensor.offset) : nullptr;
      char* const partials = slot(Kind::kGaps, t, nullptr, count);
      KGEN_CHECK_OK(run(tensor.gaps, grid_for(count), arenas[0].at(tensor.offset), before,
                        layouts.at(tensor.layout * 8), count, partials));
    } else {
      char* const partials = slot(Kind::kInput, t, nullptr, count);
      KGEN_CHECK_OK(run(tensor.gaps, grid_for(count), arenas[0].at(tensor.offset), pristine.at(tensor.offset),
                        whole_layout(), count, partials));
    }
  }
  return {};
}

static tl::unexpected<Error> check_did_not_run(const std::string& what) {
  return fail(ErrorKind::kDevice, fmt::format("the check of {} did not run", what));
}

Result<Verdict> Bench::Impl::collect(const LoadedCandidate& candidate, const std::vector<Pending>& pending) {
  const auto slots = static_cast<std::int64_t>(pending.size());
  const std::int64_t partial_bytes = slots * kMaxGrid * static_cast<std::int64_t>(sizeof(CheckPartial));
  KGEN_CHECK_OK(run(check_pattern, static_cast<std::uint32_t>(zone_count), arenas[0].at(0), zones.at(0), zone_count,
                    static_cast<int>(kPoison), results.at(partial_bytes)));
  std::vector<std::string> names = zone_names;
  DeviceBuffer scratch_zones;
  if (has_scratch(candidate.bound)) {
    const ScratchLayout layout = scratch_layout(candidate.bound);
    const auto count = static_cast<std::int64_t>(layout.names.size());
    KGEN_TRY(scratch_zones, DeviceBuffer::allocate(device, 16 * count));
    KGEN_CHECK_OK(device.copy(scratch_zones.at(0), layout.zones.data(), layout.zones.size() * 8));
    KGEN_CHECK_OK(run(check_pattern, static_cast<std::uint32_t>(count), candidate.scratch.at(0), scratch_zones.at(0),
                      count, static_cast<int>(kPoison), results.at(partial_bytes + zone_count * 8)));
    names.insert(names.end(), layout.names.begin(), layout.names.end());
  }
  KGEN_CHECK_OK(device.synchronize(nullptr));
  std::vector<std::byte> bytes(static_cast<std::size_t>(partial_bytes) + names.size() * 8);
  KGEN_CHECK_OK(device.copy(bytes.data(), results.at(0), bytes.size()));

  Verdict verdict;
  std::string problem;
  for (const Pending& item : pending) {
    const Tensor& tensor = tensors[item.tensor];
    const std::string& name = tensor.param->name;
    CheckPartial sum{0, 0, 0, 0, 0, 0, -1, 0};
    for (std::int64_t block = 0; block < item.blocks; ++block) {
      CheckPartial partial;
      std::memcpy(&partial, bytes.data() + (item.slot * kMaxGrid + block) * static_cast<std::int64_t>(sizeof partial),
                  sizeof partial);
      if (partial.bad < 0) return check_did_not_run(name);
      const double error2 = sum.error2 + partial.error2, reference2 = sum.reference2 + partial.reference2;
      const std::int64_t bad = sum.bad + partial.bad;
      if (partial.worst_element >= 0 && (sum.worst_element < 0 || partial.worst_ratio > sum.worst_ratio)) sum = partial;
      sum.error2 = error2, sum.reference2 = reference2, sum.bad = bad;
    }
    const auto note = [&](std::string text) {
      if (problem.empty()) problem = std::move(text);
    };
    if (item.kind == Pending::Kind::kInput) {
      if (sum.bad > 0)
        note(
            fmt::format("changed its input {}: {} elements, the first at offset {}", name, sum.bad, sum.worst_element));
      continue;
    }
    if (item.kind == Pending::Kind::kGaps) {
      if (sum.bad > 0)
        note(fmt::format("wrote between the rows of {}: {} elements, one at offset {}", name, sum.bad,
                         sum.worst_element));
      continue;
    }
    const bool rows = item.kind == Pending::Kind::kProjection;
    verdict.max_error_ratio = std::max(verdict.max_error_ratio, sum.worst_ratio);
    const double l2 = sum.error2 == 0 ? 0 : sum.reference2 > 0 ? std::sqrt(sum.error2 / sum.reference2) : HUGE_VAL;
    const std::int64_t compared = rows ? item.expected->rows : item.expected->count;
    if (compared >= kFewElements) verdict.relative_l2 = std::max(verdict.relative_l2, l2);
    if (sum.bad > 0) {
      std::vector<std::int64_t> shape = tensor.param->shape;
      if (rows) shape.pop_back();
      const std::string where = rows ? "projection of row " + element_name(name, shape, sum.worst_element)
                                     : element_name(name, shape, sum.worst_element);
      note(fmt::format("{} = {:.6g}, expected {:.6g}, allowed error {:.3g}; {} of {} {} wrong, relative L2 {:.3g}",
                       where, sum.worst_got, sum.worst_reference, sum.worst_allowed, sum.bad, compared,
                       rows ? "rows" : "elements", l2));
    } else if (const double l2_limit = limits_of(candidate, *item.expected).l2_limit;
               compared >= kFewElements && !(l2 <= l2_limit)) {
      note(fmt::format("{}: relative L2 error {:.3g} is above {:.3g}; worst element {} = {:.6g}, expected {:.6g}", name,
                       l2, l2_limit, sum.worst_element, sum.worst_got, sum.worst_reference));
    }
  }
  std::vector<std::int64_t> bad(names.size());
  std::memcpy(bad.data(), bytes.data() + partial_bytes, bad.size() * 8);
  if (std::any_of(bad.begin(), bad.end(), [](std::int64_t count) { return count < 0; }))
    return check_did_not_run("the guard zones");
  verdict.reason = problem;
  for (std::size_t zone = bad.size(); zone-- > 0;)
    if (bad[zone] > 0) verdict.reason = fmt::format("wrote {} bytes outside its buffers, {}", bad[zone], names[zone]);
  verdict.passed = verdict.reason.empty();
  return verdict;
}

Result<void> Bench::Impl::restore() {
  KGEN_CHECK_OK(device.copy(arenas[0].at(0), pristine.at(0), static_cast<std::size_t>(arena_bytes)));
  return copy_sets();
}

Result<std::string> Bench::Impl::difference_of_repeats(const LoadedCandidate& candidate) {
  if (!snapshot) {
    KGEN_TRY(snapshot, DeviceBuffer::allocate(device, arena_bytes));
  }
  KGEN_CHECK_OK(device.copy(snapshot.at(0), arenas[0].at(0), static_cast<std::size_t>(arena_bytes)));
  // On the host nothing waits for memory in another order then, and reading that much takes longer than the launches.
  const bool host = device.info().arch->vendor == Vendor::kHost;
  for (const bool displaced : {false, !host}) {
    KGEN_CHECK_OK(poison(candidate));
    KGEN_CHECK_OK(enqueue(candidate, 0, Phase::kPrepare, nullptr));
    if (displaced) KGEN_CHECK_OK(measurer.flush());
    KGEN_CHECK_OK(enqueue(candidate, 0, Phase::kRun, nullptr));
    for (const Tensor& tensor : tensors) {
      const std::int64_t size = dtype_bytes(tensor.param->dtype), count = tensor.param->bytes / size;
      if (!is_written(tensor.param->role) || count == 0) continue;
      const std::uint32_t grid = grid_for(count);
      KGEN_CHECK_OK(poison_results());
      KGEN_CHECK_OK(run(tensor.gaps, grid, arenas[0].at(tensor.offset), snapshot.at(tensor.offset), whole_layout(),
                        count, results.at(0)));
      KGEN_CHECK_OK(device.synchronize(nullptr));
      std::vector<CheckPartial> partials(grid);
      KGEN_CHECK_OK(device.copy(partials.data(), results.at(0), partials.size() * sizeof(CheckPartial)));
      std::int64_t different = 0, where = -1;
      for (const CheckPartial& partial : partials) {
        if (partial.bad < 0) return check_did_not_run(tensor.param->name);
        different += partial.bad;
        if (where < 0) where = partial.worst_element;
      }
      if (different > 0)
        return fmt::format("launches on the same inputs differ in their bits: {} elements of {}, one at offset {}",
                           different, tensor.param->name, where);
    }
  }
  return std::string();
}

Bench::Bench(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Bench::~Bench() = default;

Result<std::unique_ptr<Bench>> Bench::open(Device& device, const CheckCase& check,
                                           const std::function<void()>& probed) {
  std::vector<std::unique_ptr<Module>> modules;
  for (const std::string& path : check.code_paths) {
    KGEN_TRY(const std::string code, read_file(path));
    KGEN_TRY(modules.emplace_back(), device.load(std::as_bytes(std::span(code))));
  }
  if (modules.size() <= kChecksCode) return fail(ErrorKind::kInternal, "a case without reference or checks");
  Module& checks = *modules[kChecksCode];
  Measurer::Displace displace;
  KGEN_TRY(displace.read_all, checks.function("read_all"));
  if (modules.size() > kDisplaceCode) {
    KGEN_TRY(displace.code, modules[kDisplaceCode]->function("displace_code"));
  }
  auto impl = std::make_unique<Impl>(device, check, std::move(modules), displace);
  KGEN_TRY(impl->check_pattern, checks.function("check_pattern"));
  for (const BoundParam& param : impl->check.problem.params) {
    if (!is_tensor(param.role) || !param.present) continue;
    Impl::Tensor tensor{.param = &param};
    const std::string type(dtype_name(param.dtype));
    KGEN_TRY(tensor.fill, checks.function("fill_" + type));
    KGEN_TRY(tensor.gaps, checks.function("check_gaps_" + type));
    if (is_written(param.role)) {
      KGEN_TRY(tensor.check, checks.function("check_" + type));
      KGEN_TRY(tensor.projection, checks.function("check_projection_" + type));
    }
    impl->tensors.push_back(tensor);
  }
  if (impl->tensors.empty()) return fail(ErrorKind::kBadInput, "the op has no tensor");
  KGEN_CHECK_OK(impl->probe());
  probed();
  KGEN_CHECK_OK(impl->lay_out());
  KGEN_CHECK_OK(impl->fill_inputs());
  KGEN_CHECK_OK(impl->compute_reference());
  KGEN_CHECK_OK(impl->restore());
  KGEN_CHECK_OK(impl->try_checks());
  return std::unique_ptr<Bench>(new Bench(std::move(impl)));
}

Result<LoadedCandidate> Bench::load(const BoundPlan& bound, std::span<const std::byte> code) {
  LoadedCandidate candidate;
  candidate.bound = bound;
  for (const BoundParam& param : bound.params) {
    Param kind;
    kind.name = param.name, kind.role = param.role, kind.dtype = param.dtype, kind.align = param.align;
    kind.default_value = param.default_value, kind.of = param.of;
    candidate.plan.params.push_back(std::move(kind));
  }
  for (const BoundStep& step : bound.steps) {
    Step kernel;
    kernel.kernel = step.kernel, kernel.prepare = step.prepare;
    candidate.plan.steps.push_back(std::move(kernel));
  }
  std::size_t next = 0;
  const auto& own = impl_->check.problem.params;
  for (const BoundParam& param : bound.params) {
    if (!is_tensor(param.role)) continue;
    while (next < own.size() && !is_tensor(own[next].role)) ++next;
    if (next == own.size() || own[next].name != param.name || own[next].bytes != param.bytes)
      return fail(ErrorKind::kInternal,
                  fmt::format("argument {} of the candidate is not that of the reference", param.name));
    ++next;
  }
  if (scratch_layout(bound).names.size() > static_cast<std::size_t>(kScratchZones))
    return fail(ErrorKind::kBadInput, "a plan with more workspace and prepared buffers than are checked");
  KGEN_TRY(candidate.code, load_plan(impl_->device, candidate.plan, code));
  KGEN_TRY(candidate.launch, BoundLaunch::make(candidate.plan, bound));
  KGEN_CHECK_OK(impl_->make_scratch(candidate));
  return candidate;
}

Result<LoadedCandidate> Bench::load(std::shared_ptr<VendorKernel> kernel) {
  LoadedCandidate candidate;
  if (const std::int64_t bytes = kernel->workspace_bytes(); bytes > 0) {
    candidate.bound.params.push_back({.name = "workspace",
                                      .role = Role::kWorkspace,
                                      .dtype = DType::kInt8,
                                      .shape = {bytes},
                                      .strides = {1},
                                      .bytes = bytes});
    candidate.bound.workspace_bytes = round_up(bytes, kAlign);
  }
  candidate.vendor = std::move(kernel);
  KGEN_CHECK_OK(impl_->make_scratch(candidate));
  return candidate;
}

Result<Verdict> Bench::verify(const LoadedCandidate& candidate, Repeats repeats) {
  Impl& impl = *impl_;
  KGEN_CHECK_OK(impl.poison(candidate));
  for (int set = 0; set < sets(); ++set) KGEN_CHECK_OK(impl.enqueue(candidate, set, Phase::kPrepare, nullptr));
  KGEN_CHECK_OK(impl.device.record(impl.from, nullptr));
  KGEN_CHECK_OK(impl.enqueue(candidate, 0, Phase::kRun, nullptr));
  KGEN_CHECK_OK(impl.device.record(impl.to, nullptr));
  std::vector<Impl::Pending> pending;
  KGEN_CHECK_OK(impl.enqueue_checks(candidate, pending));
  KGEN_TRY(Verdict verdict, impl.collect(candidate, pending));
  KGEN_TRY(verdict.launch_us, impl.device.elapsed_us(impl.from, impl.to));
  if (!verdict.passed) {
    KGEN_CHECK_OK(impl.restore());
  } else if (repeats != Repeats::kNone) {
    KGEN_TRY(const std::string difference, impl.difference_of_repeats(candidate));
    verdict.same_bits = difference.empty();
    verdict.reason = difference;
    verdict.passed = difference.empty() || repeats != Repeats::kDemanded;
  }
  return verdict;
}

Result<void> Bench::launch(const LoadedCandidate& candidate, int set, Stream stream) {
  return impl_->enqueue(candidate, set, Phase::kRun, stream);
}
bool Bench::healthy() { return impl_->probe().has_value(); }
int Bench::sets() const { return static_cast<int>(impl_->arenas.size()); }
std::int64_t Bench::bytes() const {
  std::int64_t sum = impl_->measurer.flush_bytes();
  const auto add = [&](const auto&... buffers) { ((sum += buffers.bytes()), ...); };
  for (const DeviceBuffer& arena : impl_->arenas) add(arena);
  for (const DeviceBuffer& stage : impl_->stages) add(stage);
  add(impl_->pristine, impl_->layouts, impl_->zones, impl_->results, impl_->snapshot);
  for (const Impl::Expected& output : impl_->expected)
    add(output.index, output.value, output.magnitude, output.expected, output.bound);
  return sum;
}
Measurer& Bench::measurer() { return impl_->measurer; }
const std::string& Bench::method() const { return impl_->method; }

Result<CaseData> Bench::data() const {
  const Impl& impl = *impl_;
  CaseData data;
  const auto read = [&](auto& into, std::int64_t count, const char* from) -> Result<void> {
    into.resize(static_cast<std::size_t>(count));
    if (into.empty()) return {};
    return impl.device.copy(into.data(), from, into.size() * sizeof into[0]);
  };
  for (const Impl::Tensor& tensor : impl.tensors) {
    CaseData::Tensor& copy = data.tensors.emplace_back();
    copy.name = tensor.param->name;
    KGEN_CHECK_OK(read(copy.bytes, tensor.param->bytes, impl.pristine.at(tensor.offset)));
  }
  for (const Impl::Expected& expected : impl.expected) {
    CaseData::Output& copy = data.outputs.emplace_back();
    copy.name = expected.limits.name;
    if (expected.index) KGEN_CHECK_OK(read(copy.index, expected.count, expected.index.at(0)));
    KGEN_CHECK_OK(read(copy.value, expected.count, expected.value.at(0)));
    KGEN_CHECK_OK(read(copy.magnitude, expected.count, expected.magnitude.at(0)));
  }
  return data;
}

}  // namespace kgen
