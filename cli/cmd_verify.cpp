#include <fmt/core.h>

#include <fstream>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "generator/spec.h"
#include "tuner/session.h"

namespace kgen {
namespace {

// By its first bytes; a pipe (a spec from the shell's <(…)) is not touched, for it can be read only once.
bool is_database(const std::string& path) {
  if (path.ends_with(".db")) return true;
  if (path.starts_with("/dev/") || path.starts_with("/proc/")) return false;
  char magic[16] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::string_view(magic, sizeof magic).starts_with("SQLite format 3");
}

Result<std::vector<VerifyRow>> verify(const Context& context, const std::string& input, const std::string& op_glob,
                                      const std::string& config, const std::string& device, const Words& own_ops) {
  const std::unique_ptr<Compiler> compiler = compiler_for(context);
  if (is_database(input)) {
    if (!config.empty()) return fail(ErrorKind::kBadInput, "--config goes with a spec file, not with a database");
    KGEN_TRY(Db db, Db::open(input, DbMode::kReadOnly));
    return verify_db(db, op_glob, device, *compiler, context.self, own_ops);
  }
  KGEN_TRY(const std::vector<OpSpec> specs, parse_spec(input, op_glob));
  if (specs.empty()) return fail(ErrorKind::kBadInput, fmt::format("no problem: {} matches '--op {}'", input, op_glob));
  return verify_specs(specs, config, device, *compiler, context.self);
}

}  // namespace

int cmd_verify(const Context& context, const Words& args) {
  std::string input, op_glob = "*", config, device = "auto";
  Words own_ops;
  bool as_json = false;
  Options options("verify", "[tuned.db] [--op GLOB] | SPEC [--config k=v,…]",
                  "Check winners, or one candidate, against the reference on the present device.");
  options.argument("FILE", input,
                   "a tuned database, or a spec file; the database that ships with kgen where none is named", false);
  options.text("--op", op_glob, "only operators whose name matches");
  options.text("--config", config,
               "candidate: 'variant k=v …' or 'k=v,…'; what is left out takes its default; '*': the default of every "
               "variant that is legal");
  options.list("--own-op", own_ops,
               "definition of an operator in the database that is not built in; may be given again");
  options.text("--device", device, "auto, host, amd:N, nvidia:N");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;

  const auto named = named_db(input);
  if (!named) return report(named.error());
  const auto rows = verify(context, *named, op_glob, config, device, own_ops);
  if (!rows) return report(rows.error());
  int failed = 0;
  Json json{{"rows", Json::array()}};
  for (const VerifyRow& row : *rows) {
    failed += !row.passed;
    json["rows"].push_back({{"signature", row.signature},
                            {"dims", dims_of_key(row.dims_key)},
                            {"config", row.config},
                            {"passed", row.passed},
                            {"max_error_ratio", row.max_error_ratio},
                            {"relative_l2", row.relative_l2},
                            {"detail", row.detail}});
    if (!as_json) {
      fmt::print("{}  {} {}  {}  error {:.3g} of the allowed, relative L2 {:.2e}{}{}\n",
                 row.passed ? "passed" : "FAILED", printable(row.signature), printable(row.dims_key),
                 printable(row.config), row.max_error_ratio, row.relative_l2, row.detail.empty() ? "" : "\n  ",
                 printable(row.detail));
    }
  }
  json["passed"] = rows->size() - static_cast<std::size_t>(failed);
  json["failed"] = failed;
  if (as_json) {
    print_json(json);
  } else {
    fmt::print("{} passed, {} failed\n", rows->size() - static_cast<std::size_t>(failed), failed);
  }
  return failed > 0 ? 1 : 0;
}

}  // namespace kgen
