#!/usr/bin/env python3
"""Verifies every operator on the device of this machine: the default of every variant on every problem of
tests/operators/problems, the candidates of tests/operators/mutants/device (clusters, rings of asynchronous copies: what no
other machine runs) and, with --edges, an entry list of edge cases. Prints a line an operator and counts, and writes lines
for docs/results/coverage (see scripts/coverage.py).

    scripts/verify_device.py --kgen KGEN --device nvidia:0 --arch sm_90 --name "NVIDIA H100 80GB HBM3" --lines OUT.jsonl
                             [--edges edge_cases.yaml] [--only paths,problems,edges] [--ops A,B…]
                             [--under "compute-sanitizer --tool memcheck --target-processes all"]
                             [--jobs N] [--chunk N] [--seconds N] [--until N] [--verbose]
    scripts/verify_device.py … --mutants [--jobs N] [--seconds N]     plants the faults of mutants/device instead
    scripts/verify_device.py … --db TUNED.db [--jobs N]               verifies a database's winners instead

A run of kgen takes --chunk problems of an operator and at most --seconds; what has not ended --until seconds after the start is
not run. Those with clusters and rings come first. --under runs kgen and its workers under a checker, whose own summary is looked at: anything
but none found is a failure. Set KGEN_SOURCES to a checkout to check what is there instead of what is inside the binary.
Exit code 1 where anything failed or was not run.
"""
import argparse
import collections
import concurrent.futures
import datetime
import json
import pathlib
import re
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/operators"))
import mutants

SUMMARY = re.compile(r"(ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards? displayed)(?: \((\d+) errors?, (\d+) warnings?\))?")
FIRST = ["gemm", "conv2d", "decode_attention", "attention", "gptq_gemm", "mhc_pre", "mhc_fused_post_pre", "hc_head",
         "rmsnorm_gemm", "multi_dilation_conv"]  # operators with clusters and rings
LONGEST_REPORT = 2500


class Tasks:
    """[(kind, op, spec, config)] of what is asked for, those with clusters and rings first."""

    def __init__(self, options, folder):
        self.folder, self.tasks = pathlib.Path(folder), []
        kinds, ops = options.only.split(","), options.ops.split(",") if options.ops else None
        wanted = lambda op: ops is None or op in ops
        if "paths" in kinds:
            for path in sorted((ROOT / "tests/operators/mutants/device").glob("*.yaml")):
                data = yaml.safe_load(open(path))
                if data["needs"] != options.arch or not wanted(data["op"]):
                    continue
                configs = dict.fromkeys([*data.get("configs", []), *(mutant["config"] for mutant in data["mutants"])])
                items = [item for config in configs for item, _ in mutants.legal_items(options.kgen, data, config)]
                for at in range(0, len(items), options.chunk):
                    self.add("paths", data["op"], {"kgen": 1, "ops": items[at:at + options.chunk]}, "*")
        if "problems" in kinds:
            for path in sorted((ROOT / "tests/operators/problems").glob("*.yaml")):
                if wanted(path.stem):
                    spec = yaml.safe_load(open(path))
                    one = lambda item, problem: {**item, "problems": [problem]}
                    items = [one(item, problem) for item in spec["ops"] for problem in item["problems"]]
                    for at in range(0, len(items), options.chunk):
                        self.add("problems", path.stem, {**spec, "ops": items[at:at + options.chunk]}, "*")
        if "edges" in kinds and options.edges:
            entries = yaml.safe_load(open(options.edges))["entries"]
            for op in sorted({entry["op"] for entry in entries}):
                of_op = [entry for entry in entries if entry["op"] == op]
                for at in range(0, len(of_op) if wanted(op) else 0, options.chunk):
                    self.add("edges", op, {"entries": of_op[at:at + options.chunk]}, "*")
        order = {"paths": 0, "problems": 1, "edges": 2}
        self.tasks.sort(key=lambda task: (order[task[0]] if task[1] in FIRST else 3,
                                          FIRST.index(task[1]) if task[1] in FIRST else 0))

    def add(self, kind, op, spec, config):
        path = self.folder / f"{len(self.tasks)}.yaml"
        path.write_text(json.dumps(spec, default=str))  # JSON is YAML
        self.tasks.append((kind, op, path, config))


def verify(options, command):
    """(report or None, the checker's summaries, what went wrong, what the checker said, seconds)."""
    begin = time.time()
    seconds = min(options.seconds, options.begin + options.until - begin if options.until else options.seconds)
    if seconds <= 0:
        return None, [], "time limit", "", 0
    try:
        done = subprocess.run(shlex.split(options.under) + command, capture_output=True, text=True, errors="replace",
                              timeout=seconds)
    except subprocess.TimeoutExpired:
        return None, [], f"no end within {seconds:.0f} s", "", time.time() - begin
    output = done.stdout + done.stderr
    start = done.stdout.find('{')
    try:
        report = json.JSONDecoder().raw_decode(done.stdout[start:])[0] if start >= 0 else None
    except json.JSONDecodeError:
        report = None
    said = "\n".join(line for line in output.splitlines() if line.startswith("====="))
    return (report, [match.groups() for match in SUMMARY.finditer(output)], "" if report else output[-1500:], said,
            time.time() - begin)


