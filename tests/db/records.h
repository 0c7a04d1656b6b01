// Sample rows for tests of the database and of what reads it.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/hash.h"
#include "base/plan.h"
#include "db/db.h"

namespace kgen::testing {

// A folder of its own, removed at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kgen_test_XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline DeviceRecord sample_device(const std::string& name = "NVIDIA H100 80GB HBM3") {
  return {.arch = "sm_90",
          .name = name,
          .driver = "CUDA 13.0",
          .uuid = "GPU-1",
          .compute_units = 132,
          .memory_bytes = 85899345920,
          .l2_bytes = 52428800,
          .clock_khz = 1980000};
}

inline OpRecord sample_op() {
  return {.signature = "gemm b_layout=nk dtype=bf16",
          .op = "gemm",
          .dims = "m,n,k,lda",
          .dim_defaults = "\n1\nm\nk",
          .attributes = "dtype= b_layout=nk"};
}

inline ProblemRecord sample_problem(int m = 4) {
  return {.dims_key = "m=" + std::to_string(m),
          .dims_json = R"({"m":4,"n":1,"k":4,"lda":4})",
          .label = "first",
          .flops = 64,
          .bytes = 96};
}

inline TrialRecord sample_trial(std::int64_t problem, std::int64_t device, TrialStatus status = TrialStatus::kTimed) {
  TrialRecord t;
  t.problem = problem;
  t.device = device;
  t.config = "matrix tile_m=128";
  t.status = status;
  t.reason = "a reason with 'quotes' and \"others\"";
  t.source_hash = "aa";
  t.op_hash = "bb";
  t.compiler = "nvrtc 13.0";
  t.options = "--gpu-architecture=sm_90";
  t.kgen_version = "0.1.0";
  t.compile_seconds = 1.5;
  t.registers = 128;
  t.spills = 0;
  if (status == TrialStatus::kTimed || status == TrialStatus::kStoppedEarly) {
    t.timing = "cold";
    t.time_us = 12.5;
    t.mad_us = 0.25;
    t.samples_us = {12.25F, 12.5F, 13.F};
    t.verify_seconds = 0.125;
    t.max_error_ratio = 0.01;
    t.relative_l2 = 0.001;
    t.lds_bytes = 49152;
    t.occupancy_waves = 8;
    t.clock_mhz = 1755;
    t.temperature_c = 61;
    t.throttle = "power cap";
    t.states = {{1755, 61, false}, {1750, 61, true}, {65535, 255, true}};
    t.energy_uj = 5250.5;
    t.energy_mad_uj = 20.25;
    t.deterministic = true;
  }
  return t;
}

inline ObjectRecord sample_object(const std::string& text) {
  ObjectRecord object{.hash = {}, .arch = "sm_90", .kind = "cubin", .bytes = {}};
  for (const char c : text) object.bytes.push_back(static_cast<std::byte>(c));
  object.hash = hash_bytes(object.bytes);
  return object;
}

inline WinnerRecord sample_winner(std::int64_t problem, std::int64_t device, std::int64_t trial,
                                  const ObjectRecord& object) {
  return {.problem = problem,
          .device = device,
          .trial = trial,
          .goal = {},
          .plan_json = plan_to_json(Plan{}),
          .object_hash = object.hash,
          .is_default = false};
}

}  // namespace kgen::testing
