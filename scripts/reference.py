#!/usr/bin/env python3
"""Writes the pages of docs/reference that are made of the program itself: commands.md of `kgen --help --json`, spec.md and definition.md
of `kgen ops --keys`, c.md of the C headers. What such a page should say otherwise is changed there. tests/docs holds the rest against the code.

    scripts/reference.py KGEN             # after a change of a flag, a key or a header
    scripts/reference.py KGEN --check     # 1, and what differs, where a page is not what would be written
"""
import difflib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs/reference"
MADE = "<!-- Made by scripts/reference.py; change what it is made of. -->\n"


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


class Command:
    """One command: .words, .help, .usage, .arguments as (name, help), .flags as (names, value, help), .subcommands."""

    def __init__(self, page):
        self.words = tuple(page["name"].split())
        self.help, self.usage = page["help"], f"kgen {page['name']} {page['usage']}"
        self.arguments = [(argument["name"], argument["help"]) for argument in page["arguments"]]
        self.flags = [(flag["names"], flag["value"], flag["help"]) for flag in page["flags"]]
        self.subcommands = []

    def names(self):
        return {name for names, _, _ in self.flags for name in names}


def commands(kgen):
    """All commands by their words: {("tune",): Command, …, ("db",): Command, ("db", "merge"): Command}."""
    told = json.loads(subprocess.run([kgen, "--help", "--json"], check=True, capture_output=True, text=True).stdout)
    found = {}
    for entry in told["commands"]:
        pages = [Command(page) for page in entry["pages"]]
        if pages[0].words != (entry["name"],):  # a family
            family = Command({"name": entry["name"], "help": entry["help"], "usage": "SUBCOMMAND …", "arguments": [], "flags": []})
            family.subcommands = [page.words[-1] for page in pages]
            pages.insert(0, family)
        found |= {page.words: page for page in pages}
    return found


def commands_page(kgen):
    text = f"""# Commands and flags

{MADE}
Every command takes `--help`, and those with `--json` then write one JSON document to stdout and nothing else. Exit codes: 0 done, 1 the work was
done and something failed its check, 2 bad usage or bad input, 3 no usable device or compiler. Errors go to stderr as
`file:line:column: what is wrong; what to do`. Ctrl-C stops after the candidate in work; the same command goes on.

`kgen --help` lists the commands, `kgen --version` prints the version.
"""
    for words, command in commands(kgen).items():
        text += f"\n## kgen {' '.join(words)}\n\n{cell(command.help)}\n\n```\n{command.usage}\n```\n"
        if command.subcommands:
            links = ", ".join(f"[{' '.join((*words, name))}](#kgen-{'-'.join((*words, name))})" for name in command.subcommands)
            text += f"\nSubcommands: {links}.\n"
        rows = [(f"`{name}`", said) for name, said in command.arguments]
        rows += [(f"`{', '.join(names)}{' ' if value else ''}{value}`", said) for names, value, said in command.flags if "--help" not in names]
        if rows:
            text += "\n| word | meaning |\n| --- | --- |\n" + "".join(f"| {name.replace('|', chr(92) + '|')} | {cell(said)} |\n" for name, said in rows)
    return text


SPEC = {
    "spec": "The file",
    "ops": "An item of `ops`",
    "problems": "A problem",
    "range": "A dim that is known at run time only",
    "tune": "`tune`",
    "entries": "An item of `entries`",
}
DEFINITION = {
    "definition": "The file",
    "extension": "The file of an operator that is another one",
    "dim": "A dim",
    "attribute": "An attribute",
    "argument": "An argument",
    "renamed argument": "An argument of an operator that is another one",
    "init": "`init` of an argument",
    "scalar": "A scalar",
    "rule": "A rule",
    "cost": "`cost`",
    "reference": "`reference`",
    "projection": "`projection` of the reference",
    "stage": "A stage of the reference",
    "tolerance": "The tolerance of an output",
    "variant": "A variant",
    "tunable": "A tunable",
    "buffer": "A buffer",
    "tensor map": "A tensor map",
    "step": "A step",
}


