#include "tests/device/fault_script.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/text.h"

namespace fake {
namespace {

constexpr int kMaxRules = 32, kMaxDevices = 16;

struct Rule {
  std::string text, call, kernel, when, action, value;
  int device = -1;
};

// Shared by the processes of a run; a fresh file is all zeros.
struct State {
  std::atomic<std::uint64_t> calls[kMaxRules];
  std::atomic<std::int64_t> lost_until_ms[kMaxDevices];  // INT64_MAX: for ever
  std::atomic<std::uint64_t> lots;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

std::string setting(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

[[noreturn]] void refuse(const std::string& text) {
  fmt::print(stderr, "KGEN_FAKE_FAULTS: {}\n", text);
  std::_Exit(99);
}

std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

double number(const Rule& rule, std::string_view text) {
  char* end = nullptr;
  const std::string word(text);
  const double value = std::strtod(word.c_str(), &end);
  if (word.empty() || *end != '\0') refuse(fmt::format("'{}': no number in '{}'", rule.text, word));
  return value;
}

std::vector<Rule> parse(const std::string& script) {
  static const std::vector<std::string> kActions = {"error", "fault", "lost", "hang", "delay",  "skip", "corrupt",
                                                    "value", "crash", "exit", "kill", "babble", "half"};
  static const std::vector<std::string> kCalls = {"init",
                                                  "device_count",
                                                  "device_name",
                                                  "allocate",
                                                  "release",
                                                  "fill",
                                                  "copy",
                                                  "module_load",
                                                  "module_unload",
                                                  "module_function",
                                                  "launch",
                                                  "stream_create",
                                                  "stream_synchronize",
                                                  "event_create",
                                                  "event_record",
                                                  "event_synchronize",
                                                  "event_elapsed_ms",
                                                  "capture_begin",
                                                  "capture_end",
                                                  "graph_instantiate",
                                                  "graph_launch",
                                                  "cuda_primary_retain",
                                                  "hip_device_set",
                                                  "any",
                                                  "compile"};
  std::vector<Rule> rules;
  for (const std::string& text : kgen::split(script, ';')) {
    if (kgen::trim(text).empty()) continue;
    const std::vector<std::string> parts = kgen::split(std::string(kgen::trim(text)), ':');
    Rule rule;
    rule.text = text;
    if (parts.size() != 3) refuse(fmt::format("'{}' is not CALL:WHEN:ACTION", text));
    rule.call = parts[0], rule.when = parts[1], rule.action = parts[2];
    if (const auto at = rule.call.find('@'); at != std::string::npos) {
      rule.device = static_cast<int>(number(rule, std::string_view(rule.call).substr(at + 1)));
      rule.call.resize(at);
    }
    if (const auto slash = rule.call.find('/'); slash != std::string::npos) {
      rule.kernel = rule.call.substr(slash + 1);
      rule.call.resize(slash);
    }
    if (const auto equal = rule.action.find('='); equal != std::string::npos) {
      rule.value = rule.action.substr(equal + 1);
      rule.action.resize(equal);
    }
    const auto has = [](const std::vector<std::string>& words, const std::string& word) {
      return std::find(words.begin(), words.end(), word) != words.end();
    };
    if (!has(kActions, rule.action)) refuse(fmt::format("'{}': no action is called '{}'", text, rule.action));
    if (!has(kCalls, rule.call)) refuse(fmt::format("'{}': no call is called '{}'", text, rule.call));
    // What would be logged as a fault and be none.
    if ((rule.action == "skip" &&
         !has({"launch", "fill", "copy", "event_record", "graph_launch", "compile"}, rule.call)) ||
        (rule.action == "corrupt" && !has({"launch", "fill", "copy", "module_load", "compile"}, rule.call)) ||
        (rule.action == "half" && rule.call != "compile") ||
        (rule.action == "value" && rule.call != "event_elapsed_ms"))
      refuse(fmt::format("'{}': {} does not take the action {}", text, rule.call, rule.action));
    rules.push_back(std::move(rule));
  }
  if (rules.size() > kMaxRules) refuse("too many rules");
  return rules;
}

const std::vector<Rule>& rules() {
  static const std::vector<Rule> kRules = parse(setting("KGEN_FAKE_FAULTS"));
  return kRules;
}

State& state() {
  static State* const kShared = [] {
    const std::string path = setting("KGEN_FAKE_STATE");
    int fd = -1;
    if (!path.empty()) {
      fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
      if (fd < 0 || ::ftruncate(fd, sizeof(State)) != 0) refuse(fmt::format("{}: {}", path, std::strerror(errno)));
    }
    void* memory = ::mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE,
                          fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) refuse("no memory for the state");
    if (fd >= 0) ::close(fd);
    return static_cast<State*>(memory);
  }();
  return *kShared;
}

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::uint64_t seed() {
  static const std::uint64_t kSeed = std::strtoull(setting("KGEN_FAKE_SEED").c_str(), nullptr, 10);
  return kSeed;
}

bool is_time(const Rule& rule, std::uint64_t count, std::uint64_t index) {
  if (rule.when == "*") return true;
  if (rule.when.starts_with('p')) {
    const double chance = number(rule, std::string_view(rule.when).substr(1));
    return static_cast<double>(mix(mix(seed() * 64 + index) + count) >> 11) * 0x1p-53 < chance;
  }
  if (rule.when.starts_with('%'))
    return count % static_cast<std::uint64_t>(std::max(1.0, number(rule, std::string_view(rule.when).substr(1)))) == 0;
  if (rule.when.ends_with('+'))
    return count >=
           static_cast<std::uint64_t>(number(rule, std::string_view(rule.when).substr(0, rule.when.size() - 1)));
  return count == static_cast<std::uint64_t>(number(rule, rule.when));
}

int code_of(const Rule& rule, std::uint64_t count, std::uint64_t index) {
  if (rule.value == "any") return static_cast<int>(1 + mix(seed() + 977 * index + count) % 999);
  return static_cast<int>(number(rule, rule.value));
}

Injection act(const Rule& rule, std::uint64_t count, std::uint64_t index, int device) {
  using Kind = Injection::Kind;
  if (rule.action == "error") return {Kind::kError, code_of(rule, count, index)};
  if (rule.action == "fault") return {Kind::kFault, code_of(rule, count, index)};
  if (rule.action == "lost") {
    const double seconds = number(rule, rule.value);
    state().lost_until_ms[device % kMaxDevices] =
        seconds == 0 ? INT64_MAX : now_ms() + static_cast<std::int64_t>(seconds * 1e3);
    return {};
  }
  if (rule.action == "skip") return {Kind::kSkip};
  if (rule.action == "corrupt") return {Kind::kCorrupt};
  if (rule.action == "half") return {Kind::kHalf};
  if (rule.action == "value") return {Kind::kValue, 0, number(rule, rule.value)};
  if (rule.action == "delay") ::usleep(static_cast<useconds_t>(number(rule, rule.value) * 1e3));
  if (rule.action == "crash") ::signal(SIGSEGV, SIG_DFL), ::raise(SIGSEGV);
  if (rule.action == "exit") std::_Exit(0);
  if (rule.action == "kill") ::raise(SIGKILL);
  if (rule.action == "babble") {
    const std::string line(4095, 'x');
    for (int i = 0; i < 1024; ++i) fmt::print(i % 2 == 0 ? stdout : stderr, "{}\n", line);
  }
  while (rule.action == "hang") ::pause();
  return {};
}

bool needs_device(std::string_view call) {
  constexpr std::string_view kOthers[] = {"init", "device_count", "device_name", "compile"};
  for (const std::string_view other : kOthers)
    if (call == other) return false;
  return true;
}

}  // namespace

void log_line(std::string_view text) {
  static const std::string kPath = setting("KGEN_FAKE_LOG");
  if (kPath.empty()) return;
  const int fd = ::open(kPath.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return;
  const std::string line = fmt::format("{} {} {}\n", now_ms(), ::getpid(), text);
  [[maybe_unused]] const auto written = ::write(fd, line.data(), line.size());  // one write: lines stay whole
  ::close(fd);
}

std::uint64_t lot() { return mix(seed() + 0x5bd1e995u * ++state().lots); }

bool lost(int device) {
  return !rules().empty() && device >= 0 && state().lost_until_ms[device % kMaxDevices].load() > now_ms();
}

Injection meet(std::string_view call, std::string_view kernel, int device) {
  std::size_t acts = rules().size();
  std::uint64_t when = 0;
  for (std::size_t i = 0; i < rules().size(); ++i) {  // all count, the first one acts
    const Rule& rule = rules()[i];
    if (rule.call != call && !(rule.call == "any" && needs_device(call))) continue;
    if (!kernel.starts_with(rule.kernel) || (rule.device >= 0 && rule.device != device)) continue;
    const std::uint64_t count = ++state().calls[i];
    if (acts < rules().size() || !is_time(rule, count, i)) continue;
    acts = i, when = count;
  }
  if (acts == rules().size()) return {};
  log_line(fmt::format("fault {} at call {} of {}{}{} on device {}", kgen::trim(rules()[acts].text), when, call,
                       kernel.empty() ? "" : " ", kernel, device));
  return act(rules()[acts], when, acts, device);
}

}  // namespace fake
