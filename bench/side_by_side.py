#!/usr/bin/env python3
"""Times every winner of a tuned DB beside the best of the vendor: cuBLAS, cuDNN, PyTorch's fused kernels and torch.compile,
in one process on one GPU.

    side_by_side.py tuned.db --kgen path/to/kgen --lib path/to/libkgen.so --jsonl results.jsonl --markdown results.md
    side_by_side.py tuned.db … --precompile 3/16      # fills torch.compile's cache with every 16th problem, times nothing

How it times: before each sample the L2 cache is displaced by reading 256 MB (a written flush would leave dirty lines whose
write-back is charged to the next kernel); the call stands between two device events and all three are enqueued while the
flush still runs, so launch overhead of the host does not show. Providers take turns within each repeat. `us` is the
median of the samples, `mad_us` their median absolute deviation; `graph_us` is the same call replayed from a CUDA graph,
for callables whose host cost exceeds the flush. A ratio compares the smaller of the two of either side.

Each provider's result is compared with a float32 (mHC: float64) computation, TF32 off; `rel_l2` is ||got - ref|| / ||ref||, the
worst of the outputs (of fp16, without the half step of the subnormals). A kernel that fails the limit (bf16 3e-3, fp16 4e-4, fp32 1e-5; attention 4e-3, 6e-4) is reported as
wrong and takes no part in the comparison.

Needs PyTorch with CUDA. Problems that bench/torch_cases.py cannot express in PyTorch are listed, not dropped.
"""
import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time

import torch

from torch_cases import CASES

# Relative L2 error: of kgen by OPS 0.1 (attention: its own row); a vendor may be as coarse as bf16, for some compute in it.
LIMITS = {"bf16": 3e-3, "fp16": 4e-4, "fp32": 1e-5}
ATTENTION_LIMITS = {"bf16": 4e-3, "fp16": 6e-4, "fp32": 1e-5}
VENDOR_LIMIT = 4e-3


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
        events = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                torch.sum(self.flush, dim=0, out=self.sink)
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
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


def compiled_calls(case):
    """torch.compile's version of what the case offers; traced and compiled by the first call."""
    torch._dynamo.reset()

    def lazy(function, arguments):
        box = []

        def call():
            if not box:
                box.append(torch.compile(function, fullgraph=True, dynamic=False))
            return box[0](*arguments)
        return call

    return {name: lazy(*item) for name, item in case.compiled.items()}


def run(row, kgen, timer, compile_too):
    """One JSON row: the problem, and for every provider us, mad_us, graph_us, rel_l2."""
    op, dims, attributes = row["op"], row["dims"], row["attributes"]
    result = {"op": op, "dims": dims, "attributes": attributes, "label": row.get("label", ""), "flops": row["flops"],
              "bytes": row["bytes"], "default_us": row.get("default_us"), "providers": {}}
    case = CASES[op](dims, attributes) if op in CASES else None
    if case is None:
        result["note"] = "not expressed in PyTorch by this script"
        return result
    call, match = kgen.callable(op, attributes, dims, case.operands)
    result["config"], result["match"], result["reason"] = match.config.decode(), match.kind, match.reason.decode()
    vendors = dict(case.vendors)
    if compile_too:
        vendors |= compiled_calls(case)
    calls, errors, failed = {}, {}, {}
    reference = case.reference()
    call()
    torch.cuda.synchronize()
    errors["kgen"] = relative_l2([case.operands[name] for name in case.outputs], reference)
    calls["kgen"] = call
    for name, vendor in vendors.items():
        try:
            got = vendor()
            torch.cuda.synchronize()
            comparable = name not in case.bare and not name.endswith("_branches") and not (name.startswith("inductor_n") and op.endswith("pool2d"))
            errors[name] = relative_l2(got, reference) if comparable else None
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
    for name in calls:
        us, mad = spread(samples[name])
        entry = {"us": round(us, 3), "mad_us": round(mad, 3), "samples": len(samples[name]), "rel_l2": errors[name],
                 "full": name not in case.bare}
        if name in replayed:
            entry["graph_us"], entry["graph_mad_us"] = (round(v, 3) for v in spread(replayed[name]))
        entry["best_us"] = min(entry["us"], entry.get("graph_us", entry["us"]))
        entry["wrong"] = errors[name] is not None and not errors[name] <= (limit if name == "kgen" else max(limit, VENDOR_LIMIT))
        result["providers"][name] = entry
    if failed:
        result["not_run"] = failed
    return result


def best_vendor(row):
    """Name and entry of the quickest right and complete vendor; None where there is none."""
    full = {n: p for n, p in row["providers"].items() if n != "kgen" and p["full"] and not p["wrong"]}
    return min(full.items(), key=lambda item: item[1]["best_us"]) if full else None


def shape_text(row):
    skip = {"dtype", "epilogue", "out_dtype", "bias_dtype", "accumulate", "align", "layout", "b_layout"}
    shown = list(row["dims"].items()) + [(k, v) for k, v in row["attributes"].items() if k not in skip and v not in ("", "0")]
    return " ".join(f"{key}={value}" for key, value in shown)


