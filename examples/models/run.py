"""Whole models: torch eager, torch.compile in its modes, and kgen's kernels; the same weights and inputs, one table.

    run.py --db models.db --kgen path/to/kgen --tune 90          # tunes what the models need (90 s at most), then times everything
    run.py --db models.db --jsonl models.jsonl --markdown models.md [--models 'llama*,vit_base'] [--modes eager,kgen] [--seconds 300]

Each model in each mode is a process of its own (eager and graph share one, so do default and default-graph). Processes are made ready side by side (weights,
compilation, capture), as many as memory and --jobs allow; then, one at a time with all others waiting, each is timed. What is not
ready after its seconds is ended and recorded as such. So torch.compile's autotuning shares the device with the other processes
that are being made ready; --jobs 1 gives it a device of its own. Rows are appended as they come; a later call takes up what has no
time yet (--again: everything), and --markdown alone makes the table from the rows, of each model and mode the newest.

A sample is the time between two device events round one call on an idle device, so what the host spends before the first
kernel counts; `wall_us` is the host's clock until the device has finished. 50 samples, after 0.3 s of calls. Modes:

    eager, graph     the module as it is; the same captured in a CUDA graph
    default, reduce-overhead, max-autotune    torch.compile's modes (max-autotune: with freezing where the model has batch norms)
    default-graph    the compiled module captured in a graph
    kgen             Model.kernels in a CUDA graph
    kgen+torch       the same with products and attention of many rows by torch, for models that have such

Outputs are compared with those of the module in float32 without TF32: `rel_l2` is ||output - float32|| / ||float32||. kgen's may be at most 1.5 times that of torch eager (and 1e-4).
"""
import argparse
import concurrent.futures
import datetime
import fnmatch
import importlib
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = ["vit_base", "resnet152", "llama2_7b", "qwen2_5_7b_gptq", "mhc", "qwen2_vl", "doclayout_yolo"]
KGEN = ["kgen", "kgen+torch"]
COMPILED = ["default", "reduce-overhead", "max-autotune"]
TORCH = ["eager", "graph", "default", "default-graph", "reduce-overhead", "max-autotune"]
# What shares a process: the module as it is and in float32, and what a graph is captured of.
GROUPS = [[("eager", "graph", "float32"), ("kgen",), ("kgen+torch",)], [("default", "default-graph"), ("reduce-overhead",), ("max-autotune",)]]
# What this project set out to reach: the quickest torch mode's time over kgen's.
EXPECTED = {"vit_base": 1, "resnet152": 1, "llama2_7b_decode": 1, "qwen2_5_7b_gptq_decode": 2, "qwen2_vl_patch_embed": 5, "mhc_t1": 2,
            "mhc_t4096": 2}


def models(patterns=("*",)):
    sys.path.insert(0, HERE)
    found = {}
    for name in FILES:
        for kind in importlib.import_module(name).MODELS:
            if any(fnmatch.fnmatch(kind.name, pattern) for pattern in patterns):
                found[kind.name] = kind
    return found


# ---- one process: one model in one mode

def captured(call):
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay():
        graph.replay()
        return result

    replay.reads = call  # the graph has the addresses of weights and code that `call` alone may hold
    return replay


def prepared(model, mode, db):
    """(function of no arguments that gives the output, facts for the row, module, inputs)."""
    import torch

    if mode in KGEN:
        import kgen
        from common import Kernels, Mixed

        module = model.packed() if hasattr(model, "packed") else model.module()
        inputs = model.inputs()
        kernels = (Mixed if mode == "kgen+torch" else Kernels)(kgen.open(db))
        run = model.kernels(kernels, module)
        run(*inputs)
        facts = {"served": dict(kernels.served), "calls": dict(kernels.kinds), "near": dict(kernels.near)}
        return captured(lambda: run(*inputs)), facts, module, inputs
    module, inputs = model.module(), model.inputs()
    if mode in COMPILED:
        if mode == "max-autotune" and model.freezing:
            torch._inductor.config.freezing = True
        compiled = torch.compile(module, mode=mode, fullgraph=True, dynamic=False)

        def call():
            torch.compiler.cudagraph_mark_step_begin()
            return compiled(*inputs)

        return call, {}, module, inputs
    return lambda: module(*inputs), {}, module, inputs


