#!/usr/bin/env python3
"""Tunes under injected faults and says what they cost.

    cmake --build out/build/release --target kgen stand_ins
    scripts/trust.py [--build out/build/release] [--least 1000] [--kills 200] [--only GLOB] [--out docs/results/trust.md]

--out keeps what was counted beside it, in trust.jsonl; a run of some kinds alone puts its counts in place of theirs.

Every run is a real `kgen tune` of two problems on a stand-in for libamdhip64 (gfx1030) or libcuda (sm_70) that runs the
kernels on the CPU (tests/device/fake_driver.h); six of nine candidates of one problem are wrong on purpose. Faults come at
moments by lot, from the driver, the compiler, the file system, the clock and kill -9. After each run:

  the exit code is one that the README lists, and `kgen db check` finds nothing;
  every process has begun with the known-good kernel;
  an undisturbed `kgen tune` goes on from the same database and ends well, every candidate has its row, and no more of
    them end in another way than undisturbed than there were faults;
  `kgen verify` on the undisturbed device passes every winner, and none is one of those that are wrong on purpose.

A fault is counted when the stand-in has written it into its log (the file system's: when the run has met it).
"""

import argparse
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import fnmatch
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 2  # seconds of a candidate (--timeout)
LONGEST = 10 * LIMIT  # of the limits derived from it: a reference's
BEGIN = 6  # seconds that the next process may take to its first kernel, a pause of 1 s included, on a busy machine
WHOLE_RUN = 240
CALLS = ("init device_count cuda_primary_retain hip_device_set allocate fill copy module_load module_function launch "
         "stream_synchronize event_create event_record event_synchronize event_elapsed_ms any").split()
GRAPH_CALLS = "stream_create capture_begin capture_end graph_instantiate graph_launch".split()
NEVER = 999_999_999

SPEC = """kgen: 1
ops:
  - op: {root}/tests/tuner/planted/planted.yaml
    dtype: fp32
    problems: [{{rows: 70, terms: 40}}]
    tune: {{params: {{items: [32, 64, 128], fault: [none, corner, tail]}}}}
  - op: rmsnorm
    dtype: fp32
    problems: [{{rows: 9, cols: 40}}]
    tune: {{budget: 6}}
"""


@dataclasses.dataclass
class Kind:
    name: str
    faults: list  # of (call, action), or a word for those that are not the stand-ins' own
    each: int = 8  # in a run
    runs: int = 4
    flags: tuple = ()
    cold_cache: bool = False
    may_end: tuple = (0, 1)  # exit codes of the disturbed run


