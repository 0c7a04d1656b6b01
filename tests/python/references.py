"""What the operators compute, in float64 numpy, written from their mathematics and not from kgen's sources."""
import math

import numpy as np


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def silu(t):
    return t * sigmoid(t)


def gelu_erf(t):
    return t / 2 * (1 + np.vectorize(math.erf)(t / math.sqrt(2)))


ACTIVATIONS = {"": lambda t: t, "relu": lambda t: np.maximum(t, 0), "silu": silu, "gelu_erf": gelu_erf,
               "sigmoid": sigmoid, "quick_gelu": lambda t: t * sigmoid(1.702 * t)}


def rmsnorm(x, w, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * w


def layernorm(x, w, b, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred ** 2, -1, keepdims=True) + eps) * w + b


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def conv2d(x, w, stride=1, pad=0, dil=1, groups=1):
    """NCHW."""
    n, c, h, width = x.shape
    k, cg, r, s = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    p = (h + 2 * pad - dil * (r - 1) - 1) // stride + 1
    q = (width + 2 * pad - dil * (s - 1) - 1) // stride + 1
    y = np.zeros((n, k, p, q))
    for out in range(k):
        first = out // (k // groups) * cg
        for i in range(r):
            for j in range(s):
                window = padded[:, first:first + cg, i * dil:i * dil + (p - 1) * stride + 1:stride,
                                j * dil:j * dil + (q - 1) * stride + 1:stride]
                y[:, out] += np.einsum("nchw,c->nhw", window, w[out, :, i, j])
    return y


def attention(q, k, v, causal=False, lengths=None):
    b, hq, sq, d = q.shape
    group = hq // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = np.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(d)
    skv = k.shape[2]
    if causal:
        seen = np.arange(skv)[None] <= np.arange(sq)[:, None] + (skv - sq)
        scores = np.where(seen, scores, -np.inf)
    if lengths is not None:
        scores = np.where(np.arange(skv)[None, None, None] < np.asarray(lengths)[:, None, None, None], scores, -np.inf)
        v = np.where(np.arange(skv)[None, None, :, None] < np.asarray(lengths)[:, None, None, None], v, 0)
    return np.einsum("bhij,bhjd->bhid", softmax(scores), v)


def rope_neox(x, positions, cos, sin):
    half = cos.shape[1]
    c, s = cos[positions][:, None], sin[positions][:, None]
    a, b = x[..., :half], x[..., half:2 * half]
    return np.concatenate([a * c - b * s, b * c + a * s, x[..., 2 * half:]], -1)


def gptq_weight(qweight, qzeros, scales, group):
    """4 bits, v1 zeros (stored minus one)."""
    q = np.stack([(qweight.astype(np.int64) >> 4 * i) & 15 for i in range(8)], 1).reshape(-1, qweight.shape[1])
    zero = np.stack([(qzeros.astype(np.int64) >> 4 * i) & 15 for i in range(8)], 2).reshape(qzeros.shape[0], -1) + 1
    rows = np.arange(q.shape[0]) // group
    return scales.astype(float)[rows] * (q - zero[rows])


def mhc_mixes(residual, fn, eps=1e-6):
    f = residual.reshape(residual.shape[0], -1)
    return f @ fn.T / np.sqrt(np.mean(f * f, -1, keepdims=True) + eps)


def mhc_pre(residual, fn, scale, base, repeat=20, eps=1e-6, post_mult=2):
    t, n, _ = residual.shape
    mix = mhc_mixes(residual, fn)
    pre = sigmoid(mix[:, :n] * scale[0] + base[:n]) + eps
    post = post_mult * sigmoid(mix[:, n:2 * n] * scale[1] + base[n:2 * n])
    comb = softmax((mix[:, 2 * n:] * scale[2] + base[2 * n:]).reshape(t, n, n)) + eps
    comb = comb / (comb.sum(1, keepdims=True) + eps)
    for _ in range(repeat - 1):
        comb = comb / (comb.sum(2, keepdims=True) + eps)
        comb = comb / (comb.sum(1, keepdims=True) + eps)
    return post[..., None], comb, np.einsum("tn,tnh->th", pre, residual)


def mhc_post(x, residual, post, comb):
    return post * x[:, None] + np.einsum("tij,tih->tjh", comb, residual)


def hc_head(residual, fn, scale, base, eps=1e-6):
    gate = sigmoid(mhc_mixes(residual, fn) * scale[0] + base) + eps
    return np.einsum("tn,tnh->th", gate, residual)


def maxpool2d(x, r, stride, pad):
    """NHWC."""
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    p, q = (padded.shape[1] - r) // stride + 1, (padded.shape[2] - r) // stride + 1
    windows = [padded[:, i:i + (p - 1) * stride + 1:stride, j:j + (q - 1) * stride + 1:stride]
               for i in range(r) for j in range(r)]
    return np.max(windows, 0)


def g2l_tail(z, wp, bp, a, b, wm, bm, x):
    c = wp.shape[0]
    branches = [silu(z[..., i * c:(i + 1) * c] @ wp.T + bp) for i in range(3)]
    v = np.concatenate(branches, -1)
    g = v * sigmoid(silu(a * v + b))
    mix = np.einsum("nhwci,ci->nhwc", g.reshape(*g.shape[:-1], c, 3), wm)
    return x + silu(mix + bm)
