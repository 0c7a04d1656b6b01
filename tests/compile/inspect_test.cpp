#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "base/text.h"
#include "tests/compile/kernels.h"
#include "tuner/compile.h"
#include "tuner/process.h"

namespace kgen {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::span<const std::byte> as_code(const std::string& text) { return std::as_bytes(std::span(text)); }

// Objects are compiled once for all tests of this program.
class Inspect : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string path = (fs::temp_directory_path() / "kgen-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
  }
  static void TearDownTestSuite() { fs::remove_all(folder_); }

  // nullopt (and a skipped test) when this machine has no compiler for it.
  static std::optional<CodeObject> build(const std::string& source, const std::string& arch,
                                         const std::string& force = "") {
    const auto compiler = make_compiler({.cache_folder = folder_.string() + "/cache",
                                         .force = force,
                                         .self = fs::read_symlink("/proc/self/exe").string()});
    auto result = compiler->compile(source, *find_arch(arch));
    if (!result) {
      EXPECT_EQ(result.error().kind, ErrorKind::kNoCompiler) << result.error().message;
      return std::nullopt;
    }
    EXPECT_EQ(int(result->status), int(CompileStatus::kCompiled)) << result->log;
    return std::move(result->code);
  }

  static const KernelUsage& find(const std::vector<KernelUsage>& kernels, const std::string& name) {
    const auto found =
        std::find_if(kernels.begin(), kernels.end(), [&](const KernelUsage& k) { return k.kernel == name; });
    static const KernelUsage kNone;
    EXPECT_NE(found, kernels.end()) << name;
    return found != kernels.end() ? *found : kNone;
  }

  // The same kernel's numbers as the platform's own tool prints them: "name: value" lines.
  static int number_after(const std::string& text, const std::string& marker, std::size_t from = 0) {
    const std::size_t at = text.find(marker, from);
    return at == std::string::npos ? -2 : std::atoi(text.c_str() + at + marker.size());
  }

  static fs::path folder_;
};
fs::path Inspect::folder_;

