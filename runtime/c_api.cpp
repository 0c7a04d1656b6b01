// The C ABI over Dispatcher and Device. Nothing throws across it; every failure leaves a text for kgen_last_error().
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "base/text.h"
#include "db/db.h"
#include "device/device.h"
#include "device/launch.h"
#include "kgen/kgen.h"
#include "runtime/dispatcher.h"

namespace {

using namespace kgen;  // NOLINT(google-build-using-namespace): the ABI's own names live outside the namespace
using Json = nlohmann::ordered_json;

// First word of every handle: a pointer to something else is told apart from a handle.
constexpr std::uint32_t kDbMagic = 0x6b67'6462;
constexpr std::uint32_t kOpMagic = 0x6b67'6f70;
constexpr std::uint32_t kKernelMagic = 0x6b67'6b6e;
constexpr std::uintptr_t kBufferAlign = 256;

thread_local std::string last_error;

kgen_status report(kgen_status status, std::string text) {
  last_error = std::move(text);
  return status;
}

kgen_status status_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kBadInput:
      return KGEN_BAD_ARGUMENT;
    case ErrorKind::kNoDevice:
      return KGEN_NO_DEVICE;
    case ErrorKind::kDevice:
      return KGEN_DEVICE_ERROR;
    default:
      return KGEN_INTERNAL;
  }
}
kgen_status report(const Error& error) { return report(status_of(error.kind), error.message); }

template <class Work>
kgen_status guarded(const Work& work) noexcept {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    last_error = "out of memory";  // short texts take no memory
    return KGEN_OUT_OF_MEMORY;
  } catch (...) {
    last_error = "internal error";
    return KGEN_INTERNAL;
  }
}

// The code object of one winner: whole bytes until it is loaded, then the kernels.
struct Code {
  std::mutex mutex;
  std::vector<std::byte> bytes;
  std::atomic<bool> ready = false;
  LoadedPlan loaded;
};

// What a kgen_db and its kgen_ops share.
struct State {
  State(std::unique_ptr<Device> opened, Db file) : device(std::move(opened)), db(std::move(file)) {}

  std::unique_ptr<Device> device;
  Db db;
  std::optional<Dispatcher> dispatcher;  // of `db`, which stays here
  std::mutex mutex;
  std::unordered_map<const WinnerRow*, std::unique_ptr<Code>> codes;
  std::unordered_map<std::string, std::string> descriptions;  // by operator; "": of the DB

  // Reads a row's code object at its first use; one that is not whole is refused every time.
  Result<void> read_code(const WinnerRow& row) {
    const std::lock_guard lock(mutex);
    if (codes.contains(&row)) return {};
    KGEN_TRY(ObjectRecord object, db.object(row.winner.object_hash));
    if (object.arch != device->info().arch->name) {
      return fail(ErrorKind::kBadInput, fmt::format("object {} is for {}", object.hash, object.arch));
    }
    auto code = std::make_unique<Code>();
    code->bytes = std::move(object.bytes);
    codes[&row] = std::move(code);
    return {};
  }
  Code* code_of(const WinnerRow& row) {
    const std::lock_guard lock(mutex);
    return codes.at(&row).get();
  }
};

bool aligned(const void* pointer, std::uintptr_t align) {
  return align == 0 || reinterpret_cast<std::uintptr_t>(pointer) % align == 0;
}

bool is_tensor(Role role) { return role == Role::kIn || role == Role::kOut || role == Role::kInOut; }

}  // namespace

struct kgen_db {
  std::uint32_t magic = kDbMagic;
  std::shared_ptr<State> state;
};

struct kgen_kernel {
  std::uint32_t magic = kKernelMagic;
  std::vector<std::int64_t> values;  // of the op's named dims
  kgen_status status = KGEN_OK;      // KGEN_NOT_FOUND: a shape that has no kernel
  std::string reason, config;
  kgen_match match{};
  double expected_loss = -1;  // negative: not known
  State* state = nullptr;
  const Plan* plan = nullptr;
  BoundPlan bound;
  Code* code = nullptr;
};

namespace {

// Shapes that were asked for, by value. Readers take no lock: they see a table that only ever gains entries, or the
// table before it. Outgrown tables stay until the op is closed, all together no larger than the present one.
class KernelTable {
 public:
  KernelTable() { grow(64); }

