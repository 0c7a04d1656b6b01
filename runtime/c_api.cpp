// The C ABI over Dispatcher and Device. Nothing throws across it; every failure leaves a text for kgen_last_error().
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"
#include "runtime/guard.h"
#include "runtime/handles.h"
#include "runtime/shipped.h"

namespace {

using namespace kgen;  // NOLINT(google-build-using-namespace): the ABI's own names live outside the namespace
using Json = nlohmann::ordered_json;

constexpr std::uintptr_t kBufferAlign = 256;

thread_local std::string last_error;

kgen_status report(kgen_status status, std::string_view text) {
  last_error = printable(text);  // it may quote a file from elsewhere
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

bool aligned(const void* pointer, std::uintptr_t align) {
  return align == 0 || reinterpret_cast<std::uintptr_t>(pointer) % align == 0;
}

bool is_tensor(Role role) { return role == Role::kIn || role == Role::kOut || role == Role::kInOut; }

bool valid(const kgen_db* db) { return db != nullptr && db->magic == kDbMagic; }
bool valid(const kgen_op* op) { return op != nullptr && op->magic == kOpMagic; }
bool valid(const kgen_kernel* kernel) { return kernel != nullptr && kernel->magic == kKernelMagic; }

kgen_status bad_handle(const char* what) {
  return report(KGEN_BAD_ARGUMENT, fmt::format("{} is null or no handle of that kind", what));
}

const char* vendor_name(Vendor vendor) {
  return vendor == Vendor::kNvidia ? "nvidia" : vendor == Vendor::kAmd ? "amd" : "host";
}

// Texts of a file need not be UTF-8; a document must be.
std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

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

std::set<std::string> operators_of(const State& state) {
  std::set<std::string> names;
  for (const auto& file : state.files) {
    if (file == nullptr) continue;
    for (std::string& name : file->dispatcher->operators()) names.insert(std::move(name));
  }
  return names;
}

Result<std::string> describe_db(const DeviceInfo& info, const State& state) {
  return to_text(Json{
      {"device",
       {{"id", info.id}, {"name", info.name}, {"arch", info.arch->name}, {"vendor", vendor_name(info.arch->vendor)}}},
      {"operators", operators_of(state)}});
}

Result<std::string> describe_op(const State& state, const std::string& op) {
  KGEN_TRY(const std::vector<OpRecord> records,
           state.first([&](const Dispatcher& dispatcher) { return dispatcher.records(op); }));
  Json list = Json::array();
  for (const OpRecord& record : records) {
    const auto found = state.first([&](const Dispatcher& dispatcher) { return dispatcher.any_plan(record.signature); });
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
  return to_text(list);
}

// Dims by name; those without default must be among them.
kgen_status read_dims(const Plan& plan, std::string_view text, std::vector<std::string>& dims) {
  if (!trim(text).empty()) {
    for (const std::string& word : split(text, ',')) dims.emplace_back(trim(word));
  }
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const std::string& name = dims[i];
    if (std::find(plan.dims.begin(), plan.dims.end(), name) == plan.dims.end()) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("unknown dim '{}'{}", name, did_you_mean(name, plan.dims)));
    }
    if (std::find(dims.begin(), dims.begin() + static_cast<std::ptrdiff_t>(i), name) !=
        dims.begin() + static_cast<std::ptrdiff_t>(i)) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("dim '{}' is named twice", name));
    }
  }
  for (std::size_t i = 0; i < plan.dims.size(); ++i) {
    if (plan.dim_defaults[i].text().empty() && std::find(dims.begin(), dims.end(), plan.dims[i]) == dims.end()) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("dim '{}' has no default and must be named", plan.dims[i]));
    }
  }
  return KGEN_OK;
}

