// Writes what verification compares with, for those who run a problem's kernels elsewhere (tests/operators/emulate.py):
//   case_tool SPEC FOLDER [OP_GLOB]
// FOLDER/cases.json has an entry a problem, in the order of the spec; FOLDER/cases.bin holds their arrays, which the
// entries name by byte offset and count. Inputs and reference values are made on the host device, as `kgen verify`
// does.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/text.h"
#include "generator/emit.h"
#include "tuner/compile.h"
#include "tuner/problem.h"
#include "tuner/verify.h"

namespace {

using kgen::Result;
using Json = nlohmann::ordered_json;

class CaseWriter {
 public:
  CaseWriter(kgen::Device& device, kgen::Compiler& compiler, const std::string& folder)
      : device_(device), compiler_(compiler), arrays_(folder + "/cases.bin", std::ios::binary) {}

  Result<Json> write(const kgen::OpSpec& spec) {
    const kgen::Arch arch = device_.info().arch;
    KGEN_TRY(kgen::CheckCase check, kgen::reference_case(spec, arch, compiler_));
    check.seed = 1;
    Json dims = Json::object();
    for (const auto& [name, value] : spec.problem.dims) dims[name] = value;
    Json item{{"op", spec.op->name},
              {"signature", kgen::signature(*spec.op, spec.problem)},
              {"dims_key", kgen::dims_key(*spec.op, spec.problem)},
              {"dims", dims},
              {"scalars", Json::object()},
              {"tensors", Json::array()},
              {"outputs", Json::array()}};
    for (const kgen::BoundParam& param : check.problem.params)
      if (param.role == kgen::Role::kScalar) item["scalars"][param.name] = param.default_value;
    item["nothing_to_launch"] = kgen::writes_nothing(check.problem);
    if (item["nothing_to_launch"]) return item;
    KGEN_TRY(const auto bench, kgen::Bench::open(device_, check, [] {}));
    KGEN_TRY(const kgen::CaseData data, bench->data());
    for (const auto& tensor : data.tensors)
      item["tensors"].push_back(
          {{"name", tensor.name}, {"offset", append(tensor.bytes)}, {"bytes", tensor.bytes.size()}});
    for (const auto& output : data.outputs) {
      Json entry{{"name", output.name}, {"count", output.value.size()}};
      entry["index"] = output.index.empty() ? Json() : Json(append(output.index));
      entry["value"] = append(output.value);
      entry["magnitude"] = append(output.magnitude);
      entry["limits"] = Json::array();
      KGEN_CHECK_OK(add_limits(spec, arch, check, entry));
      item["outputs"].push_back(std::move(entry));
    }
    return item;
  }

 private:
  // One entry for each compute type that the problem allows; a candidate's config has all words of `config`.
  static Result<void> add_limits(const kgen::OpSpec& spec, kgen::Arch arch, const kgen::CheckCase& check, Json& entry) {
    std::vector<std::string> configs = {""};
    for (const kgen::AttributeDef& attribute : spec.op->attributes) {
      const auto values = kgen::allowed_values(attribute, spec.problem.attributes.at(attribute.name));
      if (values.size() < 2) continue;
      std::vector<std::string> more;
      for (const std::string& config : configs)
        for (const std::string& value : values)
          more.push_back(config + (config.empty() ? "" : " ") + attribute.name + "=" + value);
      configs = std::move(more);
    }
    for (const std::string& config : configs) {
      KGEN_TRY(const auto outputs, kgen::output_limits(kgen::settled(spec, config), arch, check.problem.params));
      for (const kgen::CheckCase::Output& limits : outputs) {
        if (limits.name != entry["name"]) continue;
        entry["limits"].push_back({{"config", config},
                                   {"factor", limits.factor},
                                   {"u_out", limits.u_out},
                                   {"tiny", limits.tiny},
                                   {"l2_limit", limits.l2_limit}});
      }
    }
    return {};
  }

  template <class T>
  std::int64_t append(const std::vector<T>& values) {
    const std::int64_t offset = arrays_.tellp();
    arrays_.write(reinterpret_cast<const char*>(values.data()),
                  static_cast<std::streamsize>(values.size() * sizeof(T)));
    while (arrays_.tellp() % 8 != 0) arrays_.put('\0');
    return offset;
  }

  kgen::Device& device_;
  kgen::Compiler& compiler_;
  std::ofstream arrays_;
};

Result<void> dump(const std::vector<std::string>& words) {
  if (words.size() < 2) return kgen::fail(kgen::ErrorKind::kBadInput, "usage: case_tool SPEC FOLDER [OP_GLOB]");
  KGEN_TRY(const auto specs, kgen::parse_spec(words[0], words.size() > 2 ? words[2] : "*"));
  KGEN_TRY(const auto device, kgen::open_device("host"));
  const auto compiler = kgen::make_compiler({});
  std::error_code error;
  std::filesystem::create_directories(words[1], error);
  CaseWriter writer(*device, *compiler, words[1]);
  Json cases = Json::array();
  for (const kgen::OpSpec& spec : specs) {
    KGEN_TRY(cases.emplace_back(), writer.write(spec));
  }
  return kgen::write_file(words[1] + "/cases.json", cases.dump(1));
}

}  // namespace

int main(int argc, char** argv) {
  const auto done = dump({argv + 1, argv + argc});
  if (done) return 0;
  fmt::print(stderr, "{}\n", done.error().message);
  return kgen::exit_code(done.error().kind);
}
