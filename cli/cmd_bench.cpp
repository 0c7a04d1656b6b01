#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "tuner/session.h"

namespace kgen {
namespace {

Result<std::vector<BenchRow>> bench(const Context& context, const Words& files, const std::string& op_glob,
                                    const std::string& device, const std::string& timing, int rounds,
                                    bool against_vendor, const Words& own_ops) {
  std::vector<Db> dbs;
  for (const std::string& file : files) {
    KGEN_TRY(Db db, Db::open(file, DbMode::kReadOnly));
    dbs.push_back(std::move(db));
  }
  const std::unique_ptr<Compiler> compiler = compiler_for(context);
  return bench_dbs(dbs, op_glob, device, timing, rounds, against_vendor, *compiler, context.self, own_ops);
}

// How the kernels stand against the vendor's library, and which problems it was not timed on.
void print_against_vendor(const std::vector<BenchRow>& rows, const std::vector<double>& ratios) {
  double logs = 0;
  for (const double ratio : ratios) logs += std::log(ratio);
  if (!ratios.empty())
    fmt::print(
        "\n{} of {} problems beside the vendor's library: kgen is faster on {}, {:.2f} times as fast on average\n",
        ratios.size(), rows.size(), std::ranges::count_if(ratios, [](double ratio) { return ratio > 1; }),
        std::exp(logs / static_cast<double>(ratios.size())));
  for (const BenchRow& row : rows)
    if (row.vendor && !row.vendor->note.empty())
      fmt::print("{}\n", printable(row.signature + " " + row.dims_key + ": " + row.vendor->note));
}

}  // namespace

int cmd_bench(const Context& context, const Words& args) {
  Words files, own_ops;
  std::string op_glob = "*", device = "auto", timing = "cold", baseline;
  std::int64_t rounds = 50;
  bool as_json = false;
  Options options("bench", "[tuned.db…] [flags]",
                  "Times winners again; those of several databases for one problem in turns, in one process.");
  options.arguments("DB", files, "tuned databases; the one that ships with kgen where none is named", false);
  options.text("--op", op_glob, "only operators whose name matches");
  options.text("--device", device, "auto, host, amd:N, nvidia:N");
  options.choice("--timing", timing, {"cold", "warm", "graph"}, "state of the caches while timing");
  options.choice(
      "--baseline", baseline, {"vendor"},
      "time the library of the device's maker beside them, on the same inputs and in turns: cuBLASLt and cuDNN, "
      "hipBLASLt and MIOpen; $KGEN_VENDOR_PATH: folders to look for them in, before where the loader looks");
  options.number("--rounds", rounds, 9, "samples of each kernel at most; 50 by default");
  options.list("--own-op", own_ops,
               "definition of an operator in the databases that is not built in; may be given again");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  const auto named = named_dbs(files);
  if (!named) return report(named.error());
  files = *named;
  const auto rows = bench(context, files, op_glob, device, timing,
                          static_cast<int>(std::min<std::int64_t>(rounds, 10'000)), !baseline.empty(), own_ops);
  if (!rows) return report(rows.error());
  bool failed = false;
  Table table({"op", "shape", "winner", "time us", "TFLOP/s", "GB/s", "of best", "files"});
  Json json{{"timing", timing}, {"files", files}, {"rows", Json::array()}};
  std::vector<double> ratios;  // of the vendor's times to the fastest kernels'
  for (const BenchRow& row : *rows) {
    failed |= !row.note.empty();
    Json item{{"signature", row.signature},
              {"dims", dims_of_key(row.dims_key)},
              {"label", row.label},
              {"note", row.note},
              {"entries", Json::array()}};
    const std::string op = row.signature.substr(0, row.signature.find(' '));
    for (const BenchRow::Entry& entry : row.entries) {
      item["entries"].push_back({{"config", entry.config},
                                 {"files", entry.files},
                                 {"time_us", entry.time_us},
                                 {"mad_us", entry.mad_us},
                                 {"over_best", entry.over_best},
                                 {"probability", entry.probability}});
      if (entry.time_us > 0)
        table.add({row.label.empty() ? op : op + " " + row.label, row.dims_key, entry.config, number(entry.time_us),
                   number(row.flops / entry.time_us / 1e6), number(row.bytes / entry.time_us / 1e3),
                   fmt::format("{:.1f}%", 100 / entry.over_best), std::to_string(entry.files.size())});
    }
    if (const auto& vendor = row.vendor) {
      const bool timed = vendor->time_us > 0;
      item["vendor"] = {{"library", vendor->library.empty() ? Json() : Json(vendor->library)},
                        {"note", vendor->note},
                        {"algorithms", vendor->algorithms},
                        {"time_us", timed ? Json(vendor->time_us) : Json()},
                        {"mad_us", timed ? Json(vendor->mad_us) : Json()},
                        {"over_best", timed ? Json(vendor->over_best) : Json()},
                        {"probability", timed ? Json(vendor->probability) : Json()},
                        {"relative_l2", timed ? Json(vendor->relative_l2) : Json()}};
      if (timed) {
        ratios.push_back(vendor->over_best);
        table.add({row.label.empty() ? op : op + " " + row.label, row.dims_key,
                   fmt::format("{}, the best of {}", vendor->library, vendor->algorithms), number(vendor->time_us),
                   number(row.flops / vendor->time_us / 1e6), number(row.bytes / vendor->time_us / 1e3),
                   fmt::format("{:.1f}%", 100 / vendor->over_best), ""});
      }
    }
    json["rows"].push_back(std::move(item));
  }
  if (as_json) {
    print_json(json);
  } else {
    table.print();
    if (!baseline.empty()) print_against_vendor(*rows, ratios);
    for (const BenchRow& row : *rows)
      if (!row.note.empty()) fmt::print("{}\n", printable(row.signature + " " + row.dims_key + ": " + row.note));
  }
  return failed ? 1 : 0;
}

}  // namespace kgen