  const kgen_kernel* find(const std::int64_t* values, std::size_t count) const {
    const Table& table = *table_.load(std::memory_order_acquire);
    for (std::size_t i = hash(values, count) & table.mask;; i = (i + 1) & table.mask) {
      const kgen_kernel* kernel = table.slots[i].load(std::memory_order_acquire);
      if (kernel == nullptr || std::equal(values, values + count, kernel->values.begin())) return kernel;
    }
  }

  // The caller holds a lock against other inserts and has seen that the values are not there.
  const kgen_kernel* insert(std::unique_ptr<kgen_kernel> kernel) {
    if (2 * (kernels_.size() + 1) > tables_.back()->mask + 1) grow(2 * (tables_.back()->mask + 1));
    kernels_.push_back(std::move(kernel));
    place(*tables_.back(), kernels_.back().get());
    return kernels_.back().get();
  }

 private:
  struct Table {
    explicit Table(std::size_t size)
        : mask(size - 1), slots(std::make_unique<std::atomic<const kgen_kernel*>[]>(size)) {}
    std::size_t mask;
    std::unique_ptr<std::atomic<const kgen_kernel*>[]> slots;
  };

  static std::size_t hash(const std::int64_t* values, std::size_t count) {
    std::uint64_t h = 0x9e3779b97f4a7c15;
    for (std::size_t i = 0; i < count; ++i) {
      h = (h ^ static_cast<std::uint64_t>(values[i])) * 0xff51afd7ed558ccd;
      h ^= h >> 32;
    }
    return h;
  }
  static void place(Table& table, const kgen_kernel* kernel) {
    std::size_t i = hash(kernel->values.data(), kernel->values.size()) & table.mask;
    while (table.slots[i].load(std::memory_order_relaxed) != nullptr) i = (i + 1) & table.mask;
    table.slots[i].store(kernel, std::memory_order_release);
  }
  void grow(std::size_t size) {
    auto table = std::make_unique<Table>(size);
    for (const auto& kernel : kernels_) place(*table, kernel.get());
    tables_.push_back(std::move(table));
    table_.store(tables_.back().get(), std::memory_order_release);
  }

  std::vector<std::unique_ptr<kgen_kernel>> kernels_;
  std::vector<std::unique_ptr<Table>> tables_;
  std::atomic<const Table*> table_ = nullptr;
};

}  // namespace

struct kgen_op {
  std::uint32_t magic = kOpMagic;
  std::shared_ptr<State> state;
  std::string signature;
  Goal goal;
  std::vector<std::string> dims, tensors, scalars;
  KernelTable kernels;
  std::mutex mutex;  // over inserts
};

