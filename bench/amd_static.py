#!/usr/bin/env python3
"""What the AMD kernels look like before any GPU has run them, beside Triton's of the same tiles: docs/results/amd-static.md.

    amd_static.py --kgen KGEN --triton FOLDER [--banks LDS_BANKS_TEST] [--only TEXT] > amd-static.md

FOLDER holds table.jsonl and mca.jsonl of Triton's kernels (registers, and the main loop through llvm-mca); the method
is theirs: the innermost loop with the most matrix instructions, waits and barriers kept, 100 turns for one wave.
llvm-mca 19 dies of raw buffer loads, so kgen's are given to it in two other forms, and both shares are told:

  as global   global_load of the same registers, which Triton's loops have: the model takes such a load for one of LDS
              too, so that each wait for LDS waits for it, which no hardware does. Like with like.
  as buffer   tbuffer_load, which the model takes for what it is.

Of each tile and layout the candidate (instruction, waves, stages) with the highest first share and no spills is shown.
"""
import argparse
import json
import os
import re
import subprocess
import tempfile

INTRO = """\
# AMD kernels, read instruction by instruction

Nothing here was run or timed on an AMD GPU: these are compilers' outputs (clang 19; Triton 3.6.0), LLVM's machine model, and counts. Right results
are the emulator's word (tests/operators/emulate.py). `bench/amd_static.py --kgen KGEN --triton FOLDER --banks TEMPLATES_LDS_BANKS_TEST` makes this page.

**Matrix share**: of the main loop's cycles, those in which the matrix unit is busy, by llvm-mca 19 for one wave alone, waits and barriers kept: the method
and the kernels of Triton's table. The model has short fixed latencies and knows no bandwidth, bank conflicts, clocks or other waves: it ranks loops and predicts no TFLOP/s.
llvm-mca 19 dies of raw buffer loads, which kgen's loops have. They are given to it twice: *matrix share* as global loads of the same registers, which is what Triton's loops
have and what the model, unlike hardware, makes every wait for LDS wait for; *as buffer* as typed buffer loads, which it takes for what they are. The first compares like with
like and is what candidates are chosen by; the second is the better estimate of kgen's own loop. *Useful* leaves out products that another wave of the block makes, too: Triton's eight waves make those of 64x64x64 twice.

Triton's B is [K, N]: kgen's `kn` rows are the same problem, `nk` is a linear layer's weight as stored. Triton's kernels (`mm_even`) take M, N and K to be whole tiles; kgen's
take any, since windows have zeros outside. Where Triton has several kernels of a tile, the best share is shown. *Waves a SIMD*: what registers and 64 KB of LDS allow.
Bank conflicts: clocks by turns, 1 is none, counted from the lanes' addresses by tests/templates/lds_banks_test.cpp (empty: a shape that the test does not have). gfx942's
AGPRs are part of its VGPRs; the compiler takes them where 256 do not suffice.

What keeps the unit busy (templates/tile_window.h): memory is read through buffer descriptors whose bounds are the tails, so the loop is one block without a mask or branch; only the
first tile may be partial; fragments are read a turn ahead of their products; tiles go to LDS and the next are asked for under products that sched_group_barrier
puts them between; B [K, N] is turned by v_perm_b32 on its way to LDS, so both operands are read by ds_read_b128 without conflicts.

Not taken up: s_setprio (what it gains or costs shows only where waves compete, on hardware), loads into LDS, the same loop for gptq_gemm (its weights are unpacked between registers and LDS
in the older loop) and for fp32, and a default for conv2d beyond the one it had.
"""

TILES = [(128, 128, 32, 4), (128, 128, 32, 8), (128, 128, 64, 4), (256, 128, 64, 4), (256, 128, 64, 8), (256, 256, 64, 8), (64, 64, 64, 4),
         (64, 64, 64, 8)]
WAVES = {4: [(2, 2, 1)], 8: [(2, 4, 1), (4, 2, 1), (2, 2, 2)]}
CDNA, RDNA = "gfx90a,gfx942", "gfx1100,gfx1201"
LINEAR = "{m: 4096, n: 4096, k: 4096}"
FAMILIES = [  # the default of each operator's matrix variant on one problem
    ("gemm, nk", "{op: gemm, dtype: bf16, problems: [{m: 2048, n: 12288, k: 4096}]}"),
    ("gemm, nk, ragged", "{op: gemm, dtype: bf16, problems: [{m: 2047, n: 12280, k: 4104}]}"),
    ("gemm, nk, m = 197", "{op: gemm, dtype: bf16, problems: [{m: 197, n: 3072, k: 768}]}"),
    ("gemm, kn", "{op: gemm, dtype: bf16, b_layout: kn, problems: [{m: 2048, n: 12288, k: 4096}]}"),
    ("gptq_gemm", "{op: gptq_gemm, dtype: fp16, problems: [{m: 2048, n: 3584, k: 3584}]}"),
    ("conv2d 3x3, nhwc", "{op: conv2d, dtype: fp16, layout: nhwc, problems: [{n: 32, c: 256, h: 14, w: 14, k: 256, r: 3, s: 3, pad: 1}]}"),
    ("conv2d 1x1, nhwc", "{op: conv2d, dtype: fp16, layout: nhwc, problems: [{n: 32, c: 256, h: 14, w: 14, k: 1024, r: 1, s: 1}]}"),
]


