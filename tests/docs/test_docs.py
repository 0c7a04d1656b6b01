"""Holds the documentation against the code: what it names exists, and what exists it names. KGEN is the program, LIBKGEN and LIBKGEN_JIT the
libraries."""
import json
import os
import pathlib
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
KGEN = os.environ["KGEN"]
sys.path.insert(0, str(ROOT / "scripts"))
sys.dont_write_bytecode = True
import reference  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page: page.read_text() for page in PAGES}
COMMANDS = reference.commands(KGEN)


def blocks(text):
    """(language, line, content) of the fenced blocks of a page."""
    return [(match[2], text[: match.start()].count("\n") + 2, match[3])
            for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", text, re.M | re.S)]


def kgen_lines(text):
    """The kgen commands of a page, from its blocks and from code within its text, each with its line."""
    for language, line, content in blocks(text):
        if language in ("", "sh", "console", "bash"):
            content = re.sub(r"\\\n", "  ", content)
            for offset, row in enumerate(content.split("\n")):
                for part in re.split(r";|&&|\|\|?(?= )|\$\(", row):
                    if match := re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\./|\S*/)?kgen (?=[a-z-])(.*)", part):
                        yield line + offset, match[1]
    prose = re.sub(r"^( *)```.*?^ *```$", lambda match: "\n" * match[0].count("\n"), text, flags=re.M | re.S)
    for match in re.finditer(r"`kgen ((?:[a-z]|--)[^`]*)`", prose):
        yield prose[: match.start()].count("\n") + 1, match[1]


def complaint(said):
    """What is wrong with the words after `kgen`, or None."""
    said = re.sub(r"[\[\]]", " ", said.split(" #")[0].split("→")[0])
    said = re.sub(r"(?<=[A-Za-z\"'])\|(?=[A-Za-z])", "/", said)
    try:
        words = shlex.split(said)
    except ValueError:
        words = said.split()
    if words and words[0] in ("--help", "--version", "help"):
        return None
    command = COMMANDS.get((words[0],))
    if command is None:
        return f"there is no command '{words[0]}'"
    rest = words[1:]
    if command.subcommands:
        if not rest or rest[0] in ("…", "SUBCOMMAND", "--help"):
            return None
        for name in rest[0].split("/"):
            if (words[0], name) not in COMMANDS:
                return f"there is no '{words[0]} {name}'"
        command, rest = COMMANDS[(words[0], rest[0].split("/")[0])], rest[1:]
    for word in rest:
        if word in (">", "|", "2>"):
            break
        flag = word.split("=")[0].rstrip(",.:)…")
        if re.match(r"--?[a-z]", flag) and flag not in command.names():
            return f"{' '.join(command.words)} has no {flag}"
    return None


