#include <elf.h>
#include <fmt/core.h>

#include <cctype>
#include <cstring>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"

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

}  // namespace

int cmd_inspect(const Context&, const Words& args) {
  Words files;
  bool as_json = false;
  Options options("inspect", "FILE…", "Registers, LDS, spills, occupancy and matrix instructions of code objects.");
  options.arguments("FILE", files, "AMD ELF, cubin, PTX or host object");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;

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