def loop_of(listing):
    """Of the innermost loops that hold matrix instructions the one with the most."""
    lines, labels, loops = [], {}, {}
    for line in listing.split("\n"):
        if label := re.search(r"<(L\d+)>:$", line):
            labels[label[1]] = len(lines)
        elif re.match(r"\s+[a-z]", line):
            lines.append(line.split("//")[0].strip())
            branch = re.match(r"s_c?branch\w*\s+(L\d+)", lines[-1])
            if branch and labels.get(branch[1], len(lines)) < len(lines):
                loops[labels[branch[1]]] = len(lines)
    matrix = lambda span: sum("v_mfma" in line or "v_wmma" in line for line in lines[span[0]:span[1]])
    spans = [span for span in loops.items() if matrix(span)]
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return lines[slice(*max(inner, key=matrix))] if inner else []


def as_global(line):
    return re.sub(r"^buffer_load_(\w+) (\S+), (v\d+), s\[(\d+):\d+\], 0 offen.*", lambda m: f"global_load_{m[1]} {m[2]}, {m[3]}, s[{m[4]}:{int(m[4]) + 1}]", line)


def as_buffer(line):
    words = {"dwordx4": "xyzw", "dwordx3": "xyz", "dwordx2": "xy"}
    return re.sub(r"^buffer_load_(\w+) (\S+), (v\d+), (s\[\d+:\d+\]), 0 offen",
                  lambda m: f"tbuffer_load_format_{words.get(m[1], 'x')} {m[2]}, {m[3]}, {m[4]}, 0 format:[BUF_DATA_FORMAT_32] offen", line)


def share_of(loop, arch):
    """Matrix cycles and cycles of a turn."""
    with tempfile.NamedTemporaryFile("w", suffix=".s") as source:
        source.write("\n".join(loop) + "\n")
        source.flush()
        done = subprocess.run(["llvm-mca-19", "-mtriple=amdgcn-amd-amdhsa", f"-mcpu={arch}", "-iterations=100",
                               "-skip-unsupported-instructions=parse-failure", "-instruction-info=false", source.name],
                              capture_output=True, text=True, check=True)
    cycles = int(re.search(r"Total Cycles:\s+(\d+)", done.stdout)[1]) / 100
    names = re.findall(r"^\[\d+\]\s+- (HW\w+)", done.stdout, re.M)
    pressure = done.stdout.split("Resource pressure per iteration:")[1].strip().split("\n")[1].split()
    busy = dict(zip(names, pressure)).get("HWXDL", "-")
    return (0 if busy == "-" else float(busy)), cycles


class Kgen:
    def __init__(self, program):
        self.program, self.folder = program, tempfile.TemporaryDirectory(prefix="kgen-amd-static-")

    def run(self, *words):
        done = subprocess.run([self.program, *words, "--json"], capture_output=True, text=True)
        if done.returncode > 1:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout)

    def candidates(self, entry, arch, *limit):
        """Of an entry of a spec: what each compiled kernel of the tile loop is."""
        spec = os.path.join(self.folder.name, "ops.yaml")
        with open(spec, "w") as file:
            file.write(f"kgen: 1\nops: [{entry}]\n")
        for item in self.run("gen", spec, "--arch", arch, "--compile", "-o", self.folder.name, *limit)["files"]:
            config = dict(word.split("=") for word in item["config"].split() if "=" in word)
            if item["status"] != "compiled" or not item["config"].startswith("matrix"):
                continue
            told = self.run("inspect", item["object"])["files"][0]
            step = item["steps"][-1] if len(item["steps"]) == 1 else max(item["steps"], key=lambda step: step["lds_bytes"])
            kernel = next(kernel for kernel in told["kernels"] if kernel["kernel"] == step["kernel"])
            yield {"arch": item["arch"], "config": config, "block": step["block"], "lds": step["lds_bytes"], **kernel, "object": item["object"]}


