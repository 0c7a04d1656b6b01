"""Times every winner of a tuned DB beside the best of the vendor: cuBLAS, cuDNN, PyTorch's fused kernels and torch.compile,
in one process on one GPU.

    side_by_side.py tuned.db --kgen path/to/kgen --lib path/to/libkgen.so --shapes FOLDER --jsonl results.jsonl --markdown results.md
    side_by_side.py tuned.db … --precompile 3/16      # fills torch.compile's cache with every 16th problem, times nothing

Problems of the groups (bench/groups.yaml) come first, in their order, then the others of the shape lists, then what else is in the
DB. Rows are appended: each says which run made it. A later run measures every group that no earlier run has whole, and of the
rest what has no row yet. bench/report.py makes the tables; it needs the rows alone.

How it times: before each sample the L2 cache is displaced by reading 256 MB (a written flush would leave dirty lines whose
write-back is charged to the next kernel); the call stands between two device events and all three are enqueued while the
flush still runs, so launch overhead of the host does not show. Providers take turns within each repeat. `us` is the
median of the samples, `mad_us` their median absolute deviation; `graph_us` is the same call replayed from a CUDA graph,
for callables whose host cost exceeds the flush. A ratio compares the smaller of the two of either side.

Each provider's result is compared with a float32 (mHC: float64) computation, TF32 off; `rel_l2` is ||got - ref|| / ||ref||, the
worst of the outputs (of fp16, without the half step of the subnormals). A kernel that fails the limit (bf16 3e-3, fp16 4e-4, fp32 1e-5;
attention 4e-3, 6e-4) is reported as wrong and takes no part in the comparison. So is a kernel of kgen whose outputs have other bits
after the timed launches than after the first.

Needs PyTorch with CUDA. Problems that bench/torch_cases.py cannot express in PyTorch are listed, not dropped.
"""
import argparse
import ctypes
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import time

import torch

import report
from shape_lists import ShapeLists
from torch_cases import CASES

# Relative L2 error: of kgen by OPS 0.1 (attention: its own row); a vendor may be as coarse as bf16, for some compute in it.
LIMITS = {"bf16": 3e-3, "fp16": 4e-4, "fp32": 1e-5}
ATTENTION_LIMITS = {"bf16": 4e-3, "fp16": 6e-4, "fp32": 1e-5}
VENDOR_LIMIT = 4e-3
COPY_MEGABYTES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)  # read and written together


class Match(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("kind", ctypes.c_int),
        ("reason", ctypes.c_char_p),
        ("config", ctypes.c_char_p),
        ("tuned_time_us", ctypes.c_double),
        ("workspace_bytes", ctypes.c_size_t),
        ("prepared_bytes", ctypes.c_size_t),
    ]


class Kgen:
    """The C ABI of libkgen (kgen/kgen.h) as far as this script needs it."""

    def __init__(self, library, db):
        self.lib = ctypes.CDLL(library)
        self.lib.kgen_last_error.restype = ctypes.c_char_p
        self.lib.kgen_tensor_name.restype = ctypes.c_char_p
        self.db = ctypes.c_void_p()
        self.check(self.lib.kgen_open(db.encode(), b"nvidia:0", ctypes.byref(self.db)))

    def check(self, status):
        if status != 0:
            raise RuntimeError("kgen: " + self.lib.kgen_last_error().decode())

    def callable(self, op, attributes, dims, operands):
        """A function that launches the kernel for `dims` on `operands` (by name), and the match."""
        handle = ctypes.c_void_p()
        names = ",".join(dims)
        words = " ".join(f"{key}={value}" for key, value in attributes.items() if value != "")
        self.check(self.lib.kgen_open_op(self.db, op.encode(), words.encode(), names.encode(), ctypes.byref(handle)))
        values = (ctypes.c_int64 * len(dims))(*dims.values())
        match = Match()
        self.check(self.lib.kgen_find(handle, values, ctypes.byref(match)))
        kernel = ctypes.c_void_p(match.kernel)
        self.check(self.lib.kgen_preload(kernel))
        count = self.lib.kgen_tensor_count(handle)
        order = [self.lib.kgen_tensor_name(handle, i).decode() for i in range(count)]
        pointers = (ctypes.c_void_p * count)(*[operands[name].data_ptr() if name in operands else None for name in order])
        workspace = torch.empty(max(1, match.workspace_bytes), dtype=torch.uint8, device="cuda")
        prepared = torch.empty(max(1, match.prepared_bytes), dtype=torch.uint8, device="cuda")
        keep = (workspace, prepared, operands, pointers)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if match.prepared_bytes:
            self.check(self.lib.kgen_prepare(kernel, pointers, ctypes.c_void_p(prepared.data_ptr()), stream))
        space = ctypes.c_void_p(workspace.data_ptr() if match.workspace_bytes else None)
        packed = ctypes.c_void_p(prepared.data_ptr() if match.prepared_bytes else None)
        launch = self.lib.kgen_launch

        def call():
            assert keep
            status = launch(kernel, pointers, None, space, packed, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
            if status != 0:
                self.check(status)

        return call, match


def graphed(call):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


class Timer:
    def __init__(self, repeats, budget_ms):
        self.flush = torch.empty(64 << 20, dtype=torch.float32, device="cuda").normal_()
        self.sink = torch.empty((), device="cuda")
        self.repeats, self.budget_ms = repeats, budget_ms

    def interleaved(self, calls):
        """{name: samples in microseconds}; the calls take turns."""
        for call in calls.values():
            call()
            call()
        torch.cuda.synchronize()
        probe = {}
        for name, call in calls.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            probe[name] = begin.elapsed_time(end)
        repeats = int(max(7, min(self.repeats, self.budget_ms / (sum(probe.values()) + 0.2 * len(calls)))))
        # Where the driver keeps a pair of events changes what they read by up to 1.1 us, in a pattern that repeats with every fourth
        # pair: in the order of their making some provider would always get the slow ones. So they are made first, and drawn by lot.
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats * len(calls))]
        for begin, end in pairs:
            begin.record()
            end.record()
        random.shuffle(pairs)
        events = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                torch.sum(self.flush, dim=0, out=self.sink)
                begin, end = pairs.pop()
                begin.record()
                call()
                end.record()
                events[name].append((begin, end))
        torch.cuda.synchronize()
        return {name: [b.elapsed_time(e) * 1e3 for b, e in pairs] for name, pairs in events.items()}