class InspectAmd : public Inspect, public ::testing::WithParamInterface<const char*> {};
TEST_P(InspectAmd, NumbersAreThoseOfReadelf) {
  const auto code = build(testing::resources_source(), GetParam());
  if (!code) GTEST_SKIP() << "not run: no compiler for " << GetParam();
  ASSERT_EQ(code->kernels.size(), 2u);
  const KernelUsage& spills = find(code->kernels, "spills");
  EXPECT_GT(spills.spills, 0);
  EXPECT_GT(spills.stack_bytes, 0);
  EXPECT_EQ(spills.lds_bytes, 0);
  EXPECT_EQ(spills.max_block, 1024);
  const KernelUsage& other = find(code->kernels, "stack_and_lds");
  EXPECT_EQ(other.spills, 0);
  EXPECT_GE(other.stack_bytes, 128);
  EXPECT_EQ(other.lds_bytes, 400);
  EXPECT_EQ(other.max_block, 128);

  const std::string readelf = find_program("llvm-readelf-19");
  if (readelf.empty()) GTEST_SKIP() << "comparison not run: no llvm-readelf-19";
  const std::vector<std::string> argv = {readelf, "--notes", code->path};
  const auto notes = run_program(argv, {});
  ASSERT_TRUE(notes);
  // One kernel's keys are sorted: .agpr_count comes first, .name between, .vgpr_spill_count near the end.
  for (const KernelUsage& usage : code->kernels) {
    const std::size_t name = notes->output.find(".name:           " + usage.kernel + "\n");
    ASSERT_NE(name, std::string::npos) << notes->output;
    EXPECT_EQ(number_after(notes->output, ".private_segment_fixed_size: ", name), usage.stack_bytes);
    EXPECT_EQ(number_after(notes->output, ".sgpr_count:     ", name), usage.sgprs);
    EXPECT_EQ(number_after(notes->output, ".vgpr_count:     ", name), usage.registers);
    EXPECT_EQ(number_after(notes->output, ".vgpr_spill_count: ", name) +
                  number_after(notes->output, ".sgpr_spill_count: ", name),
              usage.spills);
    const std::size_t lds = notes->output.rfind(".group_segment_fixed_size: ", name);
    EXPECT_EQ(number_after(notes->output, ".group_segment_fixed_size: ", lds), usage.lds_bytes);
    if (const std::size_t agprs = notes->output.rfind(".agpr_count:", name); agprs != std::string::npos) {
      EXPECT_EQ(number_after(notes->output, ".agpr_count:     ", agprs), usage.agprs);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Archs, InspectAmd,
                         ::testing::Values("gfx906", "gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1151",
                                           "gfx1200", "gfx1201"));

class InspectNvidia : public Inspect, public ::testing::WithParamInterface<const char*> {};
TEST_P(InspectNvidia, NumbersAreThoseOfTheAssembler) {
  // nvcc leaves its assembler's report in the log; ask it for the report itself, apart from our reading of the cubin.
  const auto code = build(testing::resources_source(), GetParam(), "nvcc");
  if (!code) GTEST_SKIP() << "not run: no nvcc for " << GetParam();
  const std::string source = folder_ / "resources.cu", cubin = folder_ / "resources.cubin";
  ASSERT_TRUE(write_file(source, testing::resources_source()));
  std::string nvcc = find_program("nvcc");
  if (nvcc.empty()) nvcc = "/usr/local/cuda/bin/nvcc";
  const std::vector<std::string> argv = {
      nvcc, "-std=c++20", "-w", std::string("-arch=") + GetParam(), "-cubin", "-Xptxas", "-v", "-o", cubin, source};
  const auto report = run_program(argv, {});
  ASSERT_TRUE(report);
  ASSERT_EQ(report->code, 0) << report->output;
  const auto kernels = inspect_code(as_code(*read_file(cubin)));
  ASSERT_TRUE(kernels) << kernels.error().message;
  ASSERT_EQ(kernels->size(), 2u);
  for (const KernelUsage& usage : *kernels) {
    const std::size_t at = report->output.find("Compiling entry function '" + usage.kernel + "'");
    ASSERT_NE(at, std::string::npos) << report->output;
    EXPECT_EQ(usage.registers, number_after(report->output, ": Used ", at));
    EXPECT_EQ(usage.stack_bytes, number_after(report->output, "    ", report->output.find("Function properties", at)));
    const std::size_t end = report->output.find("Compile time", at);
    const std::string used = report->output.substr(at, end - at);
    const std::size_t smem = used.find(" bytes smem");
    EXPECT_EQ(usage.lds_bytes, smem == std::string::npos ? 0 : std::atoi(used.c_str() + used.rfind(',', smem) + 1));
    const std::size_t spill = used.find(" bytes spill stores");
    ASSERT_NE(spill, std::string::npos);
    EXPECT_EQ(find(code->kernels, usage.kernel).spills, std::atoi(used.c_str() + used.rfind(',', spill) + 1) / 4);
  }
  EXPECT_GT(find(code->kernels, "spills").spills, 0);
  EXPECT_EQ(find(code->kernels, "spills").max_block, 1024);
  EXPECT_EQ(find(code->kernels, "stack_and_lds").spills, 0);
  EXPECT_EQ(find(code->kernels, "stack_and_lds").lds_bytes, 400);
  EXPECT_EQ(find(*kernels, "spills").spills, -1) << "a cubin alone does not tell";
}
INSTANTIATE_TEST_SUITE_P(Archs, InspectNvidia, ::testing::Values("sm_75", "sm_80", "sm_86", "sm_89", "sm_90"));

TEST_F(Inspect, NvrtcReportsSpillsToo) {
  const auto code = build(testing::resources_source(), "sm_90", "nvrtc");
  if (!code) GTEST_SKIP() << "not run: no NVRTC";
  EXPECT_GT(find(code->kernels, "spills").spills, 0);
  EXPECT_EQ(find(code->kernels, "stack_and_lds").spills, 0);
}

TEST_F(Inspect, PtxNamesItsKernelsAndLimits) {
  const auto code = build(testing::resources_source(), "sm_61", "clang");
  if (!code) GTEST_SKIP() << "not run: no clang with an NVPTX back end";
  EXPECT_EQ(code_kind(code->bytes), "ptx");
  EXPECT_EQ(find(code->kernels, "spills").max_block, 1024);
  EXPECT_EQ(find(code->kernels, "stack_and_lds").max_block, 128);
  EXPECT_EQ(find(code->kernels, "spills").registers, -1);
}

TEST_F(Inspect, HostObjectsNameTheirEntries) {
  const auto code = build(testing::resources_source(), "host");
  if (!code) GTEST_SKIP() << "not run: no host compiler";
  ASSERT_EQ(code->kernels.size(), 2u);
  EXPECT_EQ(find(code->kernels, "spills").registers, -1);
  EXPECT_TRUE(matrix_instructions(code->bytes)->empty());
}

TEST_F(Inspect, AnOffloadBundleIsOpened) {
  const auto code = build(testing::saxpy_source(), "gfx90a");
  if (!code) GTEST_SKIP() << "not run: no compiler for gfx90a";
  const std::string host = "host-x86_64-unknown-linux--", device = "hipv4-amdgcn-amd-amdhsa--gfx90a";
  std::string bundle = "__CLANG_OFFLOAD_BUNDLE__";
  const auto add = [&](std::uint64_t n) { bundle.append(reinterpret_cast<const char*>(&n), sizeof n); };
  add(2);
  add(4096), add(0), add(host.size());
  bundle += host;
  add(4096), add(code->bytes.size()), add(device.size());
  bundle += device;
  bundle.resize(4096);
  bundle.append(reinterpret_cast<const char*>(code->bytes.data()), code->bytes.size());
  const auto kernels = inspect_code(as_code(bundle));
  ASSERT_TRUE(kernels) << kernels.error().message;
  ASSERT_EQ(kernels->size(), 1u);
  EXPECT_EQ(kernels->front().registers, code->kernels.front().registers);
  bundle.pop_back();
  EXPECT_FALSE(inspect_code(as_code(bundle)));
}

TEST_F(Inspect, OtherFilesAreRefusedInOneLine) {
  for (const std::string& content : {std::string(), std::string("hello"),
                                     std::string("\x7f"
                                                 "ELF"),
                                     std::string(4096, '\0'), std::string("__CLANG_OFFLOAD_BUNDLE__"),
                                     std::string("__CLANG_OFFLOAD_BUNDLE__") + std::string(8, '\xff')}) {
    const auto result = inspect_code(as_code(content));
    ASSERT_FALSE(result) << content;
    EXPECT_EQ(result.error().kind, ErrorKind::kBadInput);
    EXPECT_EQ(result.error().message.find('\n'), std::string::npos);
    EXPECT_FALSE(matrix_instructions(as_code(content)));
  }
}

// Every truncation and many single and multiple bit flips: an error or an answer, and nothing else (the sanitizers look
// on).
TEST_F(Inspect, DamagedFilesNeverCrash) {
  for (const char* arch : {"gfx90a", "sm_90", "sm_61", "host"}) {
    const auto code = build(testing::saxpy_source(), arch, std::string(arch) == "sm_61" ? "clang" : "");
    if (!code) continue;
    const std::vector<std::byte> good = code->bytes;
    for (std::size_t size = 0; size < good.size(); size += 1 + size / 64) {
      const std::vector<std::byte> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
      EXPECT_TRUE(std::string(arch) == "sm_61" || !inspect_code(cut))
          << arch << " cut at " << size << " of " << good.size();
    }
    std::mt19937 random(1);
    for (int round = 0; round < 4000; ++round) {
      std::vector<std::byte> bad = good;
      // Half of the flips go where the structure is: the ELF header and the last quarter with the section headers.
      for (int flips = 1 + round % 4; flips > 0; --flips) {
        const std::size_t where = random() % 4 == 0   ? random() % 64
                                  : random() % 2 == 0 ? good.size() - 1 - random() % (good.size() / 4)
                                                      : random() % good.size();
        bad[where] ^= static_cast<std::byte>(1u << random() % 8);
      }
      (void)inspect_code(bad);
    }
  }
}

TEST_F(Inspect, DeeplyNestedMetadataIsRefused) {
  const auto code = build(testing::saxpy_source(), "gfx90a");
  if (!code) GTEST_SKIP() << "not run: no compiler for gfx90a";
  // The metadata starts with a map of 3 or 4 entries that begins with the key "amdhsa.kernels"; arrays of one array
  // follow.
  std::string file(reinterpret_cast<const char*>(code->bytes.data()), code->bytes.size());
  const std::size_t note = file.find(std::string("AMDGPU\0\0", 8));
  ASSERT_NE(note, std::string::npos);
  const std::size_t start = note + 8;
  const std::size_t length = std::min<std::size_t>(file.size() - start, 1 << 20);
  // Point the note's segment at a long tail of 0x91 ("array of one"): description size and file size grow together.
  const std::uint32_t size = 8 << 20;
  std::string deep = file.substr(0, start) + std::string(size, '\x91');
  std::memcpy(deep.data() + note - 8, &size, sizeof size);
  (void)length;
  std::uint64_t phoff;
  std::memcpy(&phoff, deep.data() + 32, 8);
  std::uint16_t phnum;
  std::memcpy(&phnum, deep.data() + 56, 2);
  const std::uint16_t no_sections = 0;
  std::memcpy(deep.data() + 60, &no_sections, 2);
  for (int i = 0; i < phnum; ++i) {
    char* header = deep.data() + phoff + 56 * static_cast<std::size_t>(i);
    std::uint32_t type;
    std::memcpy(&type, header, 4);
    const std::uint64_t bytes = type == 4 ? deep.size() - (note - 12) : 0, offset = note - 12;
    std::memcpy(header + 8, &offset, 8);
    std::memcpy(header + 32, &bytes, 8);
  }
  const auto result = inspect_code(as_code(deep));
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("metadata"));
}

// --- Matrix instructions
// -------------------------------------------------------------------------------------------------

TEST_F(Inspect, CountsAmdMatrixInstructions) {
  const std::string cdna = R"(
typedef float f4 __attribute__((ext_vector_type(4)));
typedef _Float16 h4 __attribute__((ext_vector_type(4)));
extern "C" __attribute__((global)) void k(f4* c, const h4* a, const h4* b) {
  f4 x = c[0];
  for (int i = 0; i < 3; ++i) x = __builtin_amdgcn_mfma_f32_16x16x16f16(a[i], b[i], x, 0, 0, 0);
  c[0] = x;
})";
  const std::string rdna = R"(
typedef float f8 __attribute__((ext_vector_type(8)));
typedef _Float16 h16 __attribute__((ext_vector_type(16)));
extern "C" __attribute__((global)) void k(f8* c, const h16* a, const h16* b) {
  f8 x = c[0];
  for (int i = 0; i < 3; ++i) x = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a[i], b[i], x);
  c[0] = x;
})";
  for (const auto& [arch, source, prefix] :
       {std::tuple{"gfx90a", cdna, "v_mfma_f32_16x16x16"}, std::tuple{"gfx1100", rdna, "v_wmma_f32_16x16x16"}}) {
    const auto code = build(source, arch);
    if (!code) GTEST_SKIP() << "not run: no compiler for " << arch;
    const auto counts = matrix_instructions(code->bytes);
    if (!counts && counts.error().kind == ErrorKind::kNoCompiler) GTEST_SKIP() << "not run: " << counts.error().message;
    ASSERT_TRUE(counts) << counts.error().message;
    ASSERT_EQ(counts->size(), 1u);
    EXPECT_THAT(counts->begin()->first, ::testing::StartsWith(prefix));
    EXPECT_EQ(counts->begin()->second, 3);
  }
  EXPECT_TRUE(matrix_instructions(build(testing::saxpy_source(), "gfx90a")->bytes)->empty());
}