// A struct of a program that was built against any version of the header: no smaller than its first version, and
// nothing but zeros where this version knows no members.
template <class Struct>
kgen_status check_size(const Struct& given, std::size_t first_size, std::string_view name) {
  if (given.size < first_size || given.size > 4096)
    return report(KGEN_BAD_ARGUMENT, fmt::format("{0}.size is {1}; set it to sizeof(kgen_{0})", name, given.size));
  const auto* bytes = reinterpret_cast<const unsigned char*>(&given);
  if (given.size > sizeof(Struct) &&
      std::any_of(bytes + sizeof(Struct), bytes + given.size, [](unsigned char byte) { return byte != 0; }))
    return report(KGEN_BAD_ARGUMENT,
                  fmt::format("{} asks for more than kgen {} knows; update libkgen", name, KGEN_VERSION));
  return KGEN_OK;
}

kgen_status read_options(const kgen_open_options* options, std::optional<PublicKey>& key) {
  if (options == nullptr) return KGEN_OK;
  if (const auto status = check_size(*options, sizeof(kgen_open_options), "open_options"); status != KGEN_OK)
    return status;
  if (options->key == nullptr) return KGEN_OK;
  const auto parsed = PublicKey::parse(options->key);
  if (!parsed) return report(KGEN_BAD_ARGUMENT, "open_options.key: " + parsed.error().message);
  key = *parsed;
  return KGEN_OK;
}

kgen_status read_goal(const kgen_goal* goal, Goal& wanted, bool& guarded) {
  if (goal == nullptr) return KGEN_OK;
  constexpr std::size_t kFirstSize = 24;  // of the struct that ended with `deterministic`
  if (const auto status = check_size(*goal, kFirstSize, "goal"); status != KGEN_OK) return status;
  static constexpr const char* kTimings[] = {"cold", "warm", "graph"};
  static constexpr const char* kObjectives[] = {"time", "energy"};
  const auto timing = static_cast<std::size_t>(goal->timing), objective = static_cast<std::size_t>(goal->objective);
  if (timing >= std::size(kTimings) || objective >= std::size(kObjectives))
    return report(KGEN_BAD_ARGUMENT, fmt::format("goal: there is no timing {} with objective {}", timing, objective));
  guarded = goal->size >= sizeof(kgen_goal) && goal->guard != 0;
  wanted = {.timing = kTimings[timing], .objective = kObjectives[objective], .deterministic = goal->deterministic != 0};
  return KGEN_OK;
}

// The operands that a plan takes, in order, are those of the handle: launches give them by position.
Result<void> same_operands(const kgen_op& op, const StoredPlan& stored) {
  if (stored.operands == op.operands) return {};
  const Plan& plan = stored.plan;
  std::size_t tensors = 0, scalars = 0;
  for (const Param& param : plan.params) {
    if (is_tensor(param.role) && (tensors == op.tensors.size() || op.tensors[tensors++] != param.name))
      return fail(ErrorKind::kBadInput,
                  fmt::format("its operand '{}' is not one that this handle has there", param.name));
    if (param.role == Role::kScalar && (scalars == op.scalars.size() || op.scalars[scalars++] != param.name))
      return fail(ErrorKind::kBadInput,
                  fmt::format("its scalar '{}' is not one that this handle has there", param.name));
  }
  if (tensors != op.tensors.size() || scalars != op.scalars.size())
    return fail(ErrorKind::kBadInput, "it takes fewer operands than this handle has");
  return {};
}

// What the files have for a shape.
struct Found {
  Match match;
  std::shared_ptr<Code> code;
  bool refused = false;  // something that would have fitted
};

// Best first; the order of the enumeration is the ABI's.
int rank(MatchKind kind) {
  constexpr MatchKind kOrder[] = {MatchKind::kExact, MatchKind::kDynamic, MatchKind::kNear, MatchKind::kDefault,
                                  MatchKind::kNone};
  return static_cast<int>(std::ranges::find(kOrder, kind) - kOrder);
}

// The questions for a reading, made at its first lookup.
std::shared_ptr<const kgen_op::Questions> questions_of(kgen_op& op, const State& state, std::uint64_t generation) {
  const std::lock_guard lock(op.mutex);
  if (op.questions == nullptr || op.questions->generation != generation) {
    auto made = std::make_shared<kgen_op::Questions>();
    made->generation = generation;
    for (const auto& file : state.files)
      made->files.push_back(file == nullptr ? nullptr : file->dispatcher->question(op.signature, op.dims));
    op.questions = std::move(made);
  }
  return op.questions;
}

