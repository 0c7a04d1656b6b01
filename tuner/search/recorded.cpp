#include "tuner/search/recorded.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "base/gunzip.h"
#include "base/json.h"
#include "base/text.h"

namespace kgen {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // for T4, whose configurations have no other order

// "2023-12-22 09:53:48.691683+00:00" → milliseconds; 0 for anything else. UTC is all that the tools write.
std::int64_t parse_time(const std::string& text) {
  int year = 0;
  unsigned month = 0, day = 0, hour = 0, minute = 0;
  double second = 0;
  if (std::sscanf(text.c_str(), "%d-%u-%u%*1[ T]%u:%u:%lf", &year, &month, &day, &hour, &minute, &second) != 6)
    return 0;
  // What is no time of a measurement counts as not told.
  if (year < 1970 || year > 9999 || month > 12 || day > 31 || hour > 23 || minute > 59 || !(second >= 0 && second < 61))
    return 0;
  const std::chrono::sys_days date =
      std::chrono::year_month_day(std::chrono::year(year), std::chrono::month(month), std::chrono::day(day));
  const auto minutes = std::chrono::minutes(date.time_since_epoch() / std::chrono::minutes(1) + hour * 60 + minute);
  return std::chrono::milliseconds(minutes).count() + std::llround(second * 1000);
}
std::string format_time(std::int64_t milliseconds) {
  if (milliseconds == 0) return "";
  const std::time_t seconds = milliseconds / 1000;
  return fmt::format("{:%Y-%m-%d %H:%M:%S}.{:03}+00:00", fmt::gmtime(seconds), milliseconds % 1000);
}

// Samples count as not told where one is no time.
template <class J>
void set_samples(TrialRecord& trial, const J& times, double to_us) {
  for (const J& time : times) trial.samples_us.push_back(static_cast<float>(time.template get<double>() * to_us));
  if (!std::ranges::all_of(trial.samples_us, [](float us) { return us >= 0 && std::isfinite(us); }))
    trial.samples_us.clear();
}

// A value as it is spelled in a config: no quotes, no spaces (they separate).
template <class J>
std::string spelled(const J& value) {
  std::string text = value.is_string() ? value.template get<std::string>() : value.dump();
  for (char& c : text)
    if (c == ' ' || c == '=') c = '_';
  return text;
}

struct Failure {
  const char* name;
  TrialStatus status;
};
// The first of a status is the one that is written.
constexpr Failure kInvalidity[] = {{"compile", TrialStatus::kCompileFailed}, {"compile", TrialStatus::kCompileTimeout},
                                   {"constraints", TrialStatus::kPruned},    {"correctness", TrialStatus::kWrong},
                                   {"runtime", TrialStatus::kLaunchFailed},  {"runtime", TrialStatus::kCrashed},
                                   {"timeout", TrialStatus::kHung},          {"correct", TrialStatus::kTimed},
                                   {"correct", TrialStatus::kStoppedEarly}};
TrialStatus failure_status(const std::string& text) {
  for (const Failure& failure : kInvalidity)
    if (text == failure.name) return failure.status;
  if (text.starts_with("Compilation")) return TrialStatus::kCompileFailed;
  if (text.starts_with("Invalid")) return TrialStatus::kPruned;
  return TrialStatus::kLaunchFailed;
}

// Sets status and time from a measured value (milliseconds times `to_us`) or the name of a failure.
template <class J>
void set_time(TrialRecord& trial, const J& time, double to_us) {
  trial.timing = "warm";
  if (!time.is_number()) {
    trial.status = failure_status(time.is_string() ? time.template get<std::string>() : "");
  } else if (const double value = time.template get<double>(); value > 0 && value < 1e20) {
    trial.time_us = value * to_us;
    return;
  } else {
    trial.status = TrialStatus::kLaunchFailed;  // old files mark a failure by 1e20
  }
  trial.timing = "";
}

Result<Recording> from_kernel_tuner(const Json& json, const std::string& file) {
  Recording recording;
  recording.file = file;
  recording.op.op = recording.op.signature = json.value("kernel_name", std::string("kernel"));
  recording.device.name = json.value("device_name", std::string());
  std::vector<std::string> dims;
  Json dims_json = Json::object();
  if (json.contains("problem_size")) {
    Json size = json["problem_size"];
    if (!size.is_array()) size = Json::array({size});
    for (std::size_t i = 0; i < size.size(); ++i) {
      const std::string name = i < 3 ? std::string(1, "xyz"[i]) : fmt::format("d{}", i);
      dims.push_back(name);
      dims_json[name] = size[i];
      recording.problem.dims_key += (i == 0 ? "" : " ") + name + "=" + spelled(size[i]);
    }
  }
  recording.op.dims = join(dims, ",");
  recording.problem.dims_json = dims_json.dump();
  const auto keys = json.at("tune_params_keys").get<std::vector<std::string>>();
  const std::string objective = json.value("objective", std::string("time"));
  for (const auto& [key, record] : json.at("cache").items()) {
    TrialRecord& trial = recording.trials.emplace_back();
    for (const std::string& name : keys)
      trial.config += (trial.config.empty() ? "" : " ") + name + "=" + spelled(record.at(name));
    set_time(trial, record.at(record.contains("time") ? "time" : objective), 1000);
    if (const auto times = record.find("times"); times != record.end() && times->is_array() && trial.time_us)
      set_samples(trial, *times, 1000);
    if (const auto ms = record.find("compile_time"); ms != record.end() && ms->is_number())
      trial.compile_seconds = ms->get<double>() / 1000;
    if (const auto ms = record.find("verification_time"); ms != record.end() && ms->is_number())
      trial.verify_seconds = ms->get<double>() / 1000;
    trial.recorded_at_ms = parse_time(record.value("timestamp", std::string()));
  }
  return recording;
}

// Members of the trial that T4 has no place for.
// What of a trial T4 has no place for, by name: the same list for writing and reading.
template <class Trial, class Text, class Value>
void each_extra(Trial& t, const Text& text, const Value& value) {
  text("reason", t.reason);
  text("source_hash", t.source_hash);
  text("op_hash", t.op_hash);
  text("compiler", t.compiler);
  text("options", t.options);
  text("kgen_version", t.kgen_version);
  text("throttle", t.throttle);
  value("time_us", t.time_us);
  value("mad_us", t.mad_us);
  value("compile_seconds", t.compile_seconds);
  value("verify_seconds", t.verify_seconds);
  value("max_error_ratio", t.max_error_ratio);
  value("relative_l2", t.relative_l2);
  value("registers", t.registers);
  value("spills", t.spills);
  value("lds_bytes", t.lds_bytes);
  value("occupancy_waves", t.occupancy_waves);
  value("clock_mhz", t.clock_mhz);
  value("temperature_c", t.temperature_c);
  value("energy_uj", t.energy_uj);
  value("energy_mad_uj", t.energy_mad_uj);
  value("deterministic", t.deterministic);
}

OrderedJson extras(const TrialRecord& t) {
  OrderedJson json{{"status", status_name(t.status)}, {"timing", t.timing}};
  const auto text = [&](const char* name, const std::string& value) {
    if (!value.empty()) json[name] = value;
  };
  const auto value = [&](const char* name, const auto& optional) {
    if (optional) json[name] = *optional;
  };
  each_extra(t, text, value);
  for (const SampleState& state : t.states)
    json["states"].push_back(OrderedJson::array({state.clock_mhz, state.temperature_c, state.throttled}));
  if (t.is_default) json["is_default"] = true;
  if (t.recorded_at_ms != 0) json["recorded_at_ms"] = t.recorded_at_ms;
  return json;
}
void set_extras(TrialRecord& t, const OrderedJson& json) {
  const auto text = [&](const char* name, std::string& value) { value = json.value(name, value); };
  const auto value = [&]<class T>(const char* name, std::optional<T>& optional) {
    if (const auto at = json.find(name); at != json.end()) optional = exactly<T>(*at);
  };
  if (const auto status = find_status(json.at("status").get<std::string>())) t.status = *status;
  text("timing", t.timing);
  static const std::set<std::string> timings{"", "cold", "warm", "graph"};
  if (!timings.contains(t.timing))
    throw OrderedJson::type_error::create(302, "unknown timing '" + t.timing + "'", &json);
  each_extra(t, text, value);
  if (const auto states = json.find("states"); states != json.end())
    for (const OrderedJson& state : *states)
      t.states.push_back({.clock_mhz = exactly<int>(state.at(0)),
                          .temperature_c = exactly<int>(state.at(1)),
                          .throttled = state.at(2).get<bool>()});
  t.is_default = json.value("is_default", false);
  if (const auto at = json.find("recorded_at_ms"); at != json.end())
    t.recorded_at_ms = std::max<std::int64_t>(exactly<std::int64_t>(*at), 0);
  // What cannot be counts as not told, as `db check` sees it.
  for (std::optional<int>* const count : {&t.registers, &t.spills, &t.lds_bytes, &t.occupancy_waves})
    if (count->value_or(0) < 0) count->reset();
  if (std::abs(t.temperature_c.value_or(0)) > 1000) t.temperature_c.reset();
  for (std::optional<double>* const error : {&t.max_error_ratio, &t.relative_l2})
    if (!(error->value_or(0) <= 1e300)) error->reset();
}

OrderedJson context_json(const Recording& r) {
  return {{"op", r.op.op},
          {"signature", r.op.signature},
          {"dims", r.op.dims},
          {"dim_defaults", r.op.dim_defaults},
          {"attributes", r.op.attributes},
          {"dims_key", r.problem.dims_key},
          {"dims_json", r.problem.dims_json},
          {"label", r.problem.label},
          {"flops", r.problem.flops},
          {"bytes", r.problem.bytes},
          {"arch", r.device.arch},
          {"device", r.device.name},
          {"driver", r.device.driver},
          {"uuid", r.device.uuid},
          {"compute_units", r.device.compute_units},
          {"memory_bytes", r.device.memory_bytes},
          {"l2_bytes", r.device.l2_bytes},
          {"clock_khz", r.device.clock_khz}};
}
void set_context(Recording& r, const OrderedJson& json) {
  const auto get = [&]<class T>(const char* name, T& value) { value = exactly<T>(json.at(name)); };
  get("op", r.op.op);
  get("signature", r.op.signature);
  get("dims", r.op.dims);
  get("dim_defaults", r.op.dim_defaults);
  get("attributes", r.op.attributes);
  get("dims_key", r.problem.dims_key);
  get("dims_json", r.problem.dims_json);
  get("label", r.problem.label);
  get("flops", r.problem.flops);
  get("bytes", r.problem.bytes);
  get("arch", r.device.arch);
  get("device", r.device.name);
  get("driver", r.device.driver);
  get("uuid", r.device.uuid);
  get("compute_units", r.device.compute_units);
  get("memory_bytes", r.device.memory_bytes);
  get("l2_bytes", r.device.l2_bytes);
  get("clock_khz", r.device.clock_khz);
}

Result<double> unit_in_us(const std::string& unit) {
  for (const auto& [name, factor] :
       {std::pair{"milli", 1e3}, {"mili", 1e3}, {"micro", 1.0}, {"nano", 1e-3}, {"s", 1e6}})
    if (unit.starts_with(name)) return factor;
  return fail(ErrorKind::kBadInput, fmt::format("unknown timeunit '{}'", unit));
}

Result<std::vector<Recording>> t4_recordings(const OrderedJson& json, const std::string& file) {
  std::vector<Recording> recordings(1);
  double to_us = 1000;
  if (const auto metadata = json.find("metadata"); metadata != json.end()) {
    KGEN_TRY(to_us, unit_in_us(metadata->value("timeunit", std::string("milliseconds"))));
    if (const auto own = metadata->find("kgen"); own != metadata->end()) {
      recordings.resize(own->size());
      for (std::size_t i = 0; i < own->size(); ++i) {
        set_context(recordings[i], (*own)[i]);
        const OpRecord& op = recordings[i].op;
        if (op.signature != op.op && !op.signature.starts_with(op.op + " "))
          return fail(ErrorKind::kBadInput, fmt::format("'{}' is no signature of '{}'", op.signature, op.op));
        if (const std::string& dims = recordings[i].problem.dims_json; !OrderedJson::accept(dims))
          return fail(ErrorKind::kBadInput, fmt::format("dims_json is no JSON: {}", dims));
      }
    }
  }
  const bool foreign = recordings.front().op.op.empty();
  if (foreign) {
    // A T4 file does not say what it is of.
    std::string stem = file.substr(file.find_last_of('/') + 1);
    stem = stem.substr(0, stem.find('.'));
    recordings.front().op.op = recordings.front().op.signature = spelled(OrderedJson(stem));
    recordings.front().problem.dims_json = "{}";
  }
  for (Recording& recording : recordings) {
    recording.file = file;
    recording.alone = recordings.size() == 1;
  }
  for (const OrderedJson& result : json.at("results")) {
    const auto own = result.find("kgen");
    const std::size_t number = own == result.end() ? 0 : own->value("recording", std::size_t{0});
    TrialRecord& trial = recordings.at(number).trials.emplace_back();
    for (const auto& [name, value] : result.at("configuration").items()) {
      if (!trial.config.empty()) trial.config += ' ';
      trial.config += name == "variant" && !foreign ? spelled(value) : name + "=" + spelled(value);
    }
    const std::string invalidity = result.value("invalidity", std::string("correct"));
    if (invalidity == "correct") {
      const std::string objective =
          result.contains("objectives") && !result["objectives"].empty() ? result["objectives"][0] : "time";
      const OrderedJson* time = nullptr;
      for (const OrderedJson& measurement : result.at("measurements"))
        if (time == nullptr || measurement.at("name") == objective) time = &measurement.at("value");
      if (time == nullptr) return fail(ErrorKind::kBadInput, fmt::format("no measurement of '{}'", objective));
      set_time(trial, *time, to_us);
    } else {
      trial.status = failure_status(invalidity);
    }
    if (const auto times = result.find("times"); times != result.end()) {
      if (const auto runs = times->find("runtimes"); runs != times->end() && (trial.time_us || own != result.end()))
        set_samples(trial, *runs, to_us);
      if (const auto time = times->find("compilation"); time != times->end() && time->is_number())
        trial.compile_seconds = time->get<double>() * to_us / 1e6;
      if (const auto time = times->find("validation"); time != times->end() && time->is_number())
        trial.verify_seconds = time->get<double>() * to_us / 1e6;
    }
    trial.recorded_at_ms = parse_time(result.value("timestamp", std::string()));
    if (own != result.end()) {
      trial.compile_seconds.reset();
      trial.verify_seconds.reset();
      set_extras(trial, *own);
    }
  }
  return recordings;
}

Result<std::vector<Recording>> from_database(const std::string& path, bool with_samples) {
  KGEN_TRY(Db db, Db::open(path, DbMode::kReadOnly));
  KGEN_TRY(const std::vector<TrialGroup> groups, db.trial_groups());
  std::vector<Recording> recordings;
  for (const TrialGroup& group : groups) {
    Recording recording{path, group.op, group.problem, group.device, {}};
    KGEN_TRY(recording.trials, db.trials(group.problem_id, group.device_id, with_samples));
    std::erase_if(recording.trials, untimed);  // neither a time nor a failure
    if (!recording.trials.empty()) recordings.push_back(std::move(recording));
  }
  for (Recording& recording : recordings) recording.alone = recordings.size() == 1;
  return recordings;
}

template <class J, class Read>
auto parsed(const std::string& text, const std::string& file, Read read) -> decltype(read(J())) {
  try {
    return read(J::parse(text));
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorKind::kBadInput, fmt::format("{}: not a recorded search space: {}", file, error.what()));
  } catch (const std::out_of_range&) {
    return fail(ErrorKind::kBadInput, fmt::format("{}: a result names a recording that is not there", file));
  }
}

}  // namespace