TEST_F(Inspect, CountsNvidiaMatrixInstructions) {
  const auto mma = [](const std::string& instruction, int times) {
    const bool whole = instruction.find(".s32.") != std::string::npos,
               k16 = instruction.find("m16n8k16.row.col.f32") != std::string::npos;
    std::string source =
        "extern \"C\" __global__ void k(unsigned* p) {\n  unsigned c0 = p[0], c1 = p[1], c2 = p[2], c3 = p[3], a = p[4 "
        "+ threadIdx.x];\n";
    for (int i = 0; i < times; ++i) {
      source += "  asm volatile(\"" + instruction + " {%0,%1,%2,%3}, " +
                (whole ? "{%4,%4}, {%4}"
                 : k16 ? "{%4,%4,%4,%4}, {%4,%4}"
                       : "{%4,%4}, {%4}") +
                ", {%0,%1,%2,%3};\" : \"+r\"(c0), \"+r\"(c1), \"+r\"(c2), \"+r\"(c3) : \"r\"(a));\n";
    }
    // The float form wants float operands: reinterpret through the constraint.
    if (!whole) {
      source.replace(source.find("unsigned c0 = p[0], c1 = p[1], c2 = p[2], c3 = p[3], a"),
                     std::string("unsigned c0 = p[0], c1 = p[1], c2 = p[2], c3 = p[3], a").size(),
                     "float c0 = p[0], c1 = p[1], c2 = p[2], c3 = p[3]; unsigned a");
      for (std::size_t at = source.find("\"+r\""); at != std::string::npos; at = source.find("\"+r\"", at))
        source.replace(at, 4, "\"+f\"");
    }
    return source + "  p[0] = c0 + c1 + c2 + c3;\n}\n";
  };
  struct Case {
    const char *arch, *instruction, *name;
    int each;  // SASS instructions for one PTX instruction
  };
  for (const Case& c : {Case{"sm_75", "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", "HMMA", 1},
                        Case{"sm_80", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "HMMA", 1},
                        Case{"sm_90", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "HMMA", 1},
                        Case{"sm_80", "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32", "IMMA", 1}}) {
    for (const int times : {1, 7}) {
      const auto code = build(mma(c.instruction, times), c.arch);
      if (!code) GTEST_SKIP() << "not run: no compiler for " << c.arch;
      const auto counts = matrix_instructions(code->bytes);
      ASSERT_TRUE(counts) << counts.error().message;
      EXPECT_EQ(*counts, (std::map<std::string, int>{{c.name, times * c.each}})) << c.arch << " " << c.instruction;
    }
  }
  EXPECT_TRUE(matrix_instructions(build(testing::saxpy_source(), "sm_90")->bytes)->empty());
}

