// Resources of kernels, read from the files that compilers leave. Code objects come from a database that somebody else
// may have made: every offset is checked before it is followed.
#include "tuner/inspect.h"

#include <elf.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "tuner/compile.h"
#include "tuner/process.h"

namespace kgen {
namespace {

using Json = nlohmann::json;
using Bytes = std::span<const std::byte>;

constexpr std::uint16_t kMachineCuda = 190, kMachineAmdgpu = 224;
constexpr std::string_view kBundleMagic = "__CLANG_OFFLOAD_BUNDLE__";

std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

tl::unexpected<Error> malformed(std::string_view what) {
  return fail(ErrorKind::kBadInput, fmt::format("not a whole code object: {}", what));
}

std::optional<Bytes> slice(Bytes bytes, std::uint64_t offset, std::uint64_t size) {
  if (offset > bytes.size() || size > bytes.size() - offset) return std::nullopt;
  return bytes.subspan(offset, size);
}

template <class T>
std::optional<T> read_at(Bytes bytes, std::uint64_t offset) {
  const auto part = slice(bytes, offset, sizeof(T));
  if (!part) return std::nullopt;
  T value;
  std::memcpy(&value, part->data(), sizeof(T));
  return value;
}

// The zero-terminated text at `offset` of a string table; "" when it runs out of it.
std::string_view string_at(Bytes table, std::uint64_t offset) {
  if (offset >= table.size()) return "";
  const std::string_view rest = text_of(table.subspan(offset));
  const std::size_t end = rest.find('\0');
  return end == std::string_view::npos ? "" : rest.substr(0, end);
}

int clamp_int(std::uint64_t value) {
  return static_cast<int>(std::min<std::uint64_t>(value, std::numeric_limits<int>::max()));
}

struct Section {
  std::string_view name;
  Elf64_Shdr header;
  Bytes data;  // empty for sections without bytes in the file
};

struct Elf {
  Elf64_Ehdr header;
  std::vector<Section> sections;
  std::vector<Bytes> notes;  // contents of PT_NOTE segments

