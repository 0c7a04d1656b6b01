#!/usr/bin/env python3
"""Times every winner of a tuned DB beside the vendor library (cuBLAS and cuDNN through PyTorch), in one process on one GPU.

    side_by_side.py tuned.db --kgen path/to/kgen --lib path/to/libkgen.so --jsonl results.jsonl --markdown results.md

How it times: before each sample the L2 cache is displaced by reading 256 MB (a written flush would leave dirty lines whose
write-back is charged to the next kernel); the call stands between two device events and all three are enqueued while the
flush still runs, so launch overhead of the host does not show. Providers take turns within each repeat. `us` is the
median of the samples, `mad_us` their median absolute deviation; `graph_us` is the same call replayed from a CUDA graph,
for callables whose host cost exceeds the flush. A ratio compares the smaller of the two of either side.

Each provider's result is compared with a float32 computation (TF32 off); `rel_l2` is ||got - ref|| / ||ref||. A kernel that
fails the limit (bf16 3e-3, fp16 4e-4, fp32 1e-5) is reported as wrong and takes no part in the comparison.

Needs PyTorch with CUDA. Problems whose op it cannot express in PyTorch are listed, not dropped.
"""
import argparse
import ctypes
import json
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LIMITS = {"bf16": 3e-3, "fp16": 4e-4, "fp32": 1e-5}
ACTIVATIONS = {
    "relu": torch.relu,
    "silu": F.silu,
    "gelu_erf": F.gelu,
    "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
    "quick_gelu": lambda t: t * torch.sigmoid(1.702 * t),
    "sigmoid": torch.sigmoid,
}


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


