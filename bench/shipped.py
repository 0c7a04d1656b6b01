#!/usr/bin/env python3
"""Makes the database that ships with kgen, db/shipped.db.tar.xz, and its page, docs/results/shipped.md: what a tune of the shape
lists found on an H100, winners and their code objects alone, and for AMD architectures default candidates, compiled and untimed:
for each signature those that most of its shapes have, and what else is needed so that each shape is served (but the edge cases').

    bench/shipped.py tune KGEN SHAPES OUT [--seconds S] [--device D] [--budget N]      on the card; again: goes on
    bench/shipped.py emulate KGEN CASE_TOOL SHAPES OUT [--seconds S]      anywhere: KGEN_AMD_EMU and TINYGRAD_DIR as for emulate.py
    bench/shipped.py make KGEN SHAPES OUT [--to FOLDER]                   anywhere

SHAPES: the folder of shape lists. tune writes OUT/tuned.db; it begins from the winners of earlier runs (docs/results/h100*.jsonl,
ops/priors). emulate runs the AMD defaults at small shapes in the instruction emulator, those with little work first, S seconds an
operator and architecture, into OUT/checked.jsonl: it counts for a default whose source is the same text. make needs OUT/tuned.db,
and takes OUT/checked.jsonl where it is. Exit code 1: a shape has no winner, an architecture lacks an operator that it should
have, the winners of the card have 16 MiB or more, or all of it 24.
"""
import argparse
import collections
import datetime
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
AMD = ["gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1151", "gfx1200", "gfx1201"]
EVERY_OPERATOR = {"gfx90a", "gfx942", "gfx1100", "gfx1201"}  # the others: where it compiles
EMULATED = ["gfx90a", "gfx942", "gfx1100", "gfx1201"]
EDGES = "edge_cases.yaml"  # shapes that nobody runs often
MORE = ["examples/llama2_7b_decode_fused.yaml", "examples/vit_base_fused.yaml", "bench/shipped.yaml"]
BUDGETS = {EDGES: 4}
BUDGET = 16
LIMIT, WHOLE = 16 << 20, 24 << 20  # bytes of the card's winners, and of all
# AMD defaults for a signature (`kgen gen --db --limit`) on the architectures that should have every operator, and on the others (0: none):
# the first with which the file is small enough.
SOURCES = [(3, 1), (2, 1), (1, 1), (1, 0)]
SMALL = [32, 64, 128, 256]  # what dims are cut down to, the first at which a candidate is legal
MAP = 12  # and the sides of maps


def lists(shapes):
    files = sorted(glob.glob(os.path.join(shapes, "*.yaml")), key=lambda path: (os.path.basename(path) == EDGES, path))
    if not files:
        sys.exit(f"{shapes}: no shape lists")
    return [str(ROOT / path) for path in MORE] + files


def run_json(command):
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode > 1:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout)


# tune


def earlier_winners():
    """{op: {signature: {dims: [configs]}}} of the runs on record, newest first."""
    found = collections.defaultdict(lambda: collections.defaultdict(lambda: collections.defaultdict(list)))
    for name in ("h100.jsonl", "h100_products.jsonl", "h100_all.jsonl"):
        for line in reversed((ROOT / "docs/results" / name).read_text().splitlines()):
            row = json.loads(line)
            if not row.get("config"):
                continue
            signature = " ".join([row["op"]] + [f"{key}={value}" for key, value in sorted(row["attributes"].items())])
            dims = " ".join(f"{key}={value}" for key, value in sorted(row["dims"].items()))
            known = found[row["op"]][signature][dims]
            if row["config"] not in known:
                known.append(row["config"])
    return found