  const Section* find(std::string_view name) const {
    const auto found = std::find_if(sections.begin(), sections.end(), [&](const Section& s) { return s.name == name; });
    return found != sections.end() ? &*found : nullptr;
  }
  const Section* find(std::uint32_t type) const {
    const auto found =
        std::find_if(sections.begin(), sections.end(), [&](const Section& s) { return s.header.sh_type == type; });
    return found != sections.end() ? &*found : nullptr;
  }
};

Result<Elf> parse_elf(Bytes file) {
  const auto header = read_at<Elf64_Ehdr>(file, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64 ||
      header->e_ident[EI_DATA] != ELFDATA2LSB)
    return malformed("no 64-bit little-endian ELF header");
  Elf elf{.header = *header, .sections = {}, .notes = {}};
  for (std::uint32_t i = 0; i < header->e_shnum; ++i) {
    const auto section = read_at<Elf64_Shdr>(file, header->e_shoff + std::uint64_t{i} * sizeof(Elf64_Shdr));
    if (!section) return malformed("section headers end past the file");
    Bytes data;
    if (section->sh_type != SHT_NOBITS && section->sh_type != SHT_NULL) {
      const auto part = slice(file, section->sh_offset, section->sh_size);
      if (!part) return malformed("a section ends past the file");
      data = *part;
    }
    elf.sections.push_back({"", *section, data});
  }
  if (header->e_shstrndx < elf.sections.size()) {
    const Bytes names = elf.sections[header->e_shstrndx].data;
    for (Section& section : elf.sections) section.name = string_at(names, section.header.sh_name);
  }
  for (std::uint32_t i = 0; i < header->e_phnum; ++i) {
    const auto segment = read_at<Elf64_Phdr>(file, header->e_phoff + std::uint64_t{i} * sizeof(Elf64_Phdr));
    if (!segment) return malformed("program headers end past the file");
    const auto part = slice(file, segment->p_offset, segment->p_filesz);
    if (!part) return malformed("a segment ends past the file");
    if (segment->p_type == PT_NOTE) elf.notes.push_back(*part);
  }
  return elf;
}

struct Symbol {
  std::string_view name;
  Elf64_Sym entry;
};

std::vector<Symbol> symbols(const Elf& elf, std::uint32_t table_type) {
  std::vector<Symbol> result;
  const Section* table = elf.find(table_type);
  if (table == nullptr || table->header.sh_link >= elf.sections.size()) return result;
  const Bytes names = elf.sections[table->header.sh_link].data;
  for (std::uint64_t at = 0; auto entry = read_at<Elf64_Sym>(table->data, at); at += sizeof(Elf64_Sym))
    result.push_back({string_at(names, entry->st_name), *entry});
  return result;
}

// --- AMD: the metadata note is a MessagePack document (LLVM, "User Guide for AMDGPU Backend", Code Object Metadata).
// ---------

// The document's reader recurses once a level: a hostile file must be refused before it can exhaust the stack.
class DepthGuard final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return ++depth_ < kDeepest; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return --depth_, true; }
  bool start_array(std::size_t) override { return ++depth_ < kDeepest; }
  bool end_array() override { return --depth_, true; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  static constexpr int kDeepest = 32;
  int depth_ = 0;
};

std::optional<Json> parse_msgpack(Bytes bytes) {
  const auto* begin = reinterpret_cast<const unsigned char*>(bytes.data());
  const auto* end = begin + bytes.size();
  try {  // lengths that no container can hold are thrown even when exceptions are switched off
    DepthGuard guard;
    if (!Json::sax_parse(begin, end, &guard, Json::input_format_t::msgpack)) return std::nullopt;
    Json document = Json::from_msgpack(begin, end, /*strict=*/true, /*allow_exceptions=*/false);
    if (document.is_discarded()) return std::nullopt;
    return document;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

int number(const Json& map, const char* key) {
  const auto found = map.find(key);
  if (found == map.end() || !found->is_number_unsigned()) return -1;
  return clamp_int(found->get<std::uint64_t>());
}

std::optional<Json> amd_metadata(const Elf& elf) {
  for (const Bytes note : elf.notes) {
    for (std::uint64_t at = 0; auto header = read_at<Elf64_Nhdr>(note, at);) {
      const auto padded = [](std::uint64_t n) { return (n + 3) & ~std::uint64_t{3}; };
      const std::uint64_t name_at = at + sizeof *header, content_at = name_at + padded(header->n_namesz);
      const auto name = slice(note, name_at, header->n_namesz);
      const auto content = slice(note, content_at, header->n_descsz);
      if (!name || !content) break;
      constexpr std::uint32_t kAmdgpuMetadata = 32;
      if (header->n_type == kAmdgpuMetadata && text_of(*name).starts_with("AMDGPU")) return parse_msgpack(*content);
      at = content_at + padded(header->n_descsz);
    }
  }
  return std::nullopt;
}

Result<std::vector<KernelUsage>> inspect_amd(const Elf& elf) {
  const auto metadata = amd_metadata(elf);
  if (!metadata || !metadata->is_object()) return malformed("no AMDGPU metadata note that can be read");
  const auto kernels = metadata->find("amdhsa.kernels");
  if (kernels == metadata->end() || !kernels->is_array()) return malformed("its AMDGPU metadata names no kernels");
  std::vector<KernelUsage> result;
  for (const Json& kernel : *kernels) {
    if (!kernel.is_object() || !kernel.contains(".name") || !kernel[".name"].is_string())
      return malformed("its AMDGPU metadata has a kernel without a name");
    KernelUsage usage{.kernel = kernel[".name"],
                      .registers = number(kernel, ".vgpr_count"),
                      .agprs = number(kernel, ".agpr_count"),
                      .sgprs = number(kernel, ".sgpr_count"),
                      .lds_bytes = number(kernel, ".group_segment_fixed_size"),
                      .stack_bytes = number(kernel, ".private_segment_fixed_size"),
                      .max_block = number(kernel, ".max_flat_workgroup_size")};
    const int vector = number(kernel, ".vgpr_spill_count"), scalar = number(kernel, ".sgpr_spill_count");
    if (vector >= 0) usage.spills = clamp_int(std::uint64_t(vector) + std::uint64_t(std::max(scalar, 0)));
    result.push_back(std::move(usage));
  }
  return result;
}

// --- NVIDIA cubins: `.nv.info` sections are lists of attributes {format, attribute, size or value, bytes}. The numbers
// are those that `ptxas -v` and `cuobjdump -res-usage` print (checked with CUDA 13.0, sm_75 to sm_90;
// tests/compile/inspect_test.cpp). -----

struct NvAttribute {
  std::uint8_t id;
  Bytes data;
};

std::vector<NvAttribute> nv_attributes(Bytes info) {
  std::vector<NvAttribute> result;
  constexpr std::uint8_t kSizedFormat = 4;
  for (std::uint64_t at = 0; at + 4 <= info.size();) {
    const auto format = static_cast<std::uint8_t>(info[at]), id = static_cast<std::uint8_t>(info[at + 1]);
    const std::uint16_t size = *read_at<std::uint16_t>(info, at + 2);
    at += 4;
    if (format != kSizedFormat) continue;
    const auto data = slice(info, at, size);
    if (!data) break;
    result.push_back({id, *data});
    at += size;
  }
  return result;
}

Result<std::vector<KernelUsage>> inspect_cubin(const Elf& elf) {
  constexpr std::uint8_t kMaxThreads = 0x05, kRequiredThreads = 0x10, kFrameSize = 0x11, kRegisterCount = 0x2f;
  // From sm_90 on, the first KiB of a block's shared memory belongs to the system and is counted in the section.
  constexpr std::uint64_t kReservedShared = 1024;
  const std::uint64_t reserved = elf.find(".nv.shared.reserved.0") != nullptr ? kReservedShared : 0;
  const std::vector<Symbol> names = symbols(elf, SHT_SYMTAB);
  std::vector<KernelUsage> result;
  for (const Section& section : elf.sections) {
    constexpr std::string_view kPrefix = ".nv.info.";
    if (!section.name.starts_with(kPrefix)) continue;
    KernelUsage usage{.kernel = std::string(section.name.substr(kPrefix.size())), .lds_bytes = 0};
    if (const Section* shared = elf.find(".nv.shared." + usage.kernel))
      usage.lds_bytes = clamp_int(shared->header.sh_size - std::min(shared->header.sh_size, reserved));
    for (const NvAttribute& attribute : nv_attributes(section.data)) {
      if (attribute.id != kMaxThreads && attribute.id != kRequiredThreads) continue;
      std::uint64_t threads = 1;
      for (std::uint64_t axis = 0; axis < 3; ++axis)
        threads =
            std::min<std::uint64_t>(threads * read_at<std::uint32_t>(attribute.data, 4 * axis).value_or(1), 1 << 16);
      usage.max_block = clamp_int(threads);
    }
    result.push_back(std::move(usage));
  }
  const Section* info = elf.find(".nv.info");
  for (const NvAttribute& attribute : info != nullptr ? nv_attributes(info->data) : std::vector<NvAttribute>{}) {
    const auto symbol = read_at<std::uint32_t>(attribute.data, 0), value = read_at<std::uint32_t>(attribute.data, 4);
    if (!symbol || !value || *symbol >= names.size()) continue;
    for (KernelUsage& usage : result) {
      if (usage.kernel != names[*symbol].name) continue;
      if (attribute.id == kRegisterCount) usage.registers = clamp_int(*value);
      if (attribute.id == kFrameSize) {
        usage.stack_bytes = clamp_int(*value);
        if (*value == 0) usage.spills = 0;
      }
    }
  }
  return result;
}

// --- PTX and host
// -------------------------------------------------------------------------------------------------------

bool is_ptx(Bytes file) {
  const std::string_view text = text_of(file);
  return text.find('\0') == std::string_view::npos && text.find("\n.version ") != std::string_view::npos &&
         text.find(".target sm_") != std::string_view::npos;
}

std::vector<KernelUsage> inspect_ptx(std::string_view text) {
  std::vector<KernelUsage> result;
  constexpr std::string_view kEntry = ".entry ";
  for (std::size_t at = text.find(kEntry); at != std::string_view::npos;) {
    const std::size_t start = at + kEntry.size(), end = text.find_first_of("( \t\r\n", start);
    const std::size_t next = text.find(kEntry, start);
    KernelUsage usage{.kernel = std::string(text.substr(start, end - start))};
    constexpr std::string_view kMaxThreads = ".maxntid ";
    const std::size_t body = text.find('{', start);
    const std::string_view directives = text.substr(start, std::min(body, next) - start);
    if (const std::size_t limit = directives.find(kMaxThreads); limit != std::string_view::npos)
      usage.max_block = std::atoi(std::string(directives.substr(limit + kMaxThreads.size(), 10)).c_str());
    result.push_back(std::move(usage));
    at = next;
  }
  return result;
}

std::vector<KernelUsage> inspect_host(const Elf& elf) {
  std::vector<KernelUsage> result;
  for (const Symbol& symbol : symbols(elf, SHT_DYNSYM)) {
    constexpr std::string_view kPrefix = "kgen_entry_";  // templates/prelude_host.h
    if (symbol.entry.st_shndx == SHN_UNDEF || !symbol.name.starts_with(kPrefix)) continue;
    result.push_back({.kernel = std::string(symbol.name.substr(kPrefix.size()))});
  }
  return result;
}

// --- Matrix instructions
// ------------------------------------------------------------------------------------------------

// SASS from sm_70 on is 16 bytes an instruction with the opcode in the low 12 bits. The opcodes are those of the tensor
// core instructions of sm_75 to sm_90.
std::map<std::string, int> count_sass(const Elf& elf) {
  static const std::map<unsigned, const char*> kOpcodes = {
      {0x23c, "HMMA"}, {0x237, "IMMA"}, {0x23f, "DMMA"}, {0x23d, "BMMA"}, {0x27a, "QMMA"}};
  std::map<std::string, int> counts;
  for (const Section& section : elf.sections) {
    if (!section.name.starts_with(".text.")) continue;
    for (std::uint64_t at = 0; auto word = read_at<std::uint16_t>(section.data, at); at += 16) {
      if (const auto found = kOpcodes.find(*word & 0xfff); found != kOpcodes.end()) ++counts[found->second];
    }
  }
  return counts;
}

std::map<std::string, int> count_words(std::string_view text, std::initializer_list<std::string_view> prefixes) {
  std::map<std::string, int> counts;
  constexpr std::string_view kSpace = " \t\r\n;";
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    if (std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view p) { return word.starts_with(p); }))
      ++counts[std::string(word)];
    at = text.find_first_not_of(kSpace, end);
  }
  return counts;
}