namespace {

bool valid(const kgen_db* db) { return db != nullptr && db->magic == kDbMagic; }
bool valid(const kgen_op* op) { return op != nullptr && op->magic == kOpMagic; }
bool valid(const kgen_kernel* kernel) { return kernel != nullptr && kernel->magic == kKernelMagic; }

kgen_status bad_handle(const char* what) {
  return report(KGEN_BAD_ARGUMENT, fmt::format("{} is null or no handle of that kind", what));
}

const char* vendor_name(Vendor vendor) {
  return vendor == Vendor::kNvidia ? "nvidia" : vendor == Vendor::kAmd ? "amd" : "host";
}

// "a=1 b= c=x,y" → {"a": "1", "b": "", "c": "x,y"}; `first` words are skipped.
Json words_json(std::string_view words, std::size_t first) {
  Json json = Json::object();
  const auto all = split(words, ' ');
  for (std::size_t i = first; i < all.size(); ++i) {
    const std::size_t equals = all[i].find('=');
    json[all[i].substr(0, equals)] = equals == std::string::npos ? "" : all[i].substr(equals + 1);
  }
  return json;
}

Result<std::string> describe_db(const State& state) {
  const DeviceInfo& info = state.device->info();
  return Json{
      {"device",
       {{"id", info.id}, {"name", info.name}, {"arch", info.arch->name}, {"vendor", vendor_name(info.arch->vendor)}}},
      {"operators", state.dispatcher->operators()}}
      .dump();
}

Result<std::string> describe_op(const State& state, const std::string& op) {
  KGEN_TRY(const std::vector<OpRecord> records, state.dispatcher->records(op));
  Json list = Json::array();
  for (const OpRecord& record : records) {
    const auto found = state.dispatcher->any_plan(record.signature);
    if (!found && record.signature == records.back().signature && list.empty()) return tl::unexpected(found.error());
    if (!found) continue;  // its plans are refused; kgen_open_op() says why
    const Plan* plan = *found;
    const Json whole = Json::parse(plan_to_json(*plan));
    Json json{{"op", op},
              {"signature", record.signature},
              {"attributes", words_json(record.signature, 1)},
              {"defaults", words_json(record.attributes, 0)},
              {"tensors", Json::array()},
              {"scalars", Json::array()}};
    for (const char* key : {"dims", "dim_defaults", "constants", "flops", "bytes"}) json[key] = whole.at(key);
    for (std::size_t i = 0; i < plan->params.size(); ++i) {
      Json param = whole.at("params")[i];
      const Role role = plan->params[i].role;
      param.erase("align");  // a kernel's own
      if (is_tensor(role)) {
        param.erase("default");
        json["tensors"].push_back(std::move(param));
      } else if (role == Role::kScalar) {
        json["scalars"].push_back({{"name", param["name"]}, {"dtype", param["dtype"]}, {"default", param["default"]}});
      }
    }
    list.push_back(std::move(json));
  }
  return list.dump();
}

// Dims by name; those without default must be among them.
kgen_status read_dims(kgen_op& op, const Plan& plan, std::string_view text) {
  if (!trim(text).empty()) {
    for (const std::string& word : split(text, ',')) op.dims.emplace_back(trim(word));
  }
  for (std::size_t i = 0; i < op.dims.size(); ++i) {
    const std::string& name = op.dims[i];
    if (std::find(plan.dims.begin(), plan.dims.end(), name) == plan.dims.end()) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("unknown dim '{}'{}", name, did_you_mean(name, plan.dims)));
    }
    if (std::find(op.dims.begin(), op.dims.begin() + static_cast<std::ptrdiff_t>(i), name) !=
        op.dims.begin() + static_cast<std::ptrdiff_t>(i)) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("dim '{}' is named twice", name));
    }
  }
  for (std::size_t i = 0; i < plan.dims.size(); ++i) {
    if (plan.dim_defaults[i].text().empty() &&
        std::find(op.dims.begin(), op.dims.end(), plan.dims[i]) == op.dims.end()) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("dim '{}' has no default and must be named", plan.dims[i]));
    }
  }
  return KGEN_OK;
}

// A goal of a program that was built against any version of the header.
kgen_status read_goal(const kgen_goal* goal, Goal& wanted) {
  if (goal == nullptr) return KGEN_OK;
  if (goal->size < sizeof(kgen_goal) || goal->size > 4096)
    return report(KGEN_BAD_ARGUMENT, fmt::format("goal.size is {}; set it to sizeof(kgen_goal)", goal->size));
  const auto* rest = reinterpret_cast<const unsigned char*>(goal);
  if (std::any_of(rest + sizeof(kgen_goal), rest + goal->size, [](unsigned char byte) { return byte != 0; }))
    return report(KGEN_BAD_ARGUMENT,
                  fmt::format("goal asks for more than kgen {} knows; update libkgen", KGEN_VERSION));
  static constexpr const char* kTimings[] = {"cold", "warm", "graph"};
  static constexpr const char* kObjectives[] = {"time", "energy"};
  const auto timing = static_cast<std::size_t>(goal->timing), objective = static_cast<std::size_t>(goal->objective);
  if (timing >= std::size(kTimings) || objective >= std::size(kObjectives))
    return report(KGEN_BAD_ARGUMENT, fmt::format("goal: there is no timing {} with objective {}", timing, objective));
  wanted = {.timing = kTimings[timing], .objective = kObjectives[objective], .deterministic = goal->deterministic != 0};
  return KGEN_OK;
}