def kinds():
    any_call = [(call, "error=any") for call in "allocate fill copy module_load module_function event_record".split()]
    return [
        Kind("launch: fails, any error code", [("launch", "error=any")]),
        Kind("launch: context lost, found by the next call", [("launch", "fault=700")]),
        Kind("launch: context lost, any error code", [("launch", "fault=any")]),
        Kind("launch: hangs", [("launch", "hang")], each=3, runs=8),
        Kind("launch: says done, did nothing", [("launch", "skip")]),
        Kind("launch: results corrupted", [("launch", "corrupt")]),
        Kind("launch: returns late", [("launch", "delay=300")]),
        Kind("other call: fails, any error code", any_call),
        Kind("other call: context lost, any error code", [(c, a.replace("error", "fault")) for c, a in any_call]),
        Kind("wait: context lost (719)", [("stream_synchronize", "fault=719"), ("event_synchronize", "fault=719")]),
        Kind("wait: hangs", [("stream_synchronize", "hang"), ("event_synchronize", "hang")], each=3, runs=8),
        Kind("wait: returns late", [("stream_synchronize", "delay=300"), ("event_synchronize", "delay=300")]),
        Kind("copy: corrupted", [("copy", "corrupt")]),
        Kind("copy: says done, did nothing", [("copy", "skip")]),
        Kind("copy: hangs", [("copy", "hang")], each=3, runs=8),
        Kind("fill: says done, did nothing, or corrupted", [("fill", "skip"), ("fill", "corrupt")]),
        Kind("memory: none left", [("allocate", "error=2")]),
        Kind("module: refused", [("module_load", "error=200"), ("module_load", "error=218")], each=4),
        Kind("module: corrupted on its way", [("module_load", "corrupt")], each=4),
        Kind("module: load hangs", [("module_load", "hang")], each=3, runs=8),
        Kind("module: kernel not found", [("module_function", "error=500")]),
        Kind("event: mark not made", [("event_record", "skip")]),
        Kind("event: time is nan, infinite, negative or 0",
             [("event_elapsed_ms", f"value={v}") for v in ("nan", "inf", "-1", "0")]),
        Kind("graph: call fails, any error code", [(c, "error=any") for c in GRAPH_CALLS], flags=("--timing", "graph")),
        Kind("graph: launch hangs", [("graph_launch", "hang")], each=3, runs=8, flags=("--timing", "graph")),
        Kind("driver: crashes (SIGSEGV)", [("any", "crash")]),
        Kind("driver: ends the process", [("any", "exit")]),
        Kind("driver: prints 4 MB", [("any", "babble")]),
        Kind("worker: kill -9", [("any", "kill")]),
        Kind("device: lost for 2 s", [("any", "lost=2")], each=2, runs=8),
        Kind("device: lost for good", [("any", "lost=0")], each=1, runs=12),
        Kind("start: initialisation fails", [("init", "error=100"), ("device_count", "error=100")], each=1, runs=12,
             may_end=(3,)),
        Kind("start: initialisation hangs", [("init", "hang")], each=1, runs=8, may_end=(1, 3)),
        Kind("restart: no context",
             [("launch", "fault=700"), ("cuda_primary_retain", "error=46"), ("hip_device_set", "error=46")],
             may_end=(0, 1, 3)),
        Kind("compiler: fails", [("compile", "error=1")], cold_cache=True),
        Kind("compiler: crashes (SIGSEGV)", [("compile", "crash")], cold_cache=True),
        Kind("compiler: killed", [("compile", "kill")], cold_cache=True),
        Kind("compiler: hangs", [("compile", "hang")], each=3, runs=8, cold_cache=True),
        Kind("compiler: prints 4 MB", [("compile", "babble")], cold_cache=True),
        Kind("compiler: leaves half a file", [("compile", "half")], cold_cache=True),
        Kind("compiler: leaves no file", [("compile", "skip")], cold_cache=True),
        Kind("compiler: object of a candidate corrupted", [("compile/planted", "corrupt"), ("compile/rows", "corrupt")],
             cold_cache=True),
        Kind("cache: entries cut, flipped, half gone", "cache"),
        Kind("clock: jumps by up to ten years", "clock", runs=8),
        Kind("disk: full under the database", "disk", each=1, runs=24, may_end=(2,)),
        Kind("disk: full under the cache", "full_cache", each=1, runs=8, cold_cache=True),
        Kind("files: database is read-only", "read_only", each=1, runs=8, may_end=(2,)),
        Kind("files: cache is read-only", "read_only_cache", each=1, runs=8, cold_cache=True),
    ]


@dataclasses.dataclass
class Outcome:
    injected: int = 0
    runs: int = 0
    problems: list = dataclasses.field(default_factory=list)  # lines about what did not survive
    hit: int = 0  # trials that ended in another way than undisturbed: those in flight
    lost: int = 0
    wrong: int = 0
    hangs: int = 0
    late: int = 0  # hangs that outlived their limit
    longest: float = 0


