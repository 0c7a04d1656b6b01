#!/usr/bin/python3
"""Pictures of `kgen tune` in a terminal, for docs/terminal.md: runs it on the host device and takes the screen at four moments.

    scripts/screenshots.py [KGEN] [FOLDER]     out/build/release/cli/kgen, docs/pictures

Needs Debian's python3-pyte (the terminal) and chromium (the picture of the screen).
"""
import fcntl
import html
import os
import pathlib
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios

import pyte
pyte.graphics.TEXT[2] = '+italics'  # it knows no faint text; kgen has no slanted one
ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS, ROWS = 110, 40
SEVERAL = """kgen: 1
defaults: {dtype: fp32}
ops:
  - op: conv2d
    problems: [{n: 1, h: 14, w: 14, c: 32, k: 32, r: 3, s: 3, pad: 1}]
  - op: rmsnorm
    problems: [{rows: 64, cols: 1024}]
  - op: gemm
    name: vit_projection
    epilogue: bias
    problems: [{m: 64, n: 192, k: 192}]
"""
ONE = """kgen: 1
defaults: {dtype: fp32}
ops:
  - op: gemm
    name: vit_projection
    epilogue: bias
    problems: [{m: 64, n: 192, k: 192}]
"""
COLORS = {'default': '#d8dee9', 'green': '#8fce7e', 'red': '#f07878', 'brown': '#e8c468', 'yellow': '#e8c468'}


def run(kgen, spec, budget, moments):
    """Yields (name, screen) for each of `moments`, a list of (name, what the screen's text matches), and at the end ("end", screen)."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / 'ops.yaml').write_text(spec)
        command = ['kgen', 'tune', 'ops.yaml', '--device', 'host', '--budget', str(budget)]
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(folder)
            for name in ('NO_COLOR', 'CLICOLOR_FORCE'):
                os.environ.pop(name, None)
            os.environ.update(TERM='xterm-256color', LC_ALL='C.UTF-8')
            os.execv(kgen, command)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', ROWS, COLUMNS, 0, 0))
        screen = pyte.Screen(COLUMNS, ROWS)
        stream = pyte.ByteStream(screen)
        stream.feed(('$ ' + ' '.join(command) + '\r\n').encode())
        moments = list(moments)
        while True:
            if not select.select([terminal], [], [], 60)[0]:
                sys.exit('kgen has said nothing for a minute')
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            stream.feed(data)
            text = '\n'.join(screen.display)
            if moments and data.endswith(b'\x1b[J') and re.search(moments[0][1], text, re.S):
                yield moments.pop(0)[0], screen
        if moments:
            sys.exit(f'this run had no moment "{moments[0][0]}": again?')
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            sys.exit('\n'.join(screen.display))
        yield 'end', screen


def picture(screen, file):
    lines = []
    last = max(y for y in range(ROWS) if screen.display[y].strip())
    for y in range(last + 1):
        text = last_style = ''
        for x in range(COLUMNS):
            cell = screen.buffer[y][x]
            style = f'color:{COLORS[cell.fg]}' + ';font-weight:bold' * cell.bold + ';opacity:.6' * cell.italics
            if style != last_style:  # one run of text has no seams between its blocks
                text += ('</span>' if text else '') + f'<span style="{style}">'
                last_style = style
            text += html.escape(cell.data)
        lines.append(text + '</span>')
    page = f"""<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #1f2430; }}
pre {{ margin: 0; padding: 14px 16px; font: 15px/19px "DejaVu Sans Mono", monospace; }}
</style><pre>{chr(10).join(lines)}</pre>"""
    chromium = shutil.which('chromium') or sys.exit('chromium is not installed')
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / 'screen.html'
        source.write_text(page)
        width, height = round(COLUMNS * 9.03) + 32, (last + 1) * 19 + 28
        subprocess.run(
            [chromium, '--headless', '--no-sandbox', '--hide-scrollbars', f'--user-data-dir={folder}/profile',
             f'--window-size={width},{height}', '--force-device-scale-factor=1', f'--screenshot={file}', source.as_uri()],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f'{file}: {os.path.getsize(file) // 1000} kB')


def main():
    kgen = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ROOT / 'out/build/release/cli/kgen')
    folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / 'docs/pictures').resolve()
    folder.mkdir(parents=True, exist_ok=True)
    moments = [('search', r'problem 1/3.*search (1[4-9]|2\d)/24.*x the first'),
               ('later', r'problem 3/3.*search (1\d|2\d)/24.*best')]
    for name, screen in run(kgen, SEVERAL, 24, moments):
        picture(screen, folder / f'tune_{name}.png')
    for name, screen in run(kgen, ONE, 24, []):
        picture(screen, folder / 'tune_one.png')


if __name__ == '__main__':
    main()
