#!/usr/bin/env python3
"""Is the winner of a tune real? Tunes problems of different operators again and again, each time with another seed into a new database, then once a
problem with a competing load that starts halfway; then times the winners of all runs beside each other, in turns, in one process.

    bench/repeat.py KGEN SPEC OUT [--device nvidia:0] [--runs 20] [--budget 64] [--rounds 200] [--seconds 240]

A run counts as good where its winner is the best of all runs' winners or within 1 % of it by the median of paired ratios; the run with a load within
2 %. No run's own number decides. The load is another process that multiplies matrices on the same GPU (PyTorch), or, on the host device,
that keeps every core busy; it runs from the moment that half of the budget has been tried until the tune ends.
Writes OUT/repeat.jsonl (a line a problem and kernel) and OUT/repeat.md as it goes: what the time ended stands there with its
number of runs. Ends with 1 where a winner is not good. Databases stay in OUT/db. The compiler cache is shared, so that a
candidate compiles once.
"""
import argparse
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time

GOOD, GOOD_UNDER_LOAD = 1.01, 1.02


def matrices(start, stop, ready):
    """The competing load on a GPU: products of 4096 in bf16, one after the other."""
    import torch

    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(a)
    torch.mm(a, a, out=out)
    torch.cuda.synchronize()
    ready.set()
    while not stop.is_set():
        start.wait()
        for _ in range(20):
            torch.mm(a, a, out=out)
        torch.cuda.synchronize()


def arithmetic(start, stop, ready):
    ready.set()
    while not stop.is_set():
        start.wait()
        sum(i * i for i in range(100_000))


class Load:
    """A process (on the host one a core) that computes while it is switched on."""

    def __init__(self, device):
        fork = multiprocessing.get_context("spawn")
        self.start, self.stop, self.ready = fork.Event(), fork.Event(), fork.Event()
        host = device == "host"
        self.processes = [fork.Process(target=arithmetic if host else matrices, args=(self.start, self.stop, self.ready), daemon=True)
                          for _ in range(os.cpu_count() if host else 1)]
        for process in self.processes:
            process.start()
        if not self.ready.wait(60):
            sys.exit("the competing load did not start")

    def end(self):
        self.stop.set()
        self.start.set()
        for process in self.processes:
            process.join(10)
            process.kill()


def tried(path):
    """Candidates that a running tune has in its database."""
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)
        try:
            return db.execute("SELECT count(*) FROM trial").fetchone()[0]
        finally:
            db.close()
    except sqlite3.Error:
        return 0