// --- Occupancy
// -----------------------------------------------------------------------------------------------------------

KernelUsage usage(int registers, int lds = 0) { return {.kernel = "k", .registers = registers, .lds_bytes = lds}; }

TEST(Occupancy, FollowsNvidiasCalculator) {
  const Arch sm90 = *find_arch("sm_90"), sm86 = *find_arch("sm_86"), sm75 = *find_arch("sm_75");
  struct Row {
    Arch arch;
    int registers, block, lds, blocks;
    const char* limit;
  };
  for (const Row& row : {
           Row{sm90, 32, 256, 0, 8, "waves"},      // 2048 threads
           Row{sm90, 64, 256, 0, 4, "registers"},  // 65536 / 64 = 1024 threads
           Row{sm90, 65, 256, 0, 3, "registers"},  // 72 a thread after rounding: 28 warps, 3 blocks of 8
           Row{sm90, 255, 256, 0, 1, "registers"}, Row{sm90, 128, 128, 0, 4, "registers"},
           Row{sm90, 32, 32, 0, 32, "block"},        // 32 resident blocks
           Row{sm90, 32, 128, 50 * 1024, 4, "lds"},  // 51 KiB each with the reserved one, 228 KiB
           Row{sm90, 32, 128, 227 * 1024, 1, "lds"}, Row{sm86, 32, 256, 0, 6, "waves"},  // 1536 threads
           Row{sm86, 32, 64, 0, 16, "block"}, Row{sm75, 32, 256, 0, 4, "waves"},         // 1024 threads
       }) {
    const Occupancy got = occupancy(row.arch, usage(row.registers), row.block, row.lds);
    EXPECT_EQ(got.blocks, row.blocks) << row.arch->name << " registers " << row.registers << " block " << row.block
                                      << " lds " << row.lds;
    EXPECT_EQ(got.waves, row.blocks * row.block / 32);
    EXPECT_EQ(got.limit, row.limit) << row.arch->name << " registers " << row.registers << " block " << row.block
                                    << " lds " << row.lds;
  }
}