def spread(samples):
    middle = statistics.median(samples)
    return middle, statistics.median(abs(s - middle) for s in samples)


def relative_l2(got, reference):
    """Worst of the outputs; NaN counts as infinite."""
    if reference is None:
        return None
    got = got if isinstance(got, (list, tuple)) else [got]
    worst = 0.0
    for mine, right in zip(got, reference, strict=True):
        right = right.to(torch.float64 if right.numel() < 1 << 27 else torch.float32)
        error = mine.reshape(right.shape).to(right.dtype) - right
        if mine.dtype == torch.float16:  # half a step of the subnormals is no error of the kernel (softmax over a vocabulary)
            error = (error.abs() - 2.0**-25).clamp_min(0).where(~error.isnan(), error)
        error = (error.norm() / right.norm().clamp_min(1e-30)).item()
        worst = max(worst, error if error == error else float("inf"))
    return worst


def compiled_calls(case, max_autotune, light=True, heavy=True):
    """torch.compile's versions of what the case offers; traced and compiled by the first call. The heavy ones (coordinate descent,
    max-autotune) time dozens of kernels for that."""
    torch._dynamo.reset()

    def lazy(function, arguments, options=None):
        box = []

        def call():
            if not box:
                box.append(torch.compile(function, fullgraph=True, dynamic=False, **(options or {})))
            return box[0](*arguments)
        return call

    wanted = dict(case.compiled)
    if max_autotune and case.whole:
        wanted["inductor_max"] = (*case.whole, {"mode": "max-autotune-no-cudagraphs"})
    return {name: lazy(*item) for name, item in wanted.items() if (heavy if len(item) == 3 else light)}


def same_bits(before, after):
    return all(torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)) for a, b in zip(before, after, strict=True))


