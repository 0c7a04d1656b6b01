#!/usr/bin/env python3
"""What a large shared library costs, for docs/scale.md: makes up, by SQL, a database of PROBLEMS tuned problems with TRIALS trials each
(rows as wide as those of a real tune) and a shard of a few problems more, and measures size, merges, opening and lookups, in seconds of CPU.

    bench/scale.py KGEN [PROBLEMS] [TRIALS]          prints one JSON document
"""
import json, os, shutil, sqlite3, subprocess, sys, tempfile

kgen, problems, trials = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000, int(sys.argv[3]) if len(sys.argv) > 3 else 20
work = tempfile.mkdtemp()


def run(*args):
    start = os.times()
    done = subprocess.run([kgen, *args], capture_output=True, text=True, cwd=work)
    if done.returncode > (args[0] == "lookup"):  # 1: nothing serves it
        raise SystemExit(f"kgen {' '.join(args)}: {done.stderr}")
    end = os.times()
    return end.children_user + end.children_system - start.children_user - start.children_system, done.stdout


def tuned(path):
    """A database of one really tuned problem: its schema, and rows to copy."""
    with open(f"{work}/ops.yaml", "w") as spec:
        spec.write("{kgen: 1, ops: [{op: gemm, dtype: fp32, problems: [{m: 16, n: 16, k: 16}], tune: {budget: 3}}]}")
    run("tune", "ops.yaml", "--device", "host", "--db", path)


def library(path, first, count):
    shutil.copy(f"{work}/seed.db", path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA journal_mode=OFF")
    columns = [row[1] for row in db.execute("PRAGMA table_info(trial)")]
    seed = dict(zip(columns, db.execute("SELECT * FROM trial WHERE status = 'timed' ORDER BY id DESC LIMIT 1").fetchone()))
    sample = b"\0\0\x20\x41" * 24
    states = bytes(len(sample))
    plan = db.execute("SELECT json FROM plan LIMIT 1").fetchone()[0]
    kind, size, frame = db.execute("SELECT kind, size, zstd FROM object LIMIT 1").fetchone()
    winner_columns = [row[1] for row in db.execute("PRAGMA table_info(winner)")]
    winner = dict(zip(winner_columns, db.execute("SELECT * FROM winner LIMIT 1").fetchone()))
    for table in ("winner", "sample", "trial", "problem"):
        db.execute(f"DELETE FROM {table}")
    op = db.execute("SELECT id FROM op LIMIT 1").fetchone()[0]
    object_id, plan_id = db.execute("SELECT object.id, plan.id FROM object, plan LIMIT 1").fetchone()
    del plan, kind, size, frame
    db.executemany(f"INSERT INTO problem (id, op, dims_key, dims_json, label, flops, bytes) VALUES (?, ?, ?, ?, '', 1e9, 1e6)",
                   ((i, op, f"k=4096 m={first + i} n=4096", json.dumps({"m": first + i, "n": 4096, "k": 4096})) for i in range(1, count + 1)))
    def rows():
        for i in range(count * trials):
            row = dict(seed, id=i + 1, problem=1 + i // trials, config=f"{seed['config']} v={i % trials}", recorded_at=1763796000000 + i,
                       source_hash=f"{(first * trials + i) * 2654435761:032x}"[-32:], time_us=10 + i % 7, is_default=int(i % trials == 0))
            yield [row[c] for c in columns]
    db.executemany(f"INSERT INTO trial ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", rows())
    db.execute("INSERT INTO sample (trial, us, states) SELECT id, ?, ? FROM trial", (sample, states))
    def winners():
        for i in range(2 * count):
            row = dict(winner, id=i + 1, problem=1 + i // 2, is_default=i % 2, trial=1 + (i // 2) * trials, plan=plan_id, object=object_id)
            yield [row[c] for c in winner_columns]
    db.executemany(f"INSERT INTO winner ({', '.join(winner_columns)}) VALUES ({', '.join('?' * len(winner_columns))})", winners())
    db.execute("DELETE FROM object WHERE id <> ?", (object_id,))
    db.execute("DELETE FROM plan WHERE id <> ?", (plan_id,))
    db.commit()
    db.execute("VACUUM")
    db.close()
    return os.path.getsize(path)


try:
    tuned("seed.db")
    whole = library(f"{work}/whole.db", 0, problems)
    library(f"{work}/shard.db", problems, 10)
    library(f"{work}/other.db", 2 * problems, 10)
    out = {"problems": problems, "trials": problems * trials, "bytes": whole, "bytes_a_trial": round(whole / (problems * trials)),
           "bytes_a_problem": round(whole / problems)}
    out["check_seconds"] = run("db", "check", "whole.db")[0]
    out["merge_into_empty_seconds"] = run("db", "merge", "whole.db", "-o", "all.db")[0]
    out["merge_again_seconds"] = run("db", "merge", "whole.db", "-o", "all.db")[0]
    out["merge_shard_of_10_problems_seconds"] = run("db", "merge", "shard.db", "-o", "all.db")[0]
    out["merge_second_shard_seconds"] = run("db", "merge", "other.db", "-o", "all.db")[0]
    out["open_and_lookup_seconds"] = min(run("lookup", "whole.db", "gemm", "m=100", "n=4096", "k=4096", "--dtype", "fp32", "--arch", "host")[0] for _ in range(3))
    out["lookup_of_what_nothing_serves_seconds"] = run("lookup", "whole.db", "gemm", "m=100", "n=4097", "k=4096", "--dtype", "fp32", "--arch", "host")[0]
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in out.items()}, indent=1))
finally:
    shutil.rmtree(work)
