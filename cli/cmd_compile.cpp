#include <fmt/core.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"

namespace kgen {

int cmd_compile(const Context& context, const Words& args) {
  std::string path, arch_name, output;
  bool json = false;
  Options options("compile", "FILE.hip --arch A -o FILE",
                  "Compile one source with the compiler driver that the tuner uses.");
  options.argument("FILE", path, "source, as 'kgen gen' writes it");
  options.text("--arch", arch_name, "architecture, e.g. gfx90a, sm_90, host");
  options.text("-o,--output", output, "code object to write");
  options.flag("--json", json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  if (arch_name.empty() || output.empty())
    return report(Error{ErrorKind::kBadInput, "compile: --arch and -o are needed; see 'kgen compile --help'"});

  const auto arch = find_arch(arch_name);
  if (!arch) return report(arch.error());
  const auto source = read_file(path);
  if (!source) return report(source.error());
  const auto result = compiler_for(context)->compile(*source, *arch);
  if (!result) return report(result.error());
  if (result->status != CompileStatus::kCompiled) {
    fmt::print(stderr, "{}\n{}: {}; repeat it with: {}\n", trim(result->log), path,
               result->status == CompileStatus::kTimeout ? "the compiler ran out of time" : first_error(result->log),
               result->command);
    return 1;
  }
  const CodeObject& code = result->code;
  if (const auto written =
          write_file(output, std::string_view(reinterpret_cast<const char*>(code.bytes.data()), code.bytes.size()));
      !written)
    return report(written.error());
  if (json) {
    print_json({{"output", output},
                {"bytes", code.bytes.size()},
                {"hash", code.hash},
                {"kind", code_kind(code.bytes)},
                {"compiler", code.compiler},
                {"options", code.options},
                {"seconds", code.compile_seconds},
                {"from_cache", code.from_cache}});
  } else {
    fmt::print("{}: {} of {} by {} {}\n", output, human_bytes(static_cast<double>(code.bytes.size())),
               code_kind(code.bytes), code.compiler, code.options);
  }
  return 0;
}

}  // namespace kgen
