// `kgen bench --baseline vendor` from outside, on the stand-in driver with stand-in libraries (tests/device): they
// compute what the calls mean, and the worker's check against the operator's reference says whether that is the
// problem.
#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class Vendor : public testing::Test {
 protected:
  // `amd`: as a gfx1030, else as a sm_70. `behaviour`: KGEN_FAKE_BLASLT.
  Ran run(std::vector<std::string> args, bool amd, const std::string& behaviour = "", bool libraries = true) {
    args.insert(args.end(), {"--device", amd ? "amd:0" : "nvidia:0"});
    return run_kgen(
        args,
        {.environment = {
             amd ? "KGEN_CUDA_LIBRARY=/nowhere/libnone.so" : "KGEN_CUDA_LIBRARY=" KGEN_FAKE_CUDA,
             amd ? "KGEN_HIP_LIBRARY=" KGEN_FAKE_HIP6 : "KGEN_HIP_LIBRARY=/nowhere/libnone.so",
             "KGEN_CLANG=" KGEN_FAKE_CLANG, "KGEN_FAKE_OBJECTS=" KGEN_BINARY_DIR "/many_cache", "KGEN_FAKE_DEVICES=1",
             std::string("KGEN_FAKE_ARCH=") + (amd ? "gfx1030" : "70"), "KGEN_FAKE_SKIP=read_all,displace_code",
             "KGEN_HOST_THREADS=1", "KGEN_FAKE_STATE=" + (folder_ / "state"), "KGEN_FAKE_BLASLT=" + behaviour,
             "CUDA_HOME=/nowhere", "KGEN_VENDOR_PATH=" + (libraries ? folder_.path() : std::string("/nowhere"))}});
  }
  void SetUp() override {
    // As Python packages have them: FOLDER/nvidia/*/lib.
    std::filesystem::create_directories(folder_ / "nvidia/cublas/lib");
    std::filesystem::create_symlink(KGEN_FAKE_CUBLASLT, folder_ / "nvidia/cublas/lib/libcublasLt.so.13");
    std::filesystem::create_symlink(KGEN_FAKE_HIPBLASLT, folder_ / "libhipblaslt.so.0");
    std::filesystem::create_symlink(KGEN_FAKE_CUDNN, folder_ / "libcudnn.so.9");
    std::filesystem::create_symlink(KGEN_FAKE_MIOPEN, folder_ / "libMIOpen.so.1");
  }
  std::string tune(const std::string& problems, bool amd) {
    const std::string db = folder_ / "tuned.db";
    const Ran ran = run({"tune", folder_.write("spec.yaml", "kgen: 1\ndefaults: {dtype: fp32}\nops:\n" + problems),
                         "--db", db, "--budget", "1"},
                        amd);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return db;
  }
  static json document(const Ran& ran) {
    json parsed = json::parse(ran.out, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << ran.out << ran.err;
    return parsed;
  }
  TempFolder folder_;
};

// Everything that tells a call from another: both layouts of B, row strides, batches, each epilogue that there is.
constexpr char kProducts[] =
    "  - {op: gemm, problems: [{m: 7, n: 12, k: 20}, {m: 8, n: 12, k: 16, lda: 20, ldb: 24, ldd: 16}, {batch: 3, m: 8, "
    "n: 4, k: 8}]}\n"
    "  - {op: gemm, b_layout: kn, epilogue: [bias, relu], problems: [{m: 5, n: 8, k: 12}]}\n"
    "  - {op: gemm, epilogue: [bias, gelu_tanh], problems: [{m: 5, n: 8, k: 12}]}\n"
    "  - {op: gemm, epilogue: [bias, add_residual, relu], problems: [{m: 5, n: 8, k: 12, ldr: 12}]}\n"
    "  - {op: gemm, epilogue: [add_c], problems: [{m: 5, n: 8, k: 12, alpha: 0.5, beta: 2}]}\n"
    "  - {op: conv3d_patchify, epilogue: [bias], problems: [{l: 9, c: 3, t: 2, ph: 2, pw: 2, e: 8}]}\n";

TEST_F(Vendor, EveryProductIsTheOneThatTheLibraryIsAskedFor) {
  for (const bool amd : {false, true}) {
    const std::string db = tune(kProducts, amd);
    const Ran ran = run({"bench", db, "--baseline", "vendor", "--rounds", "9", "--json"}, amd);
    ASSERT_EQ(ran.code, 0) << ran.err;
    const json told = document(ran);
    ASSERT_EQ(told["rows"].size(), 8u);
    for (const json& row : told["rows"]) {
      const json& vendor = row["vendor"];
      EXPECT_EQ(vendor["note"], "") << row.dump(1);
      EXPECT_GT(vendor["time_us"], 0) << row.dump(1);
      EXPECT_EQ(vendor["algorithms"], 2) << "of three, one is not vouched for";
      EXPECT_GT(vendor["over_best"], 0);
      EXPECT_EQ(vendor["library"], amd ? "hipBLASLt 0.10.0" : "cuBLASLt 13.0.2");
    }
    std::filesystem::remove(db);
  }
}

// Padding, strides, dilations and groups that differ by axis, both layouts, pixels that are further apart than
// channels.
constexpr char kConvolutions[] =
    "  - {op: conv2d, epilogue: [bias], problems: [{n: 2, c: 8, h: 9, w: 7, k: 6, r: 3, s: 2, pad_h: 1, pad_w: 2, "
    "stride_h: 2, dil_w: 2, groups: 2}]}\n"
    "  - {op: conv2d, layout: nchw, problems: [{n: 2, c: 4, h: 6, w: 5, k: 4, r: 3, s: 3, pad: 1}]}\n"
    "  - {op: conv2d, problems: [{n: 1, c: 4, h: 6, w: 5, k: 4, r: 1, s: 1, ldx: 8, ldy: 12}]}\n";