// A shape as find_new() has it.
struct Asked {
  kgen_op& op;
  const State& state;
  const kgen_op::Questions& questions;
  std::span<const std::int64_t> values;

  Env dims() const {
    Env dims;
    for (std::size_t i = 0; i < values.size(); ++i) dims[op.dims[i]] = values[i];
    return dims;
  }
};

Found look_up(const Asked& asked, bool only_defaults = false) {
  const kgen_op& op = asked.op;
  Found best;
  for (std::size_t i = 0; i < asked.state.files.size(); ++i) {
    const auto& file = asked.state.files[i];
    if (file == nullptr) continue;
    Found found;
    const auto usable = [&](const WinnerRow& row, const auto& plan) -> Result<void> {
      if (only_defaults && !row.winner.is_default) return fail(ErrorKind::kBadInput, "not a default");
      KGEN_CHECK_OK(same_operands(op, *plan));
      KGEN_TRY(found.code, op.core->code(*file, row, plan));
      return {};
    };
    found.match = file->dispatcher->find(*asked.questions.files[i], asked.values, op.goal,
                                         [&](const WinnerRow& row, const auto& plan) {
                                           const auto use = usable(row, plan);
                                           found.refused |= !use;
                                           return use;
                                         });
    const bool first = i == 0;
    if (first || rank(found.match.kind) < rank(best.match.kind)) {
      found.refused |= best.refused;
      best = std::move(found);
    }
  }
  return best;
}

std::string words_of(const Env& dims) {
  std::string words;
  for (const auto& [name, value] : dims) words += fmt::format("{}{}={}", words.empty() ? "" : " ", name, value);
  return words;
}

// What `kgen doctor` reads of a shape (docs/lookup.md).
std::string trace_head(const kgen_op& op, const Env& dims, const Match& match) {
  Json json{{"op", op.signature.substr(0, op.signature.find(' '))},
            {"attributes", words_json(op.signature, 1)},
            {"dims", dims},
            {"goal", op.goal.text()},
            {"arch", op.core->device().info().arch->name},
            {"device", op.core->device().info().name},
            {"kind", match_name(match.kind)},
            {"reason", match.reason}};
  if (match.row != nullptr) {
    json["config"] = match.row->trial.config;
    json["expected_us"] = expected_us(match);
    if (match.expected_loss) json["expected_loss"] = *match.expected_loss;
  }
  const std::string text = to_text(json);
  return text.substr(1, text.size() - 2);
}

// The guard's verdict as a part of the reason; true where the default is the one to keep.
std::pair<bool, std::string> guarded_choice(const Asked& asked, const Found& found, Found& fallback) {
  if (found.match.row->winner.is_default) return {false, ""};
  fallback = look_up(asked, true);
  if (fallback.match.kind == MatchKind::kNone) return {false, "; not guarded, for there is no default"};
  if (fallback.code == found.code) return {false, "; it is the default, too"};
  const auto times = [&]() -> Result<GuardTimes> {
    Contender chosen{found.code, BoundLaunch::make(found.match.plan->layout, found.match.bound)};
    Contender other{fallback.code, BoundLaunch::make(fallback.match.plan->layout, fallback.match.bound)};
    return guard(asked.op.core->device(), chosen, other);
  }();
  if (!times) return {false, "; not guarded: " + times.error().message};
  const bool worse = times->default_us < times->chosen_us;
  return {worse,
          fmt::format("; guarded: {:.1f} us here, the {} {:.1f} us", worse ? times->default_us : times->chosen_us,
                      worse ? "tuned one" : "default", worse ? times->chosen_us : times->default_us)};
}

// "near: tuned at m=5476, legal for m=5480".
std::string reason_of(const Match& match) {
  const std::string_view kind = match_name(match.kind);
  std::string text;
  text.reserve(kind.size() + 2 + match.reason.size());
  text.append(kind).append(": ").append(match.reason);
  bool plain = true;
  for (const char c : text) plain &= c >= 0x20 && c < 0x7f;
  return plain ? text : printable(text);
}