std::string Recording::name() const {
  std::string name = file.substr(file.find_last_of('/') + 1);
  for (const char* ending : {".gz", ".json"})
    if (name.ends_with(ending)) name.resize(name.size() - std::string(ending).size());
  if (!alone) name += fmt::format(": {} {} on {}", op.op, problem.dims_key, device.name);
  return name;
}

std::string to_t4(const std::vector<Recording>& recordings) {
  OrderedJson json{{"metadata", {{"timeunit", "microseconds"}, {"kgen", OrderedJson::array()}}},
                   {"schema_version", "1.0.0"},
                   {"results", OrderedJson::array()}};
  for (std::size_t r = 0; r < recordings.size(); ++r) {
    json["metadata"]["kgen"].push_back(context_json(recordings[r]));
    for (const TrialRecord& trial : recordings[r].trials) {
      OrderedJson configuration = OrderedJson::object();
      for (const auto& [name, value] : parse_config(trial.config)) {
        const OrderedJson number = OrderedJson::parse(value, nullptr, false);
        configuration[name] = number.is_number() && number.dump() == value ? number : OrderedJson(value);
      }
      std::string invalidity;
      for (const Failure& failure : kInvalidity)
        if (failure.status == trial.status && invalidity.empty()) invalidity = failure.name;
      const bool correct = invalidity == "correct";
      OrderedJson own = extras(trial);
      own["recording"] = r;
      auto measurements =
          OrderedJson::array({{{"name", "time"},
                               {"value", correct ? OrderedJson(trial.time_us.value_or(0)) : OrderedJson(invalidity)},
                               {"unit", "microseconds"}}});
      if (trial.energy_uj)
        measurements.push_back({{"name", "energy"}, {"value", *trial.energy_uj}, {"unit", "microjoules"}});
      json["results"].push_back({{"timestamp", format_time(trial.recorded_at_ms)},
                                 {"configuration", std::move(configuration)},
                                 {"times",
                                  {{"compilation", trial.compile_seconds.value_or(0) * 1e6},
                                   {"framework", 0},
                                   {"search_algorithm", 0},
                                   {"validation", trial.verify_seconds.value_or(0) * 1e6},
                                   {"runtimes", trial.samples_us}}},
                                 {"invalidity", invalidity},
                                 {"correctness", correct ? 1 : 0},
                                 {"measurements", std::move(measurements)},
                                 {"objectives", {"time"}},
                                 {"kgen", std::move(own)}});
    }
  }
  // Texts of a database need not be UTF-8.
  return json.dump(1, ' ', false, OrderedJson::error_handler_t::replace);
}

