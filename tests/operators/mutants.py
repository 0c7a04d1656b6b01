#!/usr/bin/env python3
"""Plants faults in operators and wants verification to reject every one (OPS.md 0.1, "Make tests able to fail").

    mutants.py --kgen KGEN MUTANTS.yaml… [--only TEXT] [--first N] [--results FILE] [--device nvidia:0 [--jobs N] [--seconds N]]
    mutants.py --kgen KGEN MUTANTS.yaml… --check-for sm_90 [--compile]

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

Files in mutants/device are about code that the host does not have (clusters, asynchronous copies): `needs: sm_90` names
an architecture that has it, `configs` lists candidates that must be right beside those of the mutants. They want --device;
there a kernel that crashes is rejected too, and one with `hangs: true` that has no end within --seconds. --check-for is
for machines without the device: every `from` occurs once and every candidate is legal for the architecture; with
--compile, mutants compile.
"""
import argparse
import collections
import concurrent.futures
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
ITEMS = 4  # problems of a run on a device
MUTANTS = ROOT / "tests/operators/mutants"


def name_of(path):
    path = pathlib.Path(path).resolve().with_suffix("")
    return str(path.relative_to(MUTANTS)) if path.is_relative_to(MUTANTS) else path.stem


class Verifier:
    """An operator in a folder of its own, where it may be changed."""

    def __init__(self, options, op):
        self.options, self.op = options, op
        self.temporary = tempfile.TemporaryDirectory(prefix="kgen-mutants-")
        self.folder = pathlib.Path(self.temporary.name)
        for part in ("ops", "templates"):
            shutil.copytree(ROOT / part, self.folder / part)
        self.environment = dict(os.environ, KGEN_SOURCES=str(self.folder), KGEN_PLAIN_KERNELS="1")

    def write_spec(self, items):
        spec = self.folder / "spec.yaml"
        spec.write_text(json.dumps({"kgen": 1, "ops": items}))
        return str(spec)

    def verify(self, items, config):
        """"" when all is right, "wrong: …" for a wrong result, anything else is no verdict on the kernel."""
        command = [self.options.kgen, "verify", self.write_spec(items), "--device", self.options.device, "--json"]
        try:
            done = subprocess.run(command + (["--config", config] if config else []), env=self.environment,
                                  capture_output=True, text=True, timeout=self.options.seconds)
        except subprocess.TimeoutExpired:
            return f"hung: no end within {self.options.seconds:g} s"
        if done.returncode > 1:
            return "not verified: " + (done.stderr.strip() or f"exit status {done.returncode}")
        for row in json.loads(done.stdout)["rows"]:
            if not row["passed"]:
                return row["detail"].split("; input seed")[0]
        return ""

    def rejects(self, verdict, mutant):
        """A run that is only slow has no end either, so that counts where it is expected."""
        on_device = self.options.device != "host"
        return verdict.startswith("wrong: ") or (on_device and verdict.startswith("crashed: ")) or (
            on_device and mutant.get("hangs", False) and verdict.startswith("hung: "))

    def fits_one(self, problems, config, compiled):
        """"" when the candidate is legal for the architecture (and compiles) for one of them, else what is wrong."""
        for problem in problems:
            verdict, _ = self.generate(problem, config, compiled)
            if not verdict:
                break
        return verdict

    def generate(self, problem, config, compiled):
        """As fits_one(), of one problem; and the whole of the candidate."""
        command = [self.options.kgen, "gen", self.write_spec([narrowed(self.op, problem, config)]), "--arch",
                   self.options.check_for, "--per-variant", "1", "--json", "--jobs", "1", "-o", str(self.folder / "out")]
        done = subprocess.run(command + (["--compile"] if compiled else []), env=self.environment,
                              capture_output=True, text=True)
        if done.returncode > 1:
            return done.stderr.strip(), ""
        for item in json.loads(done.stdout)["files"]:
            if set(config.split(" ")) <= set(item["config"].split(" ")):
                failed = item.get("status", "compiled") != "compiled"
                return item.get("error", "does not compile") if failed else "", item["config"]
        return f"config '{config}' is not legal", ""

    def plant(self, mutant):
        """What keeps it from being planted."""
        file = self.folder / mutant["file"]
        text = file.read_text() if file.exists() else ""
        if text.count(mutant["from"]) != 1:
            return f"'from' occurs {text.count(mutant['from'])} times in {mutant['file']}"
        file.write_text(text.replace(mutant["from"], mutant["to"]))
        return ""


def narrowed(op, problem, config):
    """An item of a spec for which the default of the config's variant is the config."""
    params = {name: [int(value) if value.isdigit() else value]
              for name, value in (word.split("=") for word in config.split(" ")[1:])}
    return {"op": op, "problems": [problem], "tune": {"params": params}}


def legal_items(kgen, data, config):
    """Of each problem of a file about an architecture for which the candidate is legal there: narrowed() and the whole candidate."""
    verifier = Verifier(argparse.Namespace(kgen=kgen, check_for=data["needs"]), data["op"])
    found = [(narrowed(data["op"], problem, config), *verifier.generate(problem, config, False)) for problem in data["problems"]]
    return [(item, whole) for item, problem, whole in found if not problem]


def on_device(data, options, configs, errors, pool):
    """config → [([item], what --config takes)] that are right."""
    usable = {config: [([item], whole) for item, whole in found] for config, found in
              zip(configs, pool.map(lambda config: legal_items(options.kgen, data, config), configs))}
    if not options.unmutated_elsewhere:  # runs start slowly there, so each takes several
        items = [item for found in usable.values() for some, _ in found for item in some]
        runs = [items[at:at + ITEMS] for at in range(0, len(items), ITEMS)]
        for some, verdict in zip(runs, pool.map(lambda some: Verifier(options, data["op"]).verify(some, "*"), runs)):
            if verdict:
                errors.append(f"unmutated {some}: {verdict}")
    return usable


