#!/usr/bin/env python3
"""What candidates cost to compile with NVRTC, by operator and phase; needs no GPU.

  bench/compile_cost.py KGEN SPEC… [--limit 20] [--arch sm_90] [--repeats 3] [--per-candidate]

Writes the candidates with `kgen gen`, compiles each `repeats` times in this process, past NVRTC's own cache, and prints a
table: bytes of source, CPU ms (the least of the repeats: other work on the machine only adds), the phases' shares as
NVRTC's --time tells them, PTX lines, registers, spills. The set is the same from build to build as long as spaces are, so
two builds' tables can be laid side by side.
"""

import argparse
import collections
import ctypes
import os
import re
import resource
import subprocess
import sys
import tempfile

LIBRARIES = [os.environ.get("KGEN_NVRTC", ""), "libnvrtc.so.13", "libnvrtc.so.12", "/usr/local/cuda/lib64/libnvrtc.so"]
PHASES = {"CUDA": "front", "NVVM": "optimizer", "PTX": "ptxas"}


def load():
    for name in filter(None, LIBRARIES):
        try:
            return ctypes.CDLL(name)
        except OSError:
            pass
    sys.exit("no NVRTC; set KGEN_NVRTC to libnvrtc.so")


def cpu_ms():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return 1e3 * (usage.ru_utime + usage.ru_stime)


def text_of(nvrtc, program, what):
    size = ctypes.c_size_t()
    if getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)):
        return ""
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw.decode(errors="replace")


def compile_once(nvrtc, source, options, times):
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernel.cu", 0, None, None)
    words = [option.encode() for option in options + [f"--time={times}"]]
    start = cpu_ms()
    status = nvrtc.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
    result = {"cpu": cpu_ms() - start, "front": 0, "optimizer": 0, "ptxas": 0}
    log = text_of(nvrtc, program, "ProgramLog")
    result["ptx_lines"] = text_of(nvrtc, program, "PTX").count("\n")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if status:
        sys.exit(f"does not compile: {log[:500]}")
    result["registers"] = max(map(int, re.findall(r"Used (\d+) registers", log)), default=0)
    result["spills"] = sum(map(int, re.findall(r"(\d+) bytes spill stores", log)))
    with open(times) as rows:
        for row in rows:
            cells = [cell.strip() for cell in row.split(",")]
            if len(cells) > 2 and cells[2].isdigit():
                result[PHASES.get(cells[1].split()[0], "other")] = int(cells[2])
    os.remove(times)  # a second compile would add to it
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kgen")
    parser.add_argument("spec", nargs="+")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--per-candidate", action="store_true")
    args = parser.parse_args()
    nvrtc = load()
    options = ["-std=c++20", f"-arch={args.arch}", "-w", "--ptxas-options=-v", "--minimal", "--no-cache"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.kgen, "gen", *args.spec, "--arch", args.arch, "--limit", str(args.limit), "-o", folder],
                       check=True, stdout=subprocess.DEVNULL)
        times = os.path.join(folder, "times.csv")
        compile_once(nvrtc, b'extern "C" __global__ void k(int* p) { *p = 1; }', options, times)  # loads the library
        groups = collections.defaultdict(list)
        root = os.path.join(folder, args.arch)
        for name in sorted(os.listdir(root)):
            with open(os.path.join(root, name), "rb") as file:
                source = file.read()
            runs = [compile_once(nvrtc, source, options, times) for _ in range(args.repeats)]
            best = min(runs, key=lambda run: run["cpu"]) | {"bytes": len(source)}
            groups[re.sub(r"_[0-9a-f]{12}\.\w+$", "", name)].append(best)
            if args.per_candidate:
                print(name, {key: round(value) for key, value in best.items()}, flush=True)
    print("| kernel | candidates | source KB | CPU ms | front : optimizer : ptxas % | PTX lines | registers | spilling |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kernel, runs in groups.items():
        mean = lambda key: sum(run[key] for run in runs) / len(runs)
        phases = [mean(phase) for phase in ("front", "optimizer", "ptxas")]
        shares = " : ".join(f"{100 * phase / max(sum(phases), 1):.0f}" for phase in phases)
        print(f"| {kernel} | {len(runs)} | {mean('bytes') / 1e3:.0f} | {mean('cpu'):.0f} | {shares} | {mean('ptx_lines'):.0f} | "
              f"{mean('registers'):.0f} | {sum(run['spills'] > 0 for run in runs)} |")


if __name__ == "__main__":
    main()