// A shape that was not asked for before. Failures that another try may cure are not kept.
kgen_status find_new(kgen_op& op, const std::int64_t* values, const kgen_kernel*& out) {
  Env dims;
  for (std::size_t i = 0; i < op.dims.size(); ++i) {
    if (values[i] < 0 || values[i] >= std::int64_t{1} << 53) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("dim '{}' is {}; sizes go from 0 to 2^53", op.dims[i], values[i]));
    }
    dims[op.dims[i]] = values[i];
  }
  bool refused = false;
  Match match = op.state->dispatcher->find(op.signature, dims, op.goal, [&](const WinnerRow& row) {
    auto read = op.state->read_code(row);
    refused |= !read;
    return read;
  });
  if (match.kind == MatchKind::kNone && refused) return report(KGEN_REFUSED, match.reason);

  auto kernel = std::make_unique<kgen_kernel>();
  kernel->values.assign(values, values + op.dims.size());
  if (match.kind == MatchKind::kNone) {
    kernel->status = KGEN_NOT_FOUND;
    kernel->reason = match.reason;
  } else {
    kernel->reason = fmt::format("{}: {}", match_name(match.kind), match.reason);
    kernel->config = match.row->trial.config;
    kernel->expected_loss = match.expected_loss.value_or(-1);
    kernel->state = op.state.get();
    kernel->plan = match.plan;
    kernel->bound = std::move(match.bound);
    kernel->code = op.state->code_of(*match.row);
    kernel->match = {.kernel = kernel.get(),
                     .kind = static_cast<kgen_match_kind>(match.kind),
                     .reason = kernel->reason.c_str(),
                     .config = kernel->config.c_str(),
                     .tuned_time_us = match.row->trial.time_us.value_or(0),
                     .workspace_bytes = static_cast<std::size_t>(kernel->bound.workspace_bytes),
                     .prepared_bytes = static_cast<std::size_t>(kernel->bound.prepared_bytes)};
  }
  const std::lock_guard lock(op.mutex);
  out = op.kernels.find(values, op.dims.size());  // another thread may have been faster
  if (out == nullptr) out = op.kernels.insert(std::move(kernel));
  return KGEN_OK;
}

static_assert(static_cast<int>(MatchKind::kExact) == KGEN_MATCH_EXACT &&
              static_cast<int>(MatchKind::kNear) == KGEN_MATCH_NEAR &&
              static_cast<int>(MatchKind::kDefault) == KGEN_MATCH_DEFAULT &&
              static_cast<int>(MatchKind::kDynamic) == KGEN_MATCH_DYNAMIC);

kgen_status load(const kgen_kernel& kernel) {
  Code& code = *kernel.code;
  if (code.ready.load(std::memory_order_acquire)) return KGEN_OK;
  const std::lock_guard lock(code.mutex);
  if (code.ready.load(std::memory_order_relaxed)) return KGEN_OK;
  auto loaded = load_plan(*kernel.state->device, *kernel.plan, code.bytes);
  if (!loaded) return report(loaded.error());
  code.loaded = std::move(*loaded);
  code.bytes = {};
  code.ready.store(true, std::memory_order_release);
  return KGEN_OK;
}

// Null, foreign and misaligned pointers are found here, where they have a name, and not in the kernel.
kgen_status check_pointers(const kgen_kernel& kernel, void* const* tensors, std::size_t& count, Phase phase) {
  count = 0;
  for (const BoundParam& param : kernel.bound.params) {
    if (!is_tensor(param.role)) continue;
    if (tensors == nullptr) return report(KGEN_BAD_ARGUMENT, "tensors is null");
    const void* pointer = tensors[count++];
    if (!param.present) continue;
    if (pointer == nullptr && param.bytes > 0 && phase == Phase::kRun) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("operand '{}' is null", param.name));
    }
    if (!aligned(pointer, static_cast<std::uintptr_t>(param.align))) {
      return report(KGEN_MISALIGNED,
                    fmt::format("operand '{}' at {} is not aligned to {} bytes", param.name, pointer, param.align));
    }
  }
  return KGEN_OK;
}

kgen_status check_buffer(const char* name, const void* pointer, std::int64_t bytes) {
  if (bytes == 0) return KGEN_OK;
  if (pointer == nullptr) return report(KGEN_BAD_ARGUMENT, fmt::format("{} is null; {} bytes are needed", name, bytes));
  if (!aligned(pointer, kBufferAlign)) {
    return report(KGEN_MISALIGNED, fmt::format("{} at {} is not aligned to {} bytes", name, pointer, kBufferAlign));
  }
  return KGEN_OK;
}

kgen_status launch(const kgen_kernel* kernel, void* const* tensors, const double* scalars, void* workspace,
                   void* prepared, kgen_stream stream, Phase phase) {
  if (!valid(kernel)) return bad_handle("kernel");
  std::size_t count = 0;
  if (const auto status = check_pointers(*kernel, tensors, count, phase); status != KGEN_OK) return status;
  if (phase == Phase::kRun) {
    if (const auto status = check_buffer("workspace", workspace, kernel->bound.workspace_bytes); status != KGEN_OK)
      return status;
  }
  if (const auto status = check_buffer("prepared", prepared, kernel->bound.prepared_bytes); status != KGEN_OK)
    return status;
  if (const auto status = load(*kernel); status != KGEN_OK) return status;
  CallArgs args{.tensors = {tensors, count}, .scalars = {}, .workspace = workspace, .prepared = prepared};
  if (scalars != nullptr) {
    args.scalars = {
        scalars, static_cast<std::size_t>(std::ranges::count(kernel->bound.params, Role::kScalar, &BoundParam::role))};
  }
  const auto done =
      launch_plan(*kernel->state->device, *kernel->plan, kernel->code->loaded, kernel->bound, args, phase, stream);
  return done ? KGEN_OK : report(done.error());
}

