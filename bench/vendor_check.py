#!/usr/bin/env python3
"""Are the vendor's times of `kgen bench --baseline vendor` what a program gets? Times the same products and convolutions with
PyTorch, which calls the same libraries, and prints a line of JSON for each row of the bench.

    kgen tune bench/vendor.yaml --db vendor.db; kgen bench vendor.db --baseline vendor --json > bench.json
    bench/vendor_check.py bench.json

The caches are cold as in kgen's timing: 256 MB are read before each sample. Median of 50.
"""
import json
import statistics
import sys

import torch
import torch.nn.functional as F

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
flush = torch.empty(64 << 20, dtype=torch.int32, device="cuda")


def median_us(call):
    for _ in range(5):
        call()
    samples = []
    for _ in range(50):
        flush.sum()
        torch.cuda._sleep(100_000)  # what follows is enqueued before it runs
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        samples.append(1e3 * start.elapsed_time(end))
    return statistics.median(samples)


def random(dtype, *shape):
    return torch.randn(*shape, device="cuda").to(dtype)


def product(dims, attributes, epilogue, dtype):
    """What PyTorch has one call for; None for the rest."""
    m, n = dims.get("m") or dims["l"], dims.get("n") or dims["e"]
    k = dims.get("k") or dims["c"] * dims["t"] * dims["ph"] * dims["pw"]
    batch = dims.get("batch", 1)
    a = random(dtype, batch, m, k)
    b = random(dtype, batch, n, k)
    if attributes.get("b_layout", "nk") == "kn":
        b = random(dtype, batch, k, n).transpose(1, 2)
    bias = random(dtype, n) if "bias" in epilogue else None
    if batch > 1 and not epilogue:
        return lambda: torch.bmm(a, b.transpose(1, 2))
    if epilogue in ([], ["bias"]):
        return lambda: F.linear(a[0], b[0], bias)
    if epilogue in (["bias", "relu"], ["bias", "gelu_tanh"]):
        return lambda: torch._addmm_activation(bias, a[0], b[0].t(), use_gelu=epilogue[1] == "gelu_tanh")
    return None


def convolution(dims, epilogue, dtype):
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last
    x = random(dtype, dims["n"], dims["c"], dims["h"], dims["w"]).to(memory_format=layout)
    groups = dims.get("groups", 1)
    weight = random(dtype, dims["k"], dims["c"] // groups, dims["r"], dims["s"]).to(memory_format=layout)
    bias = random(dtype, dims["k"])
    how = ([dims.get("stride", 1)] * 2, [dims.get("pad", 0)] * 2, [dims.get("dil", 1)] * 2, groups)
    if not epilogue:
        return lambda: F.conv2d(x, weight, None, *how)
    if epilogue == ["bias", "relu"]:
        return lambda: torch.cudnn_convolution_relu(x, weight, bias, *how)
    if epilogue == ["bias", "add_residual", "relu"]:
        residual = torch.randn_like(F.conv2d(x, weight, bias, *how))
        return lambda: torch.cudnn_convolution_add_relu(x, weight, residual, 1.0, bias, *how)
    return None


def main():
    with open(sys.argv[1]) as file:
        rows = json.load(file)["rows"]
    for row in rows:
        op, *words = row["signature"].split()
        attributes = dict(word.split("=", 1) for word in words)
        epilogue = [step for step in attributes.get("epilogue", "").split(",") if step]
        dtype = DTYPES[attributes["dtype"]]
        call = None
        if op in ("gemm", "conv3d_patchify"):
            call = product(row["dims"], attributes, epilogue, dtype)
        elif op == "conv2d":
            call = convolution(row["dims"], epilogue, dtype)
        vendor = row["vendor"]
        torch_us = median_us(call) if call else None
        print(json.dumps({
            "op": op, "epilogue": epilogue, "dims": row["dims"],
            "kgen_us": row["entries"][0]["time_us"] if row["entries"] else None,
            "library": vendor["library"], "vendor_us": vendor["time_us"], "algorithms": vendor["algorithms"],
            "note": vendor["note"], "torch_us": torch_us,
            "vendor_over_torch": vendor["time_us"] / torch_us if torch_us and vendor["time_us"] else None}))


if __name__ == "__main__":
    main()
