"""The package around the operators: opening, errors, prepared weights, tensors of other frameworks, installing."""
import inspect
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import warnings

import numpy as np

import kgen
from kgen._epilogue import longest_first, words
from kgen._expression import Expression
from kgen._library import _JIT_PROTOTYPES, _PROTOTYPES, load, load_jit

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)


class HandMade(Folder):
    """d = alpha * sum_k(a * 2 w) + column (+ bias), whose weight w is repacked and which needs workspace."""

    def setUp(self):
        super().setUp()
        path = self.folder / "tuned.db"
        subprocess.run([os.environ["KGEN_MAKE_HOST_DB"], path, os.environ["KGEN_HOST_KERNEL"]], check=True)
        self.db = kgen.open(path, "host")
        self.addCleanup(self.db.close)
        self.a, self.w = np.arange(128, dtype="f4").reshape(8, 16) % 7, np.arange(16, dtype="f4") % 5

    def want(self, a=None, w=None, alpha=1):
        a, w = self.a if a is None else a, self.w if w is None else w
        return alpha * 2 * (a @ w)[:, None] + np.arange(16)

    def test_without_prepare_weights_are_repacked_in_every_call_and_that_is_said_once(self):
        with self.assertWarnsRegex(UserWarning, r"call db.row_scale.prepare\(…\) once"):
            np.testing.assert_array_equal(self.db.row_scale(self.a, self.w, alpha=3), self.want(alpha=3))
        self.w *= 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(self.db.row_scale(self.a, self.w), self.want())

    def test_prepared_weights_are_kept_until_they_are_forgotten(self):
        warnings.simplefilter("error")
        self.addCleanup(warnings.resetwarnings)
        self.assertEqual(self.db.prepare("row_scale", self.a, self.w).prepared_bytes, 256)
        first = self.want()
        np.testing.assert_array_equal(self.db.row_scale(self.a, self.w), first)
        np.testing.assert_array_equal(self.db.row_scale(a=self.a + 1, w=self.w), self.want(self.a + 1))
        self.w *= 2
        np.testing.assert_array_equal(self.db.row_scale(self.a, self.w), first)
        self.db.row_scale.forget(self.w)
        self.db.prepare("row_scale", self.a, self.w)
        np.testing.assert_array_equal(self.db.row_scale(self.a, self.w), self.want())

    def test_frozen_weights_are_repacked_once(self):
        first = self.want()
        np.testing.assert_array_equal(self.db.row_scale(self.a, self.w, frozen=True), first)
        self.w *= 2
        np.testing.assert_array_equal(self.db.row_scale(self.a, self.w, frozen=True), first)

    def test_what_follows_close_is_refused_by_name(self):
        operator = self.db.row_scale
        self.db.close()
        for call in (lambda: operator(self.a, self.w), lambda: self.db.row_scale, lambda: self.db.empty(3)):
            with self.assertRaisesRegex((kgen.BadArgument, AttributeError), "was closed"):
                call()
        self.db.close()

    def test_tensors_without_a_framework(self):
        a, w = self.db.tensor(self.a.tolist()), self.db.tensor(self.w.tobytes(), shape=[16])
        warnings.simplefilter("ignore")
        self.addCleanup(warnings.resetwarnings)
        got = self.db.row_scale(a, w)
        self.assertIsInstance(got, kgen.Tensor)
        np.testing.assert_array_equal(got.tolist(), self.want())
        np.testing.assert_array_equal(np.from_dlpack(got), self.want())
        np.testing.assert_array_equal(np.asarray(got), self.want())
        for dtype in ("fp16", "bf16", "int8", "int32", "int64", "fp64", "fp8_e4m3", "fp8_e5m2"):
            self.assertEqual(self.db.tensor([[1, -2], [3, 0]], dtype).tolist(), [[1, -2], [3, 0]])
        self.assertEqual(self.db.tensor([1.00390625], "bf16").tolist(), [1.0])  # a tie, to even
        with self.assertRaisesRegex(kgen.BadArgument, "3 numbers do not fill"):
            self.db.empty([2, 2]).write([1, 2, 3])

    def test_an_unused_dlpack_capsule_is_freed(self):
        from kgen import _tensor
        before = len(_tensor._exports)
        capsule = self.db.tensor([1.0]).__dlpack__()
        self.assertEqual(len(_tensor._exports), before + 1)
        del capsule
        self.assertEqual(len(_tensor._exports), before)

    def test_operands_by_dlpack_alone(self):
        class Foreign:
            def __init__(self, array):
                self.array = array

            def __dlpack__(self, **keywords):
                return self.array.__dlpack__(**keywords)

            def __dlpack_device__(self):
                return self.array.__dlpack_device__()

        warnings.simplefilter("ignore")
        self.addCleanup(warnings.resetwarnings)
        wide = np.zeros((8, 20), "f4")
        wide[:, :16] = self.a
        got = self.db.row_scale(Foreign(wide[:, :16]), Foreign(self.w))
        np.testing.assert_array_equal(np.from_dlpack(got), self.want())

    def test_tensors_of_another_device_are_refused(self):
        class OnGpu:
            __cuda_array_interface__ = {"shape": (8, 16), "typestr": "<f4", "data": (4096, False), "version": 3}

        with self.assertRaisesRegex(kgen.BadArgument, "a is on cuda; this DB was opened for host"):
            self.db.row_scale(OnGpu(), self.w)


