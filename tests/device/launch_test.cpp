// launch_plan(): which value stands at which parameter, where buffers begin, which steps run.
#include "device/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <numeric>

namespace kgen {
namespace {

using testing::HasSubstr;

Expr expr(const std::string& text) { return *Expr::parse(text); }

Param param(const std::string& name, Role role, DType dtype, const std::string& count,
            const std::string& present = "1") {
  Param p;
  p.name = name;
  p.role = role;
  p.dtype = dtype;
  if (role != Role::kScalar && role != Role::kDim) {
    p.shape = {expr(count)};
    if (role != Role::kWorkspace && role != Role::kPrepared) p.strides = {expr("1")};
  }
  p.present = expr(present);
  return p;
}

Step step(const std::string& kernel, bool prepare) {
  Step s;
  s.kernel = kernel;
  s.prepare = prepare;
  s.when = expr("1");
  s.grid = {expr("ceil_div(n, 64)"), expr("1"), expr("1")};
  s.block = expr("64");
  s.lds_bytes = expr("0");
  return s;
}

// The plan of the plan_* kernels in host_kernels.cpp.
Plan make_plan() {
  Plan plan;
  plan.dims = {"n"};
  plan.dim_defaults = {Expr()};
  plan.dim_defaults[0] = Expr();
  plan.params = {param("x", Role::kIn, DType::kFp32, "n"),
                 param("absent", Role::kIn, DType::kFp32, "n", "0"),
                 param("y", Role::kOut, DType::kFp32, "n"),
                 param("small", Role::kWorkspace, DType::kFp32, "3"),
                 param("large", Role::kWorkspace, DType::kFp32, "n"),
                 param("packed", Role::kPrepared, DType::kFp32, "n"),
                 param("alpha", Role::kScalar, DType::kFp32, ""),
                 param("half", Role::kScalar, DType::kFp16, ""),
                 param("brain", Role::kScalar, DType::kBf16, ""),
                 param("wide", Role::kScalar, DType::kFp64, ""),
                 param("n", Role::kDim, DType::kInt64, "")};
  plan.params[6].default_value = 10;
  plan.params[7].default_value = 0.5;
  plan.params[8].default_value = -2;
  plan.params[9].default_value = 4;
  plan.steps = {step("plan_pack", true), step("plan_first", false), step("plan_second", false)};
  plan.flops = expr("n");
  plan.bytes = expr("n");
  return plan;
}

class LaunchPlan : public testing::Test {
 protected:
  void SetUp() override {
    device_ = std::move(*open_device("host"));
    std::ifstream file(KGEN_HOST_KERNELS, std::ios::binary);
    const std::string code{std::istreambuf_iterator<char>(file), {}};
    auto loaded = load_plan(*device_, plan_, std::as_bytes(std::span(code.data(), code.size())));
    ASSERT_TRUE(loaded) << loaded.error().message;
    loaded_ = std::move(*loaded);
    auto bound = bind(plan_, {{"n", kN}});
    ASSERT_TRUE(bound) << bound.error().message;
    bound_ = std::move(*bound);
    std::iota(x_.begin(), x_.end(), 0.0f);
    workspace_ = *device_->allocate(bound_.workspace_bytes);
    prepared_ = *device_->allocate(bound_.prepared_bytes);
  }
  void TearDown() override {
    device_->release(workspace_);
    device_->release(prepared_);
  }

  Result<void> launch(Phase phase, const CallArgs& args, Stream stream = nullptr) {
    return launch_plan(*device_, plan_, loaded_, bound_, args, phase, stream);
  }