// Fills a kernel in with what was found, or with the default where that is asked for and better.
void bind_kernel(const Asked& asked, Found& found, kgen_kernel& kernel) {
  if (asked.op.guarded) {
    Found fallback;
    const auto [worse, words] = guarded_choice(asked, found, fallback);
    if (worse) {
      found = std::move(fallback);
      found.match.kind = MatchKind::kDefault;
      found.match.reason = "the operator's default";
      found.match.expected_loss.reset();
    }
    found.match.reason += words;
  }
  const Match& match = found.match;
  kernel.launch = BoundLaunch::make(match.plan->layout, match.bound);
  kernel.reason = reason_of(match);
  kernel.row = match.row;
  kernel.expected_loss = match.expected_loss.value_or(-1);
  kernel.code = found.code;
  kernel.match = {.kernel = &kernel,
                  .kind = static_cast<kgen_match_kind>(match.kind),
                  .reason = kernel.reason.c_str(),
                  .config = match.row->trial.config.c_str(),
                  .tuned_time_us = match.row->trial.time_us.value_or(0),
                  .workspace_bytes = static_cast<std::size_t>(kernel.launch.workspace_bytes()),
                  .prepared_bytes = static_cast<std::size_t>(kernel.launch.prepared_bytes())};
}

// A shape that was not asked for since the file was read. Failures that another try may cure are not kept.
kgen_status find_new(kgen_op& op, const std::int64_t* values, const kgen_kernel*& out) {
  for (std::size_t i = 0; i < op.dims.size(); ++i) {
    if (values[i] < 0 || values[i] >= std::int64_t{1} << 53) {
      return report(KGEN_BAD_ARGUMENT, fmt::format("dim '{}' is {}; sizes go from 0 to 2^53", op.dims[i], values[i]));
    }
  }
  const auto [state, generation] = op.core->state();
  const auto questions = questions_of(op, *state, generation);
  const Asked asked{op, *state, *questions, {values, op.dims.size()}};
  Found found = look_up(asked);
  if (found.match.kind == MatchKind::kNone && found.refused) return report(KGEN_REFUSED, found.match.reason);
  const MatchKind served = found.match.kind;  // before the guard

  auto kernel = std::make_unique<kgen_kernel>();
  kernel->core = op.core.get();
  if (served == MatchKind::kNone) {
    kernel->status = KGEN_NOT_FOUND;
    kernel->reason = printable(found.match.reason);
  } else {
    bind_kernel(asked, found, *kernel);
  }
  if (const auto trace = op.core->trace(); trace != nullptr)
    kernel->seen = trace->add(trace_head(op, asked.dims(), found.match));
  if (served != MatchKind::kExact && served != MatchKind::kDynamic && op.core->hooked()) {
    const std::size_t space = op.signature.find(' ');
    op.core->miss(op.signature.substr(0, space).c_str(),
                  space == std::string::npos ? "" : op.signature.substr(space + 1).c_str(),
                  words_of(asked.dims()).c_str(), static_cast<kgen_match_kind>(served));
  }

  const std::lock_guard lock(op.mutex);
  kgen_op::Table* table = op.table.load(std::memory_order_relaxed);
  if (table->generation < generation) {
    op.newer.push_back(std::make_unique<kgen_op::Table>(op.dims.size()));
    table = op.newer.back().get();
    table->generation = generation;
    op.table.store(table, std::memory_order_release);
  }
  // Another thread may have been faster, or may have looked into a newer file.
  if (kgen_kernel* known = table->kernels.find(values); known != nullptr) {
    out = known;
    return KGEN_OK;
  }
  out = kernel.get();
  if (table->generation == generation) table->kernels.insert(values, kernel.get());
  op.kernels.push_back(std::move(kernel));
  return KGEN_OK;
}

static_assert(static_cast<int>(MatchKind::kExact) == KGEN_MATCH_EXACT &&
              static_cast<int>(MatchKind::kNear) == KGEN_MATCH_NEAR &&
              static_cast<int>(MatchKind::kDefault) == KGEN_MATCH_DEFAULT &&
              static_cast<int>(MatchKind::kDynamic) == KGEN_MATCH_DYNAMIC);