def random(*shape, dtype, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(dtype)


def gemm_case(dims, attributes):
    """(operands by kgen's names, output, reference in float32, vendor callables) of a gemm, or None when it has features
    that this script does not express."""
    m, n, k, batch = dims["m"], dims["n"], dims["k"], dims.get("batch", 1)
    epilogue = [e for e in attributes.get("epilogue", "").split(",") if e]
    dtype = DTYPES[attributes["dtype"]]
    if batch != 1 or attributes.get("b_layout", "nk") != "nk" or "add_c" in epilogue:
        return None
    a, b = random(m, k, dtype=dtype), random(n, k, dtype=dtype, scale=k**-0.5)
    d = torch.full((m, n), float("nan"), device="cuda", dtype=DTYPES[attributes.get("out_dtype", attributes["dtype"])])
    operands = {"a": a, "b": b, "d": d}
    if "bias" in epilogue:
        operands["bias"] = random(n, dtype=DTYPES[attributes.get("bias_dtype", attributes["dtype"])])
    if "add_residual" in epilogue:
        operands["residual"] = random(m, n, dtype=dtype)
    if "mul_other" in epilogue:
        operands["other"] = random(m, n, dtype=dtype)

    def expression(a, b, bias, residual, other):
        y = F.linear(a, b, bias)
        for step in epilogue:
            if step == "add_residual":
                y = y + residual
            elif step == "mul_other":
                y = y * other
            elif step != "bias":
                y = ACTIVATIONS[step](y)
        return y

    optional = [operands.get(name) for name in ("bias", "residual", "other")]
    reference = expression(a.float(), b.float(), *(None if t is None else t.float() for t in optional))
    vendors = {}
    rest = [e for e in epilogue if e != "bias"]
    vendors["cublas" if not rest else "torch_eager"] = lambda: expression(a, b, *optional)
    if rest:
        vendors["cublas_bare"] = lambda: F.linear(a, b, optional[0])
    if rest == ["add_residual"] and optional[0] is None:
        vendors["cublas_addmm"] = lambda: torch.addmm(operands["residual"], a, b.t())
    return operands, d, reference, vendors


def patchify_case(dims, attributes):
    l, e = dims["l"], dims["e"]
    patch = (dims["c"], dims["t"], dims["ph"], dims["pw"])
    k = patch[0] * patch[1] * patch[2] * patch[3]
    dtype = DTYPES[attributes["dtype"]]
    x, weight = random(l, k, dtype=dtype), random(e, k, dtype=dtype, scale=k**-0.5)
    y = torch.full((l, e), float("nan"), device="cuda", dtype=dtype)
    operands = {"x": x, "weight": weight, "y": y}
    bias = None
    if "bias" in attributes.get("epilogue", ""):
        bias = operands["bias"] = random(e, dtype=DTYPES[attributes.get("bias_dtype", attributes["dtype"])])
    reference = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    x5, w5 = x.view(l, *patch), weight.view(e, *patch)
    vendors = {
        "cublas": lambda: F.linear(x, weight, bias),
        "cudnn_conv3d": lambda: F.conv3d(x5, w5, bias, stride=patch[1:]).view(l, e),
    }
    return operands, y, reference, vendors


CASES = {"gemm": gemm_case, "conv3d_patchify": patchify_case}


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
    difference = got.float() - reference
    return (difference.norm() / reference.norm()).item()


def run(row, kgen, timer):
    """One JSON row: the problem, and for every provider us, mad_us, graph_us, rel_l2."""
    op, dims, attributes = row["op"], row["dims"], row["attributes"]
    result = {"op": op, "dims": dims, "attributes": attributes, "label": row.get("label", ""), "flops": row["flops"],
              "bytes": row["bytes"], "providers": {}}
    case = CASES[op](dims, attributes) if op in CASES else None
    if case is None:
        result["note"] = "not expressed in PyTorch by this script"
        return result
    operands, output, reference, vendors = case
    call, match = kgen.callable(op, attributes, dims, operands)
    result["config"], result["match"], result["reason"] = match.config.decode(), match.kind, match.reason.decode()
    calls, errors = {}, {}
    call()
    torch.cuda.synchronize()
    errors["kgen"] = relative_l2(output, reference)
    calls["kgen"] = call
    for name, vendor in vendors.items():
        got = vendor()
        torch.cuda.synchronize()
        errors[name] = None if name == "cublas_bare" else relative_l2(got, reference)
        del got
        calls[name] = vendor
    del reference
    limit = LIMITS[attributes["dtype"]]
    samples = timer.interleaved(calls)
    graphs = {}
    for name, function in calls.items():
        try:
            graphs[name] = graphed(function)
        except RuntimeError as error:
            print(f"{row.get('label')}: {name} cannot be captured: {error}", file=sys.stderr)
    replayed = timer.interleaved(graphs)
    for name in calls:
        us, mad = spread(samples[name])
        entry = {"us": round(us, 3), "mad_us": round(mad, 3), "samples": len(samples[name]), "rel_l2": errors[name]}
        if name in replayed:
            entry["graph_us"], entry["graph_mad_us"] = (round(v, 3) for v in spread(replayed[name]))
        entry["best_us"] = min(entry["us"], entry.get("graph_us", entry["us"]))
        entry["wrong"] = errors[name] is not None and not errors[name] <= limit
        result["providers"][name] = entry
    return result


def table(rows, device):
    full = lambda r: {n: p for n, p in r["providers"].items() if n not in ("kgen", "cublas_bare") and not p["wrong"]}
    lines = [
        f"Device: {device}. Written by bench/side_by_side.py: vendor and kgen in one process, turns taken, L2 displaced before each",
        "sample; medians in µs, ± median absolute deviation; the smaller of plain call and graph replay.",
        "",
        "| op | problem | epilogue | kgen µs | ± | TFLOP/s | GB/s | cuBLAS µs | cuDNN Conv3d µs | best vendor | "
        "cuBLAS / kgen | cuDNN / kgen | best / kgen | kgen rel. L2 |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    ratios = []
    for r in rows:
        if not r["providers"]:
            continue
        mine = r["providers"]["kgen"]
        us = mine["best_us"]
        vendors = full(r)
        blas = r["providers"].get("cublas") or r["providers"].get("cublas_bare")
        conv = vendors.get("cudnn_conv3d")
        best = min(vendors, key=lambda n: vendors[n]["best_us"])
        ratio = lambda p: f"{p['best_us'] / us:.2f}" if p else ""
        ratios.append(vendors[best]["best_us"] / us)
        conv_us = f"{conv['best_us']:.1f}" if conv else ""
        wrong = " WRONG" if mine["wrong"] else ""
        shape = " ".join(f"{k}={v}" for k, v in r["dims"].items())
        lines.append(
            f"| {r['op']} | {shape} | {r['attributes'].get('epilogue', '')} | {us:.2f}{wrong} | "
            f"{mine['mad_us']:.2f} | {r['flops'] / us / 1e6:.1f} | {r['bytes'] / us / 1e3:.0f} | "
            f"{blas['best_us']:.2f} | {conv_us} | {best} | {ratio(blas)} | {ratio(conv)} | "
            f"{ratio(vendors[best])} | {mine['rel_l2']:.1e} |")
    if ratios:
        lines += ["", f"{len(ratios)} problems; geometric mean of best vendor / kgen: {statistics.geometric_mean(ratios):.3f}."]
    missing = [r for r in rows if not r["providers"]]
    lines += [f"Not compared: {r['op']} {r['dims']}: {r['note']}." for r in missing]
    lines.append("cuBLAS is the bare product (with bias where the problem has one); other epilogue steps cost it extra launches, which "
                 "`best vendor` includes.")
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
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(1)
    text = subprocess.run([options.kgen, "show", options.db, "--format", "json"], check=True, capture_output=True, text=True).stdout
    winners = json.loads(text)["winners"]
    device = torch.cuda.get_device_name(0)
    timer, kgen = Timer(options.repeats, options.budget_ms), Kgen(options.lib, options.db)
    rows = []
    out = open(options.jsonl, "w") if options.jsonl else None
    with torch.no_grad():
        for winner in winners:
            try:
                row = run(winner, kgen, timer)
            except (RuntimeError, torch.OutOfMemoryError) as error:
                row = {"op": winner["op"], "dims": winner["dims"], "attributes": winner["attributes"], "providers": {},
                       "label": winner.get("label", ""), "note": str(error).splitlines()[0]}
            row["device"], row["torch"], row["cudnn"] = device, torch.__version__, torch.backends.cudnn.version()
            rows.append(row)
            if out:
                out.write(json.dumps(row) + "\n")
                out.flush()
    page = table(rows, f"{device}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write("# Tuned kernels beside the vendor library\n\n" + page)
    print(page)
    wrong = [r for r in rows if r["providers"] and r["providers"]["kgen"]["wrong"]]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
