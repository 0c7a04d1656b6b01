#!/usr/bin/env python3
"""Writes docs/coverage.md: operator × type × architecture, what was compiled, emulated, verified and tuned. A cell says
only what a result file says, with its counts; what nobody ran is blank.

    scripts/coverage.py [--collect BUILD/coverage]…

Without --collect the page is made from docs/results/coverage/*.jsonl (and docs/results/*.jsonl, see below), which are
committed. --collect first sums up what the tests left (ctest -L compile in a build folder) and replaces the lines of the
operators and kinds that it finds:

    {"op": "gemm", "dtype": "bf16", "arch": "gfx90a", "what": "compiled", "count": 3, "failed": 0, "not_run": 0, "date": "2026-01-31"}

`what` is compiled (operators_compile_test), emulated (emulate.py), host (host_verify.py, with sanitizers if the build has
them) or mutants (mutants.py; a line a file, "survivors" by name, from full runs only; they make docs/results/mutants.md). Results of hardware are added by hand as
docs/results/coverage/hardware*.jsonl, lines of the same form with "what" verified or tuned and "device" the card's name;
rows of bench/side_by_side.py in docs/results/*.jsonl count as tuned where all of kgen's results were right.
"""
import argparse
import collections
import datetime
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results"
MARK = {"compiled": "c", "emulated": "e", "host": "h", "verified": "v", "tuned": "t"}
ARCHS = ["gfx906", "gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1151", "gfx1200", "gfx1201", "sm_61", "sm_70",
         "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "host"]


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def collect(folder):
    """Sums of a build folder's result files, by kind and key."""
    sums = collections.defaultdict(lambda: collections.defaultdict(dict))
    for path in sorted(pathlib.Path(folder).glob("*.jsonl")):
        date = datetime.date.fromtimestamp(path.stat().st_mtime).isoformat()
        for line in read_lines(path):
            what = line["what"]
            if what == "mutants":
                if line["planted"] == line["of"]:  # not the few of a quick run
                    sums[what][line["file"],] = {"op": line["op"], "file": line["file"], "what": what,
                                                 "planted": line["planted"], "rejected": line["rejected"],
                                                 "survivors": line["survivors"], "errors": len(line["errors"]), "date": date}
                continue
            key = line["op"], line["dtype"], line["arch"]
            entry = sums[what][key]
            if not entry:
                entry.update({"op": key[0], "dtype": key[1], "arch": key[2], "what": what, "count": 0, "failed": 0,
                              "not_run": 0, "date": date})
            if "verdict" in line:
                entry["count"] += line["verdict"] != "NOT RUN"
                entry["failed"] += line["verdict"] == "WRONG"
                entry["not_run"] += line["verdict"] == "NOT RUN"
            else:
                entry["count"] += line["count"]
                entry["failed"] += line["failed"]
    for what, entries in sums.items():
        path = RESULTS / "coverage" / f"{what}.jsonl"
        path.parent.mkdir(exist_ok=True)
        found = {key[0] for key in entries}
        if what == "compiled":  # a file an architecture: only those that ran are new
            found = {(key[0], key[2]) for key in entries}
            kept = [line for line in read_lines(path) if (line["op"], line["arch"]) not in found] if path.exists() else []
        else:
            name = "file" if what == "mutants" else "op"
            kept = [line for line in read_lines(path) if line.get(name) not in found] if path.exists() else []
        lines = sorted(kept + list(entries.values()), key=lambda line: json.dumps(line))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def tuned_rows():
    """bench/side_by_side.py's rows: one count for each problem whose result was right, however many files have it."""
    seen = set()
    for path in sorted(RESULTS.glob("*.jsonl")):
        for line in read_lines(path):
            if "providers" not in line:  # the header of a run, or what another program measured
                continue
            mine = line.get("providers", {}).get("kgen")
            given = {key: value for key, value in line["attributes"].items() if value}
            key = json.dumps([path.name[:4], line["op"], line["dims"], given], sort_keys=True)
            if mine and key not in seen:
                seen.add(key)
                yield {"op": line["op"], "dtype": line["attributes"]["dtype"], "arch": "sm_90" if "h100" in path.name else
                       line.get("arch", ""), "what": "tuned", "count": 1, "failed": int(bool(mine.get("wrong")))}


def render():
    cells = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))  # (op, dtype, arch) → what
    mutants, dates, devices = {}, collections.defaultdict(set), set()
    lines = list(tuned_rows())
    for path in sorted((RESULTS / "coverage").glob("*.jsonl")):
        lines += read_lines(path)
    for line in lines:
        if "date" in line:
            dates[line["what"]].add(line["date"])
        if line.get("device"):
            devices.add(line["device"])
        if line["what"] == "mutants":
            mutants[line["file"]] = line
            continue
        cell = cells[line["op"], line["dtype"], line["arch"]][line["what"]]
        cell.update(count=line["count"], failed=line["failed"], not_run=line.get("not_run", 0))
    ops = {path.stem for path in (ROOT / "ops").glob("*.yaml")}
    rows = sorted({key[:2] for key in cells} | {(op, "") for op in ops - {key[0] for key in cells}})

    def text(op, dtype, arch):
        words = []
        for what, mark in MARK.items():
            count = cells[op, dtype, arch].get(what) if (op, dtype, arch) in cells else None
            if count and count["count"]:
                right = count["count"] - count["failed"]
                words.append(f"{mark}{right}" + (f"**/{count['count']}**" if count["failed"] else ""))
        return " ".join(words)

    out = ["# What was run where", "",
           "Made by `scripts/coverage.py` from the result files in docs/results; a blank cell was not run. A number is how many",
           "candidates (t: problems) were right; **/n** follows where some of n were not.", "",
           "c compiled without spills · e right in the instruction emulator · h right on the host device · "
           "v right on hardware · t tuned on hardware and right", ""]
    out += ["| op | type | " + " | ".join(ARCHS) + " |", "|---|---|" + "---|" * len(ARCHS)]
    for op, dtype in rows:
        out.append(f"| {op} | {dtype} | " + " | ".join(text(op, dtype, arch) for arch in ARCHS) + " |")
    out += ["", "## From when", ""]
    out += [f"- {what}: {', '.join(sorted(found))}" for what, found in sorted(dates.items())]
    out += [f"- hardware: {', '.join(sorted(devices))}"] if devices else []
    out += ["- hardware rows of docs/results/h100.jsonl: docs/results/h100.md says when and on what"]
    out += ["", "Faults planted in the operators and what became of them: [results/mutants.md](results/mutants.md)"]
    (ROOT / "docs/coverage.md").write_text("\n".join(out) + "\n")
    if mutants:
        (RESULTS / "mutants.md").write_text("\n".join(mutant_page(mutants)) + "\n")


def mutant_page(mutants):
    yield from ["# Planted faults", "",
                "Faults of tests/operators/mutants, planted one at a time; verification has to reject each: on the host device, those of",
                "device/ on a GPU that has what they are about (`scripts/verify_device.py --mutants`; kernels that hang where they should count as rejected). Made by",
                "`scripts/coverage.py` from the last full run of", "",
                "```", "KGEN_ALL_MUTANTS=1 ctest --test-dir out/build/dev -R operators_mutants", "```", "",
                "| file | op | planted | rejected | survivors | date |", "|---|---|---|---|---|---|"]
    for name, line in sorted(mutants.items()):
        yield (f"| {name} | {line['op']} | {line['planted']} | {line['rejected']} | {', '.join(line['survivors'])} | "
               f"{line['date']} |")
    planted, rejected, errors = (sum(line[key] for line in mutants.values()) for key in ("planted", "rejected", "errors"))
    yield f"| all | | {planted} | {rejected} | {planted - rejected - errors} | |"
    if errors:
        yield f"\n{errors} could not be planted or gave no verdict."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", action="append", default=[])
    for folder in parser.parse_args().collect:
        collect(folder)
    render()


if __name__ == "__main__":
    main()
