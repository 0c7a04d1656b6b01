#!/usr/bin/env python3
"""Runs AMD code objects that `kgen gen SPEC --arch A --compile --json -o DIR` made in the instruction emulator and compares
what they write with numpy (OPS.md a and c, acceptance test 0.1, elements between rows untouched).

    emulate.py MANIFEST [--only TEXT]        MANIFEST: the JSON document, "-" for standard input

KGEN_AMD_EMU is the folder of run_co.py, TINYGRAD_DIR what it needs. One line a candidate; exit 1 when any is wrong.
Problems must be small: the emulator does some 100,000 instructions a second.
"""
import argparse
import json
import math
import os
import sys

import numpy as np

sys.path.insert(0, os.environ["KGEN_AMD_EMU"])
import run_co  # noqa: E402

UNIT = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
TINY = {"fp32": 2.0**-149, "fp16": 2.0**-24, "bf16": 2.0**-133}
# Names of the gemm family's operands where an operator renames them.
ROLES = {"conv3d_patchify": {"x": "a", "weight": "b", "y": "d", "addend": "c"}}
ACTIVATIONS = {
    "relu": lambda t: np.where(t < 0, 0, t),
    "gelu_erf": lambda t: t / 2 * (1 + np.vectorize(math.erf)(t / math.sqrt(2))),
    "gelu_tanh": lambda t: t / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3))),
    "silu": lambda t: t / (1 + np.exp(-t)),
    "quick_gelu": lambda t: t / (1 + np.exp(-1.702 * t)),
    "sigmoid": lambda t: 1 / (1 + np.exp(-t)),
}


def store(values, dtype):
    """float32 → what is in memory."""
    if dtype == "bf16":
        return run_co.f32_to_bf16(values.astype(np.float32))
    return values.astype(np.float16).view(np.uint16) if dtype == "fp16" else values.astype(np.float32)


def load(stored, dtype):
    if dtype == "bf16":
        return run_co.bf16_to_f32(stored).astype(np.float64)
    return (stored.view(np.float16) if dtype == "fp16" else stored).astype(np.float64)


def strided(flat, shape, strides):
    """The tensor's elements as a view of its memory."""
    size = flat.dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat, shape, [s * size for s in strides])


def expected(op, signature, tensors, scalars):
    """The answer and the sum of the absolute terms, in float64."""
    names = ROLES.get(op, {})
    t = {names.get(name, name): values for name, values in tensors.items()}
    attributes = dict(word.split("=", 1) for word in signature.split(" ")[1:])
    epilogue = [word for word in attributes.get("epilogue", "").split(",") if word]
    a, b = t["a"], t["b"]
    a = a.reshape((-1,) + a.shape[-2:])
    if op == "conv3d_patchify":
        b = b.reshape(1, b.shape[0], -1)
    if attributes.get("b_layout", "nk") == "nk":
        b = b.swapaxes(1, 2)
    value, size = scalars["alpha"] * (a @ b), abs(scalars["alpha"]) * (np.abs(a) @ np.abs(b))
    operand = lambda name: t[name].reshape(value.shape)
    if "add_c" in epilogue and scalars["beta"] != 0:
        value, size = value + scalars["beta"] * operand("c"), size + abs(scalars["beta"] * operand("c"))
    if "bias" in epilogue:
        value, size = value + t["bias"], size + abs(t["bias"])
    for word in epilogue:
        if word in ACTIVATIONS:
            value = ACTIVATIONS[word](value)
            size = size + abs(value)
        elif word == "add_residual":
            value, size = value + operand("residual"), size + abs(operand("residual"))
    if "mul_other" in epilogue:
        value, size = value * operand("other"), size * abs(operand("other"))
    terms = a.shape[-1] + 1
    accumulate = attributes.get("accumulate", "fp32")
    return value, 4 * math.sqrt(terms) * UNIT[accumulate] * size


def run(item):
    """Empty when right, else what is wrong."""
    rng = np.random.default_rng(1)
    memory, tensors, scalars, values = [], {}, {}, []
    output = None
    for index, argument in enumerate(item["arguments"]):
        role, dtype = argument["role"], argument["dtype"]
        flat = None
        if role == "dim":
            values.append(np.int64(argument["value"]))
        elif role == "scalar":
            scalars[argument["name"]] = argument["value"]
            values.append(np.float32(argument["value"]))
        elif not argument["present"] or argument["bytes"] == 0:
            values.append(None)
        else:
            kind = np.float32 if dtype == "fp32" else np.uint16
            flat = np.full(argument["bytes"], 0xFF, np.uint8).view(kind)  # NaN in every type
            shape, strides = argument["shape"], argument["strides"]
            if role == "in":
                view = strided(flat, shape, strides)
                view[...] = store(rng.standard_normal(shape), dtype)
                tensors[argument["name"]] = load(view.copy(), dtype)  # an axis of stride 0 holds its last values
            elif role == "out":
                output = (index, argument)
            values.append(flat)
        memory.append(flat)
    steps = sorted(item["steps"], key=lambda step: not step["prepare"])
    for step in steps:
        result = run_co.launch(item["object"], step["kernel"], grid=tuple(step["grid"]), block=step["block"], args=values,
                               dyn_lds=step["lds_bytes"])
        if result.races:
            return f"{step['kernel']}: {len(result.races)} LDS races, first {result.races[0]}"
        for index, flat in enumerate(memory):
            if flat is not None and index in result.outputs:
                values[index] = np.ascontiguousarray(result.outputs[index]).view(flat.dtype)
    if output is None:
        return ""
    index, argument = output
    got = values[index].copy()
    shape, strides, dtype = argument["shape"], argument["strides"], argument["dtype"]
    view = strided(got, shape, strides)
    reference, e = expected(item["op"], item["signature"], tensors, scalars)
    values_got = load(view.copy(), dtype).reshape(reference.shape)
    allowed = e + UNIT[dtype] * (abs(reference) + e) + TINY[dtype]
    wrong = ~(abs(values_got - reference) <= allowed)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        return f"{int(wrong.sum())} of {wrong.size} wrong, first {at}: {values_got[at]} instead of {reference[at]}"
    view[...] = np.full(1, 0xFF, np.uint8).repeat(got.dtype.itemsize).view(got.dtype)[0]
    if not (got.view(np.uint8) == 0xFF).all():
        return "written between the rows of the output"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--only", default="", help="candidates whose line holds this text")
    options = parser.parse_args()
    text = sys.stdin.read() if options.manifest == "-" else open(options.manifest).read()
    count = {"right": 0, "WRONG": 0, "NOT RUN": 0}
    for item in json.loads(text)["files"]:
        dims = " ".join(f"{name}={value}" for name, value in item["dims"].items())
        line = f"{item['arch']} {item['signature']} {dims}: {item['config']}"
        if options.only not in line:
            continue
        verdict, problem = "WRONG", ""
        if item["status"] != "compiled":
            problem = f"not compiled: {item.get('error')}"
        else:
            try:
                problem = run(item)
            except run_co.Unsupported as error:  # an instruction that the emulator lacks says nothing about the kernel
                verdict, problem = "NOT RUN", str(error)
            except run_co.EmuError as error:
                problem = str(error)
        if not problem:
            verdict = "right"
        count[verdict] += 1
        print(f"{verdict} {line}" + (f": {problem}" if problem else ""), flush=True)
    print(", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return 0 if count["right"] and not count["WRONG"] else 1


if __name__ == "__main__":
    sys.exit(main())
