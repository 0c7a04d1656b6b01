#include "tuner/mca.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/arch.h"
#include "base/text.h"
#include "tuner/compile.h"
#include "tuner/inspect.h"
#include "tuner/process.h"

namespace kgen {
namespace {

using Json = nlohmann::json;

constexpr int kIterations = 100;

// A kernel's instructions in order, and where its labels stand among them.
struct Listing {
  std::string kernel;
  std::vector<std::string> lines;
  std::map<std::string, std::size_t> labels;
};

bool is_matrix(const std::string& line) {
  for (const char* prefix : {"v_mfma_", "v_smfmac_", "v_wmma_", "v_swmmac_"})
    if (line.starts_with(prefix)) return true;
  return false;
}
bool is_wait(const std::string& line) {
  return line.starts_with("s_waitcnt") || line.starts_with("s_wait_") || line.starts_with("s_barrier");
}

// Reads both a disassembly ("0000000000001a00 <gemm_tile>:", "<L7>:") and a compiler's assembly ("gemm_tile:",
// ".LBB0_7:"). What follows a ';' or "//" is a comment.
std::vector<Listing> read_listing(std::string_view text) {
  std::vector<Listing> kernels;
  for (const std::string& whole : split(text, '\n')) {
    std::string_view line = std::string_view(whole).substr(0, whole.find(';'));
    line = trim(line.substr(0, line.find("//")));
    if (line.empty()) continue;
    if (line.ends_with(':')) {
      std::string_view name = line.substr(0, line.size() - 1);
      if (const std::size_t open = name.find('<'); open != std::string_view::npos && name.ends_with('>'))
        name = name.substr(open + 1, name.size() - open - 2);
      const bool local = name.starts_with(".L") ||
                         (name.size() > 1 && name.front() == 'L' &&
                          std::ranges::all_of(name.substr(1), [](unsigned char c) { return std::isdigit(c) != 0; }));
      if (!local)
        kernels.push_back({.kernel = std::string(name), .lines = {}, .labels = {}});
      else if (!kernels.empty())
        kernels.back().labels.emplace(name, kernels.back().lines.size());
      continue;
    }
    // Instructions stand indented; directives begin with a point.
    const bool instruction = std::isspace(static_cast<unsigned char>(whole.front())) != 0 &&
                             std::isalpha(static_cast<unsigned char>(line.front())) != 0;
    if (instruction && !kernels.empty()) kernels.back().lines.emplace_back(line);
  }
  return kernels;
}

struct Loop {
  std::size_t first = 0, last = 0;  // the branch is the last
  int matrix = 0;
};

std::optional<Loop> matrix_loop(const Listing& kernel) {
  std::map<std::size_t, Loop> loops;  // by their first instruction
  for (std::size_t i = 0; i < kernel.lines.size(); ++i) {
    const std::string& line = kernel.lines[i];
    if (!line.starts_with("s_branch") && !line.starts_with("s_cbranch")) continue;
    const std::size_t space = line.find_last_of(" \t");
    const auto target = kernel.labels.find(line.substr(space == std::string::npos ? 0 : space + 1));
    if (target == kernel.labels.end() || target->second > i) continue;
    Loop& loop = loops.try_emplace(target->second, Loop{.first = target->second}).first->second;
    loop.last = i;
  }
  std::vector<Loop> with_matrix;
  for (auto& [first, loop] : loops) {
    for (std::size_t i = loop.first; i <= loop.last; ++i) loop.matrix += is_matrix(kernel.lines[i]) ? 1 : 0;
    if (loop.matrix > 0) with_matrix.push_back(loop);
  }
  std::optional<Loop> best;
  for (const Loop& loop : with_matrix) {
    const bool innermost = std::ranges::none_of(with_matrix, [&](const Loop& other) {
      return other.first >= loop.first && other.last <= loop.last && other.last - other.first < loop.last - loop.first;
    });
    if (innermost && (!best || loop.matrix > best->matrix)) best = loop;
  }
  return best;
}

// llvm-mca 19 dies of untyped buffer accesses ("malloc(): corrupted top size" for a single buffer_load_dword). It gets
// the typed one of as many words, which goes the same way and is waited for by the same counter.
std::string typed_buffer_access(const std::string& line) {
  const std::size_t name_end = line.find(' ');
  const std::string_view name = std::string_view(line).substr(0, name_end);
  const bool load = name.starts_with("buffer_load_");
  if ((!load && !name.starts_with("buffer_store_")) || name_end == std::string::npos) return line;
  // data, address, descriptor, offset and the rest: the format stands behind the offset.
  std::size_t offset = name_end;
  for (int i = 0; i < 3 && offset != std::string::npos; ++i) offset = line.find(", ", offset + 1);
  if (offset == std::string::npos) return line;
  const std::size_t end = std::min(line.find(' ', offset + 2), line.size());
  const std::string_view words = name.ends_with("x4")   ? "xyzw"
                                 : name.ends_with("x3") ? "xyz"
                                 : name.ends_with("x2") ? "xy"
                                                        : "x";
  return fmt::format("tbuffer_{}_format_{}{} format:[BUF_DATA_FORMAT_32]{}", load ? "load" : "store", words,
                     line.substr(name_end, end - name_end), line.substr(end));
}

struct Run {
  int instructions = 0;                 // of an iteration that the model knows
  double cycles = 0;                    // an iteration
  std::optional<double> matrix_cycles;  // nothing: the model has no matrix unit
};

Result<Run> run_mca(const std::string& program, const std::string& arch, const std::vector<std::string>& body) {
  KGEN_TRY(const TemporaryFolder folder, TemporaryFolder::make());
  const std::string source = folder.path() + "/loop.s", report = folder.path() + "/report.json";
  std::vector<std::string> known;
  std::ranges::transform(body, std::back_inserter(known), typed_buffer_access);
  KGEN_CHECK_OK(write_file(source, join(known, "\n") + "\n"));
  const std::vector<std::string> argv = {program,
                                         "-mtriple=amdgcn-amd-amdhsa",
                                         "-mcpu=" + arch,
                                         fmt::format("-iterations={}", kIterations),
                                         "-skip-unsupported-instructions=parse-failure",
                                         "-json",
                                         "-o",
                                         report,
                                         source};
  KGEN_TRY(const RunResult ran, run_program(argv, {.timeout_seconds = 60, .file_bytes = std::int64_t{64} << 20}));
  if (ran.end != RunResult::End::kExited || ran.code != 0)
    return fail(ErrorKind::kBadInput,
                fmt::format("{} {}: {}", program, describe_end(ran, 60), first_error(ran.output)));
  KGEN_TRY(const std::string text, read_file(report));
  try {
    const Json json = Json::parse(text);
    const Json& region = json.at("CodeRegions").at(0);
    const Json& summary = region.at("SummaryView");
    const int iterations = summary.at("Iterations").get<int>();
    Run run{.instructions = summary.at("Instructions").get<int>() / iterations,
            .cycles = summary.at("TotalCycles").get<double>() / iterations,
            .matrix_cycles = std::nullopt};
    const Json& resources = json.at("TargetInfo").at("Resources");
    const auto unit = std::ranges::find(resources, "HWXDL");
    if (unit == resources.end()) return run;
    // The sums stand where the next instruction would.
    run.matrix_cycles = 0;
    const auto index = unit - resources.begin();
    for (const Json& usage : region.at("ResourcePressureView").at("ResourcePressureInfo"))
      if (usage.at("ResourceIndex") == index && usage.at("InstructionIndex") == run.instructions)
        run.matrix_cycles = usage.at("ResourceUsage").get<double>();
    return run;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorKind::kBadInput, fmt::format("{}: its report cannot be read: {}", program, error.what()));
  }
}

Result<LoopEstimate> estimate(const Listing& kernel, const std::string& arch) {
  LoopEstimate told{.kernel = kernel.kernel, .arch = arch, .note = {}};
  const auto loop = matrix_loop(kernel);
  if (!loop) {
    told.note = std::ranges::any_of(kernel.lines, is_matrix) ? "its matrix instructions stand in no loop"
                                                             : "no matrix instructions";
    return told;
  }
  std::vector<std::string> body(kernel.lines.begin() + static_cast<std::ptrdiff_t>(loop->first),
                                kernel.lines.begin() + static_cast<std::ptrdiff_t>(loop->last) + 1);
  told.instructions = static_cast<int>(body.size());
  told.matrix_instructions = loop->matrix;
  told.waits = static_cast<int>(std::ranges::count_if(body, is_wait));
  KGEN_TRY(const std::string program, find_llvm_tool("llvm-mca"));
  KGEN_TRY(const Run run, run_mca(program, arch, body));
  if (!run.matrix_cycles) {
    told.note =
        fmt::format("LLVM's machine model has no matrix unit for {}: it counts such an instruction as any other", arch);
    return told;
  }
  told.not_modelled = told.instructions - run.instructions;
  if (run.cycles <= 0 || *run.matrix_cycles <= 0) {
    told.note = fmt::format("{} does not know the loop's matrix instructions", program);
    return told;
  }
  std::erase_if(body, is_wait);
  KGEN_TRY(const Run without, run_mca(program, arch, body));
  told.cycles = run.cycles;
  told.matrix_cycles = *run.matrix_cycles;
  told.share = *run.matrix_cycles / run.cycles;
  told.share_without_waits = without.cycles > 0 ? without.matrix_cycles.value_or(0) / without.cycles : 0;
  return told;
}

// "…amdgcn-amd-amdhsa--gfx942…": a code object's metadata and an assembly's directive have it alike.
Result<std::string> target_of(std::string_view text) {
  constexpr std::string_view kMark = "amdgcn-amd-amdhsa--";
  std::string name;
  if (const std::size_t at = text.find(kMark); at != std::string_view::npos)
    for (const char c : text.substr(at + kMark.size())) {
      if (std::isalnum(static_cast<unsigned char>(c)) == 0) break;
      name += c;
    }
  if (name.empty())
    return fail(
        ErrorKind::kBadInput,
        "neither an AMD code object nor an AMD compiler's assembly (no target amdgcn-amd-amdhsa--gfx…), which is "
        "all that llvm-mca knows a matrix unit of");
  KGEN_TRY(const Arch arch, find_arch(name));
  return std::string(arch->name);
}

Result<void> estimate_all(const std::string& listing, const std::string& arch, std::vector<LoopEstimate>& all) {
  for (const Listing& kernel : read_listing(listing)) {
    if (kernel.lines.empty()) continue;  // data
    KGEN_TRY(LoopEstimate told, estimate(kernel, arch));
    all.push_back(std::move(told));
  }
  return {};
}

}  // namespace

Result<std::vector<LoopEstimate>> estimate_loops(std::span<const std::byte> code) {
  KGEN_CHECK_OK(find_llvm_tool("llvm-mca"));
  std::vector<LoopEstimate> all;
  const auto text_of = [](std::span<const std::byte> bytes) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  if (code_kind(code) == "elf-amdgpu") {
    KGEN_TRY(const auto objects, unbundle(code));
    for (const auto object : objects) {
      KGEN_TRY(const std::string arch, target_of(text_of(object)));
      KGEN_TRY(const std::string listing, disassemble(object));
      KGEN_CHECK_OK(estimate_all(listing, arch, all));
    }
    return all;
  }
  KGEN_TRY(const std::string arch, target_of(text_of(code)));
  if (text_of(code).find('\0') != std::string_view::npos)
    return fail(ErrorKind::kBadInput, "neither an AMD code object nor an AMD compiler's assembly");
  KGEN_CHECK_OK(estimate_all(std::string(text_of(code)), arch, all));
  if (all.empty()) return fail(ErrorKind::kBadInput, "an assembly without instructions");
  return all;
}

}  // namespace kgen
