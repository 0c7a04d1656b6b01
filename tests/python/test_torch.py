"""kgen.torch on the host device. Skips aloud where torch is missing; an H100 runs all operators (docs/python.md)."""
import copy
import inspect
import os
import pathlib
import tempfile
import unittest
import unittest.mock

try:
    import torch
except ImportError:
    raise unittest.SkipTest("NOT RUN: torch is not installed")
if not hasattr(torch.library, "register_fake"):
    raise unittest.SkipTest(f"NOT RUN: torch {torch.__version__} has no register_fake (2.4 has)")

import kgen.torch

DB = os.environ["KGEN_TEST_DB"]


class Block(torch.nn.Module):
    """A patch embedding, a norm and a product, of which the DB has the first two."""

    def __init__(self):
        super().__init__()
        self.patch = torch.nn.Conv3d(3, 24, (2, 4, 4), stride=(2, 4, 4))
        self.norm = torch.nn.LayerNorm(24)
        self.head = torch.nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.norm(self.patch(x.view(-1, 3, 2, 4, 4)).view(-1, 24)))


class Torch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.ops = kgen.torch.load(DB, "host")
        cls.a, cls.b, cls.bias = torch.randn(8, 32), torch.randn(16, 32), torch.randn(16)

    def want(self, a):
        return torch.nn.functional.silu(a @ self.b.T + self.bias)

    def gemm(self, a):
        return self.ops.gemm(a, self.b, bias=self.bias, activation="silu")

    def test_operators_are_torch_operators(self):
        self.assertIn("gemm", dir(torch.ops.kgen))
        torch.testing.assert_close(self.gemm(self.a), self.want(self.a))
        got = torch.ops.kgen.gemm([self.a, self.b, self.bias], ["a", "b", "bias"], ["activation=silu"], self.ops.number)
        torch.testing.assert_close(got[0], self.want(self.a))

    def test_bf16_tensors_and_strides(self):
        a, b = self.a.bfloat16(), self.b.bfloat16()
        torch.testing.assert_close(self.ops.gemm(a, b, out_dtype="fp32"), a.float() @ b.float().T)
        rows = torch.randn(8, 64)[:, :32]
        torch.testing.assert_close(self.gemm(rows), self.want(rows))

    def test_an_operand_that_is_written(self):
        x, residual, weight = torch.randn(6, 40), torch.randn(6, 40), torch.randn(40)
        total = x + residual
        got = self.ops.add_rmsnorm(x, residual, weight, eps=1e-5)
        torch.testing.assert_close(residual, total)
        torch.testing.assert_close(got, total * torch.rsqrt((total ** 2).mean(-1, keepdim=True) + 1e-5) * weight)

    def test_shapes_are_known_without_running(self):
        meta = [tensor.to("meta") for tensor in (self.a.expand(2, 8, 32).contiguous(), self.b, self.bias)]
        with torch.inference_mode():
            got = self.ops.gemm(meta[0], meta[1], bias=meta[2], activation="silu")
        self.assertEqual((tuple(got.shape), got.device.type), ((2, 8, 16), "meta"))

    def test_errors_are_those_of_kgen(self):
        with self.assertRaisesRegex(Exception, r"b is \[1, 16, 31\], not \[batch, n, k\] = \[1, 16, 32\]"):
            self.ops.gemm(self.a, self.b[:, :31], bias=self.bias, activation="silu")

    @unittest.skipUnless(hasattr(torch, "compile"), "NOT RUN: torch.compile is not there")
    def test_a_compiled_graph_is_whole(self):
        def function(a):
            return self.ops.gemm(torch.tanh(a), self.b, bias=self.bias, activation="silu") + 1

        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
        for rows in (8, 5, 3):
            a = torch.randn(rows, 32)
            torch.testing.assert_close(compiled(a), self.want(torch.tanh(a)) + 1)

    def test_optimize_replaces_what_the_file_has(self):
        model, x = Block().eval(), torch.randn(12, 96)
        with torch.no_grad():
            want, names = model(x), list(model.state_dict())
            report = kgen.torch.optimize(model, self.ops, x)
            self.assertEqual(report.replaced, ["patch", "norm"])
            self.assertIn("patch: kgen.conv3d_patchify, exact: tuned for this shape", str(report))
            self.assertIn("head: left, gemm(", str(report))
            torch.testing.assert_close(model(x), want)
        self.assertEqual(list(model.state_dict()), names)

    def test_optimize_leaves_what_is_faster(self):
        from kgen.torch import _optimize

        def slower(own, mine, device):
            torch.testing.assert_close(own(), mine())
            raise ValueError("what is there is faster: 1.0 us, kgen 2.0 us")

        model, x = Block().eval(), torch.randn(12, 96)
        with torch.no_grad(), unittest.mock.patch.object(_optimize, "_require_faster", slower):
            report = kgen.torch.optimize(model, self.ops, x)
            self.assertEqual(report.replaced, [])
            self.assertIn("patch: left, what is there is faster: 1.0 us, kgen 2.0 us", str(report))
            self.assertIsInstance(model.patch, torch.nn.Conv3d)
            self.assertEqual(kgen.torch.optimize(model, self.ops, x, only_faster=False).replaced, ["patch", "norm"])

    def test_attention_stands_for_torchs_own(self):
        q, k, v = torch.randn(2, 4, 12, 16), torch.randn(2, 2, 12, 16), torch.randn(2, 2, 12, 16)
        got = kgen.torch.scaled_dot_product_attention(self.ops, q, k, v, is_causal=True, enable_gqa=True)
        scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / 4
        seen = torch.ones(12, 12, dtype=torch.bool).tril()
        torch.testing.assert_close(got, scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 1))

    def test_trace_writes_what_tune_reads(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "ops.yaml"
            trace = kgen.torch.trace(Block().eval(), torch.randn(12, 96), path=path)
            text = path.read_text()
        entries = {row.entry["op"]: row for row in trace if row.entry is not None}
        self.assertEqual(set(entries), {"conv3d_patchify", "layernorm", "gemm"})
        self.assertEqual(entries["gemm"].dims, {"m": 12, "n": 5, "k": 24})
        self.assertEqual([row.waste_us for row in trace], sorted((row.waste_us for row in trace), reverse=True))
        self.assertIn('{"op": "conv3d_patchify", "dtype": "fp32", "epilogue": ["bias"], "problems": '
                      '[{"l": 12, "c": 3, "t": 2, "ph": 4, "pw": 4, "e": 24}]}', text)


class Optimize(unittest.TestCase):
    """What optimize() does beyond single products."""

    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.ops = kgen.torch.load(DB, "host")

    def optimized(self, model, *inputs):
        model = model.eval()
        with torch.no_grad():
            want, names = model(*inputs), list(model.state_dict())
            report = kgen.torch.optimize(model, self.ops, *inputs)
            got = model(*inputs)
        self.assertEqual(list(model.state_dict()), names)
        return report, got, want

    def test_a_convolution_takes_in_its_batch_norm_and_activation(self):
        model = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU())
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
        model = model.to(memory_format=torch.channels_last)
        x = torch.randn(1, 8, 9, 7).to(memory_format=torch.channels_last)
        report, got, want = self.optimized(model, x)
        torch.testing.assert_close(got, want)
        self.assertEqual(str(report), "0: kgen.conv2d with batch norm and relu, exact: tuned for this shape")
        self.assertIn("Passed(BatchNorm2d, within the product before it)", str(model))

    def test_a_result_that_others_read_stays_its_own(self):
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.linear, self.act = torch.nn.Linear(32, 16), torch.nn.SiLU()

            def forward(self, x):
                y = self.linear(x)
                return self.act(y) * y

        report, got, want = self.optimized(Model(), torch.randn(8, 32))
        torch.testing.assert_close(got, want)
        self.assertIn("linear: left, the model's result would be another", str(report))

    def test_attention_within_a_module_is_kgens(self):
        class Model(torch.nn.Module):
            def forward(self, q, k):
                return torch.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)

        model = Model()
        report, got, want = self.optimized(model, torch.randn(2, 4, 9, 16), torch.randn(2, 2, 9, 16))
        torch.testing.assert_close(got, want)
        self.assertIn("model: kgen.attention, near", str(report))
        odd = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8)  # d = 8 is torch's
        torch.testing.assert_close(model(*odd), Model()(*odd))
        torch.testing.assert_close(copy.deepcopy(model)(*odd), Model()(*odd))

    def test_a_norm_that_is_another_function_stays(self):
        class OffsetRMSNorm(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight, self.eps = torch.nn.Parameter(torch.randn(40)), 1e-6

            def forward(self, x):
                return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)

        class RMSNorm(OffsetRMSNorm):
            def forward(self, x):
                return super().forward(x) - x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

        report, got, want = self.optimized(torch.nn.Sequential(OffsetRMSNorm(), RMSNorm()), torch.randn(6, 40))
        torch.testing.assert_close(got, want)
        self.assertEqual(report.replaced, ["1"])
        self.assertIn("0: left, kgen.rmsnorm gives something else", str(report))

    def test_gptq_layers_are_kgens(self):
        class QuantLinear(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.bits, self.group_size = 4, 32
                self.register_buffer("qweight", torch.randint(-2 ** 31, 2 ** 31, (8, 32)).int())
                self.register_buffer("qzeros", torch.randint(-2 ** 31, 2 ** 31, (2, 4)).int())
                self.register_buffer("scales", (torch.rand(2, 32) / 50).half())
                self.register_buffer("g_idx", torch.arange(64).int() // 32)
                self.bias = torch.nn.Parameter(torch.randn(32).half())

            def forward(self, x):
                shifts = torch.arange(0, 32, 4)
                values = ((self.qweight[:, None].long() >> shifts[:, None]) & 15).view(64, 32)
                zeros = ((self.qzeros[:, :, None].long() >> shifts) & 15).view(2, 32) + 1
                weight = self.scales[self.g_idx.long()].float() * (values - zeros[self.g_idx.long()])
                return (x.float() @ weight).half() + self.bias

        model = torch.nn.Sequential(QuantLinear())
        report, got, want = self.optimized(model, torch.randn(1, 64).half())
        torch.testing.assert_close(got, want, rtol=4e-3, atol=4e-3)
        self.assertEqual(str(report), "0: kgen.gptq_gemm, exact: tuned for this shape")

    def test_hyper_connections_are_kgens(self):
        def mixes(streams, fn):
            flat = streams.flatten(-2).float()
            return flat @ fn.T * torch.rsqrt(flat.square().mean(-1, keepdim=True) + 1e-6)

        class HyperPre(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.hc_fn, self.hc_scale = torch.nn.Parameter(torch.randn(24, 256) / 16), torch.nn.Parameter(torch.tensor([0.7, 1.1, 1.3]))
                self.hc_base, self.sinkhorn_iters = torch.nn.Parameter(torch.randn(24)), 3

            def forward(self, streams):
                mix = mixes(streams, self.hc_fn)
                gate = torch.sigmoid(mix[..., :4] * self.hc_scale[0] + self.hc_base[:4]) + 1e-6
                post = 2 * torch.sigmoid(mix[..., 4:8] * self.hc_scale[1] + self.hc_base[4:8])
                comb = (mix[..., 8:] * self.hc_scale[2] + self.hc_base[8:]).unflatten(-1, (4, 4)).softmax(-1) + 1e-6
                comb = comb / (comb.sum(-2, keepdim=True) + 1e-6)
                for _ in range(self.sinkhorn_iters - 1):
                    comb = comb / (comb.sum(-1, keepdim=True) + 1e-6)
                    comb = comb / (comb.sum(-2, keepdim=True) + 1e-6)
                return (gate[..., None] * streams.float()).sum(-2).half(), post, comb

        class HyperPost(torch.nn.Module):
            def forward(self, x, streams, post, comb):
                return (post[..., None] * x[..., None, :].float() + comb.transpose(-1, -2) @ streams.float()).half()

        class Head(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fn, self.scale, self.base = (torch.nn.Parameter(torch.randn(*shape) / 8) for shape in ((4, 256), (1,), (4,)))

            def forward(self, streams):
                gate = torch.sigmoid(mixes(streams, self.fn) * self.scale + self.base) + 1e-6
                return (gate[..., None] * streams.float()).sum(-2).half()

        class Layer(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.pre, self.post, self.head = HyperPre(), HyperPost(), Head()

            def forward(self, streams):
                x, post, comb = self.pre(streams)
                return self.head(self.post(x * 2, streams, post, comb))

        report, got, want = self.optimized(Layer(), torch.randn(3, 4, 64).half())
        torch.testing.assert_close(got, want, rtol=4e-3, atol=4e-3)
        self.assertEqual(report.replaced, ["pre", "post", "head"])


class Reference(unittest.TestCase):
    def test_the_reference_lists_the_functions(self):
        text = (pathlib.Path(__file__).resolve().parents[2] / "docs/python.md").read_text()
        for name in ("load", "optimize", "trace", "scaled_dot_product_attention", "problems", "backend"):
            self.assertIn(f"| `kgen.torch.{name}{inspect.signature(getattr(kgen.torch, name))}` |", text)


if __name__ == "__main__":
    unittest.main()
