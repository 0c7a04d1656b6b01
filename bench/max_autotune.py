"""torch.compile's max-autotune on the GEMMs of a tuned DB, beside kgen's winners: how many candidates it tries, how long that takes, and
both results timed in turns (cold L2, as bench/side_by_side.py does it).

    max_autotune.py tuned.db --kgen path/to/kgen --lib path/to/libkgen.so LABEL… >rows.jsonl

Each GEMM with an inductor cache of its own, empty before; torch.compile's tracing and its own compile workers count for it, importing
PyTorch does not. `choices`: what inductor says it benchmarked, its template's configurations and the vendor's kernel.
"""
import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import torch

from side_by_side import Kgen, Timer, compiled_calls, spread
from torch_cases import CASES

SUMMARY = re.compile(r"AUTOTUNE benchmarking takes ([\d.]+) seconds(?: and ([\d.]+) seconds precompiling)?(?: for (\d+) choices)?")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db")
    parser.add_argument("labels", nargs="+")
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--lib", required=True)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    text = subprocess.run([options.kgen, "show", options.db, "--format", "json"], check=True, capture_output=True, text=True).stdout
    winners = {winner["label"]: winner for winner in json.loads(text)["winners"]}
    kgen, timer = Kgen(options.lib, options.db), Timer(100, 250)
    for label in options.labels:
        winner = winners[label]
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="kgen-max-autotune-")
        with torch.no_grad():
            case = CASES[winner["op"]](winner["dims"], winner["attributes"])
            call = compiled_calls(case, True, light=False)["inductor_max"]
            said = io.StringIO()
            begin = time.monotonic()
            with contextlib.redirect_stderr(said):
                call()
                torch.cuda.synchronize()
            seconds = time.monotonic() - begin
            found = SUMMARY.findall(said.getvalue())
            mine, _ = kgen.callable(winner["op"], winner["attributes"], winner["dims"], case.operands)
            samples = timer.interleaved({"kgen": mine, "inductor_max": call} | case.vendors)
        row = {"label": label, "op": winner["op"], "dims": winner["dims"], "torch": torch.__version__, "seconds": round(seconds, 2),
               "choices": sum(int(n) for _, _, n in found if n) or None,
               "benchmarking_seconds": sum(float(b) for b, _, _ in found), "precompiling_seconds": sum(float(p) for _, p, _ in found if p),
               "us": {name: round(spread(values)[0], 2) for name, values in samples.items()}}
        if row["choices"] is None:  # older versions list the choices alone
            row["choices"] = len(re.findall(r"^  \S+ [\d.]+ ms [\d.]+%", said.getvalue(), re.M)) or None
            row["said"] = said.getvalue()[-1500:]
        print(json.dumps(row), flush=True)
    sys.stdout.flush()
    os._exit(0)  # torch.compile's workers may keep an ordinary end waiting


if __name__ == "__main__":
    main()
