#!/usr/bin/env python3
"""Runs AMD kernels of a spec's problems in an instruction emulator, whatever the operator: all steps of the plan in their
order, on the inputs and against the reference values that `kgen verify` would use (case_tool.cpp).

    emulate.py --kgen KGEN --case-tool CASE_TOOL --arch A[,B…] SPEC… [--op GLOB] [--per-variant N] [--candidates N]
               [--seconds S] [--shard I/N] [--only TEXT] [--results FILE]

Checked beside the values: every access inside its buffer, races on LDS, inputs unchanged, nothing written between the
rows of an output. Code that the emulator is known to compute wrongly (trap()) is not run; another candidate of the same
variant stands in for it where one has none of it. A line for each candidate that is wrong, then a table operator × architecture;
--results gets one JSON line a candidate. Exit 1 when any is wrong, 77 where the emulator is missing: KGEN_AMD_EMU is
the folder of run_co.py, TINYGRAD_DIR what it needs. Problems must be small: some 100,000 instructions a second.
"""
import argparse
import collections
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time

import yaml

import report

KINDS = {"fp64": "f8", "fp32": "f4", "fp16": "f2", "bf16": "u2", "int8": "i1", "int32": "i4", "int64": "i8", "fp8_e4m3": "u1",
         "fp8_e5m2": "u1"}
OVERFLOW = {"fp16": 65520.0, "bf16": float.fromhex("0x1.ffp127"), "fp32": float.fromhex("0x1.ffffffp127")}
HALF_WORD = re.compile(r"v_(?!pk_|mfma_)\w*?[fbui]16(?!\w*_e64)")  # 16-bit operands in the short encodings of CDNA
VECTOR_REGISTER = re.compile(r"\bv(?:(\d+)\b|\[\d+:(\d+)\])")
STAND_INS = 4  # candidates of a variant from which one is taken where its default cannot be emulated
FEW_ELEMENTS = 64  # below it the relative L2 error is that of single roundings (tuner/verify.cpp)


def to_double(stored, dtype):
    if dtype == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64)


def compare(argument, got, expected, config, arrays):
    """What is wrong with an output's elements; the rules of templates/check.h."""
    dtype, shape, count = argument["dtype"], argument["shape"], expected["count"]
    values = np.lib.stride_tricks.as_strided(got, shape, [s * got.itemsize for s in argument["strides"]]).reshape(-1)
    index = np.arange(count) if expected["index"] is None else arrays("i8", expected["index"], count)
    have = to_double(values[index], dtype)
    want, size = arrays("f8", expected["value"], count), arrays("f8", expected["magnitude"], count)
    words = set(config.split(" "))
    limits = next(item for item in expected["limits"] if set(item["config"].split()) <= words)
    with np.errstate(all="ignore"):
        e = limits["factor"] * size
        allowed = e + limits["u_out"] * (abs(want) + e) + limits["tiny"]
        error = abs(have - want)
        finite = np.isfinite(have) & np.isfinite(want)
        right = np.where(finite, (error == 0) | (error <= allowed), False)
        right |= np.isnan(want) & np.isnan(have)
        right |= np.isinf(have) & ~np.isnan(want) & ((have > 0) == (want > 0)) & (
            np.isinf(want) | (abs(want) + allowed >= OVERFLOW.get(dtype, math.inf)))
    if not right.all():
        at = int(np.argmin(right))
        where = [int(i) for i in np.unravel_index(int(index[at]), shape)]
        return (f"{int((~right).sum())} of {count} elements of {argument['name']} wrong, first {where}: {have[at]:.7g} "
                f"instead of {want[at]:.7g}, allowed error {allowed[at]:.3g}")
    l2 = math.sqrt((error[finite] ** 2).sum() / max((want[finite] ** 2).sum(), 1e-300)) if finite.any() else 0
    if count >= FEW_ELEMENTS and not l2 <= limits["l2_limit"]:
        return f"{argument['name']}: relative L2 error {l2:.3g} is above {limits['l2_limit']:.3g}"
    return ""


