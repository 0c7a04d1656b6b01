// A stand-in for clang (KGEN_CLANG names it): makes shared objects for the host device out of sources for gfx1030 and
// sm_70, which the stand-in drivers run. It adds to the text what kgen emits for the host alone: an entry for each
// kernel. Faults of the call `compile` are by tests/device/fault_script.h.
//
// KGEN_FAKE_OBJECTS names a folder in which objects are kept by source, so that tunes without a cache of their own are
// fast; KGEN_FAKE_CXX names the compiler behind it (g++).
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/text.h"
#include "tests/device/fault_script.h"

namespace {

namespace fs = std::filesystem;

std::string setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// generator/emit.cpp writes the same for the architecture `host`.
std::string host_entries(const std::string& source) {
  static const std::regex kKernel(R"(\nKGEN_KERNEL\([^)]*\) (\w+)\(\n([^)]*)\) \{)");
  std::string text = source;
  for (auto kernel = std::sregex_iterator(source.begin(), source.end(), kKernel); kernel != std::sregex_iterator();
       ++kernel) {
    std::vector<std::string> values;
    for (const std::string& param : kgen::split((*kernel)[2].str(), ',')) {
      std::string type(kgen::trim(param));
      type.resize(type.rfind(' '));  // the name
      if (const auto at = type.find(" __restrict__"); at != std::string::npos) type.resize(at);
      values.push_back(fmt::format("*static_cast<{} const*>(params[{}])", type, values.size()));
    }
    const std::string name = (*kernel)[1];
    text += fmt::format("KGEN_HOST_ENTRY({}) {{ {}({}); }}\n", name, name, kgen::join(values, ", "));
  }
  return text;
}

int compile(const std::vector<std::string>& args) {
  using Kind = fake::Injection::Kind;
  std::string in, out;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "-o" && i + 1 < args.size()) out = args[i + 1], in = args[i - 1];
  }
  auto source = kgen::read_file(in);
  if (!source || out.empty()) {
    fmt::print(stderr, "error: usage: SOURCE -o OBJECT\n");
    return 2;
  }
  static const std::regex kKernel(R"(\nKGEN_KERNEL\([^)]*\) (\w+)\()");
  std::smatch kernel;  // the first one's name goes for the source's
  const std::string first = std::regex_search(*source, kernel, kKernel) ? kernel[1].str() : "";
  const fake::Injection fault = fake::meet("compile", first);
  if (fault.kind == Kind::kError || fault.kind == Kind::kFault) {
    fmt::print(stderr, "kernel.hip:1:1: error: the script says so\n");
    return fault.code % 256 == 0 ? 1 : fault.code % 256;
  }
  if (fault.kind == Kind::kSkip) return 0;

  const std::string folder = setting("KGEN_FAKE_OBJECTS", "");
  const std::string kept = folder + "/" + kgen::hash_text(*source) + ".so";
  if (folder.empty() || !fs::exists(kept)) {
    const std::string full = in + ".cpp", object = out + ".so";
    if (!kgen::write_file(full, host_entries(*source))) return 2;
    const std::string command = fmt::format(
        "{} -std=c++20 -O1 -march=native -shared -fPIC -w -fno-exceptions -fno-rtti "
        "-fno-math-errno -fno-trapping-math -Wl,--as-needed {} -o {}",
        setting("KGEN_FAKE_CXX", "g++"), full, object);
    if (std::system(command.c_str()) != 0) return 1;
    if (folder.empty()) {
      fs::rename(object, out);
    } else {
      std::error_code ignored;
      fs::create_directories(folder, ignored);
      const std::string mine = fmt::format("{}.{}", kept, ::getpid());  // another may be at the same source
      fs::copy_file(object, mine, ignored);
      fs::rename(mine, kept, ignored);
      fs::rename(object, out);
    }
  } else {
    fs::copy_file(kept, out, fs::copy_options::overwrite_existing);
  }
  if (fault.kind == Kind::kHalf) fs::resize_file(out, fs::file_size(out) / 2);
  if (fault.kind == Kind::kCorrupt) {
    std::string bytes = kgen::read_file(out).value_or("");
    for (int i = 0; i < 8 && !bytes.empty(); ++i) bytes[fake::lot() % bytes.size()] ^= 1 << fake::lot() % 8;
    if (!kgen::write_file(out, bytes)) return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  for (const std::string& arg : args) {
    if (arg == "--version") {
      fmt::print("stand-in clang version 19.0.0\n");
      return 0;
    }
    if (arg == "-print-supported-cpus") {
      fmt::print("gfx1030\nsm_70\n");
      return 0;
    }
  }
  return compile(args);
}