TEST(Occupancy, RoundsAmdRegistersUpToTheirGranule) {
  struct Row {
    const char* arch;
    int registers, waves;  // of a compute unit
  };
  for (const Row& row :
       {Row{"gfx906", 84, 4 * 3}, Row{"gfx906", 85, 4 * 2}, Row{"gfx90a", 80, 4 * 6}, Row{"gfx90a", 84, 4 * 5},
        Row{"gfx942", 129, 4 * 3}, Row{"gfx1030", 96, 2 * 10}, Row{"gfx1030", 97, 2 * 9}, Row{"gfx1100", 96, 2 * 16},
        Row{"gfx1100", 97, 2 * 12}, Row{"gfx1201", 145, 2 * 9}}) {
    // Two waves a block: neither waves nor the 16 resident blocks hide the registers' limit.
    const Arch arch = *find_arch(row.arch);
    EXPECT_EQ(occupancy(arch, usage(row.registers), 2 * arch->wave_size, 0).waves, row.waves)
        << row.arch << " " << row.registers;
  }
}

TEST(Occupancy, IsZeroForABlockThatCannotStart) {
  const Arch sm90 = *find_arch("sm_90"), gfx90a = *find_arch("gfx90a");
  EXPECT_EQ(occupancy(sm90, usage(128), 1024, 0).waves, 0);
  EXPECT_EQ(occupancy(sm90, usage(128), 1024, 0).limit, "registers");
  EXPECT_EQ(occupancy(sm90, usage(32), 2048, 0).limit, "block");
  EXPECT_EQ(occupancy(sm90, usage(32), 128, 228 * 1024).limit, "lds");
  EXPECT_EQ(occupancy(gfx90a, usage(32, 40 * 1024), 256, 30 * 1024).waves, 0);
  KernelUsage small = usage(32);
  small.max_block = 128;
  EXPECT_EQ(occupancy(gfx90a, small, 256, 0).limit, "block");
}