def table(rows, device):
    lines = [
        f"Device: {device}. Written by bench/side_by_side.py: vendor and kgen in one process, turns taken, L2 displaced before each",
        "sample; medians in µs, ± median absolute deviation; the smaller of plain call and graph replay. `best vendor` is the quickest",
        "that does the whole problem; `bare` is cuBLAS's or cuDNN's product without its epilogue, where the problem has one.",
        "A kernel that does nothing takes 4 to 5 µs in this measurement.",
    ]
    ratios = {}
    for op in sorted({r["op"] for r in rows}):
        mine = [r for r in rows if r["op"] == op and r["providers"]]
        if not mine:
            continue
        lines += ["", f"## {op}", "",
                  "| problem | dtype | epilogue | kgen µs | ± | TFLOP/s | GB/s | best vendor | µs | ± | bare µs | best / kgen | rel. L2 |",
                  "|---|---|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|"]
        for r in mine:
            own, best = r["providers"]["kgen"], best_vendor(r)
            us = own["best_us"]
            bare = [p["best_us"] for p in r["providers"].values() if not p["full"]]
            error = "not compared" if own["rel_l2"] is None else f"{own['rel_l2']:.1e}"
            cells = [shape_text(r), r["attributes"]["dtype"], r["attributes"].get("epilogue", ""),
                     f"{us:.2f}" + (" WRONG" if own["wrong"] else ""), f"{own['mad_us']:.2f}", f"{r['flops'] / us / 1e6:.1f}",
                     f"{r['bytes'] / us / 1e3:.0f}"]
            if best:
                ratio = best[1]["best_us"] / us
                cells += [best[0], f"{best[1]['best_us']:.2f}", f"{best[1]['mad_us']:.2f}", f"{min(bare):.2f}" if bare else "", f"{ratio:.2f}", error]
                if not own["wrong"]:
                    ratios.setdefault(op, []).append((ratio, r))
            else:
                cells += ["none", "", "", f"{min(bare):.2f}" if bare else "", "", error]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Summary", "", "| op | problems | geometric mean of best vendor / kgen | worst | best |", "|---|---:|---:|---:|---:|"]
    for op, found in ratios.items():
        values = [ratio for ratio, _ in found]
        lines.append(f"| {op} | {len(values)} | {statistics.geometric_mean(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    worst = sorted((item for found in ratios.values() for item in found), key=lambda item: item[0])[:10]
    lines += ["", "The ten worst ratios:", ""]
    lines += [f"* {ratio:.2f}: {r['op']} {shape_text(r)} {r['attributes']['dtype']} ({r['label']}), {best_vendor(r)[0]}" for ratio, r in worst]
    missing = [r for r in rows if not r["providers"]]
    if missing:
        lines += ["", "Not compared:", ""] + [f"* {r['op']} {shape_text(r)}: {r['note']}" for r in missing]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db")
    parser.add_argument("--kgen", required=True)
    parser.add_argument("--lib", required=True)
    parser.add_argument("--jsonl")
    parser.add_argument("--markdown")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--budget-ms", type=float, default=250.0, help="device time a problem and mode")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--precompile", metavar="I/N", help="compile every N-th problem from the I-th on, and end")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; what is left is listed as not compared")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(1)
    begin = time.monotonic()
    text = subprocess.run([options.kgen, "show", options.db, "--format", "json"], check=True, capture_output=True, text=True).stdout
    winners = json.loads(text)["winners"]
    if options.precompile:
        index, count = map(int, options.precompile.split("/"))
        for winner in winners[index::count]:
            if time.monotonic() - begin > options.seconds:
                break
            try:
                case = CASES[winner["op"]](winner["dims"], winner["attributes"])
                with torch.no_grad():
                    for call in compiled_calls(case).values() if case else ():
                        call()
                torch.cuda.synchronize()
            except Exception as error:
                print(f"{winner['op']} {winner['dims']}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
        return 0
    device = torch.cuda.get_device_name(0)
    timer, kgen = Timer(options.repeats, options.budget_ms), Kgen(options.lib, options.db)
    rows = []
    out = open(options.jsonl, "w") if options.jsonl else None
    with torch.no_grad():
        for winner in winners:
            note = "no time left" if time.monotonic() - begin > options.seconds else ""
            try:
                row = run(winner, kgen, timer, not options.no_compile) if not note else None
            except Exception as error:
                note = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                torch.cuda.empty_cache()
            if note:
                row = {"op": winner["op"], "dims": winner["dims"], "attributes": winner["attributes"], "providers": {},
                       "label": winner.get("label", ""), "flops": winner["flops"], "bytes": winner["bytes"], "note": note}
            row["device"], row["torch"], row["cudnn"] = device, torch.__version__, torch.backends.cudnn.version()
            rows.append(row)
            if out:
                out.write(json.dumps(row) + "\n")
                out.flush()
    page = table(rows, f"{device}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write("# Tuned kernels beside the vendor library\n\n" + page)
    print(page[page.index("## Summary"):])
    wrong = [r for r in rows if r["providers"] and r["providers"]["kgen"]["wrong"]]
    for r in wrong:
        print(f"WRONG: {r['op']} {shape_text(r)} {r['attributes']}: {r['providers']['kgen']['rel_l2']}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