class Trust:
    def __init__(self, build, work, seed):
        self.kgen = str(build / "cli/kgen")
        self.stand_ins = build / "tests/device"
        self.work = work
        self.seed = seed
        self.spec = work / "spec.yaml"
        self.spec.write_text(SPEC.format(root=ROOT))
        self.calm = {}  # by (vendor, timing flags): status by candidate, and calls by name

    def environment(self, vendor, folder, script="", cache=None, **more):
        env = dict(os.environ)
        env.update(
            KGEN_CUDA_LIBRARY=str(self.stand_ins / "libfake_cuda.so"),
            KGEN_HIP_LIBRARY=str(self.stand_ins / "libfake_hip6.so"),
            KGEN_CLANG=str(self.stand_ins / "fake_clang"),
            KGEN_FAKE_OBJECTS=str(self.work / "objects"),
            KGEN_FAKE_ARCH="gfx1030" if vendor == "amd" else "70",
            KGEN_FAKE_SKIP="read_all,displace_code",
            KGEN_FAKE_FAULTS=script,
            KGEN_FAKE_STATE=str(folder / "state"),
            KGEN_FAKE_LOG=str(folder / "log"),
            KGEN_FAKE_SEED=str(self.seed * 1000 + (int(folder.name.split("_")[1]) if folder.name.startswith("run_") else 0)),
            KGEN_HOST_THREADS="1",
            XDG_CACHE_HOME=str(cache or self.work / "cache"),
            **more,
        )
        return env

    def run(self, env, *words, timeout=WHOLE_RUN):
        try:
            done = subprocess.run([self.kgen, *map(str, words)], env=env, capture_output=True, text=True,
                                  errors="replace", timeout=timeout)
            return done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            return 124, "no end"

    def tune(self, env, vendor, db, flags=(), limit=LIMIT):
        return self.run(env, "tune", self.spec, "--db", db, "--device", f"{vendor}:0", "--timeout", limit, *flags)

    @staticmethod
    def trials(db):
        """The first end of each candidate: 'works' or how it failed."""
        ends = {}
        with contextlib.closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as con:
            for problem, config, status in con.execute("SELECT problem, config, status FROM trial ORDER BY id"):
                works = status in ("timed", "stopped_early")
                ends.setdefault((problem, config), "works" if works else status)
        return ends

    @staticmethod
    def winners(db):
        with contextlib.closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as con:
            return [c for c, in con.execute("SELECT config FROM winner JOIN trial ON trial.id = winner.trial")]

    def learn(self, vendor, flags):
        """An undisturbed run: what each candidate comes to, and how often each function is called."""
        key = (vendor, flags)
        if key in self.calm:
            return self.calm[key]
        folder = self.work / f"calm_{vendor}_{len(self.calm)}"
        folder.mkdir()
        calls = CALLS + (GRAPH_CALLS if flags else []) + ["compile", "compile/planted", "compile/rows"]
        script = ";".join(f"{call}:{NEVER}:error=1" for call in calls)
        env = self.environment(vendor, folder, script, cache=folder / "cache")
        code, text = self.tune(env, vendor, folder / "t.db", flags, limit=60)  # everything is compiled here
        if code != 0:
            sys.exit(f"the undisturbed run on {vendor} failed ({code}):\n{text}")
        counts = struct.unpack(f"<{len(calls)}Q", (folder / "state").read_bytes()[:8 * len(calls)])
        self.calm[key] = {"ends": self.trials(folder / "t.db"), "calls": dict(zip(calls, counts))}
        # The compiled code serves the runs that want a warm cache.
        shutil.copytree(folder / "cache", self.work / "cache", dirs_exist_ok=True)
        return self.calm[key]

    # ------------------------------------------------------------------------------------------------ one disturbed run

    @staticmethod
    def script(kind, calm, lot):
        rules = []
        possible = [(call, action) for call, action in kind.faults if calm["calls"].get(call, 0) > 0]
        for i in range(kind.each):
            call, action = lot.choice(possible)
            # Most calls are samples of times; references and checks come earlier.
            moment = 1 + int(calm["calls"][call] * lot.random() ** 2)
            if kind.name.startswith("start"):
                moment = 1
            elif kind.name.startswith("restart"):
                call, action = possible[i % len(possible)]
                moment = 1 + lot.randrange(calm["calls"]["launch"] // 4) if call == "launch" else 2 + i // 2
            rules.append(f"{call}:{moment}:{action}")
        return ";".join(rules)

    def disturbed(self, kind, number):
        vendor = "amd" if number % 2 == 0 else "nvidia"
        calm = self.learn(vendor, kind.flags)
        folder = self.work / f"run_{number}"
        folder.mkdir()
        out = Outcome(runs=1)
        try:
            self.one(kind, vendor, calm, folder, random.Random(self.seed * 10007 + number), out)
        except (sqlite3.Error, OSError, KeyError) as error:
            out.problems.append(f"{error!r}")
        for line in out.problems:
            print(f"trust: {kind.name}, run {number} on {vendor}: {line}", file=sys.stderr)
        if not out.problems and not out.lost and not out.wrong and not out.late:
            shutil.rmtree(folder, ignore_errors=True)
        return out

    def one(self, kind, vendor, calm, folder, lot, out):
        db, cache, more, mounted = folder / "t.db", None, {}, None
        script = self.script(kind, calm, lot) if isinstance(kind.faults, list) else ""
        if kind.cold_cache:
            cache = folder / "cache"
        if kind.faults == "cache":
            cache = folder / "cache"
            shutil.copytree(self.work / "cache", cache)
            out.injected += self.damage(cache, kind.each, lot)
        if kind.faults == "clock":
            more = {"LD_PRELOAD": str(self.stand_ins / "libclock_jump.so")}
        if kind.faults in ("disk", "full_cache", "read_only", "read_only_cache"):
            mounted = folder / "disk"
            mounted.mkdir()
            # A run's database and log grow to some 700 KB, its code to 1.2 MB.
            small = kind.faults in ("disk", "full_cache")
            mount(mounted, f"size={lot.randrange(10, 140) * 4}k" if small else "size=64m")
            if "cache" in kind.faults:
                cache = mounted / "cache"
            else:
                db = mounted / "t.db"
            if kind.faults == "read_only":
                self.tune(self.environment(vendor, folder), vendor, db, ("--budget", "2"))
        try:
            env = self.environment(vendor, folder, script, cache, **more)
            rows_before = len(self.trials(db)) if db.exists() else 0
            if kind.faults in ("read_only", "read_only_cache"):
                mount(mounted, "remount,ro")
            started = time.monotonic()
            code, text = self.tune(env, vendor, db, kind.flags)
            ended = time.monotonic()
            if mounted is not None:
                met = {"disk": code == 2 and "no space left on the disk" in text, "read_only": code == 2}
                out.injected += bool(met.get(kind.faults, True))
                if kind.faults == "disk" and code == 0:
                    kind = dataclasses.replace(kind, may_end=(0,))  # it was large enough
                mount(mounted, "remount,rw,size=64m")
            lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
            self.judge(kind, vendor, calm, folder, db, out, code, text, lines, started, ended, rows_before)
        finally:
            if mounted is not None:
                subprocess.run(["umount", str(mounted)], check=False)

    def judge(self, kind, vendor, calm, folder, db, out, code, text, lines, started, ended, rows_before):
        faults = [line for line in lines if " fault " in line]
        out.injected += len(faults)
        tail = text.strip().splitlines()[-1:]
        if kind.faults == [] or (code not in kind.may_end and not (code == 0 and not faults)):
            # A fault at the very start leaves no device, whatever its kind.
            if not (code == 3 and len(faults) > 0):
                out.problems.append(f"exit {code}: {tail}; kept in {folder}")
        for line in lines:
            if "begins with" in line and "begins with fill_" not in line:
                out.problems.append(f"not probed: {line}")
        # Until the next process begins, or the run ends.
        events = [(int(line.split()[0]) / 1e3, line) for line in lines]
        for i, (at, line) in enumerate(events):
            if not re.search(r"fault \S*:hang at", line):
                continue
            pid = line.split()[1]
            after = next((t for t, other in events[i + 1:] if other.split()[1] != pid), ended)
            out.hangs += 1
            out.longest = max(out.longest, after - at)
            if after - at > LONGEST + BEGIN:
                out.late += 1
                out.problems.append(f"hung for {after - at:.1f} s; kept in {folder}")
        if code == 124:
            out.late += 1

        quiet = self.environment(vendor, folder)
        quiet.pop("KGEN_FAKE_LOG")
        if db.exists():
            code, text = self.run(quiet, "db", "check", db)
            nothing = "is empty; `kgen tune` fills it" in text and not rows_before
            if nothing:  # it ended before the first row
                db.unlink()
        if db.exists():
            if code != 0:
                out.problems.append(f"db check: {text.strip()}; kept in {folder}")
                return
            ends = self.trials(db)
            if len(ends) < rows_before:
                out.lost += rows_before - len(ends)
            self.check_winners(quiet, vendor, db, out, folder)
        code, text = self.tune(quiet, vendor, db, kind.flags)
        if code not in (0, 1):
            out.problems.append(f"the undisturbed run after it: exit {code}: {text.strip().splitlines()[-1:]}; kept in {folder}")
            return
        ends = self.trials(db)
        planted = {key: end for key, end in calm["ends"].items() if "fault=" in key[1]}
        other = {key: end for key, end in ends.items() if planted.get(key, end) != end or
                 ("fault=" not in key[1] and end != "works")}
        out.hit += len(other)
        missing = [key for key in planted if key not in ends]
        beyond = max(0, len(other) - out.injected)
        out.lost += len(missing) + beyond
        if missing or beyond:
            out.problems.append(f"{len(missing)} without a row, {len(other)} ended otherwise: {other}; kept in {folder}")
        self.check_winners(quiet, vendor, db, out, folder)

    def check_winners(self, env, vendor, db, out, folder):
        wrong = [config for config in self.winners(db) if "fault=" in config and "fault=none" not in config]
        code, text = self.run(env, "verify", db, "--device", f"{vendor}:0", "--own-op",
                              ROOT / "tests/tuner/planted/planted.yaml", "--json")
        try:
            failed = json.loads(text)["failed"]
        except (json.JSONDecodeError, KeyError):
            failed = 0
            if code != 0:
                out.problems.append(f"verify: exit {code}: {text.strip()[-200:]}; kept in {folder}")
        if wrong or failed:
            out.wrong += max(len(wrong), failed)
            out.problems.append(f"published: {wrong}, {failed} fail kgen verify; kept in {folder}")

    @staticmethod
    def damage(cache, count, lot):
        files = sorted(path for path in cache.rglob("*") if path.is_file())
        for path in lot.sample(files, count):
            how = lot.randrange(3)
            data = bytearray(path.read_bytes())
            if how == 0:
                path.write_bytes(data[:len(data) // 2])
            elif how == 1:
                data[lot.randrange(len(data))] ^= 1 << lot.randrange(8)
                path.write_bytes(data)
            else:
                path.unlink()
        return count

    # ---------------------------------------------------------------------------------------------------------- kill -9

    def kills(self, count):
        """kill -9 of a tuner with four workers at moments by lot: (clean, trials lost, workers that outlived it)."""
        vendor, lot = "nvidia", random.Random(self.seed)
        many = "all" in self.run(os.environ, "tune", "--help")[1].split("--device", 1)[1].split("--budget")[0]
        spec = self.work / "kills.yaml"
        spec.write_text(SPEC.format(root=ROOT).replace("rows: 70", f"rows: {list(range(60, 84))}")
                        .replace("rows: 9", f"rows: {list(range(1, 17))}"))
        result = {"workers": "four GPUs, a worker each" if many else "one GPU, four compilers", "kills": 0, "clean": 0,
                  "lost": 0, "outlived": 0, "finished": 0}
        folder = self.work / "kills"
        folder.mkdir()
        db = folder / "t.db"
        env = self.environment(vendor, folder, cache=folder / "cache", KGEN_FAKE_DEVICES="4")
        words = [self.kgen, "tune", str(spec), "--db", str(db), "--device", "all" if many else "nvidia:0", "--jobs", "4",
                 "--timeout", "10"]
        before = 0
        while result["kills"] < count:
            tuner = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(lot.random() * 2)
            seen = len(self.rows(db)) if db.exists() else 0
            if tuner.poll() is not None:
                result["finished"] += 1
                for path in folder.glob("t.db*"):
                    path.unlink()
                shutil.rmtree(folder / "cache", ignore_errors=True)  # compiling is part of what is interrupted
                before = 0
                continue
            children = children_of(tuner.pid)
            tuner.kill()
            tuner.wait()
            result["kills"] += 1
            time.sleep(0.3)
            result["outlived"] += sum(alive(child) for child in children)
            if not db.exists():
                result["clean"] += 1
                continue
            code, text = self.run(env, "db", "check", db)
            result["clean"] += code == 0
            if code != 0:
                print(f"trust: db check after kill {result['kills']}: {text.strip()}", file=sys.stderr)
            rows = len(self.rows(db))
            result["lost"] += max(0, max(seen, before) - rows)
            before = rows
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        result["resumed"] = done.returncode
        return result

    @staticmethod
    def rows(db):
        try:
            with contextlib.closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as con:
                return con.execute("SELECT id FROM trial").fetchall()
        except sqlite3.Error:  # not yet made
            return []


def mount(folder, options):
    source = [] if options.startswith("remount") else ["-t", "tmpfs", "tmpfs"]
    subprocess.run(["mount", "-o", options, *source, str(folder)], check=True)


def own_mounts():
    """A mount namespace of our own, or False where that is not permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) != 0:  # CLONE_NEWNS
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True).returncode == 0


def children_of(pid):
    try:
        return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def page(rows, skipped):
    """The page of all kinds' counts, as trust.jsonl has them, and whether all is well."""
    faults = [row for row in rows if row["kind"] != "kill -9"]
    kills = next((row for row in rows if row["kind"] == "kill -9"), None)
    total = {field: sum(row[field] for row in faults) for field in FIELDS}

    def cells(row):
        late = f"{row['late']} of {row['hangs']}" + (f", longest {row['longest']:.1f} s" if row.get("longest") else "")
        return (f"{row['injected']} | {row['runs'] - row['bad']} of {row['runs']} | {row['hit']} | {row['lost']} | "
                f"{row['wrong']} | {late if row['hangs'] else 0}")

    days = " to ".join(sorted({row["day"] for row in rows})[::max(1, len({row["day"] for row in rows}) - 1)])
    text = f"""# What faults cost

Made by `scripts/trust.py` ({days}, {platform.machine()}, {os.cpu_count()} CPUs), whose head says what is checked after every run. Half of
the runs go through the stand-in for libamdhip64, half through that for libcuda ([../faults.md](../faults.md)); the limit of a candidate
is {LIMIT} s, and that of a reference, the longest, {LONGEST} s.

**{total['injected']} faults of {len(faults)} kinds in {total['runs']} tunes: {total['runs'] - total['bad']} survived; {total['lost']} trials lost beyond those in flight; {total['wrong']} wrong kernels published;
{total['late']} of {total['hangs']} hangs outlived their limit.**

| fault | injected | runs survived | trials it ended | trials lost | wrong kernels published | hangs longer than the limit |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""
    text += "".join(f"| {row['kind']} | {cells(row)} |\n" for row in faults)
    text += f"| **all** | {cells(total)} |\n"
    text += f"""
A trial that a fault ended is one that was in flight: its row says how (`crashed`, `hung`, `launch_failed`, `wrong`, `compile_failed` …) and
the run went on. The longest time of a hang is until the next process has run its first kernel.
"""
    if skipped:
        text += f"\nNot run, for lack of permission to mount: {'; '.join(skipped)}.\n"
    if kills:
        text += f"""
## kill -9

A tune ({kills['workers']}) killed at {kills['kills']} moments by lot and resumed each time, compilers at work
({kills['finished']} runs ended before their kill and were begun anew):

| kills | `kgen db check` clean | trials lost that had been seen | processes that outlived the tuner | last run, undisturbed |
| ---: | ---: | ---: | ---: | --- |
| {kills['kills']} | {kills['clean']} of {kills['kills']} | {kills['lost']} | {kills['outlived']} | exit {kills['resumed']} |
"""
    good = total["bad"] + total["lost"] + total["wrong"] + total["late"] == 0
    if kills:
        good = good and kills["clean"] == kills["kills"] and kills["lost"] + kills["outlived"] + kills["resumed"] == 0
    return text, good


FIELDS = ("injected", "runs", "bad", "hit", "lost", "wrong", "hangs", "late")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "out/build/release")
    parser.add_argument("--least", type=int, default=0, help="kinds are run again until so many faults were injected")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--only", default="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    can_mount = own_mounts()
    skipped = []
    work = pathlib.Path(tempfile.mkdtemp(prefix="kgen-trust-"))
    trust = Trust(args.build.resolve(), work, args.seed)
    chosen = [kind for kind in kinds() if fnmatch.fnmatch(kind.name, args.only)]
    for kind in list(chosen):
        if isinstance(kind.faults, str) and kind.faults not in ("cache", "clock") and not can_mount:
            print(f"trust: no permission to mount: '{kind.name}' is NOT RUN", file=sys.stderr)
            skipped.append(kind.name)
            chosen.remove(kind)
    for kind in chosen:  # not beside each other
        for vendor in ("amd", "nvidia"):
            trust.learn(vendor, kind.flags)
    results = {kind.name: Outcome() for kind in chosen}
    number = 0
    with concurrent.futures.ThreadPoolExecutor(args.at_once) as pool, concurrent.futures.ThreadPoolExecutor(1) as beside:
        killing = beside.submit(trust.kills, args.kills) if args.kills else None
        while chosen:
            jobs = []
            for kind in chosen:
                for _ in range(kind.runs):
                    jobs.append((kind, pool.submit(trust.disturbed, kind, number)))
                    number += 1
            for kind, job in jobs:
                out, sum_ = job.result(), results[kind.name]
                for field in dataclasses.fields(Outcome):
                    a, b = getattr(sum_, field.name), getattr(out, field.name)
                    setattr(sum_, field.name, max(a, b) if field.name == "longest" else a + b)
                if kind is not jobs[-1][0] and sum_.runs % kind.runs == 0:
                    print(f"{kind.name}: {sum_.injected} injected, {sum_.hit} hit, {len(sum_.problems)} problems",
                          flush=True)
            if sum(out.injected for out in results.values()) >= args.least:
                break
        kills = killing.result() if killing else None
    day = time.strftime("%Y-%m-%d")
    rows = []
    for kind in chosen:
        out = results[kind.name]
        counts = {field: getattr(out, field) for field in FIELDS if field != "bad"}
        rows.append({"kind": kind.name, "day": day, "bad": min(out.runs, len(out.problems)),
                     "longest": round(out.longest, 1), **counts})
    if kills:
        rows.append({"kind": "kill -9", "day": day, **kills})
    if args.out:
        kept = args.out.with_suffix(".jsonl")
        before = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
        counted = {row["kind"]: row for row in before + rows}
        order = [kind.name for kind in kinds()] + ["kill -9"]
        rows = [counted[name] for name in order if name in counted]
        kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text, good = page(rows, skipped)
    if args.out:
        args.out.write_text(text)
    print(text)
    if good:
        shutil.rmtree(work, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
