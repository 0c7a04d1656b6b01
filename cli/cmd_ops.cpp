#include <fmt/core.h>

#include <algorithm>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "generator/keys.h"
#include "generator/spec.h"

namespace kgen {
namespace {

std::string_view kind_name(AttributeDef::Kind kind) {
  switch (kind) {
    case AttributeDef::Kind::kEnum:
      return "enum";
    case AttributeDef::Kind::kDType:
      return "dtype";
    case AttributeDef::Kind::kList:
      return "list";
    case AttributeDef::Kind::kInt:
      return "int";
    case AttributeDef::Kind::kExpression:
      return "expression";
    case AttributeDef::Kind::kInts:
      return "ints";
  }
  return "";
}

Json op_json(const OpDef& op) {
  Json json{{"op", op.name}, {"doc", op.doc}, {"file", op.file}};
  if (!op.base.empty()) json["extends"] = op.base;
  json["dims"] = Json::array();
  for (const DimDef& dim : op.dims)
    json["dims"].push_back({{"name", dim.name},
                            {"doc", dim.doc},
                            {"default", dim.default_text.empty() ? Json() : Json(dim.default_text)}});
  json["attributes"] = Json::array();
  for (const AttributeDef& attribute : op.attributes) {
    if (attribute.fixed) continue;
    json["attributes"].push_back({{"name", attribute.name},
                                  {"kind", kind_name(attribute.kind)},
                                  {"doc", attribute.doc},
                                  {"values", attribute.values},
                                  {"default", attribute.default_text}});
  }
  json["arguments"] = Json::array();
  for (const ArgumentDef& argument : op.arguments) {
    Json shape = Json::array();
    for (const Expr& extent : argument.param.shape) shape.push_back(extent.text());
    json["arguments"].push_back({{"name", argument.param.name},
                                 {"role", role_name(argument.param.role)},
                                 {"dtype", argument.dtype_text},
                                 {"shape", shape}});
  }
  json["scalars"] = Json::array();
  for (const Param& scalar : op.scalars)
    json["scalars"].push_back(
        {{"name", scalar.name}, {"dtype", dtype_name(scalar.dtype)}, {"default", scalar.default_value}});
  json["variants"] = Json::array();
  for (const VariantDef& variant : op.variants) {
    Json tunables = Json::array();
    for (const TunableDef& tunable : variant.tunables)
      tunables.push_back({{"name", tunable.name},
                          {"doc", tunable.doc},
                          {"values", tunable.values},
                          {"default", tunable.default_text}});
    json["variants"].push_back({{"name", variant.name}, {"doc", variant.doc}, {"tunables", tunables}});
  }
  return json;
}

void print_op(const OpDef& op) {
  fmt::print("{}: {}\n\ndims:\n", op.name, trim(op.doc));
  for (const DimDef& dim : op.dims)
    fmt::print("  {:<16} {}{}\n", dim.name, dim.doc,
               dim.default_text.empty() ? "" : " (default " + dim.default_text + ")");
  fmt::print("attributes:\n");
  for (const AttributeDef& attribute : op.attributes) {
    if (attribute.fixed) continue;
    fmt::print("  {:<16} {} {}{}\n", attribute.name, attribute.kind == AttributeDef::Kind::kList ? "list of" : "one of",
               attribute.values.empty() ? "integers" : join(attribute.values, " "),
               attribute.default_text.empty() ? "" : " (default " + attribute.default_text + ")");
  }
  fmt::print("arguments:\n");
  for (const ArgumentDef& argument : op.arguments) {
    Words shape;
    for (const Expr& extent : argument.param.shape) shape.push_back(extent.text());
    fmt::print("  {:<16} {} {} [{}]\n", argument.param.name, role_name(argument.param.role), argument.dtype_text,
               join(shape, ", "));
  }
  for (const Param& scalar : op.scalars)
    fmt::print("  {:<16} scalar {} (default {})\n", scalar.name, dtype_name(scalar.dtype), scalar.default_value);
  for (const VariantDef& variant : op.variants) {
    fmt::print("variant {}: {}\n", variant.name, trim(variant.doc));
    for (const TunableDef& tunable : variant.tunables)
      fmt::print("  {:<16} {} (default {})\n", tunable.name, join(tunable.values, " "), tunable.default_text);
  }
}

std::string first_sentence(const std::string& doc) {
  std::string text(trim(doc));
  std::replace(text.begin(), text.end(), '\n', ' ');
  const std::size_t end = text.find(". ");
  return end == std::string::npos ? text : text.substr(0, end);
}

Result<void> show_ops(const std::string& name, bool as_json) {
  if (!name.empty()) {
    KGEN_TRY(const std::shared_ptr<const OpDef> op, load_op(name));
    if (as_json) {
      print_json(op_json(*op));
    } else {
      print_op(*op);
    }
    return {};
  }
  Json json{{"ops", Json::array()}};
  Table table({"op", "what it computes"});
  for (const std::string& builtin : builtin_ops()) {
    KGEN_TRY(const std::shared_ptr<const OpDef> op, load_op(builtin));
    table.add({op->name, first_sentence(op->doc)});
    json["ops"].push_back({{"op", op->name}, {"doc", op->doc}});
  }
  if (as_json) {
    print_json(json);
  } else {
    table.print();
  }
  return {};
}

void show_keys(bool as_json) {
  Json json{{"keys", Json::array()}};
  Table table({"in", "key", "what it is"});
  for (const Key& key : all_keys()) {
    table.add({std::string(key.map), std::string(key.name), std::string(key.doc)});
    json["keys"].push_back({{"map", key.map}, {"key", key.name}, {"doc", key.doc}});
  }
  if (as_json) {
    print_json(json);
  } else {
    table.print();
  }
}

}  // namespace

int cmd_ops(const Context&, const Words& args) {
  std::string name;
  bool as_json = false, keys = false;
  Options options("ops", "[OP]", "The operators, or one of them in detail: dims, attributes, arguments, tunables.");
  options.argument("OP", name, "a built-in operator, or the path of your own", false);
  options.flag("--keys", keys, "instead: the keys of spec files and of operator definitions");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  if (keys) {
    show_keys(as_json);
    return 0;
  }
  const auto shown = show_ops(name, as_json);
  return shown ? 0 : report(shown.error());
}

}  // namespace kgen