Result<std::map<std::string, int>> count_amd(Bytes object) {
  KGEN_TRY(const std::string listing, disassemble(object));
  return count_words(listing, {"v_mfma_", "v_wmma_", "v_smfmac_", "v_swmmac_"});
}

// --- Occupancy
// ----------------------------------------------------------------------------------------------------------

int round_up(int value, int step) { return (value + step - 1) / step * step; }

struct Allocation {
  int simds;    // of a unit
  int pool;     // registers a lane that one SIMD hands out
  int granule;  // registers a lane, handed out together
  int waves_per_simd;
  int lds_granule;   // bytes
  int lds_reserved;  // bytes a block that the system takes
  int blocks;        // resident blocks a unit
};

// AMD: getTotalNumVGPRs, getVGPRAllocGranule and getMaxWavesPerEU of LLVM's AMDGPUBaseInfo.cpp; CDNA1 has two files of
// 256 registers, and the compiler's count is the larger. NVIDIA: CUDA C++ Programming Guide, compute capabilities, and
// the occupancy calculator.
Allocation allocation(Arch arch) {
  const bool full = arch->name != "gfx1030";  // RDNA parts with 1.5 times the registers
  if (arch->vendor == Vendor::kAmd) {
    if (arch->name == "gfx906" || arch->name == "gfx908") return {4, 256, 4, 10, 512, 0, 16};
    if (arch->family == "cdna") return {4, 512, 8, 8, 512, 0, 16};
    return {2, full ? 1536 : 1024, full ? 24 : 16, 16, 1024, 0, 16};
  }
  const std::string_view name = arch->name;
  const int blocks = name == "sm_75" || name == "sm_86" ? 16 : name == "sm_89" ? 24 : 32;
  const bool reserves = name >= "sm_80";
  return {4, 512, 8, arch->max_waves_per_unit / 4, name < "sm_75" ? 256 : 128, reserves ? 1024 : 0, blocks};
}

}  // namespace

