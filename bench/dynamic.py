"""Problems with a dynamic dim against tuning each of held-back sizes: what the runtime chooses for a size that was never tuned,
beside the winner of a search at that very size, in turns in one process.

    dynamic.py --kgen path/to/kgen --lib path/to/libkgen.so --out FOLDER [--device nvidia:0] [--spec dynamic.yaml]

1. `kgen tune` of the spec (below, or --spec): one cover of at most `max_kernels` kernels for each problem.
2. Held-back sizes are drawn: half of them with even logarithms, half evenly, none that was measured in step 1. `kgen tune`
   searches each of them, in a copy of the database, so that the search knows the cover's kernels as well.
3. Both kernels run on the same operands through libkgen, L2 displaced before each sample (bench/side_by_side.py). Regret is
   the ratio of their medians less one, zero where the cover's kernel is the quicker one or the very same.

FOLDER gets dynamic.md, dynamic.jsonl, dynamic.json, held.json and both databases. --host stands for a device without PyTorch: ratios
are those of the times in the databases, taken in different runs. --table makes the table from dynamic.jsonl and dynamic.json again.
"""
import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

import yaml

SPEC = """
kgen: 1
ops:
  - op: gemm
    name: llama2_7b.wqkv
    dtype: bf16
    b_layout: nk
    problems: [{m: {range: [1, 4096]}, n: 12288, k: 4096}]
    tune: {max_kernels: 12, regret: 0.01}
  - op: gemm
    name: llama2_7b.w2
    dtype: bf16
    b_layout: nk
    epilogue: [add_residual]
    problems: [{m: {range: [1, 4096]}, n: 4096, k: 11008}]
    tune: {max_kernels: 12, regret: 0.01}
  - op: gptq_gemm
    name: qwen2_5_7b.o_proj
    dtype: fp16
    bits: 4
    sym: true
    desc_act: false
    v2: false
    problems: [{m: {range: [1, 4096]}, n: 3584, k: 3584, group_size: 128, groups: 28}]
    tune: {max_kernels: 12, regret: 0.01}
"""
ATTEMPTS = 10_000


def held_back(first, last, measured, count, seed):
    """Half with even logarithms, half evenly spread; fewer where the range has no more."""
    lots = random.Random(seed)
    chosen = set()
    for attempt in range(ATTEMPTS):
        if len(chosen) == count:
            break
        even_logarithm = len(chosen) < count // 2
        size = round(first * (last / first) ** lots.random()) if even_logarithm else lots.randint(first, last)
        if size not in measured:
            chosen.add(size)
    return sorted(chosen)


def tune(options, arguments, json_path, seconds):
    """kgen tune --json; stopped after `seconds` with what it has by then."""
    begin = time.monotonic()
    with open(json_path, "w") as out, open(json_path[:-5] + ".log", "w") as log:
        process = subprocess.Popen([options.kgen, "tune", *arguments, "--device", options.device, "--json"], stdout=out, stderr=log)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
    with open(json_path[:-5] + ".log") as log:
        said = log.read()
    if os.path.getsize(json_path) == 0:
        print(f"kgen tune failed: {said[-2000:]}", flush=True)
        return None
    with open(json_path) as file:
        outcome = json.load(file)
    print(f"{os.path.basename(json_path)}: {outcome['verified']} candidates verified in {time.monotonic() - begin:.1f} s", flush=True)
    return outcome


def held_spec(outcome, options):
    """The problems of the covers at held-back sizes, those of all problems in turns: a run that is cut short has some of each."""
    problems = []
    for row in outcome["rows"]:
        cover = row.get("dynamic")
        if not cover:
            print(f"{row['op']} {row['label']}: no cover: {row['note']}", flush=True)
            continue
        sizes = held_back(cover["first"], cover["last"], set(cover["sizes"]), options.sizes, options.seed)
        random.Random(options.seed).shuffle(sizes)
        dims = {name: value for name, value in row["dims"].items() if name != cover["dim"]}
        problems.append([(row, dims | {cover["dim"]: size}) for size in sizes])
    if not problems:
        sys.exit("no problem has a cover")
    ops = []
    for turn in range(max(map(len, problems))):
        for row, dims in (p[turn] for p in problems if turn < len(p)):
            attributes = {name: value.split(",") if name == "epilogue" and value else value for name, value in row["attributes"].items() if value}
            ops.append({"op": row["op"], "name": row["label"], **attributes, "problems": [dims]})
    return {"kgen": 1, "ops": ops}