kgen_status load(const kgen_kernel& kernel) {
  const auto loaded = load(kernel.core->device(), *kernel.code);
  return loaded ? KGEN_OK : report(loaded.error());
}

// Null, foreign and misaligned pointers are found here, where they have a name, and not in the kernel.
kgen_status check_pointers(const kgen_kernel& kernel, void* const* tensors, Phase phase) {
  const auto& operands = kernel.launch.layout().operands();
  if (tensors == nullptr && !operands.empty()) return report(KGEN_BAD_ARGUMENT, "tensors is null");
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const LaunchLayout::Operand& operand = operands[i];
    const auto bytes = kernel.launch.operand_bytes(i);
    if (!bytes) continue;
    const auto name = [&] { return kernel.code->plan->plan.params[operand.param].name; };
    if (tensors[i] == nullptr && *bytes > 0 && phase == Phase::kRun)
      return report(KGEN_BAD_ARGUMENT, fmt::format("operand '{}' is null", name()));
    if (!aligned(tensors[i], static_cast<std::uintptr_t>(operand.align))) {
      return report(KGEN_MISALIGNED, fmt::format("operand '{}' at {} is not aligned to {} bytes", name(),
                                                 fmt::ptr(tensors[i]), operand.align));
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
  if (const auto status = check_pointers(*kernel, tensors, phase); status != KGEN_OK) return status;
  if (phase == Phase::kRun) {
    if (const auto status = check_buffer("workspace", workspace, kernel->launch.workspace_bytes()); status != KGEN_OK)
      return status;
  }
  if (const auto status = check_buffer("prepared", prepared, kernel->launch.prepared_bytes()); status != KGEN_OK)
    return status;
  if (const auto status = load(*kernel); status != KGEN_OK) return status;
  CallArgs args{.tensors = {tensors, kernel->launch.layout().operands().size()},
                .scalars = {},
                .workspace = workspace,
                .prepared = prepared};
  if (scalars != nullptr) args.scalars = {scalars, kernel->launch.layout().scalar_count()};
  if (kernel->seen != nullptr && phase == Phase::kRun) kernel->seen->note();
  Code& code = *kernel->code;
  const auto done = kernel->launch.run(kernel->core->device(), code.plan->plan, code.loaded, args, phase, stream);
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
  return kgen_open_with(path, device, nullptr, out);
}

kgen_status kgen_open_with(const char* path, const char* device, const kgen_open_options* options, kgen_db** out) {
  return guarded([&] {
    if (device == nullptr || out == nullptr) return report(KGEN_BAD_ARGUMENT, "a null argument to kgen_open");
    *out = nullptr;
    std::optional<PublicKey> key;
    if (const auto status = read_options(options, key); status != KGEN_OK) return status;
    const Result<std::string> file = path != nullptr ? Result<std::string>(path) : shipped_db();
    if (!file) return report(KGEN_BAD_DATABASE, file.error().message);
    auto opened = open_device(device);
    if (!opened) return report(opened.error());
    auto core = Core::open(*file, key, std::move(*opened));
    if (!core) return report(KGEN_BAD_DATABASE, core.error().message);
    if (const char* trace = std::getenv("KGEN_TRACE"); trace != nullptr && *trace != '\0') {
      auto opened_trace = Trace::open(trace);
      if (!opened_trace) return report(KGEN_BAD_ARGUMENT, "KGEN_TRACE: " + opened_trace.error().message);
      (*core)->set_trace(std::move(*opened_trace));
    }
    *out = new kgen_db{.magic = kDbMagic, .core = std::move(*core)};
    return KGEN_OK;
  });
}

kgen_status kgen_reload(kgen_db* db, int* changed) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    if (changed != nullptr) *changed = 0;
    const auto reloaded = db->core->reload();
    if (!reloaded) return report(KGEN_BAD_DATABASE, reloaded.error().message);
    if (changed != nullptr) *changed = *reloaded ? 1 : 0;
    return KGEN_OK;
  });
}