class Files(Folder):
    """Files that change while the program runs, and what is told about what they lack."""

    def setUp(self):
        super().setUp()
        self.path = self.folder / "tuned.db"
        shutil.copy(os.environ["KGEN_TEST_DB"], self.path)
        self.x = np.zeros((6, 40), "f4")

    def open(self, **goal):
        db = kgen.open(self.path, "host", **goal)
        self.addCleanup(db.close)
        return db

    def make(self, path):
        subprocess.run([os.environ["KGEN_MAKE_HOST_DB"], path, os.environ["KGEN_HOST_KERNEL"]], check=True)

    def test_an_added_file_serves_once_it_is_there(self):
        db, other = self.open(), self.folder / "later.db"
        softmax = db.softmax
        db.add(other)
        self.assertNotIn("row_scale", db.operators)
        self.assertFalse(db.reload())
        self.make(other)
        self.assertTrue(db.reload())
        self.assertFalse(db.reload())
        self.assertIn("row_scale", db.operators)
        a, w = np.ones((8, 16), "f4"), np.ones(16, "f4")
        np.testing.assert_array_equal(db.row_scale(a, w, frozen=True), 32 + np.arange(16) + np.zeros((8, 1)))
        np.testing.assert_allclose(softmax(self.x), 1 / 40, rtol=1e-6)
        with self.assertRaisesRegex(kgen.BadDatabase, "junk.db"):
            (self.folder / "junk.db").write_bytes(b"junk" * 1000)
            db.add(self.folder / "junk.db")
        np.testing.assert_allclose(softmax(self.x), 1 / 40, rtol=1e-6)

    def test_a_replaced_file_is_read_again(self):
        db = self.open()
        np.testing.assert_allclose(db.softmax(self.x), 1 / 40, rtol=1e-6)
        self.make(self.folder / "new.db")
        (self.folder / "new.db").rename(self.path)
        np.testing.assert_allclose(db.softmax(self.x), 1 / 40, rtol=1e-6)
        self.assertTrue(db.reload())
        self.assertEqual(db.operators, ["row_scale"])
        with self.assertRaises(kgen.KgenError):
            db.softmax(self.x)
        warnings.simplefilter("ignore")
        self.addCleanup(warnings.resetwarnings)
        self.assertEqual(db.row_scale(np.ones((8, 16), "f4"), np.ones(16, "f4")).shape, (8, 16))

    def test_launches_are_written_down_for_doctor(self):
        db, trace = self.open(), self.folder / "trace.jsonl"
        db.softmax(self.x)
        db.record(trace)
        for _ in range(3):
            db.softmax(self.x)
        db.record(None)
        db.softmax(self.x)
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        self.assertEqual([(line["op"], line["dims"]["cols"], line["count"], line["kind"]) for line in lines],
                         [("softmax", 40, 3, "exact")])
        with self.assertRaises(kgen.BadArgument):
            db.record(self.folder / "none" / "trace.jsonl")

    def test_misses_are_told_once_a_shape(self):
        db, told = self.open(), []
        db.on_miss(lambda *miss: told.append(miss))
        db.softmax(self.x)  # was tuned
        for _ in range(2):
            db.softmax(np.zeros((7, 40), "f4"))
        self.assertEqual(len(told), 1)
        op, attributes, dims, kind = told[0]
        self.assertEqual((op, attributes["dtype"], dims["rows"], dims["cols"]), ("softmax", "fp32", 7, 40))
        self.assertEqual(kind, db.find("softmax", np.zeros((7, 40), "f4")).kind)
        db.on_miss(None)
        db.softmax(np.zeros((8, 40), "f4"))
        self.assertEqual(len(told), 1)

    def test_the_guard_says_what_it_saw(self):
        asked = {"rows": 6, "cols": 40, "dtype": "fp32"}
        self.assertNotRegex(self.open().find("softmax", **asked).reason, "guarded|default")
        reason = self.open(guard=True).find("softmax", **asked).reason
        self.assertRegex(reason, r"guarded: [\d.]+ us here|it is the default, too|not guarded, for there is no default")

    def test_misses_are_tuned_while_the_program_runs(self):
        db = self.open()
        x = np.zeros((5, 48), "f4")
        with db.tune_misses(self.folder / "jit.db", kgen=os.environ["KGEN_PROGRAM"], candidates=1, jobs=1) as jit:
            self.assertNotEqual(db.find("softmax", x).kind, "exact")
            with self.assertRaisesRegex(kgen.BadArgument, "tuned already"):
                db.tune_misses()
            self.assertTrue(jit.wait(300))
            self.assertEqual((jit.tuned, jit.failed), (1, 0), jit.failure)
            self.assertEqual(db.find("softmax", x).kind, "exact")
            np.testing.assert_allclose(db.softmax(x), 1 / 48, rtol=1e-6)
        with self.assertRaisesRegex(kgen.BadArgument, "was stopped"):
            jit.wait(1)
        with self.assertRaisesRegex(kgen.KgenError, "no_such_kgen"):
            db.tune_misses(self.folder / "jit.db", kgen=self.folder / "no_such_kgen")


