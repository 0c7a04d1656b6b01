"""examples/: the script without a framework, and the table of examples/models/run.py. The models themselves need PyTorch and
are checked by examples/models/check.py."""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(model, mode, **facts):
    return (model, mode), {"run": "2026-11-22T12:00:00+00:00", "model": model, "mode": mode, "device": "card", "torch": "2.11", **facts}


class Table(unittest.TestCase):
    def setUp(self):
        self.run_py = load(EXAMPLES / "models" / "run.py")

    def line(self, *rows, model="vit_base"):
        text = self.run_py.table(dict(rows), {model: types.SimpleNamespace(what="a model", mixed=False)})
        return next(line for line in text.splitlines() if line.startswith(f"| {model}: ")), text

    def test_the_ratio_is_that_of_the_quickest_torch_mode(self):
        line, _ = self.line(row("vit_base", "eager", us=3000.0, mad_us=1.0, rel_l2=1e-2), row("vit_base", "default", us=1500.0, mad_us=1.0, rel_l2=1e-2),
                            row("vit_base", "kgen", us=1000.0, mad_us=1.0, rel_l2=1e-2))
        self.assertIn("**1.50**", line)
        self.assertIn("≥ 1: reached (of the modes that ended)", line)
        self.assertNotIn("wrong", line)

    def test_an_error_above_eagers_is_wrong(self):
        line, _ = self.line(row("vit_base", "eager", us=1.0, mad_us=0.0, rel_l2=1e-2), row("vit_base", "kgen", us=1.0, mad_us=0.0, rel_l2=2e-2))
        self.assertIn("**wrong**", line)

    def test_a_mode_that_did_not_end_is_said_with_its_seconds(self):
        line, text = self.line(row("vit_base", "eager", us=1.0, mad_us=0.0, rel_l2=1e-2), row("vit_base", "max-autotune", error="not ended in 120 s"))
        self.assertIn("| not ended |", line)
        self.assertIn("vit_base, max-autotune: not ended in 120 s", text)

    def test_the_newest_row_of_a_model_and_mode_counts(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "rows.jsonl")
            with open(path, "w", encoding="utf-8") as file:
                for us in (5.0, 4.0):
                    file.write(json.dumps(row("vit_base", "kgen", us=us)[1]) + "\n")
            self.assertEqual(self.run_py.read(path)["vit_base", "kgen"]["us"], 4.0)


class Script(unittest.TestCase):
    def test_the_script_without_a_framework_gets_right_results(self):
        with tempfile.TemporaryDirectory() as folder:
            db = os.path.join(folder, "tuned.db")
            kgen = os.path.join(os.environ["KGEN_BUILD"], "cli", "kgen")
            bare = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
            subprocess.run([kgen, "tune", EXAMPLES / "quickstart.yaml", "--db", db, "--device", "host"], check=True, capture_output=True, env=bare)
            done = subprocess.run([sys.executable, "-S", EXAMPLES / "python" / "gemm.py", db, "host"], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(done.stdout.count("result correct"), 3, done.stdout)


if __name__ == "__main__":
    unittest.main()