def write_priors(folder):
    """What ships in ops/priors, and before it the winners on record of the very shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = earlier_winners()
    for path in sorted((ROOT / "ops/priors").glob("*.yaml")):
        text = path.read_text()
        more = []
        known = ours.get(path.stem, {})
        for signature, shapes in sorted(known.items()):
            if f'  "{signature}":' in text:  # a key stands once
                continue
            more.append(f'  "{signature}":')
            for dims, configs in sorted(shapes.items()):
                more += [f'    "{dims}":'] + [f"      - {config}" for config in configs[:2]]
        head, _, rest = text.partition("hopper:\n")
        if not _:
            head, rest = text + ("" if text.endswith("\n") else "\n"), ""
        # Signatures that both have: those on record lead their list.
        out, signature, lead = [], None, []
        for line in rest.splitlines():
            if found := re.fullmatch(r'  "(.*)":', line):
                signature = found[1]
            if line in lead:
                continue
            out.append(line)
            if shape := re.fullmatch(r'    "(.*)":', line):
                lead = [f"      - {config}" for config in known.get(signature, {}).get(shape[1], [])[:2]]
                out += lead
        (folder / path.name).write_text(head + "\n".join(["hopper:", *more, *out]) + "\n")


def tune(options):
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    write_priors(out / "priors")
    end = time.monotonic() + options.seconds
    by_budget = collections.defaultdict(list)
    for path in lists(options.shapes):
        by_budget[min(BUDGETS.get(os.path.basename(path), BUDGET), options.budget)].append(path)
    status = 0
    for number, (budget, files) in enumerate(sorted(by_budget.items(), reverse=True)):
        left = end - time.monotonic()
        if left < 5:
            print(f"no time for {len(files)} lists with a budget of {budget}: run it again")
            status = 1
            continue
        with open(out / f"tune.{number}.json", "w") as told:
            process = subprocess.Popen([options.kgen, "tune", *files, "--device", options.device, "--budget", str(budget), "--op",
                                        options.op, "--prior", str(out / "priors"), "--db", str(out / "tuned.db"), "--json"], stdout=told)
            try:
                code = process.wait(left)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # it stops after the running candidate and leaves a whole file
                code = process.wait()
                print("the time is over: run it again, it goes on")
                status = 1
        print(f"budget {budget}, {len(files)} lists: exit code {code}")
        status = max(status, code if code == 3 else 0)
    if (out / "tuned.db").exists():
        print(f"tuned.db: {(out / 'tuned.db').stat().st_size} bytes")
    return status


# emulate


def attribute(text):
    """An attribute's value of a signature as YAML takes it."""
    if "," in text and "(" not in text:
        return [int(part) if part.lstrip("-").isdigit() else part for part in text.split(",")]
    return int(text) if text.lstrip("-").isdigit() else text


def entry_of(item, limit):
    """The spec entry with the same candidate at dims of about `limit`."""
    words = item["config"].split(" ")
    attributes = dict(word.split("=", 1) for word in item["signature"].split(" ")[1:])
    entry = {"op": item["op"], **{name: attribute(value) for name, value in attributes.items() if value}}
    dims = {}
    for name, value in item["dims"].items():
        value = int(value)
        most = MAP if name in ("h", "w") and "w" in item["dims"] else limit
        dims[name] = value if value <= most else most + value % 16
    params = {}
    for word in words[1:]:
        name, value = word.split("=", 1)
        if name not in attributes:
            params[name] = [int(value) if value.lstrip("-").isdigit() else value]
    return {**entry, "problems": [dims], "tune": {"params": params}}


def defaults(kgen, files, arch, op, folder):
    """Each problem's default on an architecture, as `kgen gen --json` tells it."""
    told = run_json([kgen, "gen", *files, "--arch", arch, "--op", op, "--per-variant", "1", "--json", "-o", str(folder)])
    first = {}
    for item in told["files"]:
        first.setdefault((item["signature"], json.dumps(item["dims"], sort_keys=True)), item)
    return list(first.values())