class Opening(Folder):
    def test_a_missing_file_is_named(self):
        with self.assertRaisesRegex(kgen.BadDatabase, "none.db does not exist; `kgen tune"):
            kgen.open(self.folder / "none.db")

    def test_a_file_that_is_no_database_is_refused(self):
        path = self.folder / "bad.db"
        path.write_bytes(b"not a database" * 100)
        with self.assertRaises(kgen.BadDatabase):
            kgen.open(path, "host")

    def test_an_unknown_device_is_named(self):
        with self.assertRaisesRegex(kgen.KgenError, "hots"):
            kgen.open(os.environ["KGEN_TEST_DB"], "hots")

    def test_an_unknown_goal_is_named(self):
        with self.assertRaisesRegex(kgen.BadArgument, "no timing 'hot'"):
            kgen.open(os.environ["KGEN_TEST_DB"], "host", timing="hot")
        with self.assertRaisesRegex(kgen.BadDatabase, "not signed with the required key"):
            kgen.open(os.environ["KGEN_TEST_DB"], "host", key="kgen-public:" + "0" * 64)
        with self.assertRaisesRegex(kgen.BadArgument, "not a public key"):
            kgen.open(os.environ["KGEN_TEST_DB"], "host", key="release.pub")

    def python(self, text, **environment):
        return subprocess.run([sys.executable, "-B", "-S", "-c", text], capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT / "python"), **environment})

    def test_a_missing_library_is_one_error_that_says_what_to_do(self):
        ended = self.python("import kgen; kgen.open('x.db')", KGEN_LIBRARY=str(self.folder / "libkgen.so"))
        self.assertIn("kgen._library.LibraryNotFound: libkgen.so was not found; set KGEN_LIBRARY", ended.stderr)

    def test_nothing_but_python_is_needed(self):
        ended = self.python(f"""
import sys, kgen
db = kgen.open({os.environ['KGEN_TEST_DB']!r}, "host")
y = db.softmax(db.tensor([[0.0] * 40] * 6))
assert abs(y.tolist()[5][39] - 1 / 40) < 1e-7
assert "numpy" not in sys.modules
print(kgen.library_version())""")
        self.assertEqual((ended.stdout.strip(), ended.stderr), (kgen.library_version(), ""))

    def test_the_versions_are_one(self):
        self.assertEqual(kgen.__version__, kgen.library_version())
        self.assertIn(f'version = "{kgen.__version__}"', (ROOT / "python/pyproject.toml").read_text())

    def test_the_prototypes_are_functions_of_the_header(self):
        for header, prototypes in (("runtime/include/kgen/kgen.h", _PROTOTYPES), ("jit/include/kgen/kgen_jit.h", _JIT_PROTOTYPES)):
            text = (ROOT / header).read_text()
            for name, (_, arguments) in prototypes.items():
                declared = re.search(rf"KGEN_API [^;(]*\b{name}\(([^)]*)\)", text).group(1)
                self.assertEqual(0 if declared == "void" else declared.count(",") + 1, len(arguments), name)
        self.assertTrue(load() and load_jit())

    def test_what_the_header_has_the_package_has(self):
        header = (ROOT / "runtime/include/kgen/kgen.h").read_text()
        instead = {"kgen_open", "kgen_open_op",  # the functions with options serve
                   "kgen_status_name",  # the exceptions' names
                   "kgen_device_name", "kgen_tensor_count", "kgen_tensor_name", "kgen_scalar_count", "kgen_scalar_name"}  # kgen_describe
        self.assertEqual(set(re.findall(r"\b(kgen_\w+)\([^)]*\);", header)) - instead, set(_PROTOTYPES))

    def test_the_reference_lists_the_package(self):
        listed = dict(re.findall(r"^\| `([\w.]+)(\(.*?\))?` \|", (ROOT / "docs/python.md").read_text(), re.M))
        public = {f"kgen.{name}": getattr(kgen, name) for name in kgen.__all__}
        for kind in (kgen.Database, kgen.Operator, kgen.Tensor):
            del public[f"kgen.{kind.__name__}"]
            public.update({f"{kind.__name__}.{name}": item for name, item in vars(kind).items() if not name.startswith("_")
                           and inspect.isfunction(item)})
        functions = {name: item for name, item in public.items() if inspect.isfunction(item)}
        for name, item in functions.items():
            if name not in ("Operator.output_specs", "Operator.match_views", "Operator.run_torch"):  # of kgen.torch
                parameters = [value for key, value in inspect.signature(item).parameters.items() if key != "self"]
                self.assertEqual(listed.get(name), str(inspect.Signature(parameters)), name)

    def test_an_install_runs_where_it_was_moved(self):
        for component in "runtime", "python":
            subprocess.run(["cmake", "--install", os.environ["KGEN_BUILD"], "--component", component, "--prefix", self.folder / "a"],
                           check=True, capture_output=True)
        (self.folder / "a").rename(self.folder / "b")
        package = next((self.folder / "b").rglob("python/kgen")).parent
        ended = self.python(f"""
import os, kgen
os.environ.pop("KGEN_LIBRARY")
db = kgen.open({os.environ['KGEN_TEST_DB']!r}, "host")
print(db.softmax(db.tensor([[0.0] * 40] * 6)).shape, kgen.__file__)""", PYTHONPATH=str(package))
        self.assertEqual(ended.stdout.strip(), f"(6, 40) {package}/kgen/__init__.py", ended.stderr)

    def test_pip_installs_it_without_a_network(self):
        try:
            import pip  # noqa: F401
        except ImportError:
            self.skipTest("pip is not installed")
        copy = self.folder / "python"
        subprocess.run(["cp", "-r", ROOT / "python", copy], check=True)
        environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        environment.pop("PYTHONPATH")
        environment.pop("LD_PRELOAD", None)  # a sanitizer's: pip's own programs need none
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", self.folder / "site", copy],
                       check=True, env=environment, capture_output=True)
        installed = sorted(path.name for path in (self.folder / "site/kgen").rglob("*.py"))
        self.assertEqual(installed, sorted(path.name for path in (ROOT / "python/kgen").rglob("*.py")))
        found = next((self.folder / "site").glob("kgen-*.dist-info")) / "entry_points.txt"
        self.assertEqual(found.read_text(), "[torch_dynamo_backends]\nkgen = kgen._torch_backend:compile_graph\n")


