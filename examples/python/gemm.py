"""Looks tuned kernels up and runs them, with nothing but Python and libkgen: the two problems of examples/quickstart.yaml, and a shape
that was not tuned. Each result is compared with plain sums.

    PYTHONPATH=PREFIX/lib/python python3 gemm.py tuned.db [auto|host|nvidia:N|amd:N]
"""
import math
import random
import struct
import sys

import kgen


def numbers(rows, columns):
    return [[random.random() - 0.5 for _ in range(columns)] for _ in range(rows)]


def single(value):
    """The nearest float32: what a kernel reads."""
    return struct.unpack("f", struct.pack("f", value))[0]


def correct(got, a, b, bias):
    """Whether got = a.b^T + bias within the bound of kgen's own verification (float32 sums)."""
    a, b = ([[single(value) for value in row] for row in matrix] for matrix in (a, b))
    bias = [single(value) for value in bias]
    unit = 2.0 ** -24
    for row, results in zip(a, got):
        for column, extra, result in zip(b, bias, results):
            products = [x * y for x, y in zip(row, column)]
            right, terms = math.fsum(products) + extra, math.fsum(map(abs, products)) + abs(extra)
            if not abs(result - right) <= 4 * math.sqrt(len(row) + 1) * unit * terms + unit * abs(right):
                print(f"  {result} should be {right}")
                return False
    return True


def main():
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    right = True
    with kgen.open(sys.argv[1], *sys.argv[2:]) as db:
        print(f"kgen {kgen.library_version()} on {db.device_name}: {', '.join(db.operators)}")
        for m, n, k in ((64, 192, 192), (61, 192, 192)):
            a, b, bias = numbers(m, k), numbers(n, k), numbers(1, n)[0]
            operands = {"a": db.tensor(a), "b": db.tensor(b), "bias": db.tensor(bias)}
            match = db.find("gemm", **operands)
            fine = correct(db.gemm(**operands).tolist(), a, b, bias)
            print(f"gemm m={m} n={n} k={k}\n  {match.reason}\n  {match.config}\n  result {'correct' if fine else 'WRONG'}")
            right &= fine
        patches, weight = numbers(64, 1176), numbers(64, 1176)
        x, w = db.tensor(patches), db.tensor([value for row in weight for value in row], shape=(64, 3, 2, 14, 14))
        fine = correct(db.conv3d_patchify(x, w).tolist(), patches, weight, [0.0] * 64)
        print(f"conv3d_patchify l=64 e=64\n  {db.find('conv3d_patchify', x, w).reason}\n  result {'correct' if fine else 'WRONG'}")
        right &= fine
        try:
            db.gemm(db.tensor(a), db.tensor(b))  # without bias: that was not tuned
            right = False
        except kgen.NotFound as error:
            print("not tuned:", str(error).splitlines()[0])
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
