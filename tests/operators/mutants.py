#!/usr/bin/env python3
"""Plants faults in operators and wants verification to reject every one (OPS.md 0.1, "Make tests able to fail").

    mutants.py --kgen KGEN MUTANTS.yaml… [--only TEXT] [--first N] [--results FILE]

A file names an operator, small problems and text substitutions in its YAML or templates:

    op: gemm
    problems: [{m: 17, n: 33, k: 65, dtype: bf16}]      # as in a spec's `problems`
    mutants:
      - name: k_tail_dropped
        file: templates/tile.h
        from: text that occurs exactly once
        to: replacement
        config: matrix split_k=2                         # as --config; without: the default candidate

The operator as it is must pass all problems. A mutant is rejected if a result of one problem is wrong; a crash or a
source that does not compile is an error of the file. Survivors and errors make the exit status 1. Runs on the host
device; --results gets a JSON line a file. ctest plants the first faults of each file, with KGEN_ALL_MUTANTS set all.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import yaml

import report

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Verifier:
    def __init__(self, kgen, folder, op):
        self.kgen, self.folder, self.op = kgen, pathlib.Path(folder), op
        self.environment = dict(os.environ, KGEN_SOURCES=folder, KGEN_PLAIN_KERNELS="1")

    def verify(self, problem, config):
        """"" when all is right, "wrong: …" for a wrong result, anything else is no verdict on the kernel."""
        spec = self.folder / "spec.yaml"
        spec.write_text(json.dumps({"kgen": 1, "ops": [{"op": self.op, "problems": [problem]}]}))
        command = [self.kgen, "verify", str(spec), "--device", "host", "--json"]
        done = subprocess.run(command + (["--config", config] if config else []), env=self.environment,
                              capture_output=True, text=True, timeout=600)
        if done.returncode > 1:
            return "not verified: " + (done.stderr.strip() or f"exit status {done.returncode}")
        for row in json.loads(done.stdout)["rows"]:
            if not row["passed"]:
                return row["detail"].split("; input seed")[0]
        return ""


def check_file(path, kgen, only, first):
    """What --results says of a file."""
    data = yaml.safe_load(open(path))
    op, survivors, errors, rejected = data["op"], [], [], 0
    problems, mutants = data["problems"], [m for m in data["mutants"] if only in m["name"]][:first or None]
    with tempfile.TemporaryDirectory(prefix="kgen-mutants-") as folder:
        for part in ("ops", "templates"):
            shutil.copytree(ROOT / part, pathlib.Path(folder, part))
        verifier = Verifier(kgen, folder, op)
        usable = {}  # config → problems that it is legal for and right on
        for config in dict.fromkeys(["", *(mutant.get("config", "") for mutant in mutants)]):
            usable[config] = []
            for problem in problems:
                verdict = verifier.verify(problem, config)
                if not verdict:
                    usable[config].append(problem)
                elif not config or not verdict.startswith("not verified: ") or "config '" not in verdict:
                    errors.append(f"unmutated {config or 'default'} {problem}: {verdict}")
            if not usable[config]:
                errors.append(f"config '{config}' is right on no problem")
        for mutant in mutants if not errors else []:
            file = pathlib.Path(folder, mutant["file"])
            name, text = mutant["name"], file.read_text() if file.exists() else ""
            if text.count(mutant["from"]) != 1:
                errors.append(f"{name}: 'from' occurs {text.count(mutant['from'])} times in {mutant['file']}")
                continue
            file.write_text(text.replace(mutant["from"], mutant["to"]))
            started = time.time()
            verdicts = []
            for problem in usable[mutant.get("config", "")]:
                verdicts.append(verifier.verify(problem, mutant.get("config", "")))
                if verdicts[-1].startswith("wrong: "):
                    break
            file.write_text(text)
            seconds = f"{time.time() - started:.1f} s"
            if verdicts[-1].startswith("wrong: "):
                rejected += 1
                print(f"  rejected  {name}  {seconds}  {verdicts[-1][7:150]}", flush=True)
            elif any(verdicts):
                errors.append(f"{name}: {next(filter(None, verdicts))}")
            else:
                survivors.append(name)
                print(f"  SURVIVED  {name}  {seconds}", flush=True)
    return {"what": "mutants", "op": op, "file": pathlib.Path(path).stem, "planted": len(mutants), "rejected": rejected,
            "of": len(data["mutants"]), "survivors": survivors, "errors": errors}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--only", default="", help="mutants whose name holds this text")
    parser.add_argument("--first", type=int, default=0, help="mutants of each file, unless KGEN_ALL_MUTANTS is set; 0: all")
    parser.add_argument("--results", default="", help="file that gets a JSON line for each file")
    options = parser.parse_args()
    first = 0 if os.environ.get("KGEN_ALL_MUTANTS") else options.first
    scores = []
    for path in options.files:
        print(path, flush=True)
        scores.append(check_file(path, options.kgen, options.only, first))
    for score in scores:
        print(f"{score['file']}: {score['planted']} of {score['of']} planted, {score['rejected']} rejected" +
              (f", SURVIVORS: {', '.join(score['survivors'])}" if score["survivors"] else ""))
        for error in score["errors"]:
            print(f"  ERROR {error}")
    if options.results:
        with open(options.results, "w") as file:
            file.writelines(json.dumps(score) + "\n" for score in scores)
    for score in scores:
        problem = "; ".join([f"{name} survived" for name in score["survivors"]] + score["errors"])
        report.write_xml(f"mutants_{score['file']}", [(score["file"], problem, "")])
    return 1 if any(score["survivors"] or score["errors"] for score in scores) else 0


if __name__ == "__main__":
    sys.exit(main())