class Epilogues(unittest.TestCase):
    def test_steps_become_the_words_of_the_operators(self):
        for steps, made in (((), []), (("bias", "silu", "add"), ["bias", "silu", "add_residual"]),
                            (("bias", "add", "relu"), ["bias", "add_residual", "relu"]),
                            (("gelu_erf", "mul"), ["gelu_erf", "mul_other"]), (("silu", "add", "mul"), ["silu", "add_residual", "mul_other"]),
                            (("add", "bias"), None), (("relu", "silu"), None), (("add", "relu", "add"), None), (("mul", "relu"), None),
                            (("mul", "add"), None), (("mul", "mul"), None), (("tanh",), None)):
            self.assertEqual(words(steps), made, steps)

    def test_the_longest_beginning_comes_first(self):
        self.assertEqual(longest_first(["bias", "relu", "silu", "add"], 1), [(2, ["bias", "relu"]), (1, ["bias"])])
        self.assertEqual(longest_first([]), [(0, [])])


class Expressions(unittest.TestCase):
    def test_values_are_those_of_the_library(self):
        env = {"a": 7, "b": 3, "nk": 5, "layout": 5}
        for text, value in (("a + b*2 - 1", 12), ("layout == nk ? a : b", 7), ("a > b && b > a || a != b", 1),
                            ("ceil_div(a, b)*10 + floor_div(a, b)", 32), ("round_up(a, 4) % 5", 3), ("!(a < b)", 1),
                            ("-a + 10", 3), ("log2(a) + is_pow2(8) + max(a, b, 9) + min(a, b) + abs(-2)", 17),
                            ("(a - 1) / b", 2), ("a < b ? 1 : a < 8 ? 2 : 3", 2), ("", 0)):
            self.assertEqual(Expression(text).eval(env), value, text)
        with self.assertRaisesRegex(ValueError, "no multiple"):
            Expression("a / b").eval(env)

    def test_a_size_tells_the_only_unknown_name(self):
        self.assertEqual(Expression("2*cols").solve({}, 80), ("cols", 40))
        self.assertEqual(Expression("layout == nk ? n : k").solve({"layout": 1, "nk": 1}, 8), ("n", 8))
        self.assertIsNone(Expression("2*cols").solve({}, 81))
        self.assertIsNone(Expression("n*k").solve({}, 8))
        self.assertIsNone(Expression("floor_div(k, 2)").solve({}, 8))

    def test_bad_text_is_refused(self):
        for text in ("a +", "a ? b", "f(a)", "a $ b", "(a", "a b"):
            with self.assertRaises(ValueError, msg=text):
                Expression(text)


if __name__ == "__main__":
    unittest.main()