def tune(options, db, seed, extra=(), halfway=None):
    command = [options.kgen, "tune", options.spec, "--device", options.device, "--budget", str(options.budget), "--seed", str(seed),
               "--db", db, "--json", *extra]
    began = time.monotonic()
    with open(db + ".log", "w") as log, open(db + ".json", "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=log)
        switched = None
        while process.poll() is None:
            time.sleep(0.02)
            if halfway and switched is None and tried(db) >= options.budget // 2:
                halfway.start.set()
                switched = tried(db)
        if halfway:
            halfway.start.clear()
    if process.returncode != 0:
        with open(db + ".log") as log:
            sys.exit(f"tune ended with {process.returncode}: {log.read()[-400:]}")
    with open(db + ".json") as out:
        rows = json.load(out)["rows"]
    return {"db": db, "seed": seed, "seconds": round(time.monotonic() - began, 2), "load_from": switched, "rows": rows}


def bench(options, runs):
    """Rows of `kgen bench` over all databases: every winner of a problem in turns with the others."""
    command = [options.kgen, "bench", *[run["db"] for run in runs], "--device", options.device, "--rounds", str(options.rounds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout:
        sys.exit(f"bench ended with {done.returncode}: {done.stderr[-400:]}")
    return json.loads(done.stdout)["rows"]


def write(options, runs, began):
    good = True
    lines = ["# Repeated tunes", "",
             f"`bench/repeat.py KGEN {os.path.basename(options.spec)} OUT --device {options.device} --runs {options.runs} --budget {options.budget}`: "
             f"{sum(not run['loaded'] for run in runs)} runs with other seeds, each into a new database, "
             f"{sum(run['loaded'] for run in runs)} with a competing load from half of the budget on. The winners of all runs were then timed in turns in "
             "one process; `worst` is the greatest median of paired ratios to the best of them.", "",
             "| problem | runs | kernels that won | best us | within 1 % | worst | under load | told by the runs, us |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    with open(os.path.join(options.out, "repeat.jsonl"), "w") as out:
        for row in bench(options, runs):
            name = row["label"] or row["signature"].split(" ")[0]
            quiet, loaded, told = [], [], []
            for entry in row["entries"]:
                here = [runs[file] for file in entry["files"]]
                quiet += [entry["over_best"] for run in here if not run["loaded"]]
                loaded += [entry["over_best"] for run in here if run["loaded"]]
                told += [r["time_us"] for run in here if not run["loaded"] for r in run["rows"] if r["label"] == row["label"]]
                out.write(json.dumps({"problem": name, "signature": row["signature"], "dims": row["dims"], **entry,
                                      "seeds": [run["seed"] for run in here if not run["loaded"]],
                                      "under_load": sum(run["loaded"] for run in here)}) + "\n")
            if row["note"] or not quiet:
                lines.append(f"| {name} | {len(quiet)} | {row['note']} | | | | | |")
                good = False
                continue
            within = sum(ratio <= GOOD for ratio in quiet)
            good &= within == len(quiet) and all(ratio <= GOOD_UNDER_LOAD for ratio in loaded)
            lines.append(f"| {name} | {len(quiet)} | {len(row['entries'])} | {row['entries'][0]['time_us']:.2f} | {within} of {len(quiet)} | "
                         f"{100 * max(quiet) - 100:+.2f} % | {', '.join(f'{100 * r - 100:+.2f} %' for r in loaded) or 'not run'} | "
                         f"{min(told):.2f} to {max(told):.2f} |")
    seconds = [run["seconds"] for run in runs if not run["loaded"]]
    lines += ["", f"A run of all problems took {min(seconds):.1f} to {max(seconds):.1f} s; all of it {time.monotonic() - began:.0f} s."]
    with open(os.path.join(options.out, "repeat.md"), "w") as page:
        page.write("\n".join(lines) + "\n")
    return lines, good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kgen")
    parser.add_argument("spec")
    parser.add_argument("out")
    parser.add_argument("--device", default="nvidia:0")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--budget", type=int, default=64, help="candidates of a problem in a run")
    parser.add_argument("--rounds", type=int, default=200, help="samples of each winner at the end")
    parser.add_argument("--seconds", type=float, default=1e9, help="no further run begins after so long")
    options = parser.parse_args()
    began = time.monotonic()
    os.makedirs(os.path.join(options.out, "db"), exist_ok=True)
    path = lambda name: os.path.join(options.out, "db", name + ".db")
    for name in os.listdir(os.path.join(options.out, "db")):
        os.remove(os.path.join(options.out, "db", name))
    load = Load(options.device)
    runs = []
    try:
        # The runs under load come after the first quiet one, so that a run that is cut short has them.
        for number in range(1, options.runs + 1):
            if time.monotonic() - began > options.seconds:
                break
            runs.append(tune(options, path(f"run{number}"), number) | {"loaded": False})
            print(f"run {number}: {runs[-1]['seconds']} s", flush=True)
            if number > 1:
                continue
            for row in runs[0]["rows"]:
                runs.append(tune(options, path("load_" + row["op"]), 1000, ["--op", row["op"]], load) | {"loaded": True})
                print(f"{row['label']} with a load from candidate {runs[-1]['load_from']} on: {runs[-1]['seconds']} s", flush=True)
                if runs[-1]["load_from"] is None:
                    runs.pop()
            write(options, runs, began)
    finally:
        load.end()
    lines, good = write(options, runs, began)
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