def float32(module, inputs):
    """The output of the module in float32; changes the module."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
    return module.float()(*(x.float() if x.is_floating_point() else x for x in inputs))


def measured(call, samples):
    import torch

    stop = time.perf_counter() + 0.3
    while time.perf_counter() < stop:
        call()
        torch.cuda.synchronize()
    device, wall = [], []
    for _ in range(samples):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin = time.perf_counter()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        wall.append((time.perf_counter() - begin) * 1e6)
        device.append(start.elapsed_time(end) * 1e3)
    middle = statistics.median(device)
    return {"us": round(middle, 2), "mad_us": round(statistics.median(abs(x - middle) for x in device), 2), "least_us": round(min(device), 2),
            "wall_us": round(statistics.median(wall), 2), "samples": samples}


def job(name, modes, arguments):
    """Says `ready`, waits for a line, times, says the result: {mode: facts} as one JSON line. Outputs go to files."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints, prints to the log

    def say(word, value):
        out.write(word + " " + json.dumps(value) + "\n")
        out.flush()

    def save(mode, tensor):
        path = f"{arguments.logs}/{name}.{mode}"
        torch.save(tensor.float().cpu(), path + ".part")
        os.replace(path + ".part", path + ".pt")

    results = {}
    try:
        begin = time.perf_counter()
        import torch

        torch.backends.cudnn.benchmark = True
        model = sized(models([name])[name], arguments)
        with torch.no_grad():
            call, facts, module, inputs = prepared(model, modes[0], arguments.db)
            calls = {modes[0]: call}
            for _ in range(3):
                first = call()
            torch.cuda.synchronize()
            first = first.clone()
            for mode in modes[1:]:
                if mode.endswith("graph"):
                    try:
                        calls[mode] = captured(call)
                    except Exception as error:
                        traceback.print_exc()
                        results[mode] = {"error": told(error)}
            facts |= {"prepare_s": round(time.perf_counter() - begin, 1), "torch": torch.__version__,
                      "device": torch.cuda.get_device_name()}
            say("ready", {})
            sys.stdin.readline()
            for mode, call in calls.items():
                results[mode] = facts | measured(call, arguments.samples)
                last = call()
                save(mode, last)
                results[mode]["same_bits"] = bool(torch.equal(last, first))
                results[mode]["gigabytes"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
            if "float32" in modes:
                del call, calls, last
                save("float32", float32(module, inputs))
    except BaseException as error:  # the row says what went wrong, the log has all of it
        traceback.print_exc()
        results |= {mode: {"error": told(error)} for mode in modes if mode not in results and mode != "float32"}
    say("result", results)
    os._exit(0)  # compile workers are not waited for


def told(error):
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


def sized(kind, arguments):
    return kind(**{name: value for name, value in json.loads(arguments.sizes).items() if hasattr(kind, name)})


# ---- the processes of all

class Process:
    def __init__(self, name, modes, arguments, threads):
        self.name, self.modes, self.buffer = name, modes, b""
        environment = dict(os.environ, TORCHINDUCTOR_COMPILE_THREADS=str(threads), PYTHONUNBUFFERED="1")
        environment["PYTHONPATH"] = arguments.python + os.pathsep + environment.get("PYTHONPATH", "")
        self.log = open(f"{arguments.logs}/{name}.{modes[0]}.log", "wb")
        command = [sys.executable, os.path.abspath(__file__), "--job", name, ",".join(modes), "--db", arguments.db, "--sizes", arguments.sizes,
                   "--samples", str(arguments.samples), "--logs", arguments.logs]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment,
                                      start_new_session=True)
        self.state, self.value, self.began = "busy", None, time.monotonic()

    def poll(self, seconds):
        """Takes up what the process says, waiting for it so long."""
        if self.state == "result":
            return
        if select.select([self.child.stdout], [], [], max(0, seconds))[0]:
            data = os.read(self.child.stdout.fileno(), 1 << 16)
            if not data:
                self.child.wait()
                self.fail(f"the process ended with {self.child.returncode}; see its log")
                return
            self.buffer += data
            while b"\n" in self.buffer:
                line, self.buffer = self.buffer.split(b"\n", 1)
                word, _, text = line.decode().partition(" ")
                self.state, self.value = word, json.loads(text)

    def fail(self, why):
        self.state, self.value = "result", {mode: {"error": why} for mode in self.modes if mode != "float32"}

    def go(self):
        try:
            self.child.stdin.write(b"go\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: poll() says so

    def end(self):
        try:
            os.killpg(self.child.pid, 9)  # its compile workers too; a group of its own
        except ProcessLookupError:
            pass
        self.child.wait()
        self.log.close()


def relative_l2(folder, name, mode):
    import torch

    paths = [f"{folder}/{name}.{m}.pt" for m in (mode, "float32")]
    if not all(map(os.path.exists, paths)):
        return None
    got, right = (torch.load(path).double().flatten() for path in paths)
    error = ((got - right).norm() / right.norm()).item()
    return error if error == error else float("inf")


def wave(jobs, arguments, write, stop):
    """Makes the jobs ready side by side, then times one after the other."""
    threads = max(2, (os.cpu_count() or 2) // len(jobs))
    running = [Process(name, modes, arguments, threads) for name, modes in jobs]
    limit = min(stop, time.monotonic() + arguments.job_seconds)
    waiting = list(running)
    while waiting and time.monotonic() < limit:
        for process in list(waiting):
            process.poll(0.05)
            if process.state != "busy":
                waiting.remove(process)
    for process in waiting:
        process.fail(f"not ended in {time.monotonic() - process.began:.0f} s")
        process.end()
    for process in running:
        if process.state == "ready":
            process.go()
            limit = time.monotonic() + 60
            while process.state == "ready" and time.monotonic() < limit:
                process.poll(0.2)
            if process.state == "ready":
                process.fail("not timed in 60 s")
        process.end()
        for mode, facts in process.value.items():
            write(process.name, mode, facts)


def untuned(arguments, model):
    """The model's problems that the DB does not serve exactly."""
    sys.path.insert(0, arguments.python)
    import kgen

    if not os.path.exists(arguments.db):
        return list(model.problems())
    missing = []
    with kgen.open(arguments.db) as db:
        for op, attributes, dims in model.problems():
            try:
                words = {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in attributes.items()}
                known = db.find(op, dtype=model.dtype, **words, **dims).kind == "exact"
            except kgen.KgenError:
                known = False
            if not known:
                missing.append((op, attributes, dims))
    return missing


def tune(arguments, chosen):
    """Tunes what the models need and the DB does not have: a process a model, --tuners at a time."""
    stop, begin = time.monotonic() + arguments.tune, time.monotonic()

    def one(name, missing):
        path = f"{arguments.logs}/{name}.ops.yaml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(chosen[name].ops_yaml(arguments.budget, missing))
        command = [arguments.kgen, "tune", path, "--db", arguments.db, "--jobs", str(max(1, (os.cpu_count() or 1) // arguments.tuners)), "--json"]
        if time.monotonic() >= stop:
            return "no time"
        with open(f"{arguments.logs}/{name}.tune.json", "wb") as out, open(f"{arguments.logs}/{name}.tune.log", "wb") as log:
            child = subprocess.Popen(command, stdout=out, stderr=log)
            try:
                child.wait(stop - time.monotonic())
            except subprocess.TimeoutExpired:
                child.send_signal(2)  # it stops after the running candidate
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        return f"exit {child.returncode}"

    if os.path.exists(arguments.db):
        subprocess.run([arguments.kgen, "db", "check", arguments.db], check=True, stdout=subprocess.DEVNULL)  # an older one is brought up to date
    chosen = {name: sized(kind, arguments) for name, kind in chosen.items()}
    work = {name: untuned(arguments, model) for name, model in chosen.items()}
    with concurrent.futures.ThreadPoolExecutor(arguments.tuners) as pool:
        done = {name: pool.submit(one, name, missing) for name, missing in work.items() if missing}
        for name, result in done.items():
            print(f"{name}: {len(work[name])} of {len(list(chosen[name].problems()))} problems to tune, {result.result()}, "
                  f"at {time.monotonic() - begin:.0f} s", flush=True)


# ---- rows and the table

def read(path):
    rows = {}
    if path and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                rows[row["model"], row["mode"]] = row
    return rows


def shown(us):
    return f"{us / 1e3:.3f}" if us < 1e5 else f"{us / 1e3:.1f}"


def table(rows, kinds):
    """Markdown of the rows."""
    timed = [row for row in rows.values() if "us" in row]
    devices = sorted({f"{row['device']}, PyTorch {row['torch']}" for row in timed})
    dates = sorted({row["run"][:19] for row in timed})
    lines = ["# Whole models", "",
             f"{'; '.join(devices)}; runs of {', '.join(dates)}. Written by examples/models/run.py, which says how it measures: latency of one call in ms,",
             "the median of 50 (± median absolute deviation), host time before the first kernel included. `graph` is torch eager captured",
             "in a CUDA graph; default, reduce-overhead and max-autotune are torch.compile's modes, default-graph the first of them captured; kgen is",
             "replayed from a graph too, kgen+torch leaves products and attention of many rows to cuBLAS and cuDNN. Weights are random; every mode has the same weights and inputs.",
             "Relative L2 error of the whole output against the module in float32; kgen's may be 1.5 times eager's.", "",
             "| model | " + " | ".join([*TORCH, *KGEN]) + " | best torch / kgen | expected | rel. L2 torch, kgen |",
             "|---|" + "---:|" * (len(TORCH) + len(KGEN) + 1) + "---|---|"]
    notes = []
    for name, kind in kinds.items():
        mine = {mode: rows.get((name, mode)) for mode in (*TORCH, *KGEN)}
        if not any(mine.values()):
            continue
        cells = []
        for mode, row in mine.items():
            if row is None:
                cells.append("-" if mode == "kgen+torch" and not kind.mixed else "not run")
            elif "us" in row:
                cells.append(f"{shown(row['us'])} ± {row['mad_us'] / 1e3:.3f}")
            else:
                cells.append("not ended" if row["error"].startswith("not ended") else "failed")
                notes.append(f"{name}, {mode}: {row['error']}")
        best = min((row["us"] for mode, row in mine.items() if mode in TORCH and row and "us" in row), default=None)
        own, eager = mine["kgen"] or {}, mine["eager"] or {}
        ratio = best / own["us"] if best and "us" in own else None
        missing = [mode for mode in TORCH if not mine[mode] or "us" not in mine[mode]]
        wanted = EXPECTED.get(name)
        verdict = ""
        if wanted:
            verdict = f"≥ {wanted}" + ("" if ratio is None else ": reached" if ratio >= wanted else ": **not reached**")
            verdict += " (of the modes that ended)" if ratio is not None and missing else ""
        errors = [row.get("rel_l2") for row in (eager, own)]
        errors += [mine["kgen+torch"]["rel_l2"]] if (mine["kgen+torch"] or {}).get("rel_l2") is not None else []
        wrong = errors[0] is not None and "us" in own and (errors[1] is None or max(errors[1:]) > max(1.5 * errors[0], 1e-4))
        cells += [f"**{ratio:.2f}**" if ratio else "", verdict,
                  ", ".join("-" if e is None else f"{e:.1e}" for e in errors) + (" **wrong**" if wrong else "")]
        lines.append(f"| {name}: {kind.what} | " + " | ".join(cells) + " |")
        for sizes in {json.dumps(row["sizes"]) for row in mine.values() if row and row.get("sizes")}:
            notes.append(f"{name}: sizes were changed, {sizes}")
        if own.get("near"):
            notes.append(f"{name}: {len(own['near'])} of its problems are not tuned as they are: " + "; ".join(own["near"].values())[:400])
        if own.get("same_bits") is False:
            notes.append(f"{name}: kgen's output had other bits after the timed calls")
    if notes:
        lines += ["", "## Notes", ""] + [f"* {note}" for note in notes]
    calls = [f"| {name} | {sum(row['calls'].values())} | " + ", ".join(f"{op} {n}" for op, n in sorted(row["calls"].items(), key=lambda x: -x[1]))
             + " |" for (name, mode), row in rows.items() if mode == "kgen" and "calls" in row]
    if calls:
        lines += ["", "## Calls of kgen in one pass", "", "| model | calls | operators |", "|---|---:|---|", *calls]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--db", help="tuned DB that holds the models' problems (with --tune: that gets them)")
    parser.add_argument("--kgen", help="the kgen program; by default the one on PATH")
    parser.add_argument("--tune", type=float, default=0, help="seconds to tune for before all else")
    parser.add_argument("--tuners", type=int, default=3, help="tuning processes at a time")
    parser.add_argument("--budget", type=int, default=14, help="candidates a problem")
    parser.add_argument("--ops", help="only writes MODEL.ops.yaml into this folder")
    parser.add_argument("--models", default="*", help="patterns, comma-separated")
    parser.add_argument("--modes", default=",".join([*TORCH, *KGEN]), help="eager brings graph with it, default default-graph")
    parser.add_argument("--seconds", type=float, default=1e9, help="for all, tuning included")
    parser.add_argument("--job-seconds", type=float, default=120, help="for making a process ready")
    parser.add_argument("--jobs", type=int, default=8, help="processes made ready side by side")
    parser.add_argument("--memory", type=float, default=70, help="GB of the device that they may hold together")
    parser.add_argument("--sizes", default="{}", help='JSON of sizes to change in all models that have them: {"layers": 2}')
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--python", default=os.path.join(HERE, "..", "..", "python"), help="folder of the kgen package")
    parser.add_argument("--jsonl", default="models.jsonl")
    parser.add_argument("--again", action="store_true", help="also what has a time already")
    parser.add_argument("--logs", default="models.logs", help="folder for the processes' output, and what outputs are compared with")
    parser.add_argument("--markdown")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        job(arguments.job[0], arguments.job[1].split(","), arguments)
    stop = time.monotonic() + arguments.seconds
    chosen = models(arguments.models.split(","))
    if arguments.ops:
        os.makedirs(arguments.ops, exist_ok=True)
        for name, kind in chosen.items():
            with open(f"{arguments.ops}/{name}.ops.yaml", "w", encoding="utf-8") as file:
                file.write(sized(kind, arguments).ops_yaml(arguments.budget))
        return
    rows = read(arguments.jsonl)
    if arguments.db:
        os.makedirs(arguments.logs, exist_ok=True)
        arguments.kgen = arguments.kgen or shutil.which("kgen")
        if arguments.tune > 0:
            tune(arguments, chosen)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        wanted = arguments.modes.split(",")

        def write(name, mode, facts):
            facts["rel_l2"] = relative_l2(arguments.logs, name, mode) if "us" in facts else None
            row = {"run": now, "model": name, "mode": mode, "sizes": json.loads(arguments.sizes), **facts}
            rows[name, mode] = row
            with open(arguments.jsonl, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            error = "" if row["rel_l2"] is None else f", error {row['rel_l2']:.2e}"
            print(f"{name} {mode}: " + (f"{row['us']:.1f} us ± {row['mad_us']:.1f}, ready after {row['prepare_s']} s" if "us" in row
                                        else row["error"]) + error, flush=True)

        # Phases: outputs are compared with float32's, so that comes first.
        for phase in GROUPS:
            queue = [(name, modes) for name in chosen for modes in phase
                     if modes[0] in wanted and (modes[0] != "kgen+torch" or chosen[name].mixed) and (arguments.again or "us" not in rows.get((name, modes[0]), {}))]
            queue.sort(key=lambda item: -chosen[item[0]].gigabytes)
            while queue and time.monotonic() < stop:
                jobs, memory = [], 0
                for item in list(queue):
                    if len(jobs) < arguments.jobs and (memory + chosen[item[0]].gigabytes <= arguments.memory or not jobs):
                        jobs.append(item)
                        memory += chosen[item[0]].gigabytes
                        queue.remove(item)
                jobs.sort(key=lambda item: -len(item[1]))
                wave(jobs, arguments, write, stop)
            for name, modes in queue:
                for mode in modes[:2]:
                    write(name, mode, {"error": "not begun in the time of the run"})
    if arguments.markdown:
        text = table(rows, chosen)
        with open(arguments.markdown, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
