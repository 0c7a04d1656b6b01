"""torch.compile(backend="kgen") on the host device. Skips aloud where torch is missing."""
import operator
import os
import pathlib
import tempfile
import unittest

try:
    import torch
except ImportError:
    raise unittest.SkipTest("NOT RUN: torch is not installed")
if not hasattr(torch.library, "register_fake"):
    raise unittest.SkipTest(f"NOT RUN: torch {torch.__version__} has no register_fake (2.4 has)")

import torch.nn.functional as F

import kgen.torch

DB = os.environ["KGEN_TEST_DB"]
NHWC = torch.channels_last


class Compile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.ops = kgen.torch.load(DB, "host")

    def setUp(self):
        torch._dynamo.reset()

    def compiled(self, model, **options):
        """The model by kgen with what is left in eager, and the list of its reports."""
        reports = []
        options = {"db": self.ops, "backend": "eager", "report": reports, **options}
        return torch.compile(model, backend="kgen", fullgraph=True, dynamic=options.pop("dynamic", None), options=options), reports

    def check(self, model, *inputs, tolerance=1e-5, **options):
        """Compares with the model itself; what was replaced, as operator: count."""
        if isinstance(model, torch.nn.Module):
            model.eval()
        with torch.no_grad():
            want = model(*inputs)
            function, reports = self.compiled(model, **options)
            got = function(*inputs)
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
        for mine, own in zip(*((item if isinstance(item, tuple) else (item,)) for item in (got, want))):
            self.assertEqual(mine.stride(), own.stride())
        self.assertEqual(len(reports), 1)
        self.report = reports[0]
        return sorted(row.op for row in self.report if row.match is not None)

    # ---- epilogues

    def test_what_follows_a_product_goes_into_its_kernel(self):
        linear, other = torch.nn.Linear(32, 16), torch.randn(8, 16)
        x = torch.randn(8, 32)
        self.assertEqual(self.check(lambda x: F.silu(linear(x)) + other, x), ["gemm[bias,silu,add_residual]"])
        self.assertEqual(self.check(lambda x: torch.relu(other + linear(x)), x), ["gemm[bias,add_residual,relu]"])
        self.assertEqual(self.check(lambda x: linear(x) * torch.sigmoid(linear(x)), x), [])
        self.assertIn("was tuned", str(self.report))

        def spelled_out(x):
            y = linear(x)
            return y * torch.sigmoid(y)
        self.assertEqual(self.check(spelled_out, x), ["gemm[bias,silu]"])

    def test_the_rest_of_a_chain_stays_with_the_rest(self):
        linear = torch.nn.Linear(32, 16)
        self.assertEqual(self.check(lambda x: torch.tanh(F.silu(linear(x)) * 2), torch.randn(8, 32)), ["gemm[bias,silu]"])

    def test_a_value_that_others_read_ends_the_chain(self):
        weight = torch.nn.Parameter(torch.randn(16, 32))

        def function(x):
            y = F.linear(x, weight)
            return F.silu(y), y
        self.assertEqual(self.check(function, torch.randn(8, 32)), [])

    def test_operands_that_are_written_in_between_are_not_moved(self):
        linear = torch.nn.Linear(32, 16)

        def function(x, other):
            other = other * 1
            y = F.silu(linear(x))
            z = y + other       # reads `other` before it is written
            other.add_(100)
            return z, other
        self.assertEqual(self.check(function, torch.randn(8, 32), torch.randn(8, 16)), ["gemm[bias,silu,add_residual]"])

        def later(x):
            x = x * 1
            y = linear(x)
            x.add_(100)         # the product must not move behind this
            return F.silu(y), x
        self.check(later, torch.randn(8, 32))

        def into_the_other(x, other):
            other = other * 1
            other += F.silu(linear(x))
            return other
        self.assertEqual(self.check(into_the_other, torch.randn(8, 32), torch.randn(8, 16)), ["gemm[bias,silu]"])

    def test_products_of_matrices_are_taken_in_either_layout(self):
        self.assertEqual(self.check(torch.bmm, torch.randn(3, 8, 32), torch.randn(3, 32, 16)), ["gemm[]"])
        self.assertIn("kn", self.ops.db.find("gemm", m=8, n=16, k=32, batch=3, dtype="fp32", b_layout="kn").signature)

    # ---- batch norm, layouts, parameters

    def block(self):
        class Block(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.norm, self.relu = torch.nn.Conv2d(8, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU(True)
                self.norm.running_mean.normal_()
                self.norm.running_var.uniform_(0.5, 2)
                torch.nn.init.normal_(self.norm.weight)
                torch.nn.init.normal_(self.norm.bias)

            def forward(self, x):
                return self.relu(self.norm(self.conv(x)))

        return Block().eval().to(memory_format=NHWC)

    def image(self):
        return torch.randn(1, 8, 9, 7).to(memory_format=NHWC)

    def test_batch_norms_are_folded_and_images_keep_their_order(self):
        self.assertEqual(self.check(self.block(), self.image()), ["conv2d[bias,relu]"])
        self.assertEqual(str(self.report), "conv: kgen.conv2d[bias,relu], exact: tuned for this shape")
        # As it lies in the other order, which the file does not have: the batch norm is folded all the same.
        plain = self.block().to(memory_format=torch.contiguous_format)
        self.assertEqual(self.check(plain, torch.randn(1, 8, 9, 7)), [])

    def test_parameters_may_change_and_each_module_has_its_own(self):
        first, second, x = self.block(), self.block(), self.image()
        with torch.no_grad():
            function, reports = self.compiled(lambda module, x: module(x))
            for module in (first, second, first):
                torch.testing.assert_close(function(module, x), module(x), rtol=1e-5, atol=1e-5)
            first.conv.weight.mul_(2)
            first.norm.bias.add_(1)
            torch.testing.assert_close(function(first, x), first(x), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(function(second, x), second(x), rtol=1e-5, atol=1e-5)
        self.assertTrue(all("conv2d[bias,relu], exact" in str(report) for report in reports))

    def test_gradients_leave_the_graph_alone(self):
        function, reports = self.compiled(self.block())
        function(self.image()).sum().backward()
        self.assertIn("gradients are wanted", str(reports[0]))
        block = self.block().train()
        with torch.no_grad():
            function, reports = self.compiled(block)
            function(self.image())
        self.assertEqual([row.match for row in reports[0]], [None])

    def test_a_patch_embedding_is_a_product(self):
        conv = torch.nn.Conv3d(3, 24, (2, 4, 4), (2, 4, 4))
        self.assertEqual(self.check(lambda x: conv(x.view(-1, 3, 2, 4, 4)).view(-1, 24), torch.randn(12, 96)), ["conv3d_patchify[bias]"])

    def test_branches_of_one_weight_are_one_convolution(self):
        weight, bias = torch.nn.Parameter(torch.randn(8, 8, 3, 3)), torch.nn.Parameter(torch.randn(8))
        model = lambda x: torch.cat([F.silu(F.conv2d(x, weight, bias, padding=d, dilation=d)) for d in (1, 2)], 1)  # noqa: E731
        x = torch.randn(1, 8, 6, 7).to(memory_format=NHWC)
        self.assertEqual(self.check(model, x), ["multi_dilation_conv[bias,silu]"])

    # ---- norms and attention

    def test_norms_are_found_however_they_are_spelled(self):
        weight, x = torch.nn.Parameter(torch.randn(40)), torch.randn(6, 40)

        def spelled_out(x):
            h = x.float()
            return weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)
        self.assertEqual(self.check(spelled_out, x), ["rmsnorm"])
        self.assertEqual(self.check(lambda x: F.rms_norm(x, (40,), weight, 1e-5), x), ["rmsnorm"])
        self.assertEqual(self.check(lambda x: F.layer_norm(x, (40,), weight, weight), x), ["layernorm"])
        self.assertEqual(self.check(lambda x: x * torch.rsqrt(x.pow(2).mean(-1) + 1e-5)[:, None] * weight, x), [])

    def test_a_norm_before_products_of_few_rows_goes_into_them(self):
        gain, weight = torch.nn.Parameter(torch.randn(64)), torch.nn.Parameter(torch.randn(24, 64))
        self.assertEqual(self.check(lambda x: F.linear(F.rms_norm(x, (64,), gain, 1e-6), weight), torch.randn(1, 64)), ["rmsnorm_gemm[]"])

    def test_attention_gives_what_lies_as_torchs_result_does(self):
        def model(q, k, v):
            return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True,
                                                  enable_gqa=True).transpose(1, 2).flatten(2)
        q, k = torch.randn(2, 9, 4, 16), torch.randn(2, 9, 2, 16)
        self.assertEqual(self.check(model, q, k, k, accept="default"), ["attention"])

        def repeated(q, k, v):  # as transformers repeat heads
            k, v = (x[:, :, None].expand(2, 2, 2, 9, 16).reshape(2, 4, 9, 16) for x in (k, v))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        k = k.transpose(1, 2)
        self.assertEqual(self.check(repeated, q.transpose(1, 2), k, k, accept="default"), ["attention"])

    def test_one_query_over_a_masked_cache_is_decode_attention(self):
        rows = torch.nn.Parameter(torch.arange(24), requires_grad=False)

        def model(q, k, v, at):
            mask = (rows[None, :] <= at[:, None])[:, None, None]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        q, k, v = torch.randn(2, 4, 1, 16), torch.randn(2, 2, 24, 16), torch.randn(2, 2, 24, 16)
        self.assertEqual(self.check(model, q, k, v, torch.tensor([3, 20])), ["decode_attention"])
        rows.data = torch.arange(24).flip(0)  # no beginning of the cache
        torch._dynamo.reset()
        self.assertEqual(self.check(model, q, k, v, torch.tensor([3, 20])), [])
        self.assertIn("stays with torch", str(self.report))

        def other_masks(q, k, v, at):
            rows = torch.arange(24)
            return [F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
                    for mask in ((rows[None] >= at[:, None])[:, None, None], (rows.roll(1)[None] <= at[:, None])[:, None, None],
                                 (torch.arange(1, 25)[None] <= at[:, None])[:, None, None], (rows[None] <= at[:, None])[:, None, None].logical_not())]
        torch._dynamo.reset()
        self.assertEqual(self.check(lambda *inputs: tuple(other_masks(*inputs)), q, k, v, torch.tensor([3, 20])), [])

    def test_hyper_connections_that_follow_one_another_are_one_operator(self):
        fn, scale, base = (torch.nn.Parameter(torch.randn(*shape) / 16) for shape in ((24, 256), (3,), (24,)))

        def model(streams):
            post, comb, x = self.ops.mhc_pre(streams, fn, scale, base)
            streams = self.ops.mhc_post(x * 2, streams, post, comb)
            post, comb, x = self.ops.mhc_pre(streams, fn, scale, base)
            return self.ops.mhc_post(x, streams, post, comb)
        self.assertEqual(self.check(model, torch.randn(3, 4, 64).half(), tolerance=2e-3), ["mhc_fused_post_pre"])

    def stack(self, streams, parts, head, transposed=False):
        def mixes(streams, fn):
            flat = streams.flatten(1).float()
            return F.linear(flat, fn) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + 1e-6)

        for fn, scale, base in parts:
            mix = mixes(streams, fn)
            gate = torch.sigmoid(mix[:, :4] * scale[0] + base[:4]) + 1e-6
            post = 2.0 * torch.sigmoid(mix[:, 4:8] * scale[1] + base[4:8])
            comb = torch.softmax((mix[:, 8:] * scale[2] + base[8:]).view(-1, 4, 4), -1) + 1e-6
            comb = comb / (comb.sum(1, keepdim=True) + 1e-6)
            for _ in range(19):
                comb = comb / (comb.sum(2, keepdim=True) + 1e-6)
                comb = comb / (comb.sum(1, keepdim=True) + 1e-6)
            x = torch.tanh((gate[:, :, None] * streams.float()).sum(1).to(streams.dtype))
            wide = torch.einsum("tji,tih->tjh" if transposed else "tij,tih->tjh", comb, streams.float())
            streams = (post[:, :, None] * x[:, None].float() + wide).to(streams.dtype)
        fn, scale, base = head
        gate = torch.sigmoid(mixes(streams, fn) * scale[0] + base) + 1e-6
        return (gate[:, :, None] * streams.float()).sum(1).to(streams.dtype)

    def test_hyper_connections_are_found_however_they_are_spelled(self):
        def parameters(rows, scales):
            return [torch.nn.Parameter(item, requires_grad=False) for item in (torch.randn(rows, 256) / 16, torch.rand(scales) + 0.5, torch.randn(rows))]
        parts, head, streams = [parameters(24, 3), parameters(24, 3)], parameters(4, 1), torch.randn(3, 4, 64).half()
        self.assertEqual(self.check(lambda x: self.stack(x, parts, head), streams, tolerance=4e-3),
                         ["hc_head", "mhc_fused_post_pre", "mhc_post", "mhc_pre"])
        torch._dynamo.reset()  # what is no hyper-connection by the operators' definition stays as it is
        self.assertEqual(self.check(lambda x: self.stack(x, parts, head, transposed=True), streams, tolerance=4e-3),
                         ["hc_head", "mhc_pre", "mhc_pre"])
        found = kgen.torch.problems(lambda x: self.stack(x, parts, head), streams)
        self.assertEqual([entry["op"] for entry, _, _ in found], ["mhc_pre", "mhc_fused_post_pre", "hc_head", "mhc_post"])

    # ---- the rest

    def test_sizes_may_be_symbols(self):
        linear = torch.nn.Linear(32, 16)
        with torch.no_grad():
            function, reports = self.compiled(lambda x: F.silu(linear(x * 2)), dynamic=True)
            for rows in (8, 5, 3):
                x = torch.randn(rows, 32)
                torch.testing.assert_close(function(x), F.silu(linear(x * 2)), rtol=1e-5, atol=1e-5)
        self.assertEqual(len(reports), 1)

    def test_types_are_those_of_autocast(self):
        linear, norm = torch.nn.Linear(32, 16), torch.nn.LayerNorm(40)

        def model(x, y):
            with torch.autocast("cpu", torch.bfloat16):
                return linear(x), norm(y)
        self.assertEqual(self.check(model, torch.randn(8, 32), torch.randn(6, 40), tolerance=2e-2), ["gemm[bias]", "layernorm"])
        self.assertEqual(self.check(model, torch.randn(8, 32), torch.randn(6, 40).bfloat16(), tolerance=2e-2), ["gemm[bias]"])

    def test_options_say_what_is_left_alone(self):
        linear, x = torch.nn.Linear(32, 16), torch.randn(5, 32)
        self.assertEqual(self.check(lambda x: F.silu(linear(x)), x), ["gemm[bias,silu]"])
        self.assertIn("near", str(self.report))
        self.assertEqual(self.check(lambda x: F.silu(linear(x)), x, accept="exact"), [])
        with self.assertRaisesRegex(Exception, "no kind of match 'nearly'"):
            self.check(lambda x: F.silu(linear(x)), x, accept="nearly")
        far = torch.randn(64, 32)
        self.assertEqual(self.check(lambda x: F.silu(linear(x)), far), [])
        self.assertEqual(self.check(lambda x: F.silu(linear(x)), far, accept="default"), ["gemm[bias,silu]"])
        self.assertEqual(self.check(lambda x: F.silu(linear(x)), torch.randn(8, 32), skip=["gemm"]), [])
        with self.assertRaisesRegex(Exception, "has no option 'dbs'"):
            torch.compile(linear, backend="kgen", options={"dbs": 1})(x)
        with self.assertRaisesRegex(Exception, "needs a DB"):
            torch.compile(lambda x: linear(x), backend="kgen")(x)

    def test_inductor_takes_the_rest(self):
        try:
            torch.compile(lambda x: torch.relu(x) + 1)(torch.randn(4))
        except Exception as error:
            self.skipTest(f"NOT RUN: inductor does not compile here: {str(error)[:200]}")
        self.assertEqual(self.check(self.block(), self.image(), backend="inductor"), ["conv2d[bias,relu]"])
        linear = torch.nn.Linear(32, 16)
        self.assertEqual(self.check(lambda x: torch.tanh(F.silu(linear(x * 2))) + 1, torch.randn(8, 32), backend="inductor", mode="max-autotune-no-cudagraphs"),
                         ["gemm[bias,silu]"])

    def test_problems_are_what_it_would_use(self):
        block, linear = self.block(), torch.nn.Linear(32, 16)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "ops.yaml"
            found = kgen.torch.problems(lambda x, y: (block(x), F.silu(linear(y)) + linear(y)), self.image(), torch.randn(8, 32), path=path)
            text = path.read_text()
        self.assertEqual([(entry["op"], entry["epilogue"]) for entry, _, _ in found],
                         [("gemm", ["bias", "silu", "add_residual"]), ("gemm", ["bias"]), ("conv2d", ["bias", "relu"])])
        self.assertIn('{"op": "conv2d", "dtype": "fp32", "layout": "nhwc", "epilogue": ["bias", "relu"], "problems": '
                      '[{"n": 1, "c": 8, "h": 9, "w": 7, "k": 16, "r": 3, "s": 3, "pad": 1}]}', text)
        self.assertEqual(operator.itemgetter("m", "n", "k")(found[0][1]), (8, 16, 32))

    def test_torch_knows_the_name(self):
        self.assertIn("kgen", torch._dynamo.list_backends())


if __name__ == "__main__":
    unittest.main()
