"""Problems for an ops.yaml from tensors (real or fake): (entry, dims), or None where kgen has none for them."""
import json

from .. import _tensor


def _number(size):
    """A size; that of the example where it is a symbol."""
    return size if isinstance(size, int) else int(size.node.hint)


def _sizes(tensor):
    return tuple(_number(size) for size in tensor.shape)


def _strides(tensor):
    return tuple(_number(stride) for stride in tensor.stride())


def dtype(tensor):
    return _tensor._TORCH.get(str(tensor.dtype)[6:])


def product(a, b, op="gemm"):
    """a [.., m, k] times b [k, n] or [batch, k, n], whichever way b lies."""
    if a.dim() < 1 or b.dim() not in (2, 3) or (b.dim() == 3 and a.dim() != 3):
        return None
    sizes, strides = _sizes(a), _strides(a)
    m = 1
    for size in sizes[:-1] if b.dim() == 2 else sizes[-2:-1]:
        m *= size
    (k, n), (step_k, step_n) = _sizes(b)[-2:], _strides(b)[-2:]
    nk = step_k == 1 and step_n >= k and k > 1
    entry = {"op": op, "dtype": dtype(a), "b_layout": "nk" if nk else "kn", "epilogue": []}
    dims = {"m": m, "n": n, "k": k}
    if b.dim() == 3:
        dims["batch"] = sizes[0]
    lda = strides[-2] if a.dim() > 1 and sizes[-2] > 1 else k
    for name, stride, default in (("lda", lda, k), ("ldb", step_n if nk else step_k, k if nk else n)):
        if stride > default:
            dims[name] = stride
    return entry, dims


def is_nhwc(x):
    """Whether an image [n, c, h, w] lies channel by channel, be it some channels of a wider one."""
    (_, c, h, w), strides = _sizes(x), _strides(x)
    return strides[1] == 1 and (c > 1 or h * w == 1) and (w == 1 or strides[3] >= c)


def _step(tensor, layout):
    """Of an image as its kernel sees it: from pixel to pixel of [n, h, w, c], from image to image of [n, c, h, w]; None where
    that is dense."""
    sizes, strides = _sizes(tensor), _strides(tensor)
    if layout == "nhwc":
        _, h, w, c = sizes
        step = strides[2] if w > 1 else strides[1] if h > 1 else c
        return None if step == c else step
    return None if sizes[0] == 1 or strides[0] == sizes[1] * sizes[2] * sizes[3] else strides[0]


def residual(op, dims, seen, layout):
    """The dims of a problem with those of a residual whose rows are apart."""
    if op == "conv2d":
        step = _step(seen, layout)
    else:
        apart = seen.dim() > 1 and _sizes(seen)[-2] > 1 and _strides(seen)[-2] != _sizes(seen)[-1]
        step = _strides(seen)[-2] if apart else None
    return dims if step is None else {**dims, "ldr": step}


def convolution(x, seen, weight, layout, options):
    """`seen`: x as the kernel sees it."""
    n, c, h, w = _sizes(x)
    k, _, r, s = _sizes(weight)
    if _step(seen, layout) is not None:
        options = {**options, "ldx": _step(seen, layout)}
    return {"op": "conv2d", "dtype": dtype(x), "layout": layout, "epilogue": []}, \
        {"n": n, "c": c, "h": h, "w": w, "k": k, "r": r, "s": s,
         **{name: value for name, value in options.items() if value != (0 if name.startswith("pad") else 1)}}


def patches(x, weight):
    return {"op": "conv3d_patchify", "dtype": dtype(x), "epilogue": []}, \
        dict(zip(("l", "c", "t", "ph", "pw", "e"), (*_sizes(x), _sizes(weight)[0])))


def dilations(x, seen, weight, dils, layout):
    n, c, h, w = _sizes(x)
    k, _, r, s = _sizes(weight)
    step = _step(seen, layout)
    return {"op": "multi_dilation_conv", "dtype": dtype(x), "dils": list(dils), "layout": layout, "epilogue": []}, \
        {"n": n, "c": c, "h": h, "w": w, "k": k, "r": r, "s": s, **({} if step is None else {"ldx": step})}


def tail(x, bias):
    n, c, h, w = _sizes(x)
    return {"op": "g2l_tail", "dtype": dtype(x), **({} if bias else {"bias": 0})}, {"n": n, "h": h, "w": w, "c": c}


def rows(op, x):
    sizes = _sizes(x)
    count = 1
    for size in sizes[:-1]:
        count *= size
    return {"op": op, "dtype": dtype(x)}, {"rows": count, "cols": sizes[-1]}


def attention(q, k, v, o, causal):
    b, hq, sq, d = _sizes(q)
    hkv, skv, dv = _sizes(k)[1], _sizes(k)[2], _sizes(v)[3]
    entry = {"op": "attention", "dtype": dtype(q), "d": d, "causal": int(causal), **({} if dv == d else {"dv": dv})}
    dims = {"b": b, "hq": hq, "hkv": hkv, "sq": sq, "skv": skv}
    for name, tensor in (("q", q), ("k", k), ("v", v), ("o", o)):
        (_, heads, length, width), (batch_stride, head_stride, stride, _) = _sizes(tensor), _strides(tensor)
        plain = stride if length > 1 else width
        for dim, value, default, counts in ((f"ld{name}", stride, width, length > 1),
                                            (f"head_stride_{name}", head_stride, length * plain, heads > 1),
                                            (f"batch_stride_{name}", batch_stride, heads * (head_stride if heads > 1 else length * plain), b > 1)):
            if counts and value != default:
                dims[dim] = value
    return entry, dims


def decode(q, k):
    b, hq, _, d = _sizes(q)
    return {"op": "decode_attention", "dtype": dtype(q), "d": d}, {"b": b, "hq": hq, "hkv": _sizes(k)[1], "smax": _sizes(k)[2]}


def write(path, entries, origin):
    """An ops.yaml of (entry, dims, comment)."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"# {origin}. `kgen tune` takes it as it is.\nkgen: 1\nops:\n")
        for entry, dims, comment in entries:
            file.write(f"  - {json.dumps({**entry, 'problems': [dims]})}   # {comment}\n")