  static constexpr std::int64_t kN = 1000;
  const Plan plan_ = make_plan();
  std::unique_ptr<Device> device_;
  LoadedPlan loaded_;
  BoundPlan bound_;
  std::vector<float> x_ = std::vector<float>(kN), y_ = std::vector<float>(kN, -1);
  DevicePtr workspace_ = nullptr, prepared_ = nullptr;
};

TEST_F(LaunchPlan, PrepareThenRunGivesTheResult) {
  EXPECT_EQ(bound_.workspace_bytes, 256 + 4096);
  const DevicePtr tensors[] = {x_.data(), nullptr, y_.data()};
  const CallArgs args{tensors, {}, workspace_, prepared_};
  ASSERT_TRUE(launch(Phase::kPrepare, args));
  EXPECT_EQ(y_[5], -1) << "prepare must not run the other steps";
  EXPECT_EQ(static_cast<float*>(prepared_)[5], 10);
  ASSERT_TRUE(launch(Phase::kRun, args));
  for (int i = 0; i < kN; ++i) ASSERT_EQ(y_[i], 20.0f * i + 2.5f) << i;
  // The second workspace buffer begins at the next multiple of 256.
  EXPECT_EQ(static_cast<float*>(workspace_)[0], 2.5f);
  EXPECT_EQ(static_cast<float*>(workspace_)[64 + 1], 20.0f);
}

TEST_F(LaunchPlan, ScalarsGivenReplaceTheDefaults) {
  const DevicePtr tensors[] = {x_.data(), nullptr, y_.data()};
  // 1/3 is rounded to what each type holds: 0x3555 in fp16, 0x3eab in bf16.
  const double scalars[] = {1, 1.0 / 3, 1.0 / 3, 0.25};
  const CallArgs args{tensors, scalars, workspace_, prepared_};
  ASSERT_TRUE(launch(Phase::kPrepare, args));
  ASSERT_TRUE(launch(Phase::kRun, args));
  const float half = std::ldexp(0x155 + 1024, -12), brain = std::ldexp(0x2b + 128, -9);
  EXPECT_EQ(static_cast<float*>(workspace_)[0], half + brain + 0.25f);
  EXPECT_EQ(y_[7], 14 + (half + brain + 0.25f));
}

TEST_F(LaunchPlan, RunsFromAGraph) {
  const DevicePtr tensors[] = {x_.data(), nullptr, y_.data()};
  const CallArgs args{tensors, {}, workspace_, prepared_};
  ASSERT_TRUE(launch(Phase::kPrepare, args));
  const auto graph = device_->capture([&](Stream stream) { return launch(Phase::kRun, args, stream); });
  ASSERT_TRUE(graph);
  EXPECT_EQ(y_[1], -1);
  for (int round = 0; round < 2; ++round) {
    y_.assign(kN, -1);
    ASSERT_TRUE(device_->replay(*graph, nullptr));
    EXPECT_EQ(y_[kN - 1], 20.0f * (kN - 1) + 2.5f);
  }
}

TEST_F(LaunchPlan, MissingOperandsAndBuffersAreNamed) {
  const DevicePtr tensors[] = {x_.data(), nullptr, y_.data(), nullptr};
  const double scalars[] = {1, 2};
  const std::span<DevicePtr const> all(tensors);
  const auto problem = [&](const CallArgs& args) {
    const auto done = launch(Phase::kRun, args);
    return done ? "" : done.error().message;
  };
  EXPECT_THAT(problem({all.first(2), {}, workspace_, prepared_}), HasSubstr("operand 'y' is missing"));
  EXPECT_THAT(problem({all, {}, workspace_, prepared_}), HasSubstr("4 operands given, the kernel takes 3"));
  EXPECT_THAT(problem({all.first(3), scalars, workspace_, prepared_}), HasSubstr("scalar 'brain' is missing"));
  EXPECT_THAT(problem({all.first(3), {}, nullptr, prepared_}), HasSubstr("no workspace given; 4352 bytes"));
  EXPECT_THAT(problem({all.first(3), {}, workspace_, nullptr}), HasSubstr("no prepared buffer given; 4096 bytes"));
}

TEST_F(LaunchPlan, HasUpToFourTensorMapsOfItsOwnOperands) {
  Plan plan = make_plan();
  const auto add = [&](const std::string& of) {
    Param map = param("map" + std::to_string(plan.params.size()), Role::kTensorMap, DType::kFp32, "n");
    map.of = of;
    plan.params.push_back(map);
    return LaunchLayout::make(plan);
  };
  for (const char* operand : {"x", "y", "x", "packed"}) EXPECT_TRUE(add(operand));
  const auto fifth = add("x");
  ASSERT_FALSE(fifth);
  EXPECT_EQ(fifth.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(fifth.error().message, HasSubstr("too many of them"));
  plan = make_plan();
  const auto foreign = add("z");
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(foreign.error().message, HasSubstr("its operand is no parameter"));
}

TEST_F(LaunchPlan, PlanWhoseKernelIsNotInTheCodeDoesNotLoad) {
  Plan plan = make_plan();
  plan.steps[1].kernel = "absent";
  std::ifstream file(KGEN_HOST_KERNELS, std::ios::binary);
  const std::string code{std::istreambuf_iterator<char>(file), {}};
  const auto loaded = load_plan(*device_, plan, std::as_bytes(std::span(code.data(), code.size())));
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message, HasSubstr("'absent'"));
}

}  // namespace
}  // namespace kgen
