#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <numeric>

#include "base/text.h"
#include "cli/cli.h"
#include "runtime/shipped.h"

namespace kgen {
namespace {

double time_of(const TrialRecord& trial) { return trial.time_us.value_or(0); }

// Does the message start with "file:line:column:"?
bool has_position(const std::string& message) {
  std::size_t at = 0;
  int numbers = 0;
  while ((at = message.find(':', at)) != std::string::npos) {
    std::size_t end = at + 1;
    while (end < message.size() && std::isdigit(static_cast<unsigned char>(message[end]))) ++end;
    if (end == at + 1 || end >= message.size() || message[end] != ':') {
      if (numbers > 0) return false;
      ++at;
      continue;
    }
    if (++numbers == 2) return true;
    at = end;
  }
  return false;
}

bool is_numeric(const std::string& cell) {
  return !cell.empty() && cell.find_first_not_of("0123456789+-.,%xe ") == std::string::npos &&
         cell.find_first_of("0123456789") != std::string::npos;
}

}  // namespace

int report(const Error& error) {
  // A message may quote a file; the first errors of a compiler have several lines.
  const char* head = has_position(error.message) ? "" : "kgen: ";
  for (const std::string& line : split(error.message, '\n')) {
    fmt::print(stderr, "{}{}\n", head, printable(line));
    head = "";
  }
  return exit_code(error.kind);
}

Result<std::string> named_db(const std::string& path) {
  if (!path.empty()) return path;
  return shipped_db();
}

Result<Words> named_dbs(const Words& paths) {
  if (!paths.empty()) return paths;
  KGEN_TRY(std::string path, shipped_db());
  return Words{std::move(path)};
}

void print_json(const Json& json) {
  // Foreign texts (compiler messages, device names) need not be UTF-8; the document must be, and does nothing to a
  // terminal.
  fmt::print("{}\n", json.dump(2, ' ', true, Json::error_handler_t::replace));
}

std::string csv_cell(const std::string& text) {
  const std::string shown = printable(text);
  if (shown.find_first_of(",\"") == std::string::npos) return shown;
  std::string quoted = "\"";
  for (const char c : shown) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}

void Table::add(Words row) {
  for (std::string& cell : row) cell = printable(cell);
  rows_.push_back(std::move(row));
}

void Table::print(std::size_t columns) const {
  constexpr std::size_t kLeast = 10;  // of a column that is cut
  std::vector<std::size_t> widths;
  for (const Words& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const auto total = [&] { return std::accumulate(widths.begin(), widths.end(), 2 * widths.size() - 2); };
  std::vector<bool> left_out(widths.size(), false);
  for (std::size_t i = 0; i < widths.size() && columns > 0 && total() > columns; ++i) {
    left_out[i] = std::all_of(rows_.begin() + 1, rows_.end(),
                              [&](const Words& row) { return i >= row.size() || row[i].empty(); });
    if (left_out[i]) widths[i] = 0;
  }
  while (columns > 0 && total() > columns) {
    std::size_t& widest = *std::max_element(widths.begin(), widths.end());
    if (widest <= kLeast) break;
    --widest;
  }
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < rows_[r].size(); ++i) {
      if (left_out[i]) continue;
      std::string cell = rows_[r][i];
      if (cell.size() > widths[i]) cell = cell.substr(0, widths[i] - 3) + "...";
      const bool right = r == 0 ? rows_.size() > 1 && i < rows_[1].size() && is_numeric(rows_[1][i]) : is_numeric(cell);
      line += right ? fmt::format("{:>{}}", cell, widths[i]) : fmt::format("{:<{}}", cell, widths[i]);
      if (i + 1 < rows_[r].size()) line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", line);
  }
}

Result<std::vector<std::pair<std::string, std::string>>> key_values(const Words& words) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail(ErrorKind::kBadInput, fmt::format("'{}' is not of the form name=value", word));
    pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

Result<std::vector<TrialRecord>> ranked(Db& db, const WinnerRow& row) {
  KGEN_TRY(std::vector<TrialRecord> trials, db.trials(row.winner.problem, row.winner.device));
  std::erase_if(trials, [&](const TrialRecord& trial) { return !trial.time_us || trial.timing != row.trial.timing; });
  std::reverse(trials.begin(), trials.end());
  std::stable_sort(trials.begin(), trials.end(), [](const auto& a, const auto& b) { return a.config < b.config; });
  trials.erase(
      std::unique(trials.begin(), trials.end(), [](const auto& a, const auto& b) { return a.config == b.config; }),
      trials.end());
  std::stable_sort(trials.begin(), trials.end(), [](const auto& a, const auto& b) { return time_of(a) < time_of(b); });
  return trials;
}

std::string percent_of(double best_us, double time_us) {
  return time_us > 0 ? fmt::format("{:.1f}%", 100 * best_us / time_us) : "";
}

Json signature_attributes(const std::string& signature) {
  Json attributes = Json::object();
  for (const std::string& word : split(signature, ' ')) {
    const std::size_t equals = word.find('=');
    if (equals != std::string::npos) attributes[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return attributes;
}

Json dims_of_key(const std::string& dims_key) {
  Json dims = Json::object();
  for (const std::string& word : split(dims_key, ' ')) {
    const std::size_t equals = word.find('=');
    std::int64_t value = 0;
    if (equals == std::string::npos) continue;
    std::from_chars(word.data() + equals + 1, word.data() + word.size(), value);
    dims[word.substr(0, equals)] = value;
  }
  return dims;
}

std::string yaml_value(const std::string& value) {
  const auto is_word = [](const std::string& text) {
    return !text.empty() && text[0] != '.' && text[0] != '-' && std::ranges::all_of(text, [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-';
    });
  };
  if (is_word(value)) return value;
  const Words members = split(value, ',');
  if (members.size() > 1 && std::ranges::all_of(members, is_word)) return "[" + join(members, ", ") + "]";
  return Json(value).dump(-1, ' ', true, Json::error_handler_t::replace);  // YAML's double quotes are JSON's
}

std::string goal_flags(const Goal& goal) {
  return (goal.timing == "cold" ? "" : " --timing " + goal.timing) +
         (goal.objective == "time" ? "" : " --objective " + goal.objective) +
         (goal.deterministic ? " --deterministic" : "");
}

std::string short_attributes(const OpRecord& op) {
  const Json attributes = signature_attributes(op.signature);
  std::string text;
  for (const std::string& word : split(op.attributes, ' ')) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = word.substr(0, equals);
    std::string usual = word.substr(equals + 1);
    if (attributes.contains(usual)) usual = attributes[usual].get<std::string>();  // a default may name an attribute
    const std::string value = attributes.value(name, "");
    if (value != usual) text += " " + name + "=" + value;
  }
  return text;
}

Result<std::vector<Arch>> parse_archs(const std::string& text) {
  std::vector<Arch> archs;
  if (text == "all") {
    for (const ArchInfo& arch : all_archs()) archs.push_back(&arch);
    return archs;
  }
  for (const std::string& name : split(text, ',')) {
    KGEN_TRY(archs.emplace_back(), find_arch(trim(name)));
  }
  return archs;
}

std::unique_ptr<Compiler> compiler_for(const Context& context, double timeout_seconds) {
  CompilerOptions options;
  options.timeout_seconds = timeout_seconds;
  options.self = context.self;
  return make_compiler(options);
}

std::string number(double value) {
  if (value == 0) return "";
  if (value >= 1000) return fmt::format("{:.0f}", value);
  return fmt::format("{:.{}f}", value, value >= 100 ? 1 : value >= 1 ? 2 : 3);
}

double roofline_share(double flops, double bytes, double time_us, double peak_flops, double peak_bytes_per_second) {
  if (peak_flops <= 0 || peak_bytes_per_second <= 0 || time_us <= 0) return 0;
  return std::max(flops / peak_flops, bytes / peak_bytes_per_second) * 1e6 / time_us;
}

}  // namespace kgen
