"""check.py DB[,DB…] DEVICE OUT: every operator against float64 torch: eager, in a CUDA graph, under torch.compile(fullgraph=True)."""
import json
import os
import sys
import time
import traceback

import torch

import kgen.torch
from cases import cases

paths, place, out = sys.argv[1:4]
cuda = place != "host"
device = "cuda" if cuda else "cpu"
deadline = time.time() + float(os.environ.get("SECONDS_LEFT", "55"))


class All:
    """The operators of several files."""

    def __init__(self, paths):
        self.files = [kgen.torch.load(path, place) for path in paths]
        for file in reversed(self.files):
            for name in file.db.operators:
                setattr(self, name, getattr(file, name))


ops = All(paths.split(","))
products = ops.files[0]
rows = []


def wide(value):
    return value.double() if torch.is_tensor(value) and value.is_floating_point() else value


def error(got, want):
    got, want = (x if isinstance(x, (tuple, list)) else (x,) for x in (got, want))
    assert len(got) == len(want)
    worst = 0.0
    for g, w in zip(got, want):
        assert g.shape == w.shape, (g.shape, w.shape)
        worst = max(worst, ((g.double() - w).norm() / w.norm().clamp_min(1e-30)).item())
    return worst


def fresh(operands):
    return {k: v.clone() if v.is_contiguous() else v.transpose(1, 2).clone().transpose(1, 2) for k, v in operands.items()}


def changed(operands):
    """Other activations (the first floating operand), the same weights."""
    new = fresh(operands)
    name = next(k for k, v in new.items() if v.is_floating_point())
    new[name] = (new[name].double() * 0.5).to(new[name].dtype)
    return name, new


def stage(kind, name, row, work):
    if time.time() > deadline:
        row[kind] = "not run (out of time)"
        return
    start = time.time()
    try:
        row[kind] = work()
    except Exception as failure:
        row[kind] = f"{type(failure).__name__}: {str(failure)[:1500]}"
        with open(os.path.join(out, "tracebacks.txt"), "a") as file:
            file.write(f"== {name} {kind}\n{traceback.format_exc()}\n")
    row[kind + "_s"] = round(time.time() - start, 2)


def eager(call, ref, operands):
    mine = fresh(operands)
    got = call(ops, **mine)
    return error(got, ref(**{k: wide(v) for k, v in operands.items()}))


def graph(call, ref, operands):
    static = fresh(operands)
    call(ops, **fresh(operands))  # loads the kernel, repacks weights
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call(ops, **static)
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        got = call(ops, **static)
    name, new = changed(operands)
    for key, value in new.items():  # operands that an operator writes start afresh
        static[key].copy_(value)
    captured.replay()
    torch.cuda.synchronize()
    return error(got, ref(**{k: wide(v) for k, v in new.items()}))


def compiled(call, ref, operands):
    torch._dynamo.reset()

    def function(**k):
        return call(ops, **k)

    mine = fresh(operands)
    got = torch.compile(function, fullgraph=True)(**mine)
    return error(got, ref(**{k: wide(v) for k, v in operands.items()}))


extra = {}


def save():  # as it comes: whatever ends this early
    for row in rows:
        row["ok"] = all(isinstance(row.get(kind), float) and row[kind] <= row["limit"] for kind, _ in stages)
    with open(os.path.join(out, "result.json"), "w") as file:
        json.dump({"torch": torch.__version__, "rows": rows, "extra": extra}, file, indent=1, default=str)


all_cases = cases(device)
stages = [("eager", eager)] + ([("graph", graph)] if cuda else []) + ([("compile", compiled)] if hasattr(torch, "compile") else [])
for name, call, ref, tol, operands in all_cases:
    rows.append({"op": name, "limit": tol})
with torch.no_grad():
    for kind, work in stages:
        for row, (name, call, ref, tol, operands) in zip(rows, all_cases):
            stage(kind, name, row, lambda: work(call, ref, operands))
            save()
for row, (name, call, ref, tol, operands) in zip(rows, all_cases):
    print(("ok  " if row["ok"] else "FAIL"), name, {kind: row.get(kind) if not isinstance(row.get(kind), str) else row[kind][:200]
                                                     for kind, _ in stages})



def opcheck():
    a, b, bias = (all_cases[0][4][k] for k in ("a", "b", "bias"))
    return torch.library.opcheck(torch.ops.kgen.gemm.default, ([a, b, bias], ["a", "b", "bias"], ["activation=gelu_erf"], products.number))


def autocast():
    a, b, bias = (all_cases[0][4][k].float() for k in ("a", "b", "bias"))
    with torch.autocast(device, torch.bfloat16):
        got = ops.gemm(a, b, bias=bias, activation="gelu_erf")
    assert got.dtype == torch.bfloat16
    return error(got, all_cases[0][2](a.double(), b.double(), bias.double()))


def dynamic():
    torch._dynamo.reset()
    function = torch.compile(lambda a, b, bias: torch.relu(ops.gemm(a * 2, b, bias=bias, activation="gelu_erf")), fullgraph=True,
                             dynamic=True)
    worst = 0.0
    for m in (197, 64, 33, 250):
        a, b, bias = torch.randn(m, 768, device=device).bfloat16(), all_cases[0][4]["b"], all_cases[0][4]["bias"]
        worst = max(worst, error(function(a, b, bias), all_cases[0][2]((a * 2).double(), b.double(), bias.double()).relu()))
    return [worst, torch._dynamo.utils.counters["stats"]["unique_graphs"]]


def reduce_overhead():
    torch._dynamo.reset()
    a, b, bias = (all_cases[0][4][k] for k in ("a", "b", "bias"))
    function = torch.compile(lambda a: ops.gemm(torch.tanh(a), b, bias=bias, activation="gelu_erf") + 1, fullgraph=True,
                             mode="reduce-overhead")
    for _ in range(4):
        got = function(a).clone()
    return error(got, all_cases[0][2](torch.tanh(a).double(), b.double(), bias.double()) + 1)


def overhead():
    """Microseconds a call of the CPU, and of the GPU back to back."""
    a, b = all_cases[2][4]["a"], all_cases[2][4]["b"]
    weight = b
    result = {}
    for name, function in (("F.linear", lambda: torch.nn.functional.linear(a, weight)), ("ops.gemm", lambda: ops.gemm(a, b)),
                           ("db.gemm", lambda: products.db.gemm(a, b)), ("db.gemm out", None)):
        if function is None:
            d = torch.empty(1, 4096, dtype=a.dtype, device=device)
            function = lambda: products.db.gemm(a, b, out=d)
        for _ in range(20):
            function()
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(500):
            function()
        issued = time.perf_counter()
        if cuda:
            torch.cuda.synchronize()
        result[name] = [round((issued - start) / 500 * 1e6, 2), round((time.perf_counter() - start) / 500 * 1e6, 2)]
    return result


for name, work in (("overhead", overhead), ("autocast", autocast), ("dynamic", dynamic), ("reduce_overhead", reduce_overhead),
                   ("opcheck", opcheck)):
    if name == "reduce_overhead" and not cuda:
        continue
    row = {}
    with torch.no_grad():
        stage("result", name, row, work)
    extra[name] = row
    print(name, str(row)[:600])
    save()