Result<std::string> find_llvm_tool(const std::string& name) {
  std::string program;
  for (int major = 30; major >= 15 && program.empty(); --major)
    program = find_program(fmt::format("{}-{}", name, major));
  for (const std::string& plain : {name, "/opt/rocm/llvm/bin/" + name}) {
    if (program.empty()) program = find_program(plain);
  }
  if (program.empty())
    return fail(ErrorKind::kNoCompiler, fmt::format("{} not found; install LLVM's tools (Debian: llvm-19)", name));
  return program;
}

Result<std::string> disassemble(Bytes object) {
  KGEN_TRY(const std::string program, find_llvm_tool("llvm-objdump"));
  KGEN_TRY(const TemporaryFolder folder, TemporaryFolder::make());
  const std::string file = folder.path() + "/object";
  KGEN_CHECK_OK(write_file(file, text_of(object)));
  const std::vector<std::string> argv = {program, "-d", "--no-show-raw-insn", "--symbolize-operands", file};
  KGEN_TRY(RunResult listing, run_program(argv, {.timeout_seconds = 60, .output_bytes = std::size_t{256} << 20}));
  if (listing.end != RunResult::End::kExited || listing.code != 0)
    return fail(ErrorKind::kBadInput, fmt::format("{}: {}", program, first_error(listing.output)));
  return std::move(listing.output);
}

