#include <elf.h>
#include <fmt/core.h>

#include <cctype>
#include <cstring>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "tuner/mca.h"

namespace kgen {
namespace {

// The architecture a code object is for, as far as it says so; null when it does not or when it is not in the table.
Arch arch_of(std::string_view bytes, std::string_view kind) {
  std::string name;
  if (kind == "host") {
    name = "host";
  } else if (kind == "cubin" && bytes.size() >= sizeof(Elf64_Ehdr)) {
    // e_flags hold the SM number in the low byte, from ABI version 8 on (CUDA 13) in the second.
    Elf64_Ehdr header;
    std::memcpy(&header, bytes.data(), sizeof header);
    const unsigned sm = header.e_ident[EI_ABIVERSION] >= 8 ? header.e_flags >> 8 & 0xff : header.e_flags & 0xff;
    name = fmt::format("sm_{}", sm);
  } else {
    const std::string_view mark = kind == "ptx" ? ".target " : "amdgcn-amd-amdhsa--";
    const std::size_t at = bytes.find(mark);
    if (at == std::string_view::npos) return nullptr;
    for (char c : bytes.substr(at + mark.size())) {
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_') break;
      name += c;
    }
  }
  const auto arch = find_arch(name);
  return arch ? *arch : nullptr;
}

std::string known(int value) { return value < 0 ? "" : std::to_string(value); }
Json known_json(int value) { return value < 0 ? Json() : Json(value); }

// `kgen inspect --mca`: estimates, and said to be.
int estimate(const Words& files, bool as_json) {
  Json json{
      {"files", Json::array()},
      {"estimate", "LLVM's machine model (llvm-mca): one wave alone, fixed latencies, no bandwidth or bank conflicts"}};
  Table table({"file", "arch", "kernel", "loop", "matrix", "waits", "cycles", "matrix cycles", "matrix unit busy",
               "without waits"});
  Words notes;
  for (const std::string& file : files) {
    const auto text = read_file(file);
    if (!text) return report(text.error());
    const auto loops = estimate_loops(std::as_bytes(std::span(*text)));
    if (!loops && loops.error().kind == ErrorKind::kNoCompiler) return report(loops.error());
    if (!loops) return report(Error{loops.error().kind, file + ": " + loops.error().message});
    Json item{{"file", file}, {"kernels", Json::array()}};
    for (const LoopEstimate& loop : *loops) {
      const bool known = loop.note.empty();
      item["kernels"].push_back({{"kernel", loop.kernel},
                                 {"arch", loop.arch},
                                 {"note", loop.note},
                                 {"instructions", loop.instructions},
                                 {"matrix_instructions", loop.matrix_instructions},
                                 {"waits", loop.waits},
                                 {"not_modelled", loop.not_modelled},
                                 {"cycles", known ? Json(loop.cycles) : Json()},
                                 {"matrix_cycles", known ? Json(loop.matrix_cycles) : Json()},
                                 {"matrix_share", known ? Json(loop.share) : Json()},
                                 {"matrix_share_without_waits", known ? Json(loop.share_without_waits) : Json()}});
      if (known)
        table.add({file, loop.arch, loop.kernel, std::to_string(loop.instructions),
                   std::to_string(loop.matrix_instructions), std::to_string(loop.waits), number(loop.cycles),
                   number(loop.matrix_cycles), fmt::format("{:.0f}%", 100 * loop.share),
                   fmt::format("{:.0f}%", 100 * loop.share_without_waits)});
      if (!known || loop.not_modelled > 0)
        notes.push_back(fmt::format("{}: {}: {}", file, loop.kernel,
                                    known ? fmt::format("{} instructions are not in the model", loop.not_modelled)
                                          : "not estimated: " + loop.note));
    }
    json["files"].push_back(std::move(item));
  }
  if (as_json) {
    print_json(json);
    return 0;
  }
  table.print();
  for (const std::string& note : notes) fmt::print("{}\n", printable(note));
  fmt::print(
      "estimates by LLVM's machine model (llvm-mca), of an iteration of the innermost loop with the most matrix\n"
      "instructions, for one wave alone; other waves fill its gaps, memory may be slower: to rank loops, not to "
      "predict\n"
      "times. A cycle is four clocks.\n");
  return 0;
}

}  // namespace

int cmd_inspect(const Context&, const Words& args) {
  Words files;
  bool as_json = false, mca = false;
  Options options("inspect", "FILE…", "Registers, LDS, spills, occupancy and matrix instructions of code objects.");
  options.arguments("FILE", files, "AMD ELF, cubin, PTX or host object");
  options.flag("--mca", mca,
               "instead, how busy the main loop keeps the matrix unit, as LLVM's machine model estimates it; takes AMD "
               "code objects and assembly");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  if (mca) return estimate(files, as_json);

  Json json{{"files", Json::array()}};
  Table table({"file", "arch", "kernel", "registers", "agprs", "sgprs", "lds", "spills", "stack", "block", "waves",
               "limit", "matrix"});
  for (const std::string& file : files) {
    const auto text = read_file(file);
    if (!text) return report(text.error());
    const auto bytes = std::as_bytes(std::span(*text));
    const std::string_view kind = code_kind(bytes);
    const auto kernels = inspect_code(bytes);
    if (!kernels) return report(Error{kernels.error().kind, file + ": " + kernels.error().message});
    const Arch arch = arch_of(*text, kind);
    const auto instructions = matrix_instructions(bytes);
    int matrix = -1;
    Json by_name = Json::object();
    if (instructions) {
      matrix = 0;
      for (const auto& [name, count] : *instructions) {
        matrix += count;
        by_name[name] = count;
      }
    }
    Json item{{"file", file}, {"kind", kind}, {"arch", arch ? Json(arch->name) : Json()}};
    item["matrix_instructions"] = instructions ? by_name : Json();
    item["kernels"] = Json::array();
    for (const KernelUsage& usage : *kernels) {
      // Dynamic LDS is the launch's, so this is the most that registers, static LDS and block size allow.
      const bool has_occupancy =
          arch != nullptr && arch->vendor != Vendor::kHost && usage.max_block > 0 && usage.registers >= 0;
      const Occupancy resident = has_occupancy ? occupancy(arch, usage, usage.max_block, 0) : Occupancy{};
      item["kernels"].push_back({{"kernel", usage.kernel},
                                 {"registers", known_json(usage.registers)},
                                 {"agprs", known_json(usage.agprs)},
                                 {"sgprs", known_json(usage.sgprs)},
                                 {"lds_bytes", known_json(usage.lds_bytes)},
                                 {"spills", known_json(usage.spills)},
                                 {"stack_bytes", known_json(usage.stack_bytes)},
                                 {"max_block", known_json(usage.max_block)},
                                 {"occupancy_waves", has_occupancy ? Json(resident.waves) : Json()},
                                 {"occupancy_limit", has_occupancy ? Json(resident.limit) : Json()}});
      table.add({file, arch ? std::string(arch->name) : std::string(kind), usage.kernel, known(usage.registers),
                 known(usage.agprs), known(usage.sgprs), known(usage.lds_bytes), known(usage.spills),
                 known(usage.stack_bytes), known(usage.max_block), has_occupancy ? std::to_string(resident.waves) : "",
                 resident.limit, known(matrix)});
    }
    json["files"].push_back(std::move(item));
  }
  if (as_json) {
    print_json(json);
  } else {
    table.print();
  }
  return 0;
}

}  // namespace kgen
