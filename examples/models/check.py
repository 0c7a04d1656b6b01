"""Every model in a few channels on the CPU: kgen's form against the torch module. Needs no GPU; tunes for the host device first.

    check.py --kgen path/to/kgen [--db tiny.db] [--models 'llama*,vit_base']
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import torch

import run
from common import Kernels

LIMITS = {"fp32": 2e-5, "bf16": 3e-2}  # relative L2 error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kgen", default=shutil.which("kgen"))
    parser.add_argument("--db", default=os.path.join(tempfile.gettempdir(), "kgen-tiny-models.db"))
    parser.add_argument("--models", default="*")
    arguments = parser.parse_args()
    sys.path.insert(0, os.path.join(run.HERE, "..", "..", "python"))
    import kgen

    torch.set_grad_enabled(False)
    chosen = []
    for name, kind in run.models(arguments.models.split(",")).items():
        dtype = "bf16" if name.startswith(("qwen2_5", "mhc")) else "fp32"  # what the operators take and torch has on a CPU
        chosen.append(kind(device="cpu", dtype=dtype, **sys.modules[kind.__module__].TINY[name]))
    folder = tempfile.mkdtemp()
    files = []
    for model in chosen:
        files.append(f"{folder}/{model.name}.yaml")
        with open(files[-1], "w", encoding="utf-8") as file:
            file.write(model.ops_yaml(1))
    subprocess.run([arguments.kgen, "tune", *files, "--db", arguments.db, "--device", "host"], check=True)
    shutil.rmtree(folder)
    wrong = 0
    for model in chosen:
        kernels = Kernels(kgen.open(arguments.db, "host"))
        inputs = model.inputs()
        right = model.module()(*inputs).double()
        got = model.kernels(kernels, model.packed() if hasattr(model, "packed") else model.module())(*inputs).double()
        error = ((got.flatten() - right.flatten()).norm() / right.norm()).item()
        fine = error <= LIMITS[model.dtype] and not kernels.near and right.std() > 1e-2
        wrong += not fine
        print(f"{'right' if fine else 'WRONG'} {model.name}: error {error:.1e}, output {tuple(right.shape)} of deviation {right.std():.2g}, "
              f"{sum(kernels.kinds.values())} calls", *kernels.near.items(), sep="\n    " if kernels.near else " ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
