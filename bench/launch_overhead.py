#!/usr/bin/env python3
"""Host time of a launch in one run: the driver, libkgen, kgen from Python, kgen.torch and torch's F.linear, of one shape.

    launch_overhead.py LAUNCH_BENCH tuned.db DEVICE M,N,K…      needs torch and the kgen package; LIBKGEN as KGEN_LIBRARY

Prints a Markdown table and, with OUT in the environment, writes launch.json there. Batches of 50 calls with the device idle before
each, in turns, the median batch; LAUNCH_BENCH measures the first three the same way.
"""
import json
import os
import statistics
import subprocess
import sys
import time

BATCH, BATCHES = 50, 200


def main():
    bench, path, device, *shapes = sys.argv[1:]
    lines = subprocess.run([bench, path, device, *shapes], check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [json.loads(line) for line in lines.splitlines()]
    import torch
    import torch.nn.functional as F
    import kgen
    import kgen.torch
    on_gpu = device != "host"
    dtype, place = (torch.bfloat16, "cuda") if on_gpu else (torch.float32, "cpu")
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    db = kgen.open(path, device)
    ops = kgen.torch.load(db)
    for row in rows:
        x = torch.randn(row["m"], row["k"], dtype=dtype, device=place)
        w = torch.randn(row["n"], row["k"], dtype=dtype, device=place)
        out = torch.empty(row["m"], row["n"], dtype=dtype, device=place)
        want = F.linear(x.double(), w.double())
        ways = {"torch F.linear": lambda: F.linear(x, w),
                "kgen.torch": lambda: ops.gemm(x, w, frozen=True),
                "kgen (ctypes)": lambda: db.gemm(x, w, out=out, frozen=True)}
        with torch.inference_mode():
            for name, run in ways.items():
                got = run()
                error = ((got.double() - want).norm() / want.norm()).item()
                assert error < 0.02, f"{name} is wrong by {error}"
            times = {name: [] for name in ways}
            for batch in range(-5, BATCHES):
                for name, run in ways.items():
                    wait()
                    begin = time.perf_counter_ns()
                    for _ in range(BATCH):
                        run()
                    took = time.perf_counter_ns() - begin
                    if batch >= 0:
                        times[name].append(took / BATCH)
            wait()
        row["python_ns"] = {name: statistics.median(samples) for name, samples in times.items()}
        row["torch"] = torch.__version__
    print(f"{rows[0]['device']}, torch {rows[0]['torch']}, host microseconds a call:\n")
    names = list(rows[0]["python_ns"])
    print("| m n k | kernels | driver | kgen_launch | find + launch | find | " + " | ".join(names) + " |")
    print("| --- |" + " ---: |" * (5 + len(names)))
    for row in rows:
        cells = [row[f"{name}_ns"] for name in ("bare", "kgen_launch", "kgen_find_and_launch", "kgen_find")]
        cells += row["python_ns"].values()
        print(f"| {row['m']} {row['n']} {row['k']} | {row['kernels']} | " + " | ".join(f"{ns / 1000:.2f}" for ns in cells) + " |")
    if os.environ.get("OUT"):
        with open(os.path.join(os.environ["OUT"], "launch.json"), "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