def run_tasks(options, tasks):
    """What to write as lines, and how much went wrong."""
    counts = collections.Counter()
    totals = collections.defaultdict(collections.Counter)  # (op, kind) → what → how often

    def run(task):
        kind, op, spec, config = task
        return task, verify(options, [options.kgen, "verify", str(spec), "--device", options.device, "--config", config, "--json"])

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for done in concurrent.futures.as_completed([pool.submit(run, task) for task in tasks]):
            (kind, op, spec, config), (report, found, error, said, seconds) = done.result()
            total = totals[op, kind]
            total["seconds"] += round(seconds, 1)
            if options.verbose and report:
                print(f"  {seconds:5.1f} s {op} {kind} {config}: {report['passed']} passed, {report['failed']} failed {found}",
                      flush=True)
            if report is None:
                total["not run"] += 1
                print(f"  NOT RUN {op} {kind} {config} {spec.read_text()[:300]}: {error}", flush=True)
                continue
            for row in report["rows"]:
                dtype = re.search(r" dtype=(\w+)", row["signature"]).group(1)
                counts[op, dtype, row["passed"]] += 1
                total["passed" if row["passed"] else "failed"] += 1
                if not row["passed"]:
                    print(f"  FAILED {row['signature']} {row['dims']} {row['config']}: {row['detail']}", flush=True)
            if options.under:
                flaws = sum(int(summary[1]) for summary in found)
                total["flaws"] += flaws
                total["without a summary"] += not found
                if flaws:
                    print(f"  CHECKER {op} {kind} {config} {spec.read_text()[:300]}:\n{said[:LONGEST_REPORT]}", flush=True)
    names = ["passed", "failed", "not run", *(["flaws", "without a summary"] if options.under else [])]
    for (op, kind), total in totals.items():
        print(f"{op:22} {kind:8} " + ", ".join(f"{total[name]} {name}" for name in names) + f"; {total['seconds']:.0f} s of work")
    bad = sum(total[name] for total in totals.values() for name in names[1:])
    today = datetime.date.today().isoformat()
    lines = [{"op": op, "dtype": dtype, "arch": options.arch, "what": "verified", "count": counts[op, dtype, True] +
              counts[op, dtype, False], "failed": counts[op, dtype, False], "device": options.name, "date": today}
             for op, dtype in sorted({key[:2] for key in counts})]
    sums = {name: sum(total[name] for total in totals.values()) for name in names}
    print(", ".join(f"{number} {name}" for name, number in sums.items()) + f"; {time.time() - options.begin:.0f} s", flush=True)
    return lines, bad


def verify_db(options, folder):
    """The winners of a database, --chunk a run, tuned ones before defaults."""
    with sqlite3.connect(options.db) as db:
        winners = [row[0] for row in db.execute("SELECT id FROM winner ORDER BY is_default, id")]
    db.close()
    total = collections.Counter()

    def run(at):
        some = winners[at:at + options.chunk]
        part = pathlib.Path(folder, f"{at}.db")
        part.write_bytes(pathlib.Path(options.db).read_bytes())
        with sqlite3.connect(part) as db:
            db.execute(f"DELETE FROM winner WHERE id NOT IN ({','.join(map(str, some))})")
        db.close()
        result = verify(options, [options.kgen, "verify", str(part), "--device", options.device, "--json"])
        part.unlink()
        return len(some), result

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for count, (report, _, error, _, _) in pool.map(run, range(0, len(winners), options.chunk)):
            if report is None:
                total["not run"] += count
                print(f"  NOT RUN {count} winners: {error}")
                continue
            total["passed"] += report["passed"]
            total["failed"] += report["failed"]
            for row in report["rows"]:
                if not row["passed"]:
                    print(f"  FAILED {row['signature']} {row['dims']} {row['config']}: {row['detail']}")
    print(f"winners: {total['passed']} passed, {total['failed']} failed, {total['not run']} not run; "
          f"{time.time() - options.begin:.0f} s")
    return total["failed"] + total["not run"]


def plant_mutants(options):
    files = []
    for path in sorted((ROOT / "tests/operators/mutants/device").glob("*.yaml")):
        data = yaml.safe_load(open(path))
        if data["needs"] == options.arch and (not options.ops or data["op"] in options.ops.split(",")):
            files.append(str(path))
    return subprocess.run([sys.executable, str(ROOT / "tests/operators/mutants.py"), "--kgen", options.kgen, "--device",
                           options.device, *(["--unmutated-elsewhere"] if options.unmutated_elsewhere else []), "--jobs", str(options.jobs), "--seconds", str(options.seconds), "--results",
                           options.lines, *files]).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--name", required=True, help="the device, as results name it")
    parser.add_argument("--lines", required=True)
    parser.add_argument("--edges", help="entry list, as shapes/edge_cases.yaml")
    parser.add_argument("--only", default="paths,problems,edges")
    parser.add_argument("--ops", default="", help="these operators alone")
    parser.add_argument("--under", default="")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--until", type=float, default=0)
    parser.add_argument("--verbose", action="store_true", help="a line for each run of kgen")
    parser.add_argument("--mutants", action="store_true")
    parser.add_argument("--unmutated-elsewhere", action="store_true", help="with --mutants: --only paths was run before")
    parser.add_argument("--db")
    options = parser.parse_args()
    options.begin = time.time()
    if options.mutants:
        return plant_mutants(options)
    with tempfile.TemporaryDirectory(prefix="kgen-verify-") as folder:
        if options.db:
            return 1 if verify_db(options, folder) else 0
        lines, bad = run_tasks(options, Tasks(options, folder).tasks)
    with open(options.lines, "w") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    return 1 if bad or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