def sources_of(kgen, entries, folder, arch):
    """Hashes of the sources that the entries' defaults have; an entry that breaks a rule has none, and is found by halves."""
    if not entries:
        return set()
    spec = folder / "small.yaml"
    spec.write_text(json.dumps({"kgen": 1, "ops": entries}))  # JSON is YAML
    done = subprocess.run([kgen, "gen", str(spec), "--arch", arch, "--per-variant", "1", "--json", "-o", str(folder)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode == 0:
        return {made["source_hash"] for made in json.loads(done.stdout)["files"]}
    if len(entries) == 1:
        return set()
    half = len(entries) // 2
    return sources_of(kgen, entries[:half], folder, arch) | sources_of(kgen, entries[half:], folder, arch)


def small_spec(kgen, items, folder, arch):
    """(spec entries, how many sources found none) for one item of each source."""
    wanted = {}
    for item in items:
        wanted.setdefault(item["source_hash"], item)
    chosen = {}
    for limit in SMALL:
        entries = {key: entry_of(item, limit) for key, item in wanted.items() if key not in chosen}
        made = sources_of(kgen, list(entries.values()), folder, arch)
        chosen |= {key: entry for key, entry in entries.items() if key in made}
    return list(chosen.values()), len(wanted) - len(chosen)


def emulate(options):
    out = pathlib.Path(options.out)
    folder = out / "emulate"
    folder.mkdir(parents=True, exist_ok=True)
    checked = out / "checked.jsonl"
    for arch in EMULATED:
        items = defaults(options.kgen, lists(options.shapes), arch, options.op, folder)
        known = set()
        if checked.exists():
            known = {(line["arch"], line["source_hash"]) for line in map(json.loads, checked.read_text().splitlines())
                     if line["verdict"] != "NOT RUN"}
        items = [item for item in items if (arch, item["source_hash"]) not in known]
        entries, none = small_spec(options.kgen, items, folder, arch)
        print(f"{arch}: {len(entries)} sources at small shapes, {none} that are legal at none", flush=True)
        if not entries:
            continue
        spec, results = folder / f"{arch}.yaml", folder / f"{arch}.jsonl"
        spec.write_text(json.dumps({"kgen": 1, "ops": entries}))
        begin = time.monotonic()
        subprocess.run([sys.executable, ROOT / "tests/operators/emulate.py", "--kgen", options.kgen, "--case-tool", options.case_tool,
                        "--arch", arch, "--seconds", str(options.seconds), "--results", results, spec])
        if results.exists():
            with open(checked, "a") as file:
                file.write(results.read_text())
            print(f"{arch}: {time.monotonic() - begin:.0f} s", flush=True)
    return 0


# make


def writes_nothing(item):
    """Nothing is launched for it."""
    return any(argument["role"] in ("out", "inout") and argument.get("present") and argument["bytes"] == 0
               for argument in item["arguments"])


def key_of(row):
    return row["signature"], json.dumps({name: int(value) for name, value in row["dims"].items()}, sort_keys=True)


def page(rows, asked, date):
    """docs/results/shipped.md."""
    tuned = collections.Counter(row["op"] for row in rows if not row["untimed"])
    untimed = collections.defaultdict(collections.Counter)
    checked = collections.defaultdict(collections.Counter)
    for row in rows:
        if row["untimed"]:
            untimed[row["op"]][row["arch"]] += 1
            checked[row["op"]][row["arch"]] += "right in" in row["reason"]
    cards = sorted({f"{row['device']} ({row['arch']}, {row['driver']})" for row in rows if not row["untimed"]})
    yield from ["# The database that ships", "",
                f"Made by `bench/shipped.py make`, {date}. What it is for and where it lies: [../database.md](../database.md).", "",
                f"Tuned: {', '.join(cards) or 'nothing yet'}: winners of the shape lists, searches of few candidates that began from the winners of "
                "earlier runs (`kgen show --top` tells the trials of a run's own file). AMD: default candidates, compiled and",
                "**not timed**, on no card: for each signature (operator and attributes) those that most of its shapes have as their own, and what else is needed so",
                "that each shape is served (edge cases apart). A number is rows; e: of how many the very source was right in the instruction emulator at small shapes. The others were not run at all.", "",
                "| op | tuned | " + " | ".join(AMD) + " |", "|---|--:|" + "--:|" * len(AMD)]
    for op in sorted(set(tuned) | set(untimed)):
        cells = [f"{untimed[op][arch]}" + (f" (e {checked[op][arch]})" if checked[op][arch] else "") if untimed[op][arch] else ""
                 for arch in AMD]
        yield f"| {op} | {tuned[op] or ''} | " + " | ".join(cells) + " |"
    total = lambda counts, arch: sum(count[arch] for count in counts.values())
    yield ("| all | " + f"{sum(tuned.values())} | " +
           " | ".join(f"{total(untimed, arch)} (e {total(checked, arch)})" for arch in AMD) + " |")
    yield ""
    yield f"Of {len(asked)} shapes of the lists that launch anything, {asked_tuned(rows, asked)} have a winner."


def asked_tuned(rows, asked):
    have = {key_of(row) for row in rows if not row["untimed"]}
    return sum(key in have for key in asked)


def make(options):
    out = pathlib.Path(options.out)
    made = out / "shipped.db"
    folder = out / "make"
    files = lists(options.shapes)  # the edge cases last: AMD defaults are not made for them
    base = out / "winners.db"
    for path in (base, made):
        for suffix in ("", "-wal", "-shm"):
            pathlib.Path(f"{path}{suffix}").unlink(missing_ok=True)
    if (out / "tuned.db-wal").exists():
        sys.exit(f"{out}/tuned.db: a tune is at work, or was killed: `kgen db check` merges its log")
    shutil.copy(out / "tuned.db", base)
    subprocess.run([options.kgen, "db", "check", base], check=True)
    subprocess.run([options.kgen, "db", "prune", base, "--failures", "--keep-top", "1"], check=True)
    print(f"winners alone: {base.stat().st_size} bytes")
    checked = ["--checked", str(out / "checked.jsonl")] if (out / "checked.jsonl").exists() else []
    status = 0
    for sources in SOURCES:
        shutil.copy(base, made)
        told = {"defaults": []}
        for archs, limit in zip((sorted(EVERY_OPERATOR), sorted(set(AMD) - EVERY_OPERATOR)), sources):
            if limit == 0:
                continue
            told["defaults"] += run_json([options.kgen, "gen", *(path for path in files if not path.endswith(EDGES)), "--op", options.op, "--arch", ",".join(archs), "--limit",
                                          str(limit), "--db", str(made), *checked, "--json"])["defaults"]
        print(f"{sources[0]} and {sources[1]} sources a signature: {made.stat().st_size} bytes", flush=True)
        if made.stat().st_size < WHOLE:
            break
    lacking = collections.defaultdict(lambda: collections.defaultdict(list))  # op → arch → reasons
    stored = {(row["op"], row["arch"]) for row in told["defaults"] if row["config"]}
    for row in told["defaults"]:
        if not row["config"]:
            lacking[row["op"]][row["arch"]].append(row["reason"])
    for op, archs in sorted(lacking.items()):
        for arch, reasons in sorted(archs.items()):
            whole = (op, arch) not in stored
            print(f"{'no default' if whole else 'some shapes without a default'} of {op} on {arch}: {reasons[0]}")
            status |= whole and arch in EVERY_OPERATOR
    subprocess.run([options.kgen, "db", "check", made], check=True)
    rows = run_json([options.kgen, "show", str(made), "--format", "json"])["winners"]
    arch = next((row["arch"] for row in rows if not row["untimed"]), "sm_90")
    asked = {}
    for item in defaults(options.kgen, files, arch, options.op, folder):
        if not writes_nothing(item):
            asked.setdefault(key_of(item), item)
    have = {key_of(row) for row in rows if not row["untimed"]}
    missing = [item for key, item in asked.items() if key not in have]
    for item in missing[:20]:
        print(f"no winner: {item['label']} {item['signature']} {item['dims']}")
    if missing:
        print(f"{len(missing)} of {len(asked)} shapes have no winner")
        status = 1
    size = made.stat().st_size
    print(f"{made}: {size} bytes")
    if size >= WHOLE or base.stat().st_size >= LIMIT:
        print(f"{made} has {WHOLE >> 20} MiB or more, or its winners {LIMIT >> 20}")
        status = 1
    target = pathlib.Path(options.to)
    (target / "db").mkdir(parents=True, exist_ok=True)
    (target / "docs/results").mkdir(parents=True, exist_ok=True)
    archive = target / "db/shipped.db.tar.xz"
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        entry = tarfile.TarInfo("shipped.db")
        entry.size, entry.mode, entry.mtime = size, 0o644, int(time.time())
        with open(made, "rb") as content:
            packed.addfile(entry, content)
    print(f"{archive}: {archive.stat().st_size} bytes")
    date = datetime.date.today().isoformat()
    (target / "docs/results/shipped.md").write_text("\n".join(page(rows, asked, date)) + "\n")
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, work in (("tune", tune), ("emulate", emulate), ("make", make)):
        command = commands.add_parser(name)
        command.set_defaults(work=work)
        command.add_argument("kgen")
        if name == "emulate":
            command.add_argument("case_tool")
        command.add_argument("shapes")
        command.add_argument("out")
        command.add_argument("--op", default="*", help="only operators whose name matches")
        if name == "tune":
            command.add_argument("--seconds", type=float, default=560)
            command.add_argument("--device", default="nvidia:0")
            command.add_argument("--budget", type=int, default=BUDGET, help="candidates a problem")
        if name == "emulate":
            command.add_argument("--seconds", type=float, default=10, help="for each operator and architecture")
        if name == "make":
            command.add_argument("--to", default=str(ROOT), help="folder that gets db/shipped.db.tar.xz and docs/results/shipped.md")
    options = parser.parse_args()
    sys.exit(options.work(options))


if __name__ == "__main__":
    main()
