"""Every operator of a DB that was tuned on the host, called by name with numpy arrays, against float64 references."""
import operator
import os
import threading
import unittest
import warnings

import numpy as np

import kgen
import references as ref
from kgen._tensor import View, row_major

DB = os.environ["KGEN_TEST_DB"]


def setUpModule():
    global db
    db = kgen.open(DB, "host")


def tearDownModule():
    db.close()


def random(*shape, seed=0, dtype="f4", scale=1.0):
    return (np.random.default_rng(seed + sum(shape)).normal(size=shape) * scale).astype(dtype)


def wide(*arrays):
    return [array.astype("f8") for array in arrays]


def to_bf16(array):
    """The nearest bf16, as uint16 bits and as float64."""
    bits = np.ascontiguousarray(array, "f4").view("u4")
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
    return bits.astype("u2"), (bits.astype("u4") << 16).view("f4").astype("f8")


class Operators(unittest.TestCase):
    def near(self, got, want, rtol=1e-5):
        self.assertEqual(np.shape(got), np.shape(want))
        error = np.abs(np.asarray(got, "f8") - want).max() / max(1e-30, np.abs(want).max())
        self.assertLess(error, rtol)

    def test_gemm_with_bias_and_activation(self):
        a, b, bias = random(8, 32), random(16, 32), random(16)
        t = a.astype("f8") @ b.T + bias
        self.near(db.gemm(a, b, bias=bias, activation="silu"), ref.silu(t))
        self.near(db.gemm(a, b, bias, activation="silu", alpha=0.5), ref.silu(0.5 * (t - bias) + bias))
        self.near(db.gemm(a, b, bias=bias, epilogue="bias,silu"), ref.silu(t))

    def test_gemm_adds_a_residual_after_the_activation_unless_the_epilogue_says_otherwise(self):
        a, b, bias, residual = random(8, 32), random(16, 32), random(16), random(8, 16, seed=3)
        t = a.astype("f8") @ b.T + bias
        self.near(db.gemm(a, b, bias=bias, residual=residual, activation="silu"), ref.silu(t) + residual)
        with self.assertRaisesRegex(kgen.NotFound, "adds before the activation"):
            db.gemm(a, b, bias=bias, residual=residual, activation="relu")
        self.near(db.gemm(a, b, bias=bias, residual=residual, epilogue=["bias", "add_residual", "relu"]),
                  np.maximum(t + residual, 0))

    def test_gemm_with_c_and_both_scalars(self):
        a, b, c = random(8, 32), random(16, 32), random(8, 16, seed=5)
        self.near(db.gemm(a, b, c=c, alpha=2, beta=-0.5), 2 * (a.astype("f8") @ b.T) - 0.5 * c)

    def test_gemm_batched_with_a_shared_b_and_with_strides(self):
        a, b = random(3, 8, 32), random(3, 32, 16)
        self.near(db.gemm(a, b, b_layout="kn"), a.astype("f8") @ b)
        self.near(db.gemm(a, b[0], b_layout="kn"), a.astype("f8") @ b[0])
        self.near(db.gemm(a.transpose(1, 0, 2), b[0], b_layout="kn"), a.transpose(1, 0, 2).astype("f8") @ b[0])
        rows = random(8, 64)[:, :32]
        self.near(db.gemm(rows, b[0], b_layout="kn"), rows.astype("f8") @ b[0])

    def test_leading_axes_are_rows(self):
        a, b, bias = random(2, 5, 32), random(16, 32), random(16)
        got = db.gemm(a, b, bias=bias, activation="silu")
        self.near(got, ref.silu(a.astype("f8") @ b.T + bias))
        match = db.find("gemm", a, b, bias=bias, activation="silu")
        self.assertEqual((match.kind, match.dims["m"], match.dims["batch"]), ("near", 10, 1))

    def test_gemm_of_bf16_bits(self):
        (a, wide_a), (b, wide_b), (bias, wide_bias) = (to_bf16(random(*shape)) for shape in ((8, 32), (16, 32), (16,)))
        want = wide_a @ wide_b.T
        self.near(db.gemm(kgen.bf16(a), kgen.bf16(b), out_dtype="fp32"), want)
        got = db.gemm(kgen.bf16(a), kgen.bf16(b), bias=kgen.bf16(bias))
        self.near((got.array.astype("u4") << 16).view("f4"), want + wide_bias, 2 ** -8)

    def test_rmsnorm_gemm(self):
        a, norm, b = random(1, 64), random(64), random(24, 64)
        self.near(db.rmsnorm_gemm(a, norm, b, eps=1e-5), ref.rmsnorm(*wide(a, norm), 1e-5) @ b.T)

    def test_conv2d_nhwc(self):
        x, w, bias = random(1, 9, 7, 8), random(16, 3, 3, 8), random(16)
        want = ref.conv2d(x.astype("f8").transpose(0, 3, 1, 2), w.transpose(0, 3, 1, 2), pad=1).transpose(0, 2, 3, 1)
        self.near(db.conv2d(x, w, bias, activation="relu", pad=1), np.maximum(want + bias, 0))

    def test_conv2d_nchw_strided_dilated_in_groups(self):
        x, w, scale, shift = random(2, 6, 9, 7), random(8, 3, 3, 3), random(8), random(8, seed=1)
        want = ref.conv2d(x.astype("f8"), w, 2, 2, 2, 2) * scale[:, None, None] + shift[:, None, None]
        got = db.conv2d(x, w, scale=scale, shift=shift, layout="nchw", activation="silu", stride=2, pad=2, dil=2, groups=2)
        self.near(got, ref.silu(want))

    def test_multi_dilation_conv(self):
        x, w, bias = random(1, 6, 7, 8), random(8, 3, 3, 8), random(8)
        nchw, weight = x.astype("f8").transpose(0, 3, 1, 2), w.transpose(0, 3, 1, 2)
        want = np.concatenate([ref.conv2d(nchw, weight, pad=d, dil=d).transpose(0, 2, 3, 1) + bias for d in (1, 2)], -1)
        self.near(db.multi_dilation_conv(x, w, bias, dils=[1, 2], activation="silu"), ref.silu(want))

    def test_g2l_tail(self):
        operands = [random(1, 3, 4, 36), random(12, 12), random(12), random(36), random(36, seed=1), random(12, 3),
                    random(12, seed=1), random(1, 3, 4, 12)]
        self.near(db.g2l_tail(*operands), ref.g2l_tail(*wide(*operands)))

    def test_conv3d_patchify(self):
        x, w, bias = random(12, 96), random(24, 3, 2, 4, 4), random(24)
        self.near(db.conv3d_patchify(x, w, bias), x.astype("f8") @ w.reshape(24, 96).T + bias)

    def test_gemm_fp8_goes_by_the_types_of_its_operands(self):
        def stored(values, dtype):
            tensor = db.tensor(values.tolist(), dtype)
            return tensor, np.array(tensor.tolist())

        a, b = random(5, 144), random(24, 144)
        scale_a, scale_b = db.tensor([[0.5]]), db.tensor([[3.0]])
        b8, wide_b = stored(b, "fp8_e4m3")
        for dtype in ("fp8_e4m3", "fp8_e5m2"):
            a8, wide_a = stored(a, dtype)
            self.near(wide_a, a, 0.07)
            match = db.find("gemm_fp8", a8, b8, scale_a, scale_b, out_dtype="fp32")
            self.assertEqual(match.kind, "exact")
            self.near(db.gemm_fp8(a8, b8, scale_a, scale_b, out_dtype="fp32").tolist(), wide_a @ wide_b.T * 1.5)
        with self.assertRaises(kgen.NotFound):
            db.gemm_fp8(b8, stored(b, "fp8_e5m2")[0], scale_a, scale_b, out_dtype="fp32")

        a8, wide_a = stored(a, "fp8_e4m3")
        scale_a, scale_b = random(5, 2), random(1, 2)
        got = db.gemm_fp8(a8, b8, db.tensor(scale_a.tolist()), db.tensor(scale_b.tolist()), scales="block", out_dtype="fp32")
        want = sum((wide_a[:, at] @ wide_b[:, at].T) * scale_a[:, [i]] * scale_b[0, i]
                   for i, at in enumerate((slice(0, 128), slice(128, 144))))
        self.near(got.tolist(), want)

    def test_gptq_gemm(self):
        rng = np.random.default_rng(0)
        qweight, qzeros = (rng.integers(-2 ** 31, 2 ** 31, size=size).astype("i4") for size in ((8, 32), (2, 4)))
        scales, x, bias = random(2, 32, dtype="f2", scale=0.1), random(1, 64, dtype="f2"), random(32, dtype="f2")
        want = x.astype("f8") @ ref.gptq_weight(qweight, qzeros, scales, 32) + bias
        operands = dict(qweight=qweight, qzeros=qzeros, scales=scales, bias=bias, group_size=32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.near(db.gptq_gemm(x, **operands), want, 2e-3)
        self.assertEqual(db.prepare("gptq_gemm", x, **operands).kind, "exact")
        self.near(db.gptq_gemm(x, **operands), want, 2e-3)

    def test_attention(self):
        q, k, v = random(2, 4, 9, 16), random(2, 2, 12, 16), random(2, 2, 12, 16, seed=1)
        self.near(db.attention(q, k, v, causal=True), ref.attention(*wide(q, k, v), causal=True))

    def test_attention_with_heads_behind_rows(self):
        q, k, v = random(2, 9, 4, 16), random(2, 12, 2, 16), random(2, 12, 2, 16, seed=1)
        q, k, v = (array.transpose(0, 2, 1, 3) for array in (q, k, v))
        self.near(db.attention(q, k, v, causal=1), ref.attention(*wide(q, k, v), causal=True))

    def test_decode_attention(self):
        q, k, v = random(2, 4, 16), random(2, 2, 24, 16), random(2, 2, 24, 16, seed=1)
        lengths = np.array([7, 24], "i4")
        v[0, :, 7:] = np.nan
        want = ref.attention(*wide(q[:, :, None], k, v), lengths=lengths)[:, :, 0]
        self.near(db.decode_attention(q, lengths, k, v), want)

    def test_rows(self):
        x, w, b = random(6, 40), random(40), random(40, seed=1)
        self.near(db.rmsnorm(x, w, eps=1e-3), ref.rmsnorm(*wide(x, w), 1e-3))
        self.near(db.layernorm(x, w, b), ref.layernorm(*wide(x, w, b), 1e-5))
        self.near(db.softmax(x), ref.softmax(x.astype("f8")))
        twice = random(6, 80)
        self.near(db.silu_and_mul(twice), ref.silu(twice[:, :40].astype("f8")) * twice[:, 40:])

    def test_add_rmsnorm_writes_the_residual(self):
        x, residual, w = random(6, 40), random(6, 40, seed=1), random(40)
        want = residual + x
        got = db.add_rmsnorm(x, residual, w)
        np.testing.assert_array_equal(residual, want)
        self.near(got, ref.rmsnorm(*wide(want, w), 1e-6))

    def test_rope(self):
        x, positions = random(5, 3, 16), np.array([3, 0, 31, 7, 8], "i4")
        angles = np.arange(32)[:, None] * 10000.0 ** (-np.arange(8) / 8)
        cos, sin = np.cos(angles).astype("f4"), np.sin(angles).astype("f4")
        want = ref.rope_neox(x.astype("f8"), positions, *wide(cos, sin))
        self.near(db.rope(x, positions, cos, sin, style="neox"), want)
        with self.assertRaisesRegex(kgen.NotFound, "style=neox; ask for it by name"):
            db.rope(x, positions, cos, sin)

    def test_embedding(self):
        ids, table = np.array([[3, 19, 0], [1, 1, 2]]), random(20, 16)
        np.testing.assert_array_equal(db.embedding(ids, table), table[ids])

    def test_elementwise(self):
        x, y, bias, scale = random(6, 40), random(6, 40, seed=1), random(40), random(6)
        want = ref.gelu_erf(x.astype("f8") * scale[:, None] + y) + 0.25 * bias.astype("f8")
        self.near(db.elementwise(x=x, y=y, bias=bias, scale=scale, alpha=0.25,
                                 expr="gelu_erf(x*scale[row] + y) + bias*alpha[]"), want)

    def test_copies(self):
        parts = [random(6, 8), random(6, 16), random(6, 4)]
        np.testing.assert_array_equal(db.concat(*parts), np.concatenate(parts, 1))
        np.testing.assert_array_equal(db.concat(*parts[:2]), np.concatenate(parts[:2], 1))
        x = random(2, 6, 10)
        np.testing.assert_array_equal(db.transpose(x), x.transpose(0, 2, 1))
        np.testing.assert_array_equal(db.transpose(x[0]), x[0].T)
        x = random(2, 3, 5, 7)
        np.testing.assert_array_equal(db.upsample_nearest2x(x, layout="nchw"), x.repeat(2, 2).repeat(2, 3))

    def test_pools(self):
        x = random(1, 9, 7, 8)
        np.testing.assert_array_equal(db.maxpool2d(x, r=3, stride=2, pad=1), ref.maxpool2d(x, 3, 2, 1))
        x = random(2, 5, 7, 8)
        self.near(db.avgpool2d_global(x), x.astype("f8").mean((1, 2)))

    def mhc(self, rows):
        residual = random(3, 4, 64, dtype="f2")
        fn, base = random(rows, 256, scale=1 / 16), random(rows)
        scale = np.array([0.7, 1.1, 1.3][:1 if rows == 4 else 3], "f4")
        return residual, fn, scale, base

    def test_mhc_pre(self):
        operands = self.mhc(24)
        for got, want, limit in zip(db.mhc_pre(*operands), ref.mhc_pre(*wide(*operands)), (1e-4, 1e-4, 1e-3)):
            self.near(got, want, limit)

    def test_mhc_post(self):
        x, (residual, *_) = random(3, 64, dtype="f2"), self.mhc(24)
        post, comb = np.abs(random(3, 4, 1)), np.abs(random(3, 4, 4))
        self.near(db.mhc_post(x, residual, post, comb), ref.mhc_post(*wide(x, residual, post, comb)), 1e-3)

    def test_mhc_fused_post_pre(self):
        x, (residual, fn, scale, base) = random(3, 64, dtype="f2"), self.mhc(24)
        post, comb = np.abs(random(3, 4, 1)), np.abs(random(3, 4, 4))
        got = db.mhc_fused_post_pre(x, residual, post, comb, fn, scale, base)
        streams = ref.mhc_post(*wide(x, residual, post, comb))
        self.near(got[0], streams, 1e-3)
        want = ref.mhc_pre(got[0].astype("f8"), *wide(fn, scale, base))
        for one, reference, limit in zip(got[1:], want, (1e-4, 1e-4, 1e-3)):
            self.near(one, reference, limit)

    def test_hc_head(self):
        operands = self.mhc(4)
        self.near(db.hc_head(*operands), ref.hc_head(*wide(*operands)), 1e-3)


class Calls(unittest.TestCase):
    def setUp(self):
        self.a, self.b, self.bias = random(8, 32), random(16, 32), random(16)
        self.want = ref.silu(self.a.astype("f8") @ self.b.T + self.bias)

    def gemm(self, *operands, **keywords):
        return db.gemm(*(operands or (self.a, self.b)), **{"bias": self.bias, "activation": "silu", **keywords})

    def test_out_is_written_and_returned(self):
        out = np.full((8, 24), 7, "f4")
        self.assertIs(self.gemm(out=out[:, :16]).base, out)
        np.testing.assert_allclose(out[:, :16], self.want, rtol=1e-4, atol=1e-5)
        self.assertTrue((out[:, 16:] == 7).all())

    def test_wrong_out_is_refused(self):
        for out, text in ((np.empty((8, 17), "f4"), r"d is \[.*8, 17\], not \[batch, m, n\] = \[1, 8, 16\]"),
                          (np.empty((16, 8), "f4").T, "stride"), ([np.empty((8, 16), "f4")] * 2, "out has 2 tensors"),
                          (np.empty((8, 16), "f2"), "out is fp16")):
            with self.assertRaisesRegex(kgen.KgenError, text):
                self.gemm(out=out)

    def test_shapes_that_do_not_fit_are_named(self):
        with self.assertRaisesRegex(kgen.BadArgument, r"b is \[1, 16, 31\], not \[batch, n, k\] = \[1, 16, 32\]"):
            self.gemm(self.a, self.b[:, :31])
        with self.assertRaisesRegex(kgen.BadArgument, r"bias is \[15\], not \[n\] = \[16\] \(n=16\)"):
            self.gemm(bias=self.bias[:15])
        with self.assertRaisesRegex(kgen.BadArgument, "a has 1 axes, not"):
            self.gemm(self.a[0], self.b)

    def test_strides_that_do_not_fit_are_named(self):
        with self.assertRaisesRegex(kgen.BadArgument, "a: axis 2 .* has stride 2, not 1"):
            self.gemm(random(8, 64)[:, ::2], self.b)

    def test_types_that_were_not_tuned_are_named(self):
        with self.assertRaisesRegex(kgen.NotFound, "a is fp64, was tuned as fp32"):
            self.gemm(self.a.astype("f8"), self.b.astype("f8"))
        with self.assertRaisesRegex(kgen.BadArgument, "type '<c8' has no kgen dtype"):
            self.gemm(self.a.astype("c8"), self.b)
        with self.assertRaisesRegex(kgen.BadArgument, "'a' is a list|a list is no tensor|no tensor"):
            self.gemm([1.0], self.b)

    def test_misaligned_pointers_are_refused_by_name(self):
        buffer = np.zeros(8 * 32 * 4 + 1, "u1")[1:].view("u1")
        a = np.frombuffer(buffer, "f4").reshape(8, 32)
        with self.assertRaisesRegex(kgen.Misaligned, "operand 'a' .* is not aligned"):
            self.gemm(a, self.b)

    def test_unknown_names_give_the_nearest(self):
        with self.assertRaisesRegex(kgen.BadArgument, "has no 'actvation'; did you mean 'activation'"):
            db.gemm(self.a, self.b, actvation="silu")
        with self.assertRaisesRegex(AttributeError, "no operator 'gemn' for host; did you mean 'gemm'"):
            db.gemn
        with self.assertRaisesRegex(kgen.BadArgument, "did you mean 'softmax'"):
            db.find("softmx", self.a)
        with self.assertRaisesRegex(kgen.NotFound, 'ask for activation="silu"'):
            db.gemm(self.a, self.b, bias=self.bias)
        with self.assertRaisesRegex(kgen.BadArgument, "dim 'pad' is 'x', not an integer"):
            db.conv2d(random(1, 9, 7, 8), random(16, 3, 3, 8), random(16), activation="relu", pad="x")
        with self.assertRaisesRegex(kgen.BadArgument, "takes 6 operands"):
            db.gemm(*[self.a] * 7)

    def test_find_by_dims_says_how(self):
        exact = db.find("gemm", m=8, n=16, k=32, dtype="fp32", epilogue="bias,silu")
        self.assertEqual((exact.kind, exact.reason), ("exact", "exact: tuned for this shape"))
        self.assertGreater(exact.expected_us, 0)
        self.assertEqual(exact.expected_loss, 0)
        self.assertIn("tile_m=", exact.config)
        near = db.find("gemm", m=9, n=16, k=32, dtype="fp32", epilogue=["bias", "silu"])
        self.assertEqual((near.kind, near.reason), ("near", "near: tuned at m=8, legal for m=9"))
        with self.assertRaisesRegex(kgen.BadArgument, "'k' has no default and must be named"):
            db.find("gemm", m=9, n=16, dtype="fp32", epilogue="bias,silu")
        with self.assertRaisesRegex(kgen.NotFound, "was never tuned"):
            db.find("gemm", m=9, n=16, k=3, dtype="fp32", epilogue="bias,sigmoid")

    def test_no_rows_launch_nothing(self):
        out = self.gemm(self.a[:0], self.b)
        self.assertEqual(out.shape, (0, 16))

    def test_threads_share_a_database(self):
        failures = []

        def work(seed):
            try:
                for i in range(40):
                    rows = 1 + (seed * 7 + i) % 23
                    a = random(rows, 32, seed=seed)
                    got = db.gemm(a, self.b, bias=self.bias, activation="silu")
                    np.testing.assert_allclose(got, ref.silu(a.astype("f8") @ self.b.T + self.bias), rtol=1e-4, atol=1e-5)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


class Symbol:
    """A size as torch.compile has it under dynamic shapes: arithmetic and comparisons, no hash, no conversion to int."""

    __hash__ = None

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return f"s({self.value})"


def _symbolic(name):
    function = getattr(operator, name)

    def method(self, other):
        other = other.value if isinstance(other, Symbol) else other
        result = function(self.value, other)
        return result if isinstance(result, bool) else Symbol(result)

    def reflected(self, other):
        return Symbol(function(other, self.value))

    setattr(Symbol, f"__{name}__", method)
    if name in ("add", "sub", "mul", "floordiv", "mod"):
        setattr(Symbol, f"__r{name}__", reflected)


for _name in ("add", "sub", "mul", "floordiv", "mod", "eq", "ne", "lt", "le", "gt", "ge"):
    _symbolic(_name)
Symbol.__neg__ = lambda self: Symbol(-self.value)
Symbol.__bool__ = lambda self: self.value != 0


class Symbols(unittest.TestCase):
    def specs(self, name, keywords=None, **shapes):
        views = {}
        for operand, shape in shapes.items():
            views[operand] = View(0, "fp32", shape, row_major(shape), "cpu", 0, "torch")
        return db.op(name).output_specs(views, keywords or {})

    def test_output_shapes_follow_from_symbols(self):
        m = Symbol(11)
        (shape, _, dtype), = self.specs("gemm", {"activation": "silu"}, a=(m, 32), b=(16, 32), bias=(16,))
        self.assertEqual(dtype, "fp32")
        self.assertIsInstance(shape[0], Symbol)
        self.assertEqual([shape[0].value, shape[1]], [11, 16])
        (shape, _, _), = self.specs("gemm", {"activation": "silu"}, a=(2, m, 32), b=(16, 32), bias=(16,))
        self.assertEqual([shape[0], shape[1].value, shape[2]], [2, 11, 16])
        (shape, _, _), = self.specs("silu_and_mul", x=(m, 80))
        self.assertEqual([shape[0].value, shape[1]], [11, 40])
        (shape, _, _), = self.specs("conv2d", {"activation": "relu", "pad": 1}, x=(m, 9, 7, 8), weight=(16, 3, 3, 8), bias=(16,))
        self.assertEqual([shape[0].value, *shape[1:]], [11, 9, 7, 16])
        (shape, _, _), = self.specs("attention", {"causal": "1"}, q=(2, 4, m, 16), k=(2, 2, m, 16), v=(2, 2, m, 16))
        self.assertEqual([shape[2].value, shape[3]], [11, 16])


class Strides(unittest.TestCase):
    def view(self, shape, strides=None):
        return View(0, "fp32", shape, strides or row_major(shape), "cpu", 0, "torch")

    def test_some_channels_of_a_wider_image_are_seen_as_such(self):
        views = {"x": self.view((1, 9, 7, 8), (7 * 24 * 9, 7 * 24, 24, 1)), "weight": self.view((16, 3, 3, 8)), "bias": self.view((16,))}
        match = db.op("conv2d").match_views(views, {"activation": "relu", "pad": 1})
        self.assertEqual((match.dims["ldx"], match.dims["ldy"], match.kind), (24, 16, "near"))
        views["x"] = self.view((1, 9, 7, 8), (7 * 24 * 9, 7 * 24 + 1, 24, 1))
        with self.assertRaisesRegex(kgen.BadArgument, "x: axis 1 of .* has stride 169, not 168"):
            db.op("conv2d").match_views(views, {"activation": "relu", "pad": 1})

    def test_an_output_with_gaps_is_made_so(self):
        views = {"q": self.view((2, 4, 9, 16)), "k": self.view((2, 2, 12, 16)), "v": self.view((2, 2, 12, 16))}
        (shape, strides, _), = db.op("attention").output_specs(views, {"causal": "1"})
        self.assertEqual((shape, strides), ((2, 4, 9, 16), None))
        (_, strides, _), = db.op("attention").output_specs(views, {"causal": "1", "ldo": 64, "head_stride_o": 16, "batch_stride_o": 576})
        self.assertEqual(strides, (576, 16, 64, 1))
        gemm = {"a": self.view((8, 32)), "b": self.view((16, 32)), "bias": self.view((16,))}
        (shape, strides, _), = db.op("gemm").output_specs(gemm, {"activation": "silu", "ldd": 20})
        self.assertEqual((shape, strides), ((8, 16), (20, 1)))
        gemm["a"] = self.view((2, 4, 32))
        with self.assertRaisesRegex(kgen.BadArgument, "gaps between its rows has .* axes; give out="):
            db.op("gemm").output_specs(gemm, {"activation": "silu", "ldd": 20})


class Whole(unittest.TestCase):  # the last in the order of names
    def test_every_operator_of_the_file_was_called(self):
        self.assertEqual({name for name, operator in db._operators.items() if operator._calls}, set(db.operators))


if __name__ == "__main__":
    unittest.main()
