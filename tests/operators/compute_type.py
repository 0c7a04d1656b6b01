#!/usr/bin/env python3
"""Where a problem allows two compute types the tuner ends on the faster one by itself, and each candidate is held to the
tolerance of its own (OPS.md a, "Compute type"). The host emulates fp16 arithmetic, so fp32 sums must win here.

    compute_type.py --kgen KGEN [--results FILE]
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import report

SPEC = """
kgen: 1
ops:
  - op: gemm
    dtype: fp16
    accumulate: [fp16, fp32]
    problems: [{m: 64, n: 64, k: 256}]
    tune: {params: {mma_m: [8], tile_m: [32, 64], tile_n: [64], tile_k: [64], group_m: [1], split_k: [1], vec_a: [8], vec_b: [8]}}
"""
FP32_ROW = 4e-4  # relative L2 error of an fp16 output with fp32 sums (OPS.md 0.1)


def kgen(program, *words):
    environment = dict(os.environ, KGEN_PLAIN_KERNELS="1")  # timings without sanitizers
    done = subprocess.run([program, *words, "--device", "host", "--json"], env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def problems_found(program, folder):
    spec = folder / "spec.yaml"
    spec.write_text(SPEC)
    tuned = kgen(program, "tune", str(spec), "--db", str(folder / "tuned.db"))["rows"]
    if len(tuned) != 1 or "accumulate=fp16,fp32 " not in tuned[0]["signature"]:
        yield f"not one problem with both types: {tuned}"
    if " accumulate=fp32 " not in tuned[0]["config"] or tuned[0]["verified"] < 4:
        yield f"the winner of {tuned[0]['verified']} candidates is {tuned[0]['config']}"
    for config, is_half in (("simt accumulate=fp16", True), ("simt accumulate=fp32", False)):
        row = kgen(program, "verify", str(spec), "--config", config)["rows"][0]
        if not row["passed"]:
            yield f"{config}: {row['detail']}"
        if (row["relative_l2"] > FP32_ROW) != is_half:
            yield f"{config}: relative L2 error {row['relative_l2']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--results", default="")  # no line for coverage
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kgen-compute-type-") as folder:
        found = list(problems_found(options.kgen, pathlib.Path(folder)))
    for problem in found:
        print(problem)
    report.write_xml("compute_type", [("host", "; ".join(found), "")])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
