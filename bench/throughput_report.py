"""What bench/throughput.sh measured, as a page of tables: throughput_report.py OUT"""
import json
import os
import sys


def load(path):
    return json.load(open(path)) if os.path.exists(path) and os.path.getsize(path) else None


def main():
    out = sys.argv[1]
    print("# Throughput\n")
    for size, title in (("small", "Kernels under 0.1 ms"), ("operators", "One of every operator, under 0.1 ms"), ("medium", "Kernels under 1 ms")):
        tune = load(f"{out}/{size}.json")
        if tune is None:
            continue
        wall = tune["wall_seconds"]
        fresh = tune["compiled"] - tune["from_cache"]
        print(f"## {title}\n")
        print(f"{tune['device']}, {tune['jobs']} compile jobs: {tune['verified']} verified candidates in {wall:.1f} s, "
              f"**{tune['verified'] / wall:.1f} a second**; device busy {tune['gpu_busy_share']:.0%} of the time (timing alone "
              f"{tune['gpu_timing_seconds'] / wall:.0%}). {fresh} compilations of {tune['compile_seconds'] / max(1, fresh):.2f} s each kept "
              f"{tune['compile_seconds'] / wall:.1f} jobs at work.\n")
        print("| problem | winner us | verified | seconds | a second |\n| --- | --- | --- | --- | --- |")
        for row in tune["rows"]:
            dims = " ".join(f"{k}={v}" for k, v in row["dims"].items())
            rate = f"{row['verified'] / row['seconds']:.1f}" if row["seconds"] > 0 else ""
            print(f"| {row['label'] or row['op']} {dims} | {row['time_us']:.1f} | {row['verified']} | {row['seconds']:.2f} | {rate} |")
        parts = ", ".join(f"{name} {seconds:.2f} ({seconds / wall:.0%})" for name, seconds in tune["where_time_went"].items())
        print(f"\nSeconds: {parts}.\n")
    isolation = load(f"{out}/isolation.json")
    if isolation:
        print("## Isolation\n")
        print("| problem | candidates | in process, ms each | through the worker, ms each | overhead |\n| --- | --- | --- | --- | --- |")
        for row in isolation["problems"]:
            print(f"| {row['op']} {row['dims']} | {row['candidates']} | {row['in_process_ms']:.2f} | {row['isolated_ms']:.2f} | "
                  f"{row['isolated_ms'] / row['in_process_ms'] - 1:+.1%} |")
        print(f"\nAll together {isolation['overhead']:+.1%}, {isolation['overhead_alike']:+.1%} with as many samples.", end="")
        if isolation["compile"]:
            c = isolation["compile"]
            print(f" Compiling {c['sources']} sources through NVRTC's children: {c['overhead']:+.1%} ({c['within_seconds']:.2f} s in NVRTC, "
                  f"{c['seen_seconds']:.2f} s seen by the tuner).", end="")
        us = isolation["displace_us"]
        print(f"\n\nDisplacing data before a sample takes {us[0]:.0f} us" + (f", data and code {us[1]:.0f} us." if len(us) > 1 else "."))
        print("\nParts, means of all rounds, for each candidate:\n")
        keys = list(isolation["problems"][0]["isolated"])
        print(f"| problem | where | {' | '.join(key.replace('_', ' ') for key in keys)} |\n|{' --- |' * (len(keys) + 2)}")
        for row in isolation["problems"]:
            for where in ("in_process", "isolated"):
                print(f"| {row['op']} | {where.replace('_', ' ')} | {' | '.join(f'{row[where][key]:.2f}' for key in keys)} |")
        print()
    path = f"{out}/max_autotune.jsonl"
    if os.path.exists(path) and os.path.getsize(path):
        print("## Beside torch.compile's max-autotune\n")
        print("| GEMM | kgen: verified a second, seconds | max-autotune: choices a second, choices, seconds | kgen us | max-autotune us | cuBLAS or eager us |"
              "\n| --- | --- | --- | --- | --- | --- |")
        rows = {row["label"]: row for size in ("small", "operators", "medium") for row in (load(f"{out}/{size}.json") or {"rows": []})["rows"]}
        for line in open(path):
            row = json.loads(line)
            mine = rows[row["label"]]
            others = [us for name, us in row["us"].items() if name not in ("kgen", "inductor_max")]
            rate = f"{row['choices'] / row['seconds']:.1f}, {row['choices']}" if row["choices"] else "not told"
            print(f"| {row['label']} {' '.join(f'{k}={v}' for k, v in row['dims'].items())} | {mine['verified'] / mine['seconds']:.1f}, {mine['seconds']:.1f} | "
                  f"{rate}, {row['seconds']:.1f} | {row['us']['kgen']:.1f} | {row['us']['inductor_max']:.1f} | {min(others, default=0):.1f} |")
        print("\nTimed in turns on one set of operands, L2 displaced before each sample, launches of one stream.")


if __name__ == "__main__":
    main()