Result<std::vector<Bytes>> unbundle(Bytes file) {
  if (!text_of(file).starts_with(kBundleMagic)) return std::vector<Bytes>{file};
  std::vector<Bytes> objects;
  std::uint64_t at = kBundleMagic.size();
  const auto count = read_at<std::uint64_t>(file, at);
  at += sizeof(std::uint64_t);
  if (!count) return malformed("an offload bundle without entries");
  for (std::uint64_t i = 0; i < *count; ++i) {
    const auto offset = read_at<std::uint64_t>(file, at), size = read_at<std::uint64_t>(file, at + 8),
               length = read_at<std::uint64_t>(file, at + 16);
    const auto triple = length ? slice(file, at + 24, *length) : std::nullopt;
    const auto object = triple ? slice(file, *offset, *size) : std::nullopt;
    if (!object) return malformed("an offload bundle's entry ends past the file");
    if (text_of(*triple).find("amdgcn") != std::string_view::npos) objects.push_back(*object);
    at += 24 + *length;
  }
  return objects;
}

std::string_view code_kind(std::span<const std::byte> code) {
  if (text_of(code).starts_with(kBundleMagic)) return "elf-amdgpu";
  if (text_of(code).starts_with(std::string_view(ELFMAG, SELFMAG))) {
    const auto machine = read_at<std::uint16_t>(code, offsetof(Elf64_Ehdr, e_machine));
    if (machine == kMachineAmdgpu) return "elf-amdgpu";
    if (machine == kMachineCuda) return "cubin";
    if (machine == EM_X86_64 || machine == EM_AARCH64) return "host";
    return "";
  }
  return is_ptx(code) ? "ptx" : "";
}