def on_host(data, options, configs, errors, pool):
    """The same."""
    usable = {config: [] for config in configs}

    def unmutated(pair):
        config, problem = pair
        items = [{"op": data["op"], "problems": [problem]}]
        return config, items, Verifier(options, data["op"]).verify(items, config)

    for config, items, verdict in pool.map(unmutated, [(config, problem) for config in configs for problem in data["problems"]]):
        if not verdict:
            usable[config].append((items, config))
        elif not config or not verdict.startswith("not verified: ") or "config '" not in verdict:
            errors.append(f"unmutated {config or 'default'} {items[0]['problems']}: {verdict}")
    return usable


def check_file(path, options, first, pool):
    """What --results says of a file."""
    data = yaml.safe_load(open(path))
    op, survivors, errors, rejected = data["op"], [], [], []
    mutants = [m for m in data["mutants"] if options.only in m["name"]][:first or None]
    configs = list(dict.fromkeys([*([] if "needs" in data else [""]), *(data.get("configs", []) if not options.only else []),
                                  *(mutant.get("config", "") for mutant in mutants)]))
    usable = (on_device if "needs" in data else on_host)(data, options, configs, errors, pool)
    errors += [f"config '{config}' is right on no problem" for config in configs if not usable[config]]

    def run(mutant):
        verifier = Verifier(options, op)
        started, verdicts = time.time(), [verifier.plant(mutant)]
        for items, config in usable[mutant.get("config", "")] if not verdicts[0] else []:
            verdicts.append(verifier.verify(items, config))
            if verifier.rejects(verdicts[-1], mutant):
                break
        return mutant["name"], verifier.rejects(verdicts[-1], mutant), verdicts, f"{time.time() - started:.1f} s"

    mutants.sort(key=lambda mutant: mutant.get("hangs", False))  # they take longest, and the device from the others
    for done in concurrent.futures.as_completed([pool.submit(run, mutant) for mutant in mutants if not errors]):
        name, is_rejected, verdicts, seconds = done.result()
        if is_rejected:
            rejected.append(name)
            print(f"  rejected  {name}  {seconds}  {verdicts[-1].removeprefix('wrong: ')[:143]}", flush=True)
        elif any(verdicts):
            errors.append(f"{name}: {next(filter(None, verdicts))}")
        else:
            survivors.append(name)
            print(f"  SURVIVED  {name}  {seconds}", flush=True)
    return {"what": "mutants", "op": op, "file": name_of(path), "planted": len(mutants), "rejected": len(rejected),
            "of": len(data["mutants"]), "survivors": survivors, "errors": errors,
            "unmutated": 0 if options.unmutated_elsewhere else sum(map(len, usable.values())), "device": options.device}


def check_without_device(path, options):
    """The same, of a file that cannot be run here."""
    data = yaml.safe_load(open(path))
    errors = []
    for config in dict.fromkeys([*data.get("configs", []), *(mutant["config"] for mutant in data["mutants"])]):
        problem = Verifier(options, data["op"]).fits_one(data["problems"], config, False)
        errors += [f"config '{config}' fits no problem: {problem}"] if problem else []
    for mutant in data["mutants"]:
        if options.only not in mutant["name"]:
            continue
        verifier = Verifier(options, data["op"])
        problem = verifier.plant(mutant)
        if not problem and options.compile:
            problem = verifier.fits_one(data["problems"], mutant["config"], True)
        errors += [f"{mutant['name']}: {problem}"] if problem else []
    return {"file": name_of(path), "planted": 0, "of": len(data["mutants"]), "rejected": 0, "survivors": [],
            "errors": errors}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--only", default="", help="mutants whose name holds this text")
    parser.add_argument("--first", type=int, default=0, help="mutants of each file, unless KGEN_ALL_MUTANTS is set; 0: all")
    parser.add_argument("--results", default="", help="file that gets a JSON line for each file")
    parser.add_argument("--device", default="host")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--seconds", type=float, default=600, help="of one run of kgen")
    parser.add_argument("--unmutated-elsewhere", action="store_true", help="verify_device.py --only paths was run")
    parser.add_argument("--check-for", default="", metavar="ARCH")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    first = 0 if os.environ.get("KGEN_ALL_MUTANTS") else options.first
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool, \
            concurrent.futures.ThreadPoolExecutor(len(options.files) if options.jobs > 1 else 1) as files:

        def check(path):
            print(path, flush=True)
            return check_without_device(path, options) if options.check_for else check_file(path, options, first, pool)

        scores = list(files.map(check, options.files))
    for score in scores:
        checked = f"{score['of']} could be planted" if options.check_for and not score["errors"] else (
            f"{score['planted']} of {score['of']} planted, {score['rejected']} rejected")
        print(f"{score['file']}: {checked}" +
              (f", SURVIVORS: {', '.join(score['survivors'])}" if score["survivors"] else ""))
        for error in score["errors"]:
            print(f"  ERROR {error}")
    if options.results and not options.check_for:
        with open(options.results, "w") as file:
            file.writelines(json.dumps(score) + "\n" for score in scores)
    for score in scores:
        problem = "; ".join([f"{name} survived" for name in score["survivors"]] + score["errors"])
        report.write_xml(f"mutants_{score['file'].replace('/', '_')}", [(score["file"], problem, "")])
    return 1 if any(score["survivors"] or score["errors"] for score in scores) else 0


if __name__ == "__main__":
    sys.exit(main())