def run(row, kgen, timer, compile_too, heavy, max_autotune):
    """One JSON row: the problem, and for every provider us, mad_us, graph_us, rel_l2."""
    op, dims, attributes = row["op"], row["dims"], row["attributes"]
    result = {"op": op, "dims": dims, "attributes": attributes, "label": row.get("label", ""), "flops": row["flops"],
              "bytes": row["bytes"], "default_us": row.get("default_us"), "tuned_us": row.get("time_us"), "providers": {}}
    case = CASES[op](dims, attributes) if op in CASES else None
    if case is None:
        result["note"] = "not expressed in PyTorch by this script"
        return result
    call, match = kgen.callable(op, attributes, dims, case.operands)
    result["config"], result["match"], result["reason"] = match.config.decode(), match.kind, match.reason.decode()
    vendors = dict(case.vendors)
    if compile_too:
        vendors |= compiled_calls(case, max_autotune, heavy=heavy)
    calls, errors, failed = {}, {}, {}
    torch.backends.cudnn.benchmark = False  # the reference need not be quick
    reference = case.reference()
    torch.backends.cudnn.benchmark = True
    outputs = [case.operands[name] for name in case.outputs]
    call()
    torch.cuda.synchronize()
    errors["kgen"] = relative_l2(case.picked(outputs), reference)
    calls["kgen"] = call
    # An operand that is also an output changes with each call.
    repeatable = not case.in_place and sum(t.numel() * t.element_size() for t in outputs) < 2 << 30
    first = [t.clone() for t in outputs] if repeatable else None
    for name, vendor in vendors.items():
        try:
            got = vendor()
            torch.cuda.synchronize()
            comparable = name not in case.bare and not name.endswith("_branches")
            errors[name] = relative_l2(case.picked(got), reference) if comparable else None
            del got
            calls[name] = vendor
        except Exception as error:  # a backend that does not take the problem is no provider of it
            failed[name] = str(error).splitlines()[0][:160]
    del reference
    limit = (ATTENTION_LIMITS if op == "attention" or op == "decode_attention" else LIMITS)[attributes["dtype"]]
    samples = timer.interleaved(calls)
    graphs = {}
    for name, function in calls.items():
        try:
            graphs[name] = graphed(function)
        except Exception as error:
            failed[name + " (graph)"] = str(error).splitlines()[0][:160]
            torch.cuda.synchronize()
    replayed = timer.interleaved(graphs)
    changed = first is not None and not same_bits(first, outputs)
    for name in calls:
        us, mad = spread(samples[name])
        entry = {"us": round(us, 3), "mad_us": round(mad, 3), "samples": len(samples[name]), "rel_l2": errors[name],
                 "full": name not in case.bare}
        if name in replayed:
            entry["graph_us"], entry["graph_mad_us"] = (round(v, 3) for v in spread(replayed[name]))
        entry["best_us"] = min(entry["us"], entry.get("graph_us", entry["us"]))
        entry["wrong"] = errors[name] is not None and not errors[name] <= (limit if name == "kgen" else max(limit, VENDOR_LIMIT))
        result["providers"][name] = entry
    mine = result["providers"]["kgen"]
    mine["limit"] = limit
    if mine["wrong"]:
        mine["fault"] = f"relative L2 error {mine['rel_l2']:.2e} above {limit:g}"
    elif mine["rel_l2"] is None:
        mine["wrong"], mine["fault"] = True, "not compared with anything"
    elif changed:
        mine["wrong"], mine["fault"] = True, "other bits after the timed launches"
    if failed:
        result["not_run"] = failed
    return result


def header(timer, device, run_name, kgen):
    """What holds for all rows of a run: versions, an empty kernel's time, a copy's time by size."""
    one = torch.zeros(1, device="cuda")
    touch = lambda: one.add_(1)
    line = {"run": run_name, "run_header": True, "device": device, "torch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
            "kgen": subprocess.run([kgen, "--version"], capture_output=True, text=True).stdout.strip(), "copies": []}
    try:
        with open("/proc/driver/nvidia/version") as file:
            line["driver"] = next(word for word in file.readline().split() if word[0].isdigit())
    except (OSError, StopIteration):
        line["driver"] = ""
    line["empty_us"] = round(spread(timer.interleaved({"one": touch})["one"])[0], 3)
    line["empty_graph_us"] = round(spread(timer.interleaved({"one": graphed(touch)})["one"])[0], 3)
    for megabytes in COPY_MEGABYTES:
        count = megabytes * 1_000_000 // 2 // 512 * 128
        source = torch.randn(count, device="cuda")
        target = torch.empty_like(source)
        calls = {"copy_": lambda: target.copy_(source), "mul": lambda: torch.mul(source, 1.0, out=target)}
        calls |= {name + "_graph": graphed(function) for name, function in list(calls.items())}
        medians = {name: spread(samples) for name, samples in timer.interleaved(calls).items()}
        way = min(medians, key=lambda name: medians[name][0])
        line["copies"].append({"bytes": 8 * count, "us": round(medians[way][0], 3), "mad_us": round(medians[way][1], 3), "way": way})
    return line


def ordered(winners, lists):
    """(winner, problem of the shape lists or None), those of the groups first."""
    by_label = {winner["label"]: winner for winner in winners}
    found = []
    for problem in lists.in_order():
        named = [by_label[name] for name in lists.ids[problem] if name in by_label]
        if named:
            found.append((named[0], problem))
    taken = {id(winner) for winner, _ in found}
    return found + [(winner, None) for winner in winners if id(winner) not in taken]