const char* name_at(const std::vector<std::string>& names, int index) {
  if (index >= 0 && static_cast<std::size_t>(index) < names.size())
    return names[static_cast<std::size_t>(index)].c_str();
  report(KGEN_BAD_ARGUMENT, fmt::format("index {} is not below {}", index, names.size()));
  return nullptr;
}

}  // namespace

extern "C" {

const char* kgen_last_error(void) { return last_error.c_str(); }

const char* kgen_status_name(kgen_status status) {
  switch (status) {
    case KGEN_OK:
      return "ok";
    case KGEN_NOT_FOUND:
      return "not found";
    case KGEN_BAD_ARGUMENT:
      return "bad argument";
    case KGEN_BAD_DATABASE:
      return "bad database";
    case KGEN_NO_DEVICE:
      return "no device";
    case KGEN_REFUSED:
      return "refused";
    case KGEN_MISALIGNED:
      return "misaligned";
    case KGEN_DEVICE_ERROR:
      return "device error";
    case KGEN_OUT_OF_MEMORY:
      return "out of memory";
    case KGEN_INTERNAL:
      return "internal error";
  }
  return "unknown status";
}

const char* kgen_version(void) { return KGEN_VERSION; }

kgen_status kgen_open(const char* path, const char* device, kgen_db** out) {
  return guarded([&] {
    if (path == nullptr || device == nullptr || out == nullptr)
      return report(KGEN_BAD_ARGUMENT, "a null argument to kgen_open");
    *out = nullptr;
    auto file = Db::open(path, DbMode::kImmutable);
    if (!file) return report(KGEN_BAD_DATABASE, file.error().message);
    auto opened = open_device(device);
    if (!opened) return report(opened.error());
    auto state = std::make_shared<State>(std::move(*opened), std::move(*file));
    auto dispatcher = Dispatcher::load(state->db, state->device->info().arch->name, state->device->info().name);
    if (!dispatcher) return report(KGEN_BAD_DATABASE, dispatcher.error().message);
    state->dispatcher.emplace(std::move(*dispatcher));
    *out = new kgen_db{.magic = kDbMagic, .state = std::move(state)};
    return KGEN_OK;
  });
}

void kgen_close(kgen_db* db) {
  if (!valid(db)) return;
  db->magic = 0;
  delete db;
}

kgen_status kgen_open_op(kgen_db* db, const char* op, const char* attributes, const char* dims, kgen_op** out) {
  return kgen_open_op_for(db, op, attributes, dims, nullptr, out);
}

kgen_status kgen_open_op_for(kgen_db* db, const char* op, const char* attributes, const char* dims,
                             const kgen_goal* goal, kgen_op** out) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    if (op == nullptr || out == nullptr) return report(KGEN_BAD_ARGUMENT, "a null argument to kgen_open_op");
    *out = nullptr;
    Goal wanted;
    if (const auto status = read_goal(goal, wanted); status != KGEN_OK) return status;
    const Dispatcher& dispatcher = *db->state->dispatcher;
    auto signature = dispatcher.signature(op, attributes == nullptr ? "" : attributes);
    if (!signature) return report(signature.error());
    const auto plan = dispatcher.any_plan(*signature);
    if (!plan) return report(KGEN_NOT_FOUND, plan.error().message);
    auto opened = std::make_unique<kgen_op>();
    opened->state = db->state;
    opened->signature = std::move(*signature);
    opened->goal = std::move(wanted);
    if (const auto status = read_dims(*opened, **plan, dims == nullptr ? "" : dims); status != KGEN_OK) return status;
    for (const Param& param : (*plan)->params) {
      if (is_tensor(param.role)) opened->tensors.push_back(param.name);
      if (param.role == Role::kScalar) opened->scalars.push_back(param.name);
    }
    *out = opened.release();
    return KGEN_OK;
  });
}