def run(item, case, arrays, timeout):
    """Empty when right, else what is wrong."""
    tensors = {tensor["name"]: tensor for tensor in case["tensors"]}
    values, before = [], {}
    for index, argument in enumerate(item["arguments"]):
        role, name = argument["role"], argument["name"]
        if role == "dim":
            values.append(np.int64(argument["value"]))
        elif role == "scalar":
            values.append(np.dtype(KINDS[argument["dtype"]]).type(argument["value"]))
        elif not argument["present"] or argument["bytes"] == 0:
            values.append(None)
        else:
            flat = np.full(argument["bytes"], 0xFF, np.uint8)  # NaN in every floating type
            if role in ("in", "out", "inout"):
                flat = arrays("u1", tensors[name]["offset"], argument["bytes"]).copy()
                before[index] = flat.copy()
            values.append(flat.view(KINDS[argument["dtype"]]))
    for step in sorted(item["steps"], key=lambda step: not step["prepare"]):
        result = run_co.launch(item["object"], step["kernel"], grid=tuple(step["grid"]), block=step["block"], args=values,
                               dyn_lds=step["lds_bytes"], timeout=timeout)
        if result.races:
            return f"{step['kernel']}: {len(result.races)} LDS races, first {result.races[0]}"
        for index, value in enumerate(values):
            if isinstance(value, np.ndarray) and index in result.outputs:
                values[index] = np.ascontiguousarray(result.outputs[index]).view(value.dtype)
    expected = {output["name"]: output for output in case["outputs"]}
    for index, argument in enumerate(item["arguments"]):
        if index not in before:
            continue
        got, old = values[index].copy(), before[index].view(values[index].dtype)
        if argument["role"] == "in":
            if not np.array_equal(got.view(np.uint8), before[index]):
                return f"changed its input {argument['name']}"
            continue
        if argument["name"] in expected:
            problem = compare(argument, got, expected[argument["name"]], item["config"], arrays)
            if problem:
                return problem
        strides = [s * got.itemsize for s in argument["strides"]]
        np.lib.stride_tricks.as_strided(got, argument["shape"], strides)[...] = np.lib.stride_tricks.as_strided(
            old, argument["shape"], strides)
        if not np.array_equal(got.view(np.uint8), before[index]):
            return f"written between the rows of {argument['name']}"
    return ""


def key_of(signature, dims, scalars):
    return signature, tuple(sorted(dims.items())), tuple(sorted(scalars.items()))


def trap(item):
    """Why the emulator would not compute this code as a CDNA GPU does, or ""; and its highest vector register."""
    if item["status"] != "compiled" or not item["arch"].startswith("gfx9"):
        return "", 0
    code = run_co.CodeObject(item["object"]).disasm().values()
    highest, reason = 0, ""
    for text, _ in code:
        mnemonic, _, operands = text.partition(" ")
        here = max((int(one or last) for one, last in VECTOR_REGISTER.findall(operands)), default=0)
        highest = max(highest, here)
        if "accvgpr" in mnemonic or re.search(r"\ba(\d|\[)", operands):
            reason = "AGPRs, which the emulator computes wrongly"
        elif not reason and here > 127 and HALF_WORD.match(mnemonic):
            reason = "16-bit operands above v127, which the emulator takes for high halves"
    return reason, highest


def place_of(item):
    return key_of(item["signature"], item["dims"], {}), item["config"].split(" ")[0]


def without_traps(items, generate):
    """(items to run, [(item, reason)] of those that cannot be)."""
    traps = {id(item): trap(item)[0] for item in items}
    fit = [item for item in items if not traps[id(item)]]
    rest = [item for item in items if traps[id(item)]]
    wanted = {place_of(item) for item in rest} - {place_of(item) for item in fit}
    stand_ins = {}
    for item in generate(STAND_INS) if wanted else []:
        if place_of(item) in wanted and item["status"] == "compiled":
            reason, registers = trap(item)
            if not reason:
                stand_ins.setdefault(place_of(item), []).append((registers, item["config"], item))
    return fit + [min(found)[2] for found in stand_ins.values()], [(item, traps[id(item)]) for item in rest]