constexpr char kFused[] =
    "  - {op: conv2d, epilogue: [bias, add_residual, relu], problems: [{n: 1, c: 4, h: 6, w: 5, k: 4, r: 3, s: 3, pad: "
    "1}]}\n"
    "  - {op: conv2d, epilogue: [bias, silu], problems: [{n: 1, c: 4, h: 6, w: 5, k: 4, r: 3, s: 3, pad: 1}]}\n"
    "  - {op: conv2d, epilogue: [bias, gelu_erf, add_residual], problems: [{n: 1, c: 4, h: 6, w: 5, k: 4, r: 1, s: "
    "1}]}\n";

TEST_F(Vendor, EveryConvolutionIsTheOneThatTheLibraryIsAskedFor) {
  for (const bool amd : {false, true}) {
    const std::string db = tune(std::string(kConvolutions) + kFused, amd);
    const Ran ran = run({"bench", db, "--baseline", "vendor", "--rounds", "9", "--json"}, amd);
    ASSERT_EQ(ran.code, 0) << ran.err;
    const json told = document(ran);
    ASSERT_EQ(told["rows"].size(), 6u);
    for (const json& row : told["rows"]) {
      const json& vendor = row["vendor"];
      const bool fused = row["signature"].get<std::string>().find("lu") != std::string::npos;  // relu, silu, gelu
      EXPECT_EQ(vendor["library"], amd ? "MIOpen 3.4.0" : "cuDNN 9.19.0");
      if (amd && fused) {
        EXPECT_THAT(vendor["note"].get<std::string>(), HasSubstr("with a bias of their type at most"));
        continue;
      }
      EXPECT_EQ(vendor["note"], "") << row.dump(1);
      EXPECT_GT(vendor["time_us"], 0) << row.dump(1);
      EXPECT_EQ(vendor["algorithms"], amd ? 1 : 2) << "those that the library makes a plan of";
    }
    std::filesystem::remove(db);
  }
}

TEST_F(Vendor, WhatTheLibraryHasNotIsSaidAndTheKernelIsTimed) {
  const std::string db = tune(
      "  - {op: gemm, epilogue: [bias, silu], problems: [{m: 5, n: 8, k: 12}]}\n"
      "  - {op: gemm, epilogue: [relu, add_residual], problems: [{m: 5, n: 8, k: 12}]}\n"
      "  - {op: softmax, problems: [{rows: 4, cols: 64}]}\n",
      false);
  const json told = document(run({"bench", db, "--baseline", "vendor", "--rounds", "9", "--json"}, false));
  ASSERT_EQ(told["rows"].size(), 3u);
  for (const json& row : told["rows"]) {
    EXPECT_GT(row["entries"][0]["time_us"], 0);
    EXPECT_TRUE(row["vendor"]["time_us"].is_null());
    EXPECT_NE(row["vendor"]["note"], "");
  }
  const json all = told["rows"];
  EXPECT_THAT(all.dump(), AllOf(HasSubstr("no such activation"), HasSubstr("adds nothing after an activation"),
                                HasSubstr("no vendor library is known for softmax")));
}

TEST_F(Vendor, AnAlgorithmThatIsWrongIsNotTheOneThatIsTimed) {
  const std::string db = tune("  - {op: gemm, problems: [{m: 7, n: 12, k: 20}]}\n", false);
  const std::vector<std::string> bench = {"bench", db, "--baseline", "vendor", "--rounds", "9", "--json"};
  const json wrong = document(run(bench, false, "wrong"))["rows"][0];
  EXPECT_GT(wrong["vendor"]["time_us"], 0) << "its other algorithm is right";
  for (const char* behaviour : {"none", "broken"}) {
    const Ran ran = run(bench, false, behaviour);
    EXPECT_EQ(ran.code, 0) << "that the opponent fails is no failure of the winners";
    const json row = document(ran)["rows"][0];
    EXPECT_TRUE(row["vendor"]["time_us"].is_null()) << behaviour;
    EXPECT_THAT(row["vendor"]["note"].get<std::string>(), HasSubstr("cuBLASLt")) << behaviour;
    EXPECT_GT(row["entries"][0]["time_us"], 0) << behaviour;
  }
}

TEST_F(Vendor, WithoutALibraryTheMessageNamesTheFiles) {
  const std::string db = tune("  - {op: gemm, problems: [{m: 7, n: 12, k: 20}]}\n", true);
  const Ran ran = run({"bench", db, "--baseline", "vendor", "--rounds", "9"}, true, "", false);
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("100.0%"),
                             HasSubstr("no vendor library (libhipblaslt.so.1, libhipblaslt.so.0 not found)")));
  const Ran unknown = run({"bench", db, "--baseline", "rival"}, true);
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("valid: vendor"));
}

TEST_F(Vendor, ALibraryThatIsNoneIsTold) {
  const std::string db = tune("  - {op: gemm, problems: [{m: 7, n: 12, k: 20}]}\n", true);
  std::filesystem::remove(folder_ / "libhipblaslt.so.0");
  folder_.write("libhipblaslt.so.0", "not a library");
  const json row = document(run({"bench", db, "--baseline", "vendor", "--rounds", "9", "--json"}, true))["rows"][0];
  EXPECT_GT(row["entries"][0]["time_us"], 0);
  EXPECT_THAT(row["vendor"]["note"].get<std::string>(),
              AllOf(HasSubstr("no vendor library that works ("), HasSubstr("libhipblaslt.so.0")));
}

}  // namespace
}  // namespace kgen