def measured(row):
    """The row with what its main loop says."""
    listing = subprocess.run(["llvm-objdump-19", "-d", "--symbolize-operands", "--no-show-raw-insn", row["object"]], capture_output=True, text=True, check=True).stdout
    listing = re.split(r"^[0-9a-f]+ <(?!L\d+>)", listing.partition(f"<{row['kernel']}>:")[2], flags=re.M)[0]
    loop = loop_of(listing)
    count = lambda pattern: sum(bool(re.match(pattern, line)) for line in loop)
    row.update(matrix=count("v_(mfma|wmma)"), instructions=len(loop), reads=count("ds_(read|load)"), writes=count("ds_(write|store)"),
               loads=count("(buffer|global)_load"), barriers=count("s_barrier"), waits=count("s_wait"))
    wave = 64 if row["arch"].startswith("gfx9") else 32
    waves = row["block"] // wave
    simds = 4 if wave == 64 else 2
    by_lds = 65536 // max(row["lds"], 1) * waves // simds
    row["resident"] = min(row["occupancy_waves"] // simds, by_lds)
    if row["matrix"] and wave == 64:
        busy, cycles = share_of([as_global(line) for line in loop], row["arch"])
        row["share"], row["busy"], row["cycles"] = busy / cycles, busy, cycles
        row["share_buffer"] = busy / share_of([as_buffer(line) for line in loop], row["arch"])[1]
        bare = [as_buffer(line) for line in loop if not line.startswith(("s_wait", "s_barrier"))]
        row["share_nowait"] = busy / share_of(bare, row["arch"])[1]
    return row


def percent(value):
    return f"{100 * value:.0f} %" if value is not None else "-"


def tile_rows(kgen, arch, dtype, layout, tile):
    tm, tn, tk, waves = tile
    rows = []
    for wm, wn, wk in WAVES[waves]:
        vec = min(8, max(2, tn * tk // (waves * 64 * 2))) if layout == "kn" else 8
        tune = (f"tile_m: [{tm}], tile_n: [{tn}], tile_k: [{tk}], waves_m: [{wm}], waves_n: [{wn}], waves_k: [{wk}], vec_a: [8], vec_b: [{vec}], split_k: [1], "
                "group_m: [8], min_blocks: [1]")
        entry = f"{{op: gemm, dtype: {dtype}, b_layout: {layout}, problems: [{LINEAR}], tune: {{params: {{{tune}}}}}}}"
        try:
            rows += [measured(row) for row in kgen.candidates(entry, arch)]
        except RuntimeError as error:
            if "no candidate is legal" not in str(error):
                raise
    return rows


def shape_of(row):
    c = row["config"]
    return f"{c['tile_m']}x{c['tile_n']}x{c['tile_k']}, waves {c['waves_m']}x{c['waves_n']}" + (f"x{c['waves_k']}" if c.get("waves_k", "1") != "1" else "")


def useful(share, matrix_units, tile):
    """Where waves repeat each other's products, the part that is not repeated."""
    tm, tn, tk, waves = tile
    return share * min(1, tm * tn * tk / (32 * 32 * 8) / waves / matrix_units)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--triton", required=True, help="folder of table.jsonl and mca.jsonl")
    parser.add_argument("--banks", help="templates_lds_banks_test, which counts bank conflicts")
    parser.add_argument("--only", default="", help="tiles whose name holds this text")
    options = parser.parse_args()
    read = lambda name: {row["name"]: row for row in map(json.loads, open(os.path.join(options.triton, name)))}
    table, loops = read("table.jsonl"), read("mca.jsonl")
    banks = {}
    if options.banks:
        said = subprocess.run([options.banks], capture_output=True, text=True).stdout
        for layout, tile, waves, mma, reads, writes in re.findall(r"banks (\w+) (\S+) waves (\S+) mma (\d+): reads (\S+) writes (\S+)", said):
            banks[layout, tile, waves, mma] = f"{reads} / {writes}"
    kgen = Kgen(options.kgen)

    print(INTRO)
    print("## The tiles of Triton's kernels\n")
    print("| tile, waves | arch | type | | matrix share | as buffer | no waits | useful | loop: instructions / matrix / LDS reads / writes / loads / barriers | "
          "VGPR (of them AGPR) | spills | LDS | waves a SIMD | bank conflicts, reads / writes |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | --- |")
    behind = []
    for tile in TILES:
        for arch in CDNA.split(","):
            for dtype in ("fp16", "bf16"):
                name = f"{arch}_{dtype}_{tile[0]}x{tile[1]}x{tile[2]}_w{tile[3]}_"
                theirs = [loop for key, loop in loops.items() if f"mm_even_{name}" in key]
                if not theirs or options.only not in name:
                    continue
                best = max(theirs, key=lambda loop: loop["share"])
                row = table[best["name"]]
                unit = 16 if arch == "gfx90a" else 8
                mark = f"{tile[0]}x{tile[1]}x{tile[2]}, {tile[3]} | {arch} | {dtype}"
                print(f"| {mark} | Triton, kn | {percent(best['share'])} | | {percent(best['share_nowait'])} | {percent(useful(best['share'], best['xdl'] / unit, tile))} | "
                      f"{best['instr']:.0f} / {best['mfma']} / {best['ds_read']} / {best['ds_write']} / {best['vmem']} / {best['barriers']} | "
                      f"{row['vgpr_count']} ({row['agpr_count']}) | {row['vgpr_spill_count']} | {row['lds']} | {min(best['occ'], 65536 // row['lds'] * tile[3] // 4)} | |")
                for layout in ("kn", "nk"):
                    rows = [row for row in tile_rows(kgen, arch, dtype, layout, tile) if row["spills"] == 0 and "share" in row]
                    if not rows:
                        print(f"| {mark} | kgen, {layout} | no candidate without spills |")
                        behind.append(f"{mark} {layout}")
                        continue
                    own = max(rows, key=lambda row: row["share"])
                    worth = useful(own["share"], own["busy"] / unit, tile)
                    if worth <= useful(best["share"], best["xdl"] / unit, tile):
                        behind.append(f"{mark} {layout}")
                    c = own["config"]
                    conflicts = banks.get((layout, f"{c['tile_m']}x{c['tile_n']}x{c['tile_k']}", f"{c['waves_m']}x{c['waves_n']}" if c["waves_k"] == "1" else "", c["mma_m"]), "")
                    print(f"| {mark} | kgen, {layout}: {c['mma_m']}x{c['mma_m']}, waves {c['waves_m']}x{c['waves_n']}x{c['waves_k']}, {c['stages']} stage(s) | "
                          f"{percent(own['share'])} | {percent(own['share_buffer'])} | {percent(own['share_nowait'])} | {percent(worth)} | "
                          f"{own['instructions']} / {own['matrix']} / {own['reads']} / {own['writes']} / {own['loads']} / {own['barriers']} | "
                          f"{own['registers']} ({own['agprs']}) | 0 | {own['lds']} | {own['resident']} | {conflicts} |", flush=True)
    print(f"\nNot ahead: {'; '.join(behind) if behind else 'none'}.\n")
    if options.only:
        return

    print("## RDNA: no spills where Triton has them\n\nLLVM's model has no matrix unit there, so there is no share.\n")
    print("| tile, waves | arch | | VGPR | spills | LDS | waves a SIMD |\n| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for tile in [(128, 128, 32, 4), (128, 128, 32, 8), (256, 128, 64, 8), (64, 64, 64, 4)]:
        for key, row in table.items():
            if f"gfx1100_fp16_{tile[0]}x{tile[1]}x{tile[2]}_w{tile[3]}_" in key:
                kind = "masks in the loop" if key.startswith("mm_g") else "whole tiles"
                print(f"| {tile[0]}x{tile[1]}x{tile[2]}, {tile[3]} | gfx1100 | Triton, kn, {kind} | {row['vgpr_count']} | {row['vgpr_spill_count']} | {row['lds']} | {row['occupancy']} |")
        for arch in RDNA.split(","):
            for layout in ("kn", "nk"):
                rows = sorted(tile_rows(kgen, arch, "fp16", layout, tile), key=lambda row: (row["spills"], row["registers"]))
                if rows:
                    own = rows[0]
                    c = own["config"]
                    print(f"| {tile[0]}x{tile[1]}x{tile[2]}, {tile[3]} | {arch} | kgen, {layout}, any tails: waves {c['waves_m']}x{c['waves_n']}, {c['stages']} stage(s) | "
                          f"{own['registers']} | {own['spills']} | {own['lds']} | {own['resident']} |", flush=True)
                else:
                    print(f"| {tile[0]}x{tile[1]}x{tile[2]}, {tile[3]} | {arch} | kgen, {layout}: the rules leave no candidate |  |  |  |  |")

    print("\n## The operators' defaults\n")
    print("| operator | arch | candidate | matrix share | as buffer | no waits | VGPR (of them AGPR) | spills | LDS | waves a SIMD |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |")
    for label, entry in FAMILIES:
        for arch in f"{CDNA},{RDNA}".split(","):
            for row in kgen.candidates(entry, arch, "--per-variant", "1"):
                own = measured(row)
                c = own["config"]
                print(f"| {label} | {arch} | {c['mma_m']}x{c['mma_m']}, {shape_of(own)}, {c['stages']} stage(s) | {percent(own.get('share'))} | {percent(own.get('share_buffer'))} | "
                      f"{percent(own.get('share_nowait'))} | {own['registers']} ({own['agprs'] or 0}) | {own['spills']} | {own['lds']} | {own['resident']} |", flush=True)


if __name__ == "__main__":
    main()
