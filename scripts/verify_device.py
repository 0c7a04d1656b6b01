#!/usr/bin/env python3
"""Verifies every operator on the device of this machine: the default of every variant on every problem of
tests/operators/problems and, with --edges, on an entry list of edge cases. Prints a line an operator and counts, and writes
lines for docs/results/coverage (see scripts/coverage.py).

    scripts/verify_device.py --kgen KGEN --device nvidia:0 --arch sm_90 --name "NVIDIA H100 80GB HBM3" --lines OUT.jsonl
                             [--edges edge_cases.yaml] [--only edges|problems] [--under "compute-sanitizer --tool memcheck --target-processes all"]
                             [--jobs N] [--seconds N]

--under runs kgen and its workers under a checker, whose own summary is looked at: anything but none found is a failure. Set
KGEN_SOURCES to a checkout to check what is there instead of what is inside the binary. Exit code 1 where anything failed.
"""
import argparse
import collections
import concurrent.futures
import datetime
import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SUMMARY = re.compile(r"(ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards? displayed)(?: \((\d+) errors?, (\d+) warnings?\))?")


def verify(options, kind, path, op):
    command = shlex.split(options.under) + [options.kgen, "verify", str(path), "--op", op, "--device", options.device,
                                            "--config", "*", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds)
    except subprocess.TimeoutExpired:
        return kind, op, None, [], f"no end within {options.seconds} s"
    found = [match.groups() for match in SUMMARY.finditer(done.stdout + done.stderr)]
    start = done.stdout.find("{")
    try:
        report = json.JSONDecoder().raw_decode(done.stdout[start:])[0] if start >= 0 else None
    except json.JSONDecodeError:
        report = None
    return kind, op, report, found, "" if report else (done.stderr or done.stdout)[-400:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--name", required=True, help="the device, as results name it")
    parser.add_argument("--lines", required=True)
    parser.add_argument("--edges", help="entry list, as shapes/edge_cases.yaml")
    parser.add_argument("--only", choices=["edges", "problems"])
    parser.add_argument("--under", default="")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=300)
    options = parser.parse_args()

    tasks = []
    if options.only != "edges":
        for path in sorted((ROOT / "tests/operators/problems").glob("*.yaml")):
            tasks.append(("problems", path, path.stem))
    if options.edges and options.only != "problems":
        for op in sorted(set(re.findall(r"^\s+op: (\w+)$", pathlib.Path(options.edges).read_text(), re.M))):
            tasks.append(("edges", pathlib.Path(options.edges), op))
    counts = collections.Counter()
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for kind, op, report, found, error in pool.map(lambda task: verify(options, *task), tasks):
            if report is None:
                print(f"{op:22} {kind:8} NOT RUN: {error}")
                bad += 1
                continue
            for row in report["rows"]:
                dtype = re.search(r" dtype=(\w+)", row["signature"]).group(1)
                counts[op, dtype, row["passed"]] += 1
                if not row["passed"]:
                    print(f"  FAILED {row['signature']} {row['dims']} {row['config']}: {row['detail']}")
            flaws = sum(int(number) for summary in found for number in summary[1:] if number)
            checker = ""
            if options.under:
                checker = f"  {found[0][0].lower()} summary: {flaws} found" if found else "  NO SUMMARY of the checker"
                bad += flaws > 0 or not found
            bad += report["failed"] > 0
            print(f"{op:22} {kind:8} {report['passed']:4} passed {report['failed']:3} failed{checker}")
    today = datetime.date.today().isoformat()
    with open(options.lines, "w") as out:
        for op, dtype in sorted({key[:2] for key in counts}):
            right, wrong = counts[op, dtype, True], counts[op, dtype, False]
            out.write(json.dumps({"op": op, "dtype": dtype, "arch": options.arch, "what": "verified", "count": right + wrong,
                                  "failed": wrong, "device": options.name, "date": today}) + "\n")
    print(f"{sum(n for key, n in counts.items() if key[2])} passed, {sum(n for key, n in counts.items() if not key[2])} failed, "
          f"{bad} runs with a fault")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
