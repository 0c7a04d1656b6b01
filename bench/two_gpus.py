#!/usr/bin/env python3
"""Tunes 40 GEMM problems on one GPU and then on all of the machine, from one cache of compiled code, and compares: wall time, trials,
winners (docs/scale.md, "One machine").

    bench/two_gpus.py KGEN OUT [--one nvidia:0] [--all all] [--budget 50] [--problems 40 | --spec FILE]

A first tune on all devices, which is not timed, fills the cache. Candidates are drawn at random with one seed, so that both runs try the same.
Winners that differ are timed in turns (`kgen bench one.db two.db`). Writes OUT/{one,two}.db and OUT/two_gpus.md. Exit code 1: the
trials differ, or a winner of the one run is more than 1 % slower than that of the other.
"""
import argparse
import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import time


def spec(count):
    shapes = [(m, n, k) for m in (16, 64, 197, 512, 2048) for n in (768, 4096) for k in (768, 1024, 2048, 4096)]
    problems = [{"m": m, "n": n, "k": k} for m, n, k in shapes[:count]]
    return json.dumps({"kgen": 1, "ops": [{"op": "gemm", "dtype": "bf16", "problems": problems}]})  # JSON is YAML


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kgen")
    parser.add_argument("out")
    parser.add_argument("--one", default="nvidia:0")
    parser.add_argument("--all", default="all")
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--spec", default="", help="another spec in place of the GEMMs, to try the script where they take too long")
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "gemms.yaml").write_text(pathlib.Path(options.spec).read_text() if options.spec else spec(options.problems))
    environment = {**os.environ, "XDG_CACHE_HOME": str((out / "cache").resolve())}

    def kgen(*words):
        done = subprocess.run([options.kgen, *map(str, words)], stdout=subprocess.PIPE, env=environment, text=True)
        if done.returncode > 1:
            sys.exit(f"kgen {words[0]}: exit code {done.returncode}")
        return done.stdout

    def tune(device, name):
        for suffix in ("", "-wal", "-shm"):
            (out / f"{name}.db{suffix}").unlink(missing_ok=True)
        begin = time.monotonic()
        told = json.loads(kgen("tune", out / "gemms.yaml", "--device", device, "--strategy", "random", "--seed", 1, "--budget",
                               options.budget, "--prior", "none", "--db", out / f"{name}.db", "--json"))
        return time.monotonic() - begin, told

    def trials(name):
        rows = csv.DictReader(io.StringIO(kgen("db", "export", out / f"{name}.db", "--format", "csv")))
        return {(row["signature"], row["dims"], row["config"], "verified" if row["status"] in ("timed", "stopped_early")
                 else row["status"]) for row in rows}

    tune(options.all, "warm")
    one_s, _ = tune(options.one, "one")
    two_s, told = tune(options.all, "two")
    one, two = trials("one"), trials("two")
    ratios = []
    for row in json.loads(kgen("bench", out / "one.db", out / "two.db", "--device", options.one, "--json"))["rows"]:
        times = {file: entry["time_us"] for entry in row["entries"] for file in entry["files"]}
        ours, theirs = times.get(0), times.get(1)  # by their place among the files
        ratios.append(theirs / ours if ours and theirs else 1)
    worst = max(ratios, default=1)
    devices = len(told.get("devices", [])) or 1
    what = options.spec or f"{options.problems} GEMM problems"
    lines = [f"{what}, {options.budget} candidates each, code compiled before", "",
             "| devices | seconds | of one's |", "|---|--:|--:|", f"| {options.one} | {one_s:.1f} | |",
             f"| {options.all}: {devices} | {two_s:.1f} | {two_s / one_s:.3f} |", "",
             f"Trials: {len(one)} and {len(two)}, {len(one ^ two)} in one of them alone.",
             f"Winners: {sum(ratio == 1 for ratio in ratios)} of {len(ratios)} the same; of the others, timed in turns, those of the second run "
             f"take {min(ratios, default=1):.3f} to {worst:.3f} of the time."]
    (out / "two_gpus.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 1 if one ^ two or worst > 1.01 or min(ratios, default=1) < 1 / 1.01 else 0


if __name__ == "__main__":
    sys.exit(main())