// LLVM writes its own occupancy (waves a SIMD by registers) as a comment into assembly: take kernels of many register
// counts.
class OccupancyOfLlvm : public Inspect, public ::testing::WithParamInterface<const char*> {};
TEST_P(OccupancyOfLlvm, AgreesOnRegisters) {
  const std::string clang = find_program("clang-19");
  if (clang.empty()) GTEST_SKIP() << "not run: no clang-19";
  const Arch arch = *find_arch(GetParam());
  std::string source = "extern \"C\" {\n";
  for (const int live : {12, 28, 40, 60, 80, 98, 140, 230}) {
    source += fmt::format(R"(
__attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, 64))) void k{0}(float* p, float* q) {{
  float a[{0}];
#pragma unroll
  for (int i = 0; i < {0}; ++i) a[i] = p[i * 64 + __builtin_amdgcn_workitem_id_x()];
#pragma unroll
  for (int i = 0; i < {0}; ++i) q[i * 64 + __builtin_amdgcn_workitem_id_x()] = a[i];
}})",
                          live);
  }
  source += "}\n";
  const std::string file = folder_ / "occupancy.hip", assembly = folder_ / "occupancy.s";
  ASSERT_TRUE(write_file(file, source));
  const std::vector<std::string> argv = {clang,
                                         "-x",
                                         "hip",
                                         "-O3",
                                         "-w",
                                         "-nogpulib",
                                         "-nogpuinc",
                                         "--offload-device-only",
                                         std::string("--offload-arch=") + GetParam(),
                                         "-S",
                                         file,
                                         "-o",
                                         assembly};
  const auto run = run_program(argv, {});
  ASSERT_TRUE(run);
  ASSERT_EQ(run->code, 0) << run->output;
  const std::string text = *read_file(assembly);
  int compared = 0;
  std::set<int> distinct;
  for (std::size_t at = text.find("; Kernel info:"); at != std::string::npos;
       at = text.find("; Kernel info:", at + 1)) {
    KernelUsage k = usage(number_after(text, arch->family == "cdna" ? "; TotalNumVgprs: " : "; NumVgprs: ", at));
    k.sgprs = number_after(text, "; TotalNumSgprs: ", at);
    const int theirs = number_after(text, "; Occupancy: ", at);
    ASSERT_GT(k.registers, 0);
    ASSERT_GT(theirs, 0);
    // Blocks of as many waves as a unit has SIMDs and no limit on blocks: waves a SIMD times the SIMDs.
    const int simds = arch->family.starts_with("rdna") ? 2 : 4;
    const Occupancy ours = occupancy(arch, k, arch->wave_size * simds, 0);
    EXPECT_EQ(ours.waves, theirs * simds) << k.registers << " vector, " << k.sgprs << " scalar registers";
    distinct.insert(theirs);
    ++compared;
  }
  EXPECT_EQ(compared, 8);
  EXPECT_GE(distinct.size(), 3u) << "the kernels do not span the range";
}
INSTANTIATE_TEST_SUITE_P(Archs, OccupancyOfLlvm,
                         ::testing::Values("gfx906", "gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1151",
                                           "gfx1200", "gfx1201"));

}  // namespace
}  // namespace kgen