const char* kgen_describe(kgen_db* db, const char* op) {
  const char* text = nullptr;
  guarded([&] {
    if (!valid(db)) return bad_handle("db");
    State& state = *db->state;
    const std::string name = op == nullptr ? "" : op;
    const std::lock_guard lock(state.mutex);
    auto it = state.descriptions.find(name);
    if (it == state.descriptions.end()) {
      auto made = op == nullptr ? describe_db(state) : describe_op(state, name);
      if (!made) return report(made.error());
      it = state.descriptions.emplace(name, std::move(*made)).first;
    }
    text = it->second.c_str();
    return KGEN_OK;
  });
  return text;
}

void kgen_close_op(kgen_op* op) {
  if (!valid(op)) return;
  op->magic = 0;
  delete op;
}

kgen_status kgen_find(kgen_op* op, const int64_t* values, kgen_match* match) {
  return guarded([&] {
    if (!valid(op)) return bad_handle("op");
    if (match == nullptr || (values == nullptr && !op->dims.empty())) {
      return report(KGEN_BAD_ARGUMENT, "a null argument to kgen_find");
    }
    const kgen_kernel* kernel = op->kernels.find(values, op->dims.size());
    kgen_status status = KGEN_OK;
    if (kernel == nullptr) status = find_new(*op, values, kernel);
    if (status == KGEN_OK && kernel->status != KGEN_OK) status = report(kernel->status, kernel->reason);
    if (status == KGEN_OK) {
      *match = kernel->match;
    } else {
      *match = {};
      match->reason = last_error.c_str();
    }
    return status;
  });
}

double kgen_expected_loss(const kgen_kernel* kernel) {
  if (valid(kernel)) return kernel->expected_loss;
  bad_handle("kernel");
  return -1;
}

kgen_status kgen_preload(const kgen_kernel* kernel) {
  return guarded([&] { return valid(kernel) ? load(*kernel) : bad_handle("kernel"); });
}

int kgen_tensor_count(const kgen_op* op) { return valid(op) ? static_cast<int>(op->tensors.size()) : 0; }
const char* kgen_tensor_name(const kgen_op* op, int index) { return valid(op) ? name_at(op->tensors, index) : nullptr; }
int kgen_scalar_count(const kgen_op* op) { return valid(op) ? static_cast<int>(op->scalars.size()) : 0; }
const char* kgen_scalar_name(const kgen_op* op, int index) { return valid(op) ? name_at(op->scalars, index) : nullptr; }

kgen_status kgen_prepare(const kgen_kernel* kernel, void* const* tensors, void* prepared, kgen_stream stream) {
  return guarded([&] {
    if (valid(kernel) && kernel->bound.prepared_bytes == 0) return KGEN_OK;
    return launch(kernel, tensors, nullptr, nullptr, prepared, stream, Phase::kPrepare);
  });
}

kgen_status kgen_launch(const kgen_kernel* kernel, void* const* tensors, const double* scalars, void* workspace,
                        const void* prepared, kgen_stream stream) {
  return guarded(
      [&] { return launch(kernel, tensors, scalars, workspace, const_cast<void*>(prepared), stream, Phase::kRun); });
}

void* kgen_device_alloc(kgen_db* db, size_t bytes) {
  void* pointer = nullptr;
  guarded([&] {
    if (!valid(db)) return bad_handle("db");
    auto allocated = db->state->device->allocate(bytes);
    if (!allocated) return report(KGEN_OUT_OF_MEMORY, allocated.error().message);
    pointer = *allocated;
    return KGEN_OK;
  });
  return pointer;
}

void kgen_device_free(kgen_db* db, void* pointer) {
  guarded([&] {
    if (valid(db) && pointer != nullptr) db->state->device->release(pointer);
    return KGEN_OK;
  });
}

kgen_status kgen_device_copy(kgen_db* db, void* to, const void* from, size_t bytes) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    if (bytes == 0) return KGEN_OK;
    if (to == nullptr || from == nullptr) return report(KGEN_BAD_ARGUMENT, "a null argument to kgen_device_copy");
    const auto done = db->state->device->copy(to, from, bytes);
    return done ? KGEN_OK : report(done.error());
  });
}

kgen_status kgen_synchronize(kgen_db* db, kgen_stream stream) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    const auto done = db->state->device->synchronize(stream);
    return done ? KGEN_OK : report(done.error());
  });
}

const char* kgen_device_name(const kgen_db* db) { return valid(db) ? db->state->device->info().name.c_str() : nullptr; }

}  // extern "C"