def left_to_do(winners, lists, path):
    """Without the problems that stand in the file already, unless their group stands in no one run."""
    if not path or not os.path.exists(path):
        return winners
    results = report.Results(lists, *report.read(path))
    again = set()
    for group in lists.groups:
        if group.get("kind", "total") == "total" and all(results.missing(group, run) for run in results.runs):
            again.update(lists.problems_of(group))
    measured = {problem for of_run in results.of.values() for problem in of_run}
    labels = {row["label"] for row in results.rows if row["providers"]}
    return [(winner, problem) for winner, problem in winners
            if problem in again or (problem not in measured if problem is not None else winner["label"] not in labels)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db")
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--lib", required=True)
    parser.add_argument("--shapes", required=True, help="folder of the shape lists")
    parser.add_argument("--jsonl", help="rows are appended, and tell what is left to do")
    parser.add_argument("--markdown")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--budget-ms", type=float, default=250.0, help="device time a problem and mode")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--precompile", metavar="I/N", help="compile every N-th problem from the I-th on, and end")
    parser.add_argument("--heavy", metavar="FILE", help="labels of the problems whose heavy compilations are in the cache: only these get them")
    parser.add_argument("--precompile-heavy", action="store_true", help="fill the cache with heavy compilations, list their labels in FILE, and end")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; what is left is listed as not compared")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not (options.precompile or options.precompile_heavy)
    torch.manual_seed(1)
    random.seed(1)
    begin = time.monotonic()
    text = subprocess.run([options.kgen, "show", options.db, "--format", "json"], check=True, capture_output=True, text=True).stdout
    lists = ShapeLists(options.shapes)
    winners = left_to_do(ordered(json.loads(text)["winners"], lists), lists, options.jsonl)
    if options.precompile or options.precompile_heavy:
        index, count = map(int, (options.precompile or "0/1").split("/"))
        for winner, problem in winners[index::count]:
            if time.monotonic() - begin > options.seconds:
                break
            wants_max = lists.wants("max_autotune", problem)
            if options.precompile_heavy and not wants_max and winner["dims"].get("m") != 1:
                continue
            try:
                case = CASES[winner["op"]](winner["dims"], winner["attributes"])
                with torch.no_grad():
                    calls = compiled_calls(case, wants_max, not options.precompile_heavy, options.precompile_heavy) if case else {}
                    for call in calls.values():
                        call()
                torch.cuda.synchronize()
                if options.precompile_heavy and calls:
                    with open(options.heavy, "a") as file:
                        file.write(winner["label"] + "\n")
            except Exception as error:
                print(f"{winner['op']} {winner['dims']}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(0)  # torch.compile's workers may keep an ordinary end waiting
    heavy = set()
    if options.heavy and os.path.exists(options.heavy):
        with open(options.heavy) as file:
            heavy = set(file.read().split())
    device = torch.cuda.get_device_name(0)
    timer, kgen = Timer(options.repeats, options.budget_ms), Kgen(options.lib, options.db)
    run_name = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    wrong = []
    out = open(options.jsonl, "a+") if options.jsonl else sys.stdout
    if options.jsonl and out.tell() > 0:  # the run before may have been ended within a line
        out.seek(out.tell() - 1)
        if out.read(1) != "\n":
            out.write("\n")

    def write(line):
        out.write(json.dumps(line) + "\n")
        out.flush()

    with torch.no_grad():
        write(header(timer, device, run_name, options.kgen))
        for winner, problem in winners:
            note = "no time left" if time.monotonic() - begin > options.seconds else ""
            torch.backends.cudnn.benchmark_limit = 0 if lists.wants("all_cudnn_plans", problem) else 10
            try:
                row = None
                if not note:
                    row = run(winner, kgen, timer, not options.no_compile, winner["label"] in heavy, lists.wants("max_autotune", problem))
            except Exception as error:
                note = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                torch.cuda.empty_cache()
            if note:
                row = {"op": winner["op"], "dims": winner["dims"], "attributes": winner["attributes"], "providers": {},
                       "label": winner.get("label", ""), "flops": winner["flops"], "bytes": winner["bytes"], "note": note}
            row["run"], row["device"], row["torch"], row["cudnn"] = run_name, device, torch.__version__, torch.backends.cudnn.version()
            write(row)
            if row["providers"] and row["providers"]["kgen"]["wrong"]:
                wrong.append(row)
                print(f"WRONG: {row['op']} {report.shape_text(row)} {row['attributes']} {row['config']}: {row['providers']['kgen']['fault']}",
                      file=sys.stderr, flush=True)
    if options.jsonl and options.markdown:
        out.close()
        page = report.page(report.Results(lists, *report.read(options.jsonl)))
        with open(options.markdown, "w") as file:
            file.write(page)
        print(page[page.index("## Groups"):page.index("## Memory-bound")])
        print(page[page.index("## Summary"):])
    print(f"{len(wrong)} of kgen's results are wrong or not verified")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