class Reference(unittest.TestCase):
    maxDiff = None

    def test_pages_that_are_made_of_the_code_are_up_to_date(self):
        ended = subprocess.run([sys.executable, ROOT / "scripts/reference.py", KGEN, "--check"], capture_output=True, text=True)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_every_command_and_flag_has_its_place(self):
        page = TEXTS[ROOT / "docs/reference/commands.md"]
        sections = dict(re.findall(r"^## kgen ([a-z ]+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
        self.assertEqual(set(sections), {" ".join(words) for words in COMMANDS})
        for words, command in COMMANDS.items():
            named = {name for flag in re.findall(r"^\| `(-[^`]*)`", sections[" ".join(words)], re.M)
                     for name in re.findall(r"(?<!\S)--?[\w-]+", flag)}
            self.assertEqual(named, command.names() - {"-h", "--help"}, words)
        self.assertIn("tune", sections)  # the sections were found
        self.assertIn("--budget", sections["tune"])

    def test_every_key_of_the_parser_has_its_place(self):
        # The parser itself refuses what is not in the table that `kgen ops --keys` prints: the sections name the same keys.
        pages = TEXTS[ROOT / "docs/reference/spec.md"] + TEXTS[ROOT / "docs/reference/definition.md"]
        documented = [(heading, key) for heading, rows in re.findall(r"^## (.*)\n\n\| key \|.*\n.*\n((?:\|.*\n)+)", pages, re.M)
                      for key in re.findall(r"^\| `(\w+)`", rows, re.M)]
        titles = reference.SPEC | reference.DEFINITION
        listed = subprocess.run([KGEN, "ops", "--keys", "--json"], check=True, capture_output=True, text=True).stdout
        known = [(titles[key["map"]], key["key"]) for key in json.loads(listed)["keys"]]
        self.assertEqual(sorted(documented), sorted(known))
        self.assertGreater(len(known), 100)

    def test_the_parser_takes_the_keys_of_the_table_and_no_others(self):
        for key, taken in ("include", True), ("includes", False), ("budget", False):
            with tempfile.TemporaryDirectory() as folder:
                spec = pathlib.Path(folder) / "ops.yaml"
                spec.write_text(f"{key}: [missing.yaml]\nops: [{{op: softmax, problems: [{{rows: 1, cols: 8, dtype: fp32}}]}}]\n")
                said = subprocess.run([KGEN, "gen", spec, "--arch", "host", "-o", folder], capture_output=True, text=True).stderr
                self.assertEqual("unknown key" in said, not taken, said)

    def test_every_table_and_column_has_its_place(self):
        db = sqlite3.connect(":memory:")
        db.executescript((ROOT / "db/schema.sql").read_text())
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        schema = {table: [(column[1], column[2]) for column in db.execute(f"PRAGMA table_info({table})")] for table in tables}
        page = TEXTS[ROOT / "docs/reference/database.md"]
        documented = {table: re.findall(r"^\| `(\w+)` \| (\w+) \|", rows, re.M)
                      for table, rows in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.M | re.S)}
        self.assertEqual(documented, schema)
        version = re.search(r"schema version (\d+)", page)[1]
        self.assertIn(f"version {version}.", (ROOT / "db/schema.sql").read_text().split("\n")[0])

    def test_every_function_of_the_libraries_has_its_place(self):
        page = TEXTS[ROOT / "docs/reference/c.md"]
        documented = {name for names in re.findall(r"^### (.*)$", page, re.M) for name in re.findall(r"`(\w+)`", names)}
        exported = set()
        for library in os.environ["LIBKGEN"], os.environ["LIBKGEN_JIT"]:
            listed = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
            exported |= set(re.findall(r" T (kgen_\w+)", listed))
        self.assertGreater(len(exported), 30)
        self.assertEqual(exported - documented, set(), "not documented")
        types = set(re.findall(r"typedef\s[^;{]*?(?:\{[^}]*\}\s*)?(\w+);", page))
        self.assertEqual(documented - exported - types, set(), "not in the libraries")

    def test_every_environment_variable_has_its_place(self):
        documented = {name for row in re.findall(r"^\| (`.*?) \|", TEXTS[ROOT / "docs/reference/environment.md"], re.M)
                      for name in re.findall(r"`(\w+)`", row)}
        read, texts = set(), ""
        for folder in "base generator device tuner db runtime jit cli report python/kgen".split():
            for file in [*(ROOT / folder).rglob("*.cpp"), *(ROOT / folder).rglob("*.py")]:
                text = file.read_text()
                texts += text
                for call in re.findall(r"(?:getenv|environment|environ\.get)\(([^)]*)\)", text):
                    read |= set(re.findall(r'"(\w+)"', call))
        self.assertEqual(read - documented - {"HOME", "PATH"}, set(), "not documented")
        self.assertEqual({name for name in documented if f'"{name}"' not in texts}, set(), "not read by the code")


class Pages(unittest.TestCase):
    def test_every_kgen_line_has_a_command_and_flags_that_exist(self):
        wrong, seen = [], 0
        for page, text in TEXTS.items():
            for line, said in kgen_lines(text):
                seen += 1
                if what := complaint(said):
                    wrong.append(f"{page.relative_to(ROOT)}:{line}: kgen {said}: {what}")
        self.assertEqual(wrong, [])
        self.assertGreater(seen, 100)
        for bad in "tun ops.yaml", "tune ops.yaml --budgets 3", "db marge a b", "inspect x --what":
            self.assertIsNotNone(complaint(bad), bad)

    def test_every_c_function_that_is_named_exists(self):
        known = {name for header in ("runtime/include/kgen/kgen.h", "jit/include/kgen/kgen_jit.h")
                 for name in re.findall(r"\b(kgen_\w+)\(", (ROOT / header).read_text())}
        wrong = [f"{page.relative_to(ROOT)}: {name}()" for page, text in TEXTS.items()
                 for name in sorted(set(re.findall(r"\b(kgen_[a-z_]+)\(", text)) - known)
                 if not re.search(rf"\b{name}\b", (ROOT / "cmake/kgen.cmake").read_text())]
        self.assertEqual(wrong, [])

    def test_every_whole_spec_is_read(self):
        seen = 0
        for page, text in TEXTS.items():
            for language, line, content in blocks(text):
                if language != "yaml" or not re.search(r"^ops:", content, re.M) or "./" in content or "include:" in content:
                    continue
                seen += 1
                with tempfile.TemporaryDirectory() as folder:
                    spec = pathlib.Path(folder) / "ops.yaml"
                    spec.write_text(content)
                    ended = subprocess.run([KGEN, "gen", spec, "--arch", "gfx90a", "--limit", "1", "-o", folder], capture_output=True, text=True)
                    self.assertEqual(ended.returncode, 0, f"{page}:{line}: {ended.stderr}")
        self.assertGreater(seen, 2)

    def test_every_link_leads_somewhere(self):
        def anchors(text):
            text = re.sub(r"^( *)```.*?^ *```$", "", text, flags=re.M | re.S)
            return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)}

        wrong = []
        for page, text in TEXTS.items():
            for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^( *)```.*?^ *```$", "", text, flags=re.M | re.S)):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                file = (page.parent / path).resolve() if path else page
                if not file.exists():
                    wrong.append(f"{page.relative_to(ROOT)}: {target}: there is no such file")
                elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
                    wrong.append(f"{page.relative_to(ROOT)}: {target}: there is no such heading")
        self.assertEqual(wrong, [])

    def test_every_page_has_its_place_in_the_site(self):
        listed = re.findall(r": (\S+\.md)$|^ *- (\S+\.md)$", (ROOT / "scripts/mkdocs.yml").read_text(), re.M)
        self.assertEqual(sorted(a or b for a, b in listed), sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]),
                         "nav of scripts/mkdocs.yml")

    def test_the_site_builds_without_a_warning(self):
        if not shutil.which("mkdocs"):
            print("SKIPPED: the documentation's site (mkdocs is not installed)", file=sys.stderr)
            self.skipTest("mkdocs is not installed")
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(["mkdocs", "build", "--strict", "--quiet", "--config-file", ROOT / "scripts/mkdocs.yml", "--site-dir", folder],
                                   capture_output=True, text=True)
            self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
            self.assertTrue((pathlib.Path(folder) / "reference/commands/index.html").exists())


if __name__ == "__main__":
    unittest.main()
