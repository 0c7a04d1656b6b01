"""trace(): what a model's operators cost beside what the device could do, and the ops.yaml that would tune them."""
import collections
import json
import statistics
import time

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import _problems as problems
from ._ops import convolution_options

_VIEWS = {"view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "detach",
          "alias", "as_strided", "split", "split_with_sizes", "chunk", "unbind", "reshape", "narrow", "empty", "_to_copy_view",
          "lift_fresh", "is_same_size", "_local_scalar_dense", "sym_size", "empty_like"}


# What kgen has for an operator of aten, from its arguments and results: (entry, dims) or None.

def _mm(args, _):
    return problems.product(*args[:2])


def _addmm(args, _):
    entry, dims = problems.product(*args[1:3])
    entry["epilogue"] = ["bias"] if args[0].dim() == 1 else ["add_c"]
    return entry, dims


def _convolution(args, _):
    x, w, bias, stride, pad, dil, transposed, _, groups = args[:9]
    if transposed or x.dim() not in (4, 5):
        return None
    if x.dim() == 5:
        if tuple(x.shape[2:]) != tuple(w.shape[2:]) or groups != 1 or any(pad):
            return None
        entry, dims = problems.patches(x, w)
    else:
        nhwc = problems.is_nhwc(x) and not x.is_contiguous()
        seen = x.permute(0, 2, 3, 1) if nhwc else x
        entry, dims = problems.convolution(x, seen, w, "nhwc" if nhwc else "nchw", convolution_options(stride, pad, dil, groups))
    entry["epilogue"] = [] if bias is None else ["bias"]
    return entry, dims


def _layer_norm(args, _):
    if len(args[1]) != 1 or args[2] is None or args[3] is None:
        return None
    return problems.rows("layernorm", args[0])


def _rms_norm(args, _):
    return problems.rows("rmsnorm", args[0]) if len(args[1]) == 1 and args[2] is not None else None


def _softmax(args, _):
    return problems.rows("softmax", args[0]) if args[1] in (-1, args[0].dim() - 1) else None


def _embedding(args, _):
    table, ids = args[:2]
    return {"op": "embedding", "dtype": problems.dtype(table), "id_dtype": problems.dtype(ids)}, \
        {"rows": ids.numel(), "cols": table.shape[1], "vocab": table.shape[0]}


def _attention(causal_at, bias_at=None):
    def entry(args, results):
        if bias_at is not None and len(args) > bias_at and args[bias_at] is not None:
            return None
        causal = len(args) > causal_at and args[causal_at] is True
        return problems.attention(*args[:3], results[0], causal)
    return entry


_ENTRIES = {"mm": _mm, "addmm": _addmm, "bmm": _mm, "convolution": _convolution, "native_layer_norm": _layer_norm,
            "_fused_rms_norm": _rms_norm, "_softmax": _softmax, "embedding": _embedding,
            "_scaled_dot_product_flash_attention": _attention(4), "_scaled_dot_product_flash_attention_for_cpu": _attention(4),
            "_scaled_dot_product_efficient_attention": _attention(6, 3), "_scaled_dot_product_cudnn_attention": _attention(6, 3)}


def _flops(entry, dims):
    if entry is None:
        return 0
    op = entry["op"]
    if op == "gemm":
        return 2 * dims.get("batch", 1) * dims["m"] * dims["n"] * dims["k"]
    if op == "conv3d_patchify":
        return 2 * dims["l"] * dims["e"] * dims["c"] * dims["t"] * dims["ph"] * dims["pw"]
    if op == "attention":
        return 2 * dims["b"] * dims["hq"] * dims["sq"] * dims["skv"] * (entry["d"] + entry.get("dv", entry["d"])) // (1 + entry["causal"])
    return None  # conv2d: by its output


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


class _Recorder(TorchDispatchMode):
    def __init__(self, cuda):
        super().__init__()
        self.cuda, self.calls = cuda, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        namespace = function._schema.name.partition("::")[0]
        if name in _VIEWS:
            return function(*args, **(kwargs or {}))
        if self.cuda:
            # The device waits a little, so that the events stand right before and behind the operator's kernels.
            torch.cuda._sleep(200_000)
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            result = function(*args, **(kwargs or {}))
            end.record()
            elapsed = (start, end)
        else:
            start = time.perf_counter()
            result = function(*args, **(kwargs or {}))
            elapsed = (time.perf_counter() - start) * 1e6
        inputs, outputs = list(_tensors(args)), list(_tensors(result))
        made = _ENTRIES[name](args, outputs) if name in _ENTRIES and namespace == "aten" else None
        entry, dims = made if made is not None and made[0]["dtype"] is not None else (None, None)
        work = _flops(entry, dims)
        if work is None and entry["op"] == "conv2d":
            work = 2 * outputs[0].numel() * dims["c"] // dims.get("groups", 1) * dims["r"] * dims["s"]
        touched = sum(min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
                          if hasattr(tensor, "untyped_storage") else tensor.numel() * tensor.element_size())
                      for tensor in inputs + outputs)
        shapes = " ".join("x".join(map(str, tensor.shape)) for tensor in inputs if tensor.dim())
        dtype = str(inputs[0].dtype)[6:] if inputs else ""
        self.calls.append((name, namespace, shapes, dtype, entry, dims, work or 0, touched, elapsed))
        return result


