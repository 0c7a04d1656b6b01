// What the user asks for (ops.yaml, or an entry list as in shapes/*.yaml) and what an operator is (ops/*.yaml), as
// data. Errors carry "file:line:column".
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/arch.h"
#include "base/plan.h"
#include "base/result.h"
#include "generator/expression.h"

namespace kgen {

// A dim of an operator, e.g. gemm's m, or lda with default "k".
struct DimDef {
  std::string name, doc;
  std::string default_text;  // expression over earlier dims and attributes; "" = required
  bool parameter = true;     // false: own dim of an op that extends another; kernels do not get it
};

// Part of a problem's identity besides dims: dtype, b_layout, epilogue, causal …
struct AttributeDef {
  enum class Kind { kEnum, kDType, kList, kInt, kInts, kExpression };
  std::string name, doc;
  Kind kind = Kind::kEnum;
  std::vector<std::string> values;  // what is allowed; kInt and kInts: any integer when empty
  std::string default_text;         // lists: comma-joined; "" = required unless kList. May name an earlier attribute.
  bool fixed = false;               // only the default is accepted (bound by an op that extends another)
  bool axis = false;                // a problem may allow several values, of which each candidate takes one
};

// Test data for an argument: how verification fills it (OPS.md: inputs that can expose faults).
struct InitDef {
  // normal, uniform, int (uniform integers in [lo, hi]), constant, or kernel: init_<argument>() of the reference header
  std::string distribution = "normal";
  double mean = 0, scale = 1, lo = 0, hi = 0;
};

struct ArgumentDef {
  Param param;             // all but the dtype, which is dtype_text resolved for each problem
  std::string field;       // its name in Args; differs from param.name where an op that extends another renames it
  std::string dtype_text;  // name of a dtype attribute ("dtype", "out_dtype") or a fixed dtype ("fp32")
  InitDef init;
};

struct Rule {
  Expr require;         // must be non-zero
  std::string because;  // one line of reason
  bool search = false;  // about what is worth trying, not about what is legal: never a condition of the launch plan
  bool deterministic = false;  // holds where the same bits are demanded of every launch; reads no dims
  int line = 0;
};

struct TunableDef {
  std::string name, doc;
  std::vector<std::string> values;  // integers or enumerators, in order
  bool symbolic = false;            // enumerators
  std::string default_text;         // expression or enumerator, used by the default candidate
};

// Named integer computed from attributes, tunables and arch facts (never dims); also emitted into Config.
struct DerivedDef {
  std::string name;
  Expr value;
  int line = 0;
};

struct StepDef {
  std::string kernel;
  bool prepare = false;
  Expr when, grid[3], cluster[3], block, lds_bytes, min_blocks;

