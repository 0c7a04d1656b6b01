"""backend.py DB DEVICE OUT: small models by torch.compile(backend="kgen", fullgraph=True) against float64, and in a CUDA graph beside inductor's."""
import copy
import json
import os
import sys
import time
import traceback

import torch

import kgen.torch
from blocks import blocks

path, place, out = sys.argv[1:4]
cuda = place != "host"
device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
deadline = time.time() + float(os.environ.get("SECONDS_LEFT", "60"))
ops = kgen.torch.load(path, place)
rows = []


def graphed(function, inputs):
    """(microseconds of a replay, the result after one)"""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*inputs)
    for _ in range(5):
        graph.replay()
    times = []
    for _ in range(30):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(10):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 100)
    return sorted(times)[15], result


def error(got, want):
    return ((got.double() - want).norm() / want.norm()).item()


def stage(row, kind, work):
    if time.time() > deadline:
        row[kind] = "not run (out of time)"
        return
    start = time.time()
    try:
        work()
    except Exception as failure:
        row[kind] = f"{type(failure).__name__}: {str(failure)[:800]}"
        with open(os.path.join(out, "backend_tracebacks.txt"), "a") as file:
            file.write(f"== {row['name']} {kind}\n{traceback.format_exc()}\n")
    row["seconds"] = round(row.get("seconds", 0) + time.time() - start, 1)


with torch.no_grad():
    for name, model, inputs, wanted in blocks(device, dtype):
        row = {"name": name}
        rows.append(row)
        try:
            reference = copy.deepcopy(model).double()(*(item.double() if item.is_floating_point() else item for item in inputs))
        except RuntimeError:  # a model that casts to float32 within: against itself
            reference = model(*inputs).double()
        row["eager"] = error(model(*inputs), reference)

        def kgen_mode(key="kgen", **more):
            torch._dynamo.reset()
            report = []
            compiled = torch.compile(model, backend="kgen", fullgraph=True, options={"db": ops, "report": report, **more})
            row[key] = error(compiled(*inputs), reference)
            row["report"] = [(r.name, r.op, r.match.reason if r.match else None, "" if r.match else r.reason[:300]) for r in report[0]]
            found = {}
            for r in report[0]:
                if r.match is not None:
                    found[r.op.partition("[")[0]] = found.get(r.op.partition("[")[0], 0) + 1
            row["found"], row["missing"] = found, {op: n for op, n in wanted.items() if found.get(op, 0) < n}
            if cuda and key == "kgen":
                row["kgen us"], got = graphed(compiled, inputs)
                row["graph"] = error(got, reference)

        def inductor_mode():
            torch._dynamo.reset()
            compiled = torch.compile(model, fullgraph=True)
            row["inductor"] = error(compiled(*inputs), reference)
            if cuda:
                row["inductor us"], _ = graphed(compiled, inputs)

        def eager_mode():
            if cuda:
                row["eager us"], _ = graphed(model, inputs)

        stage(row, "kgen", kgen_mode)
        stage(row, "inductor", inductor_mode)
        stage(row, "eager_graph", eager_mode)
        if name.startswith("bottleneck nhwc"):
            stage(row, "kgen, eager rest", lambda: kgen_mode("kgen, eager rest", backend="eager"))
            if cuda:
                stage(row, "kgen, reduce-overhead", lambda: kgen_mode("kgen, reduce-overhead", mode="reduce-overhead"))
        json.dump(rows, open(os.path.join(out, "backend.json"), "w"), indent=1, default=str)  # whatever ends this early
        print(json.dumps({k: v for k, v in row.items() if k != "report"}), flush=True)
        for item in row.get("report", ()):
            print("   ", *item)