def winners(options, db):
    text = subprocess.run([options.kgen, "show", db, "--format", "json"], check=True, capture_output=True, text=True).stdout
    return [row for row in json.loads(text)["winners"] if "serves" not in row]


def looked_up(options, db, row):
    words = [f"{name}={value}" for name, value in (row["attributes"] | row["dims"]).items() if value != ""]
    found = subprocess.run([options.kgen, "lookup", db, row["op"], *words, "--arch", row["arch"], "--json"], check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


def compare_on_gpu(options, dynamic_db, held_db, rows):
    import torch
    from side_by_side import Kgen, Timer, relative_l2
    from torch_cases import CASES

    torch.manual_seed(1)
    random.seed(1)
    timer = Timer(40, 60.0)
    cover, held = Kgen(options.lib, dynamic_db), Kgen(options.lib, held_db)
    with torch.no_grad():
        for row in rows:
            case = CASES[row["op"]](row["dims"], row["attributes"])
            output = case.operands[case.outputs[0]]
            calls, results = {}, {}
            for name, library in (("cover", cover), ("held", held)):
                calls[name], _ = library.callable(row["op"], row["attributes"], row["dims"], case.operands)
                calls[name]()
                torch.cuda.synchronize()
                results[name] = output.clone()
            row["cover_rel_l2"] = relative_l2([results["cover"]], [results["held"].double()])
            samples = timer.interleaved(calls)
            row["cover_us"], row["held_us"] = (statistics.median(samples[name]) for name in ("cover", "held"))
            yield row


def compare_recorded(options, held_db, rows):
    text = subprocess.run([options.kgen, "show", held_db, "--top", "1000", "--format", "json"], check=True, capture_output=True, text=True).stdout
    candidates = {(w["signature"], json.dumps(w["dims"])): {c["config"]: c["time_us"] for c in w["candidates"]} for w in json.loads(text)["winners"] if "serves" not in w}
    for row in rows:
        row["held_us"] = row["time_us"]
        row["cover_us"] = candidates[row["signature"], json.dumps(row["dims"])].get(row["cover_config"])
        yield row


def table(outcome, rows, device):
    lines = [f"{device}. The range of each problem was tuned as one dynamic dim; then each of the held-back sizes was searched by itself, "
             "and both kernels were timed in turns in one process (bench/dynamic.py).", "",
             "| problem | kernels | sizes measured | tuned in s | held-back sizes | worst regret | mean regret | quicker than the search | predicted worst | predicted mean | median of sizes |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    by_label = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    for problem in outcome["rows"]:
        if "dynamic" not in problem:
            continue
        cover, mine = problem["dynamic"], [row for row in by_label.get(problem["label"], []) if row.get("regret") is not None]
        if not mine:
            continue
        regrets = [row["regret"] for row in mine]
        dims = " ".join(f"{name}={value}" for name, value in problem["dims"].items())
        lines.append(f"| {problem['label']} {dims} | {len(cover['kernels'])} | {len(cover['sizes'])} | {problem['seconds']:.0f} | {len(mine)} | "
                     f"{100 * max(regrets):.1f} % | {100 * statistics.mean(regrets):.2f} % | {sum(row['cover_us'] < 0.99 * row['held_us'] for row in mine)} | "
                     f"{100 * cover['predicted_regret']['worst']:.1f} % | {100 * cover['predicted_regret']['mean']:.2f} % | {100 * statistics.median(regrets):.2f} % |")
    for label, mine in by_label.items():
        lines += ["", f"### {label}", "", "| m | cover us | held-back winner us | regret | expected | cover's kernel | held-back winner |", "| --- | --- | --- | --- | --- | --- | --- |"]
        for row in sorted(mine, key=lambda row: row["size"]):
            if row.get("regret") is None:
                lines.append(f"| {row['size']} | not timed | {row['held_us']:.2f} | | | {row['cover_config']} | {row['config']} |")
                continue
            same = "the same" if row["config"] == row["cover_config"] else row["config"]
            lines.append(f"| {row['size']} | {row['cover_us']:.2f} | {row['held_us']:.2f} | {100 * row['regret']:.1f} % | {100 * (row['expected_loss'] or 0):.1f} % | {row['cover_config']} | {same} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--lib", help="libkgen.so; not with --host")
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="nvidia:0")
    parser.add_argument("--spec", help="instead of the spec in this file")
    parser.add_argument("--sizes", type=int, default=40, help="held back of each problem")
    parser.add_argument("--budget", type=int, default=64, help="candidates of each size that the dynamic tune searches")
    parser.add_argument("--held-budget", type=int, default=16, help="candidates of each held-back size")
    parser.add_argument("--seconds", type=float, default=220, help="of the dynamic tune at most")
    parser.add_argument("--held-seconds", type=float, default=140, help="of the held-back tunes at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--host", action="store_true", help="compare recorded times; no PyTorch")
    parser.add_argument("--table", action="store_true", help="only the table, from the files of a run")
    options = parser.parse_args()
    at = lambda name: os.path.join(options.out, name)
    if options.table:
        with open(at("dynamic.json")) as file, open(at("dynamic.jsonl")) as lines:
            outcome, rows = json.load(file), [json.loads(line) for line in lines]
        with open(at("dynamic.md"), "w") as file:
            file.write(table(outcome, rows, outcome["device"]))
        return 0

    os.makedirs(options.out, exist_ok=True)
    spec = options.spec
    if not spec:
        spec = at("dynamic.yaml")
        with open(spec, "w") as file:
            file.write(SPEC)
    # One run for each problem: what goes wrong with one leaves the others.
    with open(spec) as file:
        whole = yaml.safe_load(file)
    outcome = None
    for number, entry in enumerate(whole["ops"]):
        with open(at(f"dynamic.{number}.yaml"), "w") as file:
            json.dump(whole | {"ops": [entry]}, file)
        part = tune(options, [at(f"dynamic.{number}.yaml"), "--db", at("dynamic.db"), "--budget", str(options.budget)],
                    at(f"dynamic.{number}.json"), options.seconds / len(whole["ops"]))
        if part is not None:
            outcome = part if outcome is None else outcome | {"rows": outcome["rows"] + part["rows"]}
    if outcome is None:
        sys.exit("no problem was tuned")
    with open(at("dynamic.json"), "w") as file:
        json.dump(outcome, file, indent=1)
    for row in outcome["rows"]:
        if cover := row.get("dynamic"):
            print(f"{row['label']}: {len(cover['kernels'])} kernels, {len(cover['sizes'])} sizes, {row['seconds']:.0f} s, predicted regret "
                  f"{100 * cover['predicted_regret']['worst']:.1f} % at most, {100 * cover['predicted_regret']['mean']:.2f} % on average", flush=True)
    with open(at("held.yaml"), "w") as file:
        json.dump(held_spec(outcome, options), file, indent=1)  # YAML, too
    shutil.copy(at("dynamic.db"), at("held.db"))
    if tune(options, [at("held.yaml"), "--db", at("held.db"), "--budget", str(options.held_budget)], at("held.json"), options.held_seconds) is None:
        return 1

    outcome["rows"] = [row for row in outcome["rows"] if "dynamic" in row]
    dims = {row["label"]: row["dynamic"]["dim"] for row in outcome["rows"]}
    rows = []
    for row in winners(options, at("held.db")):
        choice = looked_up(options, at("dynamic.db"), row)
        rows.append({name: row[name] for name in ("op", "label", "signature", "dims", "attributes", "config", "time_us", "arch")} |
                    {"size": row["dims"].get(dims[row["label"]], 1), "match": choice["match"], "cover_config": choice.get("config"), "expected_loss": choice["expected_loss"]})
    rows = [row for row in rows if row["match"] == "dynamic"]
    compared = compare_recorded(options, at("held.db"), rows) if options.host else compare_on_gpu(options, at("dynamic.db"), at("held.db"), rows)
    done = []
    with open(at("dynamic.jsonl"), "w") as file:
        for row in compared:
            row["regret"] = None
            if row["cover_us"] is not None:
                row["regret"] = 0.0 if row["config"] == row["cover_config"] else max(0.0, row["cover_us"] / row["held_us"] - 1)
            file.write(json.dumps(row) + "\n")
            file.flush()
            done.append(row)
    rows = done
    text = table(outcome, rows, outcome["device"])
    with open(at("dynamic.md"), "w") as file:
        file.write(text)
    print("\n".join(text.splitlines()[:9]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