Result<std::vector<KernelUsage>> inspect_code(std::span<const std::byte> code) {
  const std::string_view kind = code_kind(code);
  if (kind.empty()) return malformed("neither an AMD or NVIDIA code object, PTX, nor a shared object of a host");
  if (kind == "ptx") return inspect_ptx(text_of(code));
  KGEN_TRY(const std::vector<Bytes> objects, unbundle(code));
  std::vector<KernelUsage> all;
  for (const Bytes object : objects) {
    KGEN_TRY(const Elf elf, parse_elf(object));
    if (elf.header.e_machine == kMachineCuda) return inspect_cubin(elf);
    if (elf.header.e_machine != kMachineAmdgpu) return inspect_host(elf);
    KGEN_TRY(std::vector<KernelUsage> kernels, inspect_amd(elf));
    all.insert(all.end(), std::make_move_iterator(kernels.begin()), std::make_move_iterator(kernels.end()));
  }
  return all;
}

Result<std::map<std::string, int>> matrix_instructions(std::span<const std::byte> code) {
  const std::string_view kind = code_kind(code);
  if (kind.empty()) return malformed("neither an AMD or NVIDIA code object, PTX, nor a shared object of a host");
  if (kind == "host") return std::map<std::string, int>{};
  if (kind == "ptx") return count_words(text_of(code), {"mma.sync", "wmma.mma", "wgmma.mma_async"});
  KGEN_TRY(const std::vector<Bytes> objects, unbundle(code));
  std::map<std::string, int> counts;
  for (const Bytes object : objects) {
    if (kind == "cubin") {
      KGEN_TRY(const Elf elf, parse_elf(object));
      return count_sass(elf);
    }
    KGEN_TRY(const auto some, count_amd(object));
    for (const auto& [name, count] : some) counts[name] += count;
  }
  return counts;
}

Occupancy occupancy(Arch arch, const KernelUsage& usage, int block, int dynamic_lds_bytes) {
  const int waves_per_block = std::max(1, (block + arch->wave_size - 1) / arch->wave_size);
  if (arch->vendor == Vendor::kHost) return {waves_per_block, 1, "block"};
  if (block > arch->max_block || (usage.max_block > 0 && block > usage.max_block)) return {0, 0, "block"};
  const Allocation facts = allocation(arch);

  // Waves of a block spread over the SIMDs; a SIMD that holds one wave more than its neighbours decides.
  int waves = facts.simds * facts.waves_per_simd;
  std::string limit = "waves";
  if (usage.registers > 0) {
    int per_simd = std::min(facts.waves_per_simd, facts.pool / round_up(usage.registers, facts.granule));
    if (arch->vendor == Vendor::kAmd && arch->wave_size == 64 && usage.sgprs > 0 && facts.waves_per_simd > 8)
      per_simd = std::min(per_simd, usage.sgprs <= 80 ? 10 : usage.sgprs <= 88 ? 9 : usage.sgprs <= 100 ? 8 : 7);
    if (per_simd < facts.waves_per_simd) limit = "registers";
    waves = facts.simds * per_simd;
  }
  // A block's waves start on SIMDs in turn. On NVIDIA they take whole rounds over the four partitions.
  const int taken = arch->vendor == Vendor::kNvidia ? round_up(waves_per_block, facts.simds) : waves_per_block;
  int blocks = waves / (limit == "registers" ? taken : waves_per_block);
  if (blocks > facts.blocks) {
    blocks = facts.blocks;
    limit = "block";
  }
  const int lds = round_up(std::max(usage.lds_bytes, 0) + dynamic_lds_bytes + facts.lds_reserved, facts.lds_granule);
  if (std::max(usage.lds_bytes, 0) + dynamic_lds_bytes > arch->lds_limit) return {0, 0, "lds"};
  if (lds > 0 && arch->lds_per_unit / lds < blocks) {
    blocks = arch->lds_per_unit / lds;
    limit = "lds";
  }
  return {blocks * waves_per_block, blocks, limit};
}

}  // namespace kgen
