#include "base/arch.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <string>
#include <vector>

#include "base/text.h"

namespace kgen {
namespace {

// Sources. AMD: the ISA documents of each generation and the subtarget features of LLVM's AMDGPU back end (1.5 times
// the VGPRs on gfx1100, gfx1151, gfx1200, gfx1201; 8 waves a SIMD from gfx90a on, 10 before). A unit is one compute
// unit; on RDNA it is half a work-group processor. gfx908 and later CDNA count VGPRs and AGPRs together. NVIDIA: CUDA
// C++ Programming Guide, table "Technical Specifications per Compute Capability"; of the shared memory a multiprocessor
// holds, 1 KiB a block is reserved from sm_80 on; clusters of more than 8 blocks of sm_90 must be allowed for each
// kernel (device/gpu.cpp) and may not fit into a chip. Host: a block is one thread with fibers; the limits are chosen
// so that every portable candidate fits.
constexpr int kKiB = 1024;
using enum Vendor;
constexpr ArchInfo kArchs[] = {
    // name family vendor matrix wave lds_limit lds_unit block regs regs_unit waves async bf16 fp16 fp32 cluster bulk
    // warpgroup
    {"gfx906", "gcn", kAmd, "none", 64, 64 * kKiB, 64 * kKiB, 1024, 256, 65536, 40, false, false, false, false, 1,
     false, false},
    {"gfx908", "cdna", kAmd, "mfma", 64, 64 * kKiB, 64 * kKiB, 1024, 512, 131072, 40, false, true, true, true, 1, false,
     false},
    {"gfx90a", "cdna", kAmd, "mfma", 64, 64 * kKiB, 64 * kKiB, 1024, 512, 131072, 32, false, true, true, true, 1, false,
     false},
    {"gfx942", "cdna", kAmd, "mfma", 64, 64 * kKiB, 64 * kKiB, 1024, 512, 131072, 32, false, true, true, true, 1, false,
     false},
    {"gfx1030", "rdna2", kAmd, "none", 32, 64 * kKiB, 64 * kKiB, 1024, 256, 65536, 32, false, false, false, false, 1,
     false, false},
    {"gfx1100", "rdna3", kAmd, "wmma11", 32, 64 * kKiB, 64 * kKiB, 1024, 256, 98304, 32, false, true, true, false, 1,
     false, false},
    {"gfx1151", "rdna3", kAmd, "wmma11", 32, 64 * kKiB, 64 * kKiB, 1024, 256, 98304, 32, false, true, true, false, 1,
     false, false},
    {"gfx1200", "rdna4", kAmd, "wmma12", 32, 64 * kKiB, 64 * kKiB, 1024, 256, 98304, 32, false, true, true, false, 1,
     false, false},
    {"gfx1201", "rdna4", kAmd, "wmma12", 32, 64 * kKiB, 64 * kKiB, 1024, 256, 98304, 32, false, true, true, false, 1,
     false, false},
    {"sm_61", "pascal", kNvidia, "none", 32, 48 * kKiB, 96 * kKiB, 1024, 255, 65536, 64, false, false, false, false, 1,
     false, false},
    // Volta's own matrix instruction (m8n8k4) is not supported: clang and later chips emulate it.
    {"sm_70", "volta", kNvidia, "none", 32, 96 * kKiB, 96 * kKiB, 1024, 255, 65536, 64, false, false, false, false, 1,
     false, false},
    {"sm_75", "turing", kNvidia, "mma_sync", 32, 64 * kKiB, 64 * kKiB, 1024, 255, 65536, 32, false, false, true, false,
     1, false, false},
    {"sm_80", "ampere", kNvidia, "mma_sync", 32, 163 * kKiB, 164 * kKiB, 1024, 255, 65536, 64, true, true, true, false,
     1, false, false},
    {"sm_86", "ampere", kNvidia, "mma_sync", 32, 99 * kKiB, 100 * kKiB, 1024, 255, 65536, 48, true, true, true, false,
     1, false, false},
    {"sm_89", "ada", kNvidia, "mma_sync", 32, 99 * kKiB, 100 * kKiB, 1024, 255, 65536, 48, true, true, true, false, 1,
     false, false},
    {"sm_90", "hopper", kNvidia, "mma_sync", 32, 227 * kKiB, 228 * kKiB, 1024, 255, 65536, 64, true, true, true, false,
     16, true, true},
    {"host", "host", kHost, "none", 32, 64 * kKiB, 64 * kKiB, 1024, 1024, 1048576, 32, false, false, false, false, 1,
     false, false},
};

}  // namespace

std::span<const ArchInfo> all_archs() { return kArchs; }

namespace {

// 87 of "sm_87"; 0 for other names. The last digit is the minor version.
int sm_version(std::string_view name) {
  int version = 0;
  if (!name.starts_with("sm_")) return 0;
  const auto [end, error] = std::from_chars(name.data() + 3, name.data() + name.size(), version);
  return error == std::errc() && end == name.data() + name.size() ? version : 0;
}

}  // namespace

std::vector<CodeSource> code_that_runs_on(std::string_view device_arch) {
  std::vector<CodeSource> sources;
  const std::string_view base = device_arch.substr(0, device_arch.find(':'));
  const int version = sm_version(base);
  if (version == 0) {
    for (const ArchInfo& arch : kArchs) {
      if (arch.name == base) sources.push_back({&arch});
    }
    return sources;
  }
  for (const ArchInfo& arch : kArchs) {
    const int other = sm_version(arch.name);
    if (other > 0 && other <= version) sources.push_back({&arch, other / 10 != version / 10});
  }
  std::ranges::sort(sources, std::greater{}, [](const CodeSource& source) { return sm_version(source.arch->name); });
  return sources;
}

Result<Arch> find_arch(std::string_view name) {
  for (const ArchInfo& arch : kArchs) {
    if (arch.name == name) return &arch;
  }
  std::vector<std::string> names;
  for (const ArchInfo& arch : kArchs) names.emplace_back(arch.name);
  std::string hint = did_you_mean(name, names);
  if (hint.empty()) hint = "; known: " + join(names, " ");
  return fail(ErrorKind::kBadInput, "unknown arch '" + std::string(name) + "'" + hint);
}

}  // namespace kgen