Result<std::vector<Recording>> from_t4(const std::string& text, const std::string& file) {
  return parsed<OrderedJson>(text, file, [&](const OrderedJson& json) { return t4_recordings(json, file); });
}

Result<std::vector<Recording>> read_recordings(const std::string& path, bool with_samples) {
  KGEN_TRY(std::string text, read_file(path));
  if (text.starts_with("SQLite format 3")) return from_database(path, with_samples);
  if (is_gzip(text)) {
    auto unpacked = gunzip(text);
    if (!unpacked) return fail(ErrorKind::kBadInput, path + ": " + unpacked.error().message);
    text = std::move(*unpacked);
  }
  // Which of the two it is stands near the beginning: a T4 file has no "tune_params_keys".
  const std::string_view head = std::string_view(text).substr(0, 1 << 16);
  if (head.find("\"tune_params_keys\"") == std::string_view::npos &&
      (head.find("\"results\"") != std::string_view::npos || head.find("\"metadata\"") != std::string_view::npos))
    return from_t4(text, path);
  // Kernel Tuner closes a cache file only when the search has ended.
  const auto end = text.find_last_not_of(" \r\n\t");
  if (end != std::string::npos && text[end] == ',') text = text.substr(0, end) + "}}";
  return parsed<Json>(text, path, [&](const Json& json) -> Result<std::vector<Recording>> {
    KGEN_TRY(Recording recording, from_kernel_tuner(json, path));
    return std::vector<Recording>{std::move(recording)};
  });
}

Config parse_config(const std::string& key) {
  Config config;
  for (const std::string& word : split(key, ' ')) {
    if (word.empty()) continue;
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) {
      config.emplace_back("variant", word);
    } else {
      config.emplace_back(word.substr(0, equals), word.substr(equals + 1));
    }
  }
  return config;
}

RecordedSpace recorded_space(const Recording& recording) {
  RecordedSpace space;
  std::unordered_map<std::string, std::size_t> number;
  for (const TrialRecord& trial : recording.trials) {
    const auto [at, added] = number.emplace(trial.config, space.configs.size());
    if (added) {
      space.configs.push_back(parse_config(trial.config));
      space.times_us.push_back(kFailed);
    }
    const bool timed = trial.status == TrialStatus::kTimed || trial.status == TrialStatus::kStoppedEarly;
    space.times_us[at->second] = timed ? trial.time_us.value_or(kFailed) : kFailed;
  }
  return space;
}

Elsewhere elsewhere(const RecordedSpace& space) {
  Elsewhere result;
  for (std::size_t i = 0; i < space.configs.size(); ++i) result.times.emplace_back(space.configs[i], space.times_us[i]);
  return result;
}

}  // namespace kgen
