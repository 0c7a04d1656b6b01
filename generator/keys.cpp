#include "generator/keys.h"

#include <cstdlib>

namespace kgen {
namespace {

constexpr Key kKeys[] = {
    // --- ops.yaml
    {"spec", "kgen", "version of the format: 1, which is also meant where it is left out"},
    {"spec", "defaults", "settings for all items of this file that have such a dim, attribute or scalar; and `tune`"},
    {"spec", "ops", "list of what to tune, each an operator with its problems"},
    {"spec", "include", "further spec files, paths relative to this one"},
    {"spec", "entries", "list of problems in the form of shape lists, one problem each"},
    {"spec", "meta", "anything, for people"},

    {"ops", "op", "a built-in operator (`kgen ops`), or the path of a definition, relative to this file"},
    {"ops", "name", "label of its problems in tables and reports"},
    {"ops", "problems",
     "list of problems. Without it the item itself is one. Every other key of the item is a dim, attribute or scalar "
     "of the operator and "
     "holds for all its problems; a list of values stands for as many problems"},
    {"ops", "tune", "how to search"},

    {"problems", "name",
     "label, instead of the item's. Every other key is a dim, attribute or scalar of the operator; lists expand, and "
     "several lists give "
     "every combination"},

    {"entries", "op", "as in `ops`"},
    {"entries", "id", "label"},
    {"entries", "name", "label where there is no `id`"},
    {"entries", "dims", "dims, attributes and scalars, as in a problem; they may stand in the entry itself, too"},
    {"entries", "params", "more of them"},
    {"entries", "tune", "how to search"},
    {"entries", "count", "how often the model launches it; no effect on the search"},
    {"entries", "macs", "for people, not read"},
    {"entries", "flops", "for people, not read"},
    {"entries", "min_bytes", "for people, not read"},
    {"entries", "roles", "for people, not read"},
    {"entries", "source", "for people, not read"},
    {"entries", "note", "for people, not read"},
    {"entries", "grid_thw", "for people, not read"},
    {"entries", "weight_bytes", "for people, not read"},
    {"entries", "reference_path", "for people, not read"},
    {"entries", "comment", "for people, not read"},

    {"tune", "budget", "candidates for each problem, unless --budget says otherwise"},
    {"tune", "params",
     "values of tunables, by name: narrows the space, or extends it with integers that the definition does not list"},
    {"tune", "deterministic", "true: only candidates that give the same bits on every launch"},
    {"tune", "max_kernels", "of a range: kernels that may serve it, at most"},
    {"tune", "regret", "of a range: how much slower than the best kernel of a size is fine, 0.03 for 3 %"},

    {"range", "range",
     "[first, last] in place of a dim's value: sizes that are known at run time only (docs/dynamic.md)"},

    // --- ops/NAME.yaml
    {"definition", "kgen", "version of the format: 1"},
    {"definition", "op", "name of the operator"},
    {"definition", "doc", "what it computes; the first sentence is shown by `kgen ops`"},
    {"definition", "dims", "sizes of a problem, by name, in the order of kernel parameters"},
    {"definition", "attributes", "what else tells problems apart, by name; `dtype` is the first"},
    {"definition", "arguments", "operands, by name, in the order of kernel parameters and of kgen_launch()"},
    {"definition", "scalars", "numbers given at launch, by name"},
    {"definition", "rules", "what every problem must satisfy"},
    {"definition", "cost", "arithmetic and traffic, for rooflines"},
    {"definition", "reference", "what results are compared with"},
    {"definition", "variants", "ways to compute it, by name; the first legal one's defaults are the default candidate"},

    {"extension", "kgen", "version of the format: 1"},
    {"extension", "op", "name of the operator"},
    {"extension", "doc", "what it computes"},
    {"extension", "extends", "the operator that it is on other names: a built-in, or a path beside the file"},
    {"extension", "dims", "own dims, before the base's"},
    {"extension", "bind", "dims and attributes of the base as expressions of the own dims; no longer free"},
    {"extension", "arguments", "the base's arguments under other names"},
    {"extension", "rules", "what every problem must satisfy, beside the base's rules"},

    {"dim", "default", "expression over attributes and earlier dims; without one a problem must give the dim"},
    {"dim", "doc", "what it is"},

    {"attribute", "kind", "dtype, enum, list, int, ints or expression"},
    {"attribute", "values", "what it may be"},
    {"attribute", "default", "one of them, or the name of an earlier attribute; a list's is empty"},
    {"attribute", "axis", "true: several values in a spec are one problem, and the search chooses"},
    {"attribute", "example", "of an expression: what `kgen ops` shows"},
    {"attribute", "columns", "of an expression: names that are one value a column without saying so"},
    {"attribute", "doc", "what it is"},

    {"argument", "role", "in, out or inout"},
    {"argument", "dtype", "a type, or the name of a dtype attribute"},
    {"argument", "shape", "expressions, the slowest axis first"},
    {"argument", "strides", "in elements, one an axis; row-major without gaps where they are not given"},
    {"argument", "when", "expression: whether the operand exists"},
    {"argument", "init", "the data that verification fills in"},
    {"argument", "doc", "what it is"},

    {"renamed argument", "from", "the base's argument"},
    {"renamed argument", "shape", "where it differs"},
    {"renamed argument", "strides", "where they differ"},
    {"renamed argument", "init", "where it differs"},
    {"renamed argument", "doc", "where it differs"},

    {"init", "distribution", "normal, uniform, int, constant, or kernel: the reference header makes it"},
    {"init", "mean", "of normal"},
    {"init", "scale", "of normal: the standard deviation"},
    {"init", "lo", "least of uniform and int"},
    {"init", "hi", "greatest of uniform and int"},
    {"init", "value", "of constant"},

    {"scalar", "dtype", "fp32, fp64, int32 or int64"},
    {"scalar", "default", "0 where none is given"},
    {"scalar", "doc", "what it is"},

    {"rule", "require", "expression that must not be 0"},
    {"rule", "because", "the reason, which the user reads when nothing is left"},
    {"rule", "search", "true: legal but not worth trying; no condition of the launch"},
    {"rule", "deterministic", "true: holds for candidates that give the same bits on every launch"},

    {"cost", "flops", "operations of a problem"},
    {"cost", "bytes", "bytes that must move at least"},

    {"reference", "header", "file with reference_OUTPUT()"},
    {"reference", "terms", "for each output the number of terms of an element's sum, which scales the tolerance"},
    {"reference", "cost", "multiply-adds of the whole reference: decides between all elements and a sample"},
    {"reference", "projection", "for linear operators: a check of all elements by random projections"},
    {"reference", "stages", "what elements share, computed once before the outputs, by name"},
    {"reference", "tolerance", "for each output where its acceptance differs from that of a sum"},

    {"projection", "output", "the output"},
    {"projection", "when", "expression: whether the case is linear"},
    {"projection", "length", "terms of a projected row"},

    {"stage", "items", "how many"},
    {"stage", "width", "doubles of each; 1"},

    {"tolerance", "roundings", "to the output's type, beyond the last"},
    {"tolerance", "atol", "added to what an element may be off"},
    {"tolerance", "rtol", "the same, relative to the element"},
    {"tolerance", "l2", "limit of the relative L2 error, by type"},
    {"tolerance", "exact", "true: bit for bit"},

    {"variant", "doc", "how it computes"},
    {"variant", "templates", "headers with its kernels; ${name} is an attribute, arch fact or symbolic tunable"},
    {"variant", "when", "rule without tunables: where the variant is possible"},
    {"variant", "tunables", "what the search chooses, by name"},
    {"variant", "derived", "named integers of tunables, attributes and arch facts"},
    {"variant", "rules", "which candidates are legal; put those that cut most first"},
    {"variant", "align", "bytes that an argument's pointer must be a multiple of; 16"},
    {"variant", "buffers", "memory between steps, by name"},
    {"variant", "tensor_maps",
     "how the copy engine walks operands (sm_90), by name: kernel parameters behind the dims"},
    {"variant", "steps", "kernels in the order of their launches"},

    {"tunable", "values", "all integers or all enumerators"},
    {"tunable", "default", "expression, which may read dims and earlier tunables"},
    {"tunable", "doc", "what it is"},

    {"buffer", "role", "workspace, or prepared: filled once by the steps with `prepare`"},
    {"buffer", "dtype", "a type, or the name of a dtype attribute"},
    {"buffer", "count", "elements"},
    {"buffer", "doc", "what it is"},

    {"tensor map", "of", "the argument that it walks, by its name in Args"},
    {"tensor map", "shape", "elements of each axis, the slowest first; 1 to 5 axes, of pixels n, h, w, c"},
    {"tensor map", "strides", "in elements, one an axis; the last is 1, the others whole 16 bytes"},
    {"tensor map", "box", "what one copy takes of each axis; of pixels [pixels, channels]"},
    {"tensor map", "when", "expression: whether the kernel uses it"},
    {"tensor map", "lower", "makes it a map of pixels (im2col): the first one's h and w"},
    {"tensor map", "upper", "of pixels: the last one's h and w, counted from the image's last"},
    {"tensor map", "steps", "of pixels: from one to the next, h and w"},

    {"step", "kernel", "function template of the templates"},
    {"step", "prepare", "true: runs once for the weights (kgen_prepare())"},
    {"step", "when", "expression: whether it is launched"},
    {"step", "grid", "blocks, one to three expressions"},
    {"step", "cluster", "[x, y, z]: blocks that may read one another's LDS"},
    {"step", "block", "work-items of a block; no dims"},
    {"step", "lds_bytes", "LDS of a block; 0"},
    {"step", "min_blocks", "blocks that a compute unit should hold; 1"},
};

}  // namespace

std::span<const Key> all_keys() { return kKeys; }

std::vector<std::string> keys_of(std::string_view map) {
  std::vector<std::string> names;
  for (const Key& key : kKeys)
    if (key.map == map) names.emplace_back(key.name);
  if (names.empty()) std::abort();
  return names;
}

}  // namespace kgen