def pick(items, limit, shard):
    """At most `limit` candidates: first one of every variant and type, then one of every problem, then the rest; of each
    those with little work first."""
    work = lambda item: (sum(math.prod(step["grid"]) * step["block"] for step in item["steps"]) *
                         sum(argument.get("bytes", 0) for argument in item["arguments"]))
    items = sorted(items, key=work)
    seen = collections.Counter()
    ranked = []
    for place, item in enumerate(items):
        variant, dtype = item["config"].split(" ")[0], attribute(item["signature"], "dtype")
        problem = key_of(item["signature"], item["dims"], {})
        rank = min(seen[variant, dtype], 1 + seen[problem])
        seen[variant, dtype] += 1
        seen[problem] += 1
        ranked.append((rank, place, item))
    chosen = [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])]
    chosen = chosen[:limit] if limit else chosen
    index, count = (int(word) for word in shard.split("/"))
    return chosen[index::count]


def attribute(signature, name):
    return dict(word.split("=", 1) for word in signature.split(" ")[1:]).get(name, "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--case-tool", required=True)
    parser.add_argument("--arch", default="gfx90a,gfx942,gfx1100,gfx1201")
    parser.add_argument("--op", default="*")
    parser.add_argument("--per-variant", type=int, default=1, help="candidates of each variant of each problem")
    parser.add_argument("--candidates", type=int, default=0, help="most for an operator and architecture; 0: all")
    parser.add_argument("--seconds", type=float, default=0, help="of processor time for an operator and architecture, after which no candidate is started; 0: no limit")
    parser.add_argument("--shard", default="0/1", help="every Nth candidate, from the Ith")
    parser.add_argument("--only", default="", help="candidates whose line holds this text")
    parser.add_argument("--results", default="", help="file that gets a JSON line for each candidate")
    options = parser.parse_args()
    lines = []
    table = collections.defaultdict(collections.Counter)  # (op, arch) → verdict → candidates
    reasons = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory(prefix="kgen-emulate-") as folder:
        for number, spec in enumerate(options.specs):
            cases_folder = f"{folder}/{number}"
            subprocess.run([options.case_tool, spec, cases_folder, options.op], check=True)
            cases = {key_of(case["signature"], dict(word.split("=") for word in case["dims_key"].split()), case["scalars"]):
                     case for case in json.load(open(cases_folder + "/cases.json"))}
            data = np.memmap(cases_folder + "/cases.bin", np.uint8, "r") if os.path.getsize(
                cases_folder + "/cases.bin") else np.zeros(0, np.uint8)
            arrays = lambda kind, offset, count: data[offset:offset + count * np.dtype(kind).itemsize].view(kind)
            for arch in options.arch.split(","):
                def generate(per_variant, spec=spec):
                    done = subprocess.run([options.kgen, "gen", spec, "--op", options.op, "--arch", arch, "--per-variant",
                                           str(per_variant), "--compile", "--jobs", "1", "--json", "--output",
                                           cases_folder], stdout=subprocess.PIPE)
                    if done.returncode <= 1:
                        return json.loads(done.stdout)["files"]
                    # Problems narrowed to what this architecture lacks: the others without them, one item of the spec at a time.
                    with open(spec) as file:
                        whole = yaml.safe_load(file)
                    if len(whole["ops"]) == 1:
                        return [] if "tune" in whole["ops"][0] else None
                    parts = []
                    for item_number, item in enumerate(whole["ops"]):
                        part = f"{cases_folder}/{arch}-{item_number}.yaml"
                        with open(part, "w") as file:
                            json.dump({**whole, "ops": [item]}, file)  # JSON is YAML
                        parts.append(generate(per_variant, part))
                    return None if None in parts else sum(parts, [])

                files = generate(options.per_variant)
                if files is None:
                    print(f"WRONG {arch} {spec}: kgen gen fails")
                    table[os.path.basename(spec), arch]["WRONG"] += 1
                    continue
                fit, unfit = without_traps(files, generate)
                by_op = collections.defaultdict(list)
                for item in fit:
                    by_op[item["op"]].append(item)
                trapped = collections.defaultdict(list)
                for item, reason in unfit:
                    trapped[item["op"]].append((item, reason))
                for op in dict.fromkeys([*by_op, *trapped]):
                    start = time.process_time()
                    chosen = [(item, "") for item in pick(by_op[op], options.candidates, options.shard)]
                    table[op, arch]["offered"] += len(by_op[op]) + len(trapped[op])
                    for item, unfit_for in chosen + trapped[op]:
                        dims = " ".join(f"{name}={value}" for name, value in item["dims"].items())
                        line = f"{arch} {item['signature']} {dims}: {item['config']}"
                        if options.only not in line:
                            continue
                        verdict, reason, began = "right", "", time.time()
                        left = options.seconds - (time.process_time() - start) if options.seconds else 1
                        scalars = {a["name"]: a["value"] for a in item["arguments"] if a["role"] == "scalar"}
                        case = cases[key_of(item["signature"], {n: str(v) for n, v in item["dims"].items()}, scalars)]
                        if item["status"] != "compiled":
                            verdict, reason = "WRONG", f"not compiled: {item.get('error')}"
                        elif case["nothing_to_launch"]:
                            verdict, reason = "NOT RUN", "nothing to launch"
                        elif unfit_for:
                            verdict, reason = "NOT RUN", unfit_for
                        elif left <= 0:
                            verdict, reason = "NOT RUN", "time limit"
                        else:
                            try:
                                reason = run(item, case, arrays, 60 + 10 * options.seconds)
                                verdict = "WRONG" if reason else "right"
                            except run_co.Unsupported as error:  # says nothing about the kernel
                                verdict, reason = "NOT RUN", str(error)
                            except run_co.EmuError as error:
                                late = str(error).startswith("more than")
                                verdict, reason = "NOT RUN" if late else "WRONG", str(error)
                        table[op, arch][verdict] += 1
                        if verdict != "right":
                            reasons[op, arch][reason.split("\n")[0][:100]] += 1
                        if verdict == "WRONG":
                            print(f"WRONG {line}: {reason}", flush=True)
                        lines.append({"what": "emulated", "op": op, "dtype": attribute(item["signature"], "dtype"),
                                      "arch": arch, "signature": item["signature"], "dims": item["dims"],
                                      "config": item["config"], "source_hash": item["source_hash"], "verdict": verdict,
                                      "reason": reason,
                                      "seconds": round(time.time() - began, 2)})
    print(f"{'op':<24} {'arch':<8} {'offered':>7} {'run':>5} {'right':>5} {'wrong':>5} {'not run':>7}  why not")
    for (op, arch), count in table.items():
        ran = count["right"] + count["WRONG"]
        not_run = ", ".join(f"{n}x {text}" for text, n in reasons[op, arch].items())
        print(f"{op:<24} {arch:<8} {count['offered']:>7} {ran:>5} {count['right']:>5} {count['WRONG']:>5} "
              f"{count['NOT RUN']:>7}  {not_run if count['NOT RUN'] else ''}".rstrip())
    if options.results:
        with open(options.results, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    suite = "emulator_" + os.path.splitext(os.path.basename(options.specs[0]))[0]
    report.write_xml(suite, [(f"{op} {arch}", f"{count['WRONG']} candidates wrong" if count["WRONG"] else "",
                              "" if count["right"] else "no candidate could be emulated") for (op, arch), count in table.items()])
    wrong = sum(count["WRONG"] for count in table.values())
    return 1 if wrong or not lines else 0


if __name__ == "__main__":
    if not os.environ.get("KGEN_AMD_EMU") or not os.environ.get("TINYGRAD_DIR"):
        print("NOT RUN: set KGEN_AMD_EMU (folder of run_co.py) and TINYGRAD_DIR to run AMD kernels in the emulator")
        report.write_xml("emulator_" + os.path.splitext(os.path.basename(sys.argv[-1]))[0],
                         [("all", "", "set KGEN_AMD_EMU and TINYGRAD_DIR to run AMD kernels in the emulator")])
        sys.exit(77)
    import numpy as np

    sys.path.insert(0, os.environ["KGEN_AMD_EMU"])
    import run_co
    sys.exit(main())
