// The launch plan: everything that is needed to launch a candidate without the generator. The generator writes it, the
// DB stores it as JSON beside the code object, the tuner and the runtime read it. All sizes are expressions over the
// problem's dims and the plan's own constants (tunables, derived values, attributes), so one plan serves every shape
// that `needs` admits.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/expr.h"
#include "base/result.h"

namespace kgen {

// The two of 8 bits are OCP's: e4m3 has no infinity (largest 448), e5m2 has.
enum class DType { kFp64, kFp32, kFp16, kBf16, kInt8, kInt32, kInt64, kFp8E4m3, kFp8E5m2 };

std::string_view dtype_name(DType dtype);  // "fp64" "fp32" "fp16" "bf16" "int8" "int32" "int64" "fp8_e4m3" "fp8_e5m2"
std::vector<std::string> dtype_names();
Result<DType> find_dtype(std::string_view name);
int dtype_bytes(DType dtype);

enum class Role {
  kIn,         // tensor read
  kOut,        // tensor written
  kInOut,      // tensor read and written
  kWorkspace,  // scratch, contents undefined before and after a launch
  kPrepared,   // written once by the plan's prepare steps from weight tensors, read by every launch
  kScalar,     // by value
  kDim,        // by value, int64
  kTensorMap,  // how the copy engine walks a tensor (CUtensorMap), by value; made anew for each launch
};

std::string_view role_name(Role role);  // "in" "out" "inout" "workspace" "prepared" "scalar" "dim"
                                        // "tensor_map"

// One kernel parameter. Every kernel of a plan takes all parameters in this order.
struct Param {
  std::string name;
  Role role = Role::kIn;
  DType dtype = DType::kFp32;
  std::vector<Expr> shape;    // tensors: elements an axis; workspace and prepared: one entry, the element count
  std::vector<Expr> strides;  // tensors: elements, one an axis
  Expr present;               // 0: this operand does not exist for the problem and null is passed
  double default_value = 0;   // scalars
  int align = 16;             // bytes that the pointer must be a multiple of
  // Tensor maps: shape and strides (the last is 1) are the copy engine's view of the operand `of`, `box` what one copy
  // takes of each axis. With `lower` copies take runs of pixels instead (im2col): axes are n, h, w, c, `box` is
  // [pixels, channels], and the pixels of an image are those from lower to upper (h, w; upper counts from the last
  // one), every `steps`-th.
  std::string of{};
  std::vector<Expr> box{}, lower{}, upper{}, steps{};
};

// A tensor map's numbers, the fastest axis first as the driver wants them.
struct TensorMapShape {
  static constexpr int kMostAxes = 5;
  DType dtype = DType::kFp32;
  int rank = 0;
  bool pixels = false;                             // im2col
  std::array<std::uint64_t, kMostAxes> shape{};    // elements
  std::array<std::uint64_t, kMostAxes> strides{};  // bytes
  std::array<std::uint32_t, kMostAxes> box{};      // im2col: channels, pixels
  std::array<std::uint32_t, kMostAxes> steps{};    // elements of an axis from one that is taken to the next
  std::array<std::int32_t, 2> lower{}, upper{};    // im2col: w, h
};

// One kernel launch.
struct Step {
  std::string kernel;        // entry point in the code object
  bool prepare = false;      // runs once per weight (kgen_prepare), not per launch
  Expr when;                 // 0: skipped for this shape
  std::array<Expr, 3> grid;  // blocks
  Expr block;                // work-items (one-dimensional blocks)
  Expr lds_bytes;            // dynamic LDS
};

struct Plan {
  Env constants;                   // tunables, derived values, attribute symbols, arch facts
  std::vector<std::string> dims;   // all dims of the op in declared order
  std::vector<Expr> dim_defaults;  // beside dims: value where the caller gives none; text() == "" means required
  std::vector<Param> params;
  std::vector<Step> steps;
  std::vector<Expr> needs;  // all must be non-zero for a shape, else the kernel is not legal for it
  Expr flops;               // of the problem, a multiply-add counted as 2
  Expr bytes;               // least bytes moved (OPS 0.2)
};

std::string plan_to_json(const Plan& plan);
Result<Plan> plan_from_json(std::string_view json);

// A plan with every expression evaluated for one shape.
struct BoundParam {
  std::string name;
  Role role = Role::kIn;
  DType dtype = DType::kFp32;
  bool present = true;
  std::vector<std::int64_t> shape, strides;
  std::int64_t bytes = 0;  // extent of the tensor from its first to its last element, or of the workspace
  std::int64_t value = 0;  // dims
  double default_value = 0;
  int align = 16;
  std::string of{};  // tensor maps: the operand
};
struct BoundStep {
  std::string kernel;
  bool prepare = false;
  std::array<std::uint32_t, 3> grid{};
  std::uint32_t block = 0;
  std::uint32_t lds_bytes = 0;
};
struct BoundPlan {
  std::vector<BoundParam> params;
  std::vector<TensorMapShape> maps;
  std::vector<BoundStep> steps;      // those whose `when` holds and whose grid is not empty
  std::int64_t workspace_bytes = 0;  // sum over present workspace buffers, each rounded up to 256
  std::int64_t prepared_bytes = 0;   // likewise
  double flops = 0, bytes = 0;
};

// As much of it as a launch takes: numbers alone. Meant to be used again, so that its memory is.
struct BoundSizes {
  struct Param {
    bool present = true;
    std::int64_t value = 0;  // BoundParam::bytes; of a dim its value
  };
  struct Step {
    std::uint32_t index = 0;  // in Plan::steps
    std::array<std::uint32_t, 3> grid{};
    std::uint32_t block = 0, lds_bytes = 0;
  };
  std::vector<Param> params;         // beside Plan::params
  std::vector<TensorMapShape> maps;  // of the tensor maps, in the order of Plan::params; rank 0: absent
  std::vector<Step> steps;
  std::int64_t workspace_bytes = 0, prepared_bytes = 0;
  double flops = 0, bytes = 0;
};

// Fills in dim defaults, checks `needs`, ranges and overflow. `dims` may name a subset (the rest take defaults).
// kBadInput when a dim is unknown, missing or negative; kCheckFailed when the shape is not one the plan is legal for.
Result<BoundPlan> bind(const Plan& plan, const Env& dims);

// The same for many shapes of one plan: its expressions are made one piece of code. The plan must stay where it is.
// Immutable, safe from any thread.
class Binder {
 public:
  explicit Binder(const Plan& plan);
  Result<BoundPlan> bind(const Env& dims) const;
  // Of every dim, beside Plan::dims.
  Result<std::vector<double>> values(const Env& dims) const;
  // `dims`: every dim's value, beside Plan::dims; integers below 2^53. `results` is scratch.
  Result<void> sizes(std::span<const double> dims, std::vector<double>& results, BoundSizes& sizes) const;

 private:
  struct Term {
    ExprSet::Node node = 0;
    const Expr* expr = nullptr;  // of the plan, for messages
  };
  struct ParamTerms {
    Term present;
    std::vector<Term> shape, strides;
    std::vector<Term> box, lower, upper, steps;
    int dim = -1, element_bytes = 0;
  };
  struct StepTerms {
    Term when;
    std::array<Term, 3> grid;
    Term block, lds_bytes;
  };
  using Dims = std::span<const double>;
  // One shape's results, read as what they are said to be.
  class Values;
  static Result<TensorMapShape> tensor_map(const Param&, const ParamTerms&, const Values&);
  Term term(const Expr&);
  std::vector<Term> terms(std::span<const Expr>);

  const Plan* plan_;
  Env constants_;  // those that no dim hides
  ExprSet set_;
  std::vector<Term> needs_;
  std::vector<ParamTerms> params_;
  std::vector<StepTerms> steps_;
  Term flops_, bytes_;
  std::int64_t max_block_ = 1024, lds_limit_ = 1 << 30;
};

}  // namespace kgen
