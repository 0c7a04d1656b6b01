#!/usr/bin/env python3
"""Verifies every problem of a spec on the host device, with each variant's default candidate: `kgen verify --config '*'`.

    host_verify.py --kgen KGEN SPEC… [--results FILE]

With a kgen that is built with sanitizers the kernels are too. --results gets a JSON line for each problem and candidate.
"""
import argparse
import json
import os
import subprocess
import sys

import report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--results", default="", help="file that gets a JSON line for each verified candidate")
    options = parser.parse_args()
    lines, cases = [], []
    for spec in options.specs:
        suite = "host_" + os.path.splitext(os.path.basename(spec))[0]
        done = subprocess.run([options.kgen, "verify", spec, "--device", "host", "--config", "*", "--json"],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode > 1:
            cases.append((suite, f"kgen verify exits with {done.returncode}", ""))
            continue
        for row in json.loads(done.stdout)["rows"]:
            op, *words = row["signature"].split(" ")
            dtype = dict(word.split("=", 1) for word in words).get("dtype", "")
            dims = " ".join(f"{name}={value}" for name, value in row["dims"].items())
            name = f"{row['signature']} {dims}: {row['config']}"
            cases.append((name, "" if row["passed"] else row["detail"], ""))
            lines.append({"what": "host", "op": op, "dtype": dtype, "arch": "host", "signature": row["signature"],
                          "dims": row["dims"], "config": row["config"], "verdict": "right" if row["passed"] else "WRONG",
                          "reason": "" if row["passed"] else row["detail"]})
        report.write_xml(suite, cases)
    for name, problem, _ in cases:
        if problem:
            print(f"FAILED {name}\n  {problem}")
    failed = sum(1 for case in cases if case[1])
    print(f"{len(cases) - failed} passed, {failed} failed")
    if options.results:
        with open(options.results, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