def keys_page(kgen, title, about, maps):
    known = json.loads(subprocess.run([kgen, "ops", "--keys", "--json"], check=True, capture_output=True, text=True).stdout)["keys"]
    missing = {key["map"] for key in known} - SPEC.keys() - DEFINITION.keys()
    if missing:
        sys.exit(f"scripts/reference.py has no title for the keys of {', '.join(sorted(missing))}; add them to SPEC or DEFINITION")
    text = f"# {title}\n\n{MADE}\n{about}"
    for name, heading in maps.items():
        text += f"\n## {heading}\n\n| key | meaning |\n| --- | --- |\n"
        text += "".join(f"| `{key['key']}` | {cell(key['doc'])} |\n" for key in known if key["map"] == name)
    return text


def spec_page(kgen):
    return keys_page(kgen, "Keys of ops.yaml", """\
What to tune. Any other key is refused with its place and the nearest one that there is; `kgen ops --keys` prints these tables, and `kgen ops NAME` the
dims, attributes and scalars of an operator, which are keys, too.

```yaml
kgen: 1
defaults: {dtype: bf16}
ops:
  - op: gemm
    name: up_projection
    epilogue: [bias, silu]
    problems:
      - {m: [1, 16, 197], n: 12288, k: 4096}              # three problems
      - {m: {range: [1, 4096]}, n: 4096, k: 4096}         # a few kernels for all sizes
    tune: {budget: 200, params: {tile_m: [64, 128]}}
```
""", SPEC)


def definition_page(kgen):
    return keys_page(kgen, "Keys of an operator definition", """\
One YAML file an operator (`ops/NAME.yaml`, or your own). [op-format.md](../op-format.md) says what each part takes, what expressions may read and what is emitted;
[add-an-op.md](../add-an-op.md) how to begin. `kgen ops --keys` prints these tables.
""", DEFINITION)


def declarations(header):
    """(names, comment, code) of each group of a header: a comment and the declarations under it."""
    text = header.read_text().split('extern "C" {\n#endif\n', 1)[1].split("#ifdef __cplusplus", 1)[0]
    groups = []
    for part in re.split(r"\n\s*\n|\n(?=/\*)", text):
        part = part.strip("\n")
        comment = re.match(r"/\*(.*?)\*/\n?", part, re.S)
        code = part[comment.end():] if comment else part
        if not code.strip():
            continue
        said = " ".join(line.strip().removeprefix("*").strip() for line in comment[1].split("\n")) if comment else ""
        groups.append((functions(code) or types(code), " ".join(said.split()), code))
    return groups


def functions(code):
    return re.findall(r"^KGEN_API [^;(]*?(\w+)\(", code, re.M)


def types(code):
    return re.findall(r"^(?:} |typedef (?:enum|struct) .*} |typedef (?:struct \w+|void\*) )(\w+);", code, re.M)


def c_page():
    text = f"""# C functions

{MADE}
`#include <kgen/kgen.h>`, link with `pkg-config --libs kgen` or CMake's `kgen::runtime`. C++17 has `kgen/kgen.hpp` on top of it, Python
[its own package](../python.md). `examples/c/gemm.c` is a complete program.
"""
    for name, about in (("runtime/include/kgen/kgen.h", ""), ("jit/include/kgen/kgen_jit.h", "")):
        header = ROOT / name
        opening = re.match(r"/\*(.*?)\*/", header.read_text(), re.S)[1]
        lines = [line.strip().removeprefix("*").strip() for line in opening.split("\n")]
        text += f"\n## {header.name}\n\n" + "\n".join(lines).strip() + "\n"
        for names, said, code in declarations(header):
            text += "\n### " + ", ".join(f"`{name}`" for name in names) + "\n"
            text += f"\n```c\n{code}\n```\n"
            text += f"\n{said}\n" if said else ""
    return text


def pages(kgen):
    return {"commands.md": commands_page(kgen), "spec.md": spec_page(kgen), "definition.md": definition_page(kgen), "c.md": c_page()}


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--check"]):
        sys.exit(__doc__)
    differ = False
    for name, text in pages(sys.argv[1]).items():
        path = REFERENCE / name
        if sys.argv[2:]:
            there = path.read_text() if path.exists() else ""
            lines = list(difflib.unified_diff(there.splitlines(), text.splitlines(), f"docs/reference/{name}", "what the code says", lineterm="", n=0))
            differ = differ or bool(lines)
            print("\n".join(lines), end="\n" if lines else "")
        else:
            REFERENCE.mkdir(exist_ok=True)
            path.write_text(text)
    if differ:
        sys.exit("write it again: scripts/reference.py KGEN")


if __name__ == "__main__":
    main()
