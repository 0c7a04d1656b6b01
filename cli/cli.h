// What the subcommands share. main.cpp holds the table; each cmd_*.cpp is one subcommand (or a family of them).
//
// Exit codes: 0 done, 1 the work was done and something failed its check, 2 bad usage or bad input, 3 no usable device
// or compiler. With --json, stdout carries one JSON document and nothing else; everything for people goes to stderr.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/arch.h"
#include "base/result.h"
#include "db/db.h"
#include "tuner/compile.h"

namespace kgen {

using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

struct Context {
  std::string self;  // path of this executable, for worker children
};

int cmd_tune(const Context&, const Words& args);
int cmd_fold(const Context&, const Words& args);
int cmd_gen(const Context&, const Words& args);
int cmd_compile(const Context&, const Words& args);
int cmd_inspect(const Context&, const Words& args);
int cmd_verify(const Context&, const Words& args);
int cmd_bench(const Context&, const Words& args);
int cmd_show(const Context&, const Words& args);
int cmd_report(const Context&, const Words& args);
int cmd_lookup(const Context&, const Words& args);
int cmd_explain(const Context&, const Words& args);
int cmd_doctor(const Context&, const Words& args);
int cmd_devices(const Context&, const Words& args);
int cmd_ops(const Context&, const Words& args);
int cmd_simulate(const Context&, const Words& args);
int cmd_completion(const Context&, const Words& args);
int cmd_man(const Context&, const Words& args);
int cmd_db(const Context&, const Words& args);

// Prints the error as one line on stderr and gives the process's exit code for it.
int report(const Error&);

void print_json(const Json&);

// Columns of text; numbers (cells of digits, signs and points) are aligned to the right.
class Table {
 public:
  explicit Table(Words header) : rows_{std::move(header)} {}
  void add(Words row);  // what would do something to a terminal is escaped
  // In `columns` (0: as many as it takes): where they are too few, empty columns are left out and the widest ones cut.
  void print(std::size_t columns = 0) const;

 private:
  std::vector<Words> rows_;
};

// A cell of a CSV line, quoted where it must be; what would do something to a terminal is escaped.
std::string csv_cell(const std::string& text);

// "word=value" words in order. kBadInput for a word without '='.
Result<std::vector<std::pair<std::string, std::string>>> key_values(const Words& words);

// "gemm b_layout=nk dtype=bf16" → {"b_layout": "nk", "dtype": "bf16"}; "k=4096 m=1" → {"k": 4096, "m": 1}.
Json signature_attributes(const std::string& signature);
Json dims_of_key(const std::string& dims_key);

// An attribute's value as YAML: a word, a list, or quoted.
std::string yaml_value(const std::string& value);

// " --timing graph": the flags of `kgen tune` for a goal that is not the usual one.
std::string goal_flags(const Goal&);

// " b_layout=nk": the signature's attributes that are not at their defaults, for people.
std::string short_attributes(const OpRecord&);

// The trials of a winner's problem that were timed as it was, fastest first, each configuration once with its latest
// trial.
Result<std::vector<TrialRecord>> ranked(Db&, const WinnerRow&);
// "57.7%": of the best's speed; "" without a time.
std::string percent_of(double best_us, double time_us);

// What the user named, or the database that ships with kgen where that is nothing (runtime/shipped.h).
Result<std::string> named_db(const std::string& path);
Result<Words> named_dbs(const Words& paths);

// An --arch list: "gfx90a,sm_90", or "all".
Result<std::vector<Arch>> parse_archs(const std::string& text);

std::unique_ptr<Compiler> compiler_for(const Context&, double timeout_seconds = 60);

// Four significant digits or fewer; "" for 0 where 0 means unknown.
std::string number(double value);

// Attainable share of the hardware's limits: least possible time over measured time; 0 when the limits are unknown.
double roofline_share(double flops, double bytes, double time_us, double peak_flops, double peak_bytes_per_second);

}  // namespace kgen
