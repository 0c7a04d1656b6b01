"""qwen2_vl.py KGEN DEVICE OUT [LAYERS]: Qwen2-VL's vision encoder (examples/models/qwen2_vl.py): trace names what is slow and writes
an ops.yaml, `kgen tune` takes that as it is, optimize replaces what was tuned, and a second trace shows what is left."""
import json
import os
import pathlib
import subprocess
import sys
import time

import torch

import kgen.torch

binary, place, out = sys.argv[1:4]
for folder in (pathlib.Path(__file__).parents[2] / "examples/models", pathlib.Path(__file__).parent / "models"):
    sys.path.insert(0, str(folder))
import qwen2_vl  # noqa: E402

cuda = place != "host"
sizes = {"layers": int(sys.argv[4]) if len(sys.argv) > 4 else 32} if cuda else {**qwen2_vl.TINY["qwen2_vl_vision"]}
start = time.time()


def milliseconds(model, inputs):
    for _ in range(3):
        model(*inputs)
    times = []
    for _ in range(20):
        if cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        model(*inputs)
        if cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e3)
    return sorted(times)[10]


with torch.no_grad():
    spec = qwen2_vl.Qwen2VL(device="cuda" if cuda else "cpu", dtype="bf16" if cuda else "fp32", **sizes)
    model, inputs = spec.module(), spec.inputs()
    want, before = model(*inputs), milliseconds(model, inputs)
    trace = kgen.torch.trace(model, *inputs, path=f"{out}/traced.yaml")
    print(trace, f"\nbefore {before:.3f} ms", f"({time.time() - start:.0f} s)", flush=True)
    first = trace.worst
    subprocess.run(["timeout", os.environ.get("TUNE_SECONDS", "75"), binary, "tune", f"{out}/traced.yaml", "--db", f"{out}/traced.db", "--device", place, "--budget", os.environ.get("BUDGET", "4")],
                   stderr=subprocess.DEVNULL, check=False)
    print(f"({time.time() - start:.0f} s)", flush=True)
    report = kgen.torch.optimize(model, kgen.open(f"{out}/traced.db", place), *inputs)
    print(report)
    got, after = model(*inputs), milliseconds(model, inputs)
    difference = ((got - want).double().norm() / want.double().norm()).item()
    print(f"relative difference {difference:.2g}, before {before:.3f} ms, after {after:.3f} ms")
    second = kgen.torch.trace(model, *inputs)
    print(second)
    json.dump({"layers": spec.layers, "before_ms": before, "after_ms": after, "difference": difference, "worst": first.op, "worst_op": first.entry and first.entry["op"],
               "worst_us": first.us / first.count, "worst_bound_us": first.bound_us / first.count,
               "replaced": report.replaced, "left": [[row.name, row.op, row.reason] for row in report if row.match is None],
               "conv left": [row.op for row in second if "conv" in row.op and not row.op.startswith("kgen")],
               "kgen us": [row.us / row.count for row in second if row.op == "kgen::conv3d_patchify"]}, open(f"{out}/qwen2_vl.json", "w"), indent=1)