  bool has_cluster() const { return cluster[0].text() != "1" || cluster[1].text() != "1" || cluster[2].text() != "1"; }
};

// One way to compute the operator: templates, tunables, rules and steps.
struct VariantDef {
  std::string name, doc;
  std::vector<std::string> templates;  // header paths, may contain ${name} of an attribute or arch fact
  std::vector<TunableDef> tunables;
  std::vector<DerivedDef> derived;
  std::vector<Rule> rules;               // `when` first, then those of the YAML, then what each step's launch needs
  std::vector<ArgumentDef> buffers;      // workspace and prepared
  std::vector<ArgumentDef> tensor_maps;  // `of` is the operand's field in Args
  std::map<std::string, std::string> align_text;  // operand -> bytes its pointer must be a multiple of, expression
  std::vector<StepDef> steps;
};

// Reference: a naive kernel in the same dialect, one output element a work-item, in double.
struct ReferenceDef {
  std::string header;                             // template path
  std::map<std::string, std::string> terms_text;  // output -> K of the tolerance, expression
  std::string cost_text;                          // multiply-adds of the whole reference, expression
  // Freivalds check of one output where `when` holds (linear epilogues): D·x against the operands for random x of
  // -1 and 1.
  struct Projection {
    std::string output, when_text, length_text;  // length: doubles of the intermediate vector (gemm: batch*k)
  };
  std::optional<Projection> projection;
  // What elements share (a row's sum), computed once into doubles that reference_<output>() and later stages read.
  struct Stage {
    std::string name, items_text, width_text;  // `items` work-items write `width` doubles each
  };
  std::vector<Stage> stages;
  // Where an output's acceptance differs from OPS 0.1.
  struct Tolerance {
    double roundings = 1;                    // times the output's unit roundoff
    double atol = 0, rtol = 0;               // added to what is allowed
    std::map<std::string, double> l2_limit;  // by dtype; those not named keep the limit of OPS 0.1
    bool exact = false;                      // bit for bit
  };
  std::map<std::string, Tolerance> tolerance;
};

// Kernel parameters that an operator made by an expression has once for each operand of a kind: those of
// "ld_<matrix>" are the group "ld_matrix".
struct OperandGroup {
  std::string name;
  std::vector<std::string> members;
};

struct OpDef {
  std::string name, doc;
  std::string base;    // the op that it extends; "" = none
  std::string file;    // file: "ops/gemm.yaml" for built-ins, else a path
  std::string folder;  // where `templates` of a user's op are looked up first; "" for built-ins
  std::vector<DimDef> dims;
  std::vector<AttributeDef> attributes;  // "dtype" is always first
  std::vector<ArgumentDef> arguments;
  std::vector<Param> scalars;
  std::vector<Rule> rules;  // what every problem must satisfy, over dims and attributes
  std::string flops_text, bytes_text;
  ReferenceDef reference;
  std::vector<VariantDef> variants;
  std::string source_hash;  // of the YAML and every template it names, prelude included
  // An operator made by an expression (an attribute of kind kExpression): which one, and the YAML it was put into.
  std::optional<Expression> expression;
  std::vector<OperandGroup> groups;
  std::string yaml;
};

// One op on one shape with one set of attributes.
struct Problem {
  Env dims;                                       // every dim of the op, defaults resolved
  std::map<std::string, std::string> attributes;  // every attribute, lists comma-joined in order, axes' values sorted
  std::map<std::string, double> scalars;          // those that the spec gives; not part of the identity
  std::string label;                              // "name:" or "id:" of the spec, for people
  int count = 1;                                  // weight in totals; 0 = alternative
};

// The values that a problem allows for an attribute, in the order in which they are tried: for an axis the default
// first, then as declared; one for any other attribute.
std::vector<std::string> allowed_values(const AttributeDef&, const std::string& value);

// Signature: op and attributes, canonical: "gemm accumulate=fp32 b_layout=nk dtype=bf16 epilogue=bias,silu".
std::string signature(const OpDef&, const Problem&);
// Dims, canonical, only those that differ from their defaults: "k=4096 m=1 n=12288".
std::string dims_key(const OpDef&, const Problem&);

// A dim whose size is only known at run time: `m: {range: [1, 4096]}`.
struct DynamicDim {
  std::string name;
  std::int64_t first = 0, last = 0;
};

struct TuneOptions {
  int budget = 0;                                          // 0 = not given
  int max_kernels = 12;                                    // that cover a dynamic dim
  double regret = 0.03;                                    // that such a cover may have: 0.03 = 3 % of the best time
  std::vector<std::string> configs;                        // not of a spec: only these are tried
  bool deterministic = false;                              // only candidates that give the same bits on every launch
  std::map<std::string, std::vector<std::string>> params;  // narrow or extend a tunable's values
};

struct OpSpec {
  std::shared_ptr<const OpDef> op;
  Problem problem;  // at the last size of a dynamic dim
  TuneOptions tune;
  std::optional<DynamicDim> dynamic{};
  std::string where;  // "file:line:column" of the problem, for messages; "" when it came from no file
};

// Loads a spec file: ops.yaml format or an entry list; `include:` relative to the file. Zero dims are kept (legal,
// nothing to launch). Unknown keys, ops, dims, attributes: kBadInput with position and nearest valid name. Only ops
// whose name matches `op_glob` are read; the others are skipped before they are validated, so they need not exist.
Result<std::vector<OpSpec>> parse_spec(const std::string& path, std::string_view op_glob = "*");
// Same from text; `path` is used for messages and relative includes.
Result<std::vector<OpSpec>> parse_spec_text(std::string_view yaml, const std::string& path,
                                            std::string_view op_glob = "*");

// An operator by name: a built-in, or a path to a user's YAML.
Result<std::shared_ptr<const OpDef>> load_op(const std::string& name_or_path);
// Same from text, with templates looked up in `folder` first ("" = only the embedded ones).
Result<std::shared_ptr<const OpDef>> load_op_text(std::string_view yaml, const std::string& file,
                                                  const std::string& folder);
std::vector<std::string> builtin_ops();
// The operator that an expression makes of an operator with an attribute of kind kExpression; load_op() gives it with
// the example of its definition. Any other operator stays as it is.
Result<std::shared_ptr<const OpDef>> specialise(std::shared_ptr<const OpDef>, const std::string& expression);
// The same with the expression among "name=value" pairs, if it is there.
Result<std::shared_ptr<const OpDef>> specialise(std::shared_ptr<const OpDef>,
                                                const std::vector<std::pair<std::string, std::string>>& words);
// Name of the attribute of kind kExpression; null where there is none.
const AttributeDef* expression_attribute(const OpDef&);

// The files of ops/ and templates/: those inside the binary, or, where the environment names a checkout in
// KGEN_SOURCES, those of that checkout (for work on operators: no rebuild).
struct EmbeddedFile;
const std::vector<EmbeddedFile>& source_files();
// One of them by its path from the repository root ("ops/gemm.yaml", "templates/prelude.h"); nullopt when absent.
std::optional<std::string_view> embedded_file(std::string_view path);

// Builds one problem from "dim=val" words as `kgen lookup` and `kgen verify` take them; attributes likewise.
Result<Problem> make_problem(const OpDef&, const std::vector<std::pair<std::string, std::string>>& words);

// The spec at one size of its dynamic dim, an ordinary one: dims that follow from that dim follow. kBadInput where the
// operator's rules do not hold for that size.
Result<OpSpec> at_size(const OpSpec&, std::int64_t size);

// Most values of an attribute of kind `ints`; expressions see X_1 … X_8.
inline constexpr int kMaxInts = 8;

// What an expression over a problem may read: its dims, attributes, their byte sizes, and every enumerator.
Env operator_env(const OpDef&, const Problem&);
// Adds the arch facts.
void add_arch_facts(Env&, Arch);

}  // namespace kgen