def _peaks(device, dtypes):
    """(bytes a second of a copy, FLOP a second of a product by dtype), measured."""
    cuda = device.type == "cuda"

    def seconds(work, repeats):
        work()
        if cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(repeats):
                work()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1e3 / repeats
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - begin) / repeats

    size = 1 << (28 if cuda else 25)
    x, y = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    bandwidth = 2 * size / seconds(lambda: y.copy_(x), 10 if cuda else 3)
    peaks = {}
    for dtype in dtypes:
        n = 8192 if cuda and dtype != torch.float32 else 4096 if cuda else 512
        a = torch.ones(n, n, dtype=dtype, device=device)
        peaks[str(dtype)[6:]] = 2 * n ** 3 / seconds(lambda: a @ a, 5 if cuda else 2)
    return bandwidth, peaks


Row = collections.namedtuple("Row", "op shapes dtype count us bound_us waste_us entry dims")


class Trace(list):
    """Rows by wasted time of all their calls, the most first. `worst`: the row whose single call wastes most."""

    @property
    def worst(self):
        return max(self, key=lambda row: row.waste_us / row.count, default=None)

    def __str__(self):
        lines = []
        if self:
            row = self.worst
            lines.append(f"worst: {row.op} {row.shapes} takes {row.us / row.count:.1f} us, {row.us / max(row.bound_us, 1e-3):.3g} times its bound"
                         + (f"; kgen's {row.entry['op']} can stand for it" if row.entry else ""))
        lines.append(f"{'op':<28} {'count':>5} {'us':>10} {'bound us':>10} {'share':>6} {'waste us':>10}  kgen op; shapes")
        for row in self:
            share = row.bound_us / row.us if row.us else 0
            lines.append(f"{row.op:<28} {row.count:>5} {row.us:>10.1f} {row.bound_us:>10.1f} {share:>6.0%} "
                         f"{row.waste_us:>10.1f}  {row.entry['op'] if row.entry else '-'}; {row.dtype} {row.shapes}")
        return "\n".join(lines)

    def write(self, path, least_us=0.0):
        """An ops.yaml of the rows that kgen has an operator for and that waste at least so much; the number of them."""
        rows = [row for row in self if row.entry is not None and row.waste_us >= least_us]
        problems.write(path, ((row.entry, row.dims, f"{row.count} calls, {row.us:.1f} us, bound {row.bound_us:.1f} us") for row in rows),
                       "From kgen.torch.trace, slowest waste first")
        return len(rows)


def trace(model, *inputs, path=None, passes=3, **keywords):
    """Runs the model, times each of its operators against its roofline (bytes moved once, products at the measured peak)
    and gives a Trace, the worst waste first. `path`: also writes an ops.yaml of what kgen can tune."""
    tensors = list(_tensors(list(inputs) + list(keywords.values()))) + list(model.parameters())
    device = tensors[0].device
    cuda = device.type == "cuda"
    runs = []
    with torch.no_grad():
        model(*inputs, **keywords)
        for _ in range(passes):
            recorder = _Recorder(cuda)
            with recorder:
                model(*inputs, **keywords)
            if cuda:
                torch.cuda.synchronize()
            runs.append(recorder.calls)
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    bandwidth, peaks = _peaks(device, dtypes)
    groups = collections.OrderedDict()
    for index, call in enumerate(runs[0]):
        name, namespace, shapes, dtype, entry, dims, work, touched, _ = call
        times = [run[index][8] for run in runs if index < len(run) and run[index][0] == name]
        us = statistics.median(item[0].elapsed_time(item[1]) * 1e3 if cuda else item for item in times)
        bound = max(touched / bandwidth, work / peaks.get(dtype, max(peaks.values(), default=1e12))) * 1e6
        key = (name, shapes, dtype, json.dumps([entry, dims], sort_keys=True))
        first = groups.setdefault(key, [namespace, entry, dims, 0, 0.0, 0.0])
        first[3] += 1
        first[4] += us
        first[5] += bound
    rows = Trace()
    for (name, shapes, dtype, _), (namespace, entry, dims, count, us, bound) in groups.items():
        rows.append(Row(name if namespace == "aten" else f"{namespace}::{name}", shapes, dtype, count, us, bound,
                        max(0.0, us - bound), entry, dims))
    rows.sort(key=lambda row: -row.waste_us)
    if path is not None:
        rows.write(path)
    return rows