kgen_status kgen_add(kgen_db* db, const char* path) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    const Result<std::string> file = path != nullptr ? Result<std::string>(path) : shipped_db();
    if (!file) return report(KGEN_BAD_DATABASE, file.error().message);
    const auto added = db->core->add(*file);
    return added ? KGEN_OK : report(KGEN_BAD_DATABASE, added.error().message);
  });
}

kgen_status kgen_record(kgen_db* db, const char* path) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    if (const auto before = db->core->trace(); before != nullptr) before->write();
    if (path == nullptr) {
      db->core->set_trace(nullptr);
      return KGEN_OK;
    }
    auto trace = Trace::open(path);
    if (!trace) return report(KGEN_BAD_ARGUMENT, trace.error().message);
    db->core->set_trace(std::move(*trace));
    return KGEN_OK;
  });
}

kgen_status kgen_set_miss_hook(kgen_db* db, kgen_miss_hook hook, void* user) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    db->core->set_miss_hook({hook, user});
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
    bool guarded = false;
    if (const auto status = read_goal(goal, wanted, guarded); status != KGEN_OK) return status;
    const auto [state, generation] = db->core->state();
    auto signature = state->first([&](const Dispatcher& dispatcher) {
      return dispatcher.signature(op, attributes == nullptr ? "" : attributes);
    });
    if (!signature) return report(signature.error());
    const auto plan = state->first([&](const Dispatcher& dispatcher) { return dispatcher.any_plan(*signature); });
    if (!plan) return report(KGEN_NOT_FOUND, plan.error().message);
    std::vector<std::string> names;
    if (const auto status = read_dims(**plan, dims == nullptr ? "" : dims, names); status != KGEN_OK) return status;
    auto opened = std::make_unique<kgen_op>(names.size());
    opened->core = db->core;
    opened->first.generation = generation;
    opened->signature = std::move(*signature);
    opened->goal = std::move(wanted);
    opened->guarded = guarded;
    opened->dims = std::move(names);
    opened->operands = operands_of(**plan);
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
    const auto [state, generation] = db->core->state();
    auto made = op == nullptr ? describe_db(db->core->device().info(), *state) : describe_op(*state, op);
    if (!made) return report(made.error());
    text = db->core->keep(std::move(*made));
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
    const kgen_op::Table* table = op->table.load(std::memory_order_acquire);
    const kgen_kernel* kernel = table->generation == op->core->generation() ? table->kernels.find(values) : nullptr;
    kgen_status status = KGEN_OK;
    if (kernel == nullptr) status = find_new(*op, values, kernel);
    if (status == KGEN_OK && kernel->status != KGEN_OK) {
      if (kernel->seen != nullptr) kernel->seen->note();
      status = report(kernel->status, kernel->reason);
    }
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
    if (valid(kernel) && kernel->launch.prepared_bytes() == 0) return KGEN_OK;
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
    auto allocated = db->core->device().allocate(bytes);
    if (!allocated) return report(KGEN_OUT_OF_MEMORY, allocated.error().message);
    pointer = *allocated;
    return KGEN_OK;
  });
  return pointer;
}

void kgen_device_free(kgen_db* db, void* pointer) {
  guarded([&] {
    if (valid(db) && pointer != nullptr) db->core->device().release(pointer);
    return KGEN_OK;
  });
}

kgen_status kgen_device_copy(kgen_db* db, void* to, const void* from, size_t bytes) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    if (bytes == 0) return KGEN_OK;
    if (to == nullptr || from == nullptr) return report(KGEN_BAD_ARGUMENT, "a null argument to kgen_device_copy");
    const auto done = db->core->device().copy(to, from, bytes);
    return done ? KGEN_OK : report(done.error());
  });
}

kgen_status kgen_synchronize(kgen_db* db, kgen_stream stream) {
  return guarded([&] {
    if (!valid(db)) return bad_handle("db");
    const auto done = db->core->device().synchronize(stream);
    return done ? KGEN_OK : report(done.error());
  });
}

const char* kgen_device_name(const kgen_db* db) { return valid(db) ? db->core->device().info().name.c_str() : nullptr; }

}  // extern "C"
