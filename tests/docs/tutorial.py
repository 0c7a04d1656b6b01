"""Runs a tutorial as a reader would, in a new folder: writes its files, runs its commands, compares what they print with what the page shows.

    tutorial.py PAGE.md PROGRAMS        PROGRAMS: folders for PATH, separated by colons

A block after `<!-- file: NAME -->` is a file. In ```console blocks a line with `$ ` is a command, what follows is what it prints to stdout and
stderr; a number stands for any number and `…` for anything. `<!-- needs: MODULE -->` skips the page, aloud, without that Python module. Other
blocks are not run.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

NUMBER = r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?"


def steps(text):
    """("file", line, name, content) and ("run", line, command, expected) in the order of the page."""
    for match in re.finditer(r"(?:<!-- file: (\S+) -->\n+)?^```(\w*)[^\n]*\n(.*?)^```$", text, re.M | re.S):
        line = text[: match.start(3)].count("\n") + 1
        if match[1]:
            yield "file", line, match[1], match[3]
        elif match[2] == "console":
            for part in re.finditer(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", match[3], re.M):
                yield "run", line + match[3][: part.start()].count("\n"), part[1].strip(), part[2]


def pattern(expected):
    parts = []
    for word in re.findall(rf"\s*…\s*|\s+|{NUMBER}|[^\s…]", expected.strip()):
        if "…" in word:
            parts.append(r"(?s:.*?)")
        elif word.isspace():
            parts.append(r"\s+")
        elif re.fullmatch(NUMBER, word):
            parts.append(NUMBER)
        else:
            parts.append(re.escape(word))
    return re.compile(r"\s*" + "".join(parts) + r"\s*")


def main():
    page, programs = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    text = page.read_text()
    for module in re.findall(r"<!-- needs: (\w+) -->", text):
        if subprocess.run(["python3", "-c", f"import {module}"], capture_output=True).returncode != 0:
            print(f"SKIPPED: {page.name} (the Python module {module} is not installed)")
            return 77
    found = list(steps(text))
    if not any(kind == "run" for kind, *_ in found):
        print(f"{page}: nothing to run")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        for kind, line, what, content in found:
            if kind == "file":
                path = pathlib.Path(folder) / what
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
                continue
            ended = subprocess.run(["bash", "-c", what], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
            print(f"$ {what}\n{ended.stdout}", flush=True)
            if ended.returncode != 0:
                print(f"{page}:{line}: ended with {ended.returncode}")
                return 1
            if not pattern(content).fullmatch(ended.stdout):
                print(f"{page}:{line}: is not what the page shows:\n{content}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
