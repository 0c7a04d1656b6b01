#!/usr/bin/env python3
"""Writes docs/results/h100.md from the rows that bench/side_by_side.py measured. Needs no GPU and no PyTorch.

    report.py results.jsonl --shapes SHAPES_FOLDER --markdown results.md

A file may hold several runs. A line of a run is either its header ("run_header": device, versions, time of an empty kernel and of
copies) or one problem. A group (bench/groups.yaml) is summed up from the newest run that has all of its problems, never from
several; a list of problems shows the newest row of each.
"""
import argparse
import json
import math
import statistics
import sys

from shape_lists import ShapeLists


def best_us(provider):
    return provider["best_us"]


def best_mad(provider):
    """Median absolute deviation of the samples that the best median is of."""
    graph = provider.get("graph_us", float("inf")) < provider["us"]
    return provider["graph_mad_us"] if graph else provider["mad_us"]


def verified(provider):
    return not provider["wrong"] and provider["rel_l2"] is not None


def best_vendor(row):
    """Name and entry of the quickest right and complete vendor; None where there is none."""
    full = {n: p for n, p in row["providers"].items() if n != "kgen" and p["full"] and not p["wrong"]}
    return min(full.items(), key=lambda item: best_us(item[1])) if full else None


def best_compiled(row):
    """The same of torch.compile's."""
    made = {n: p for n, p in row["providers"].items() if n.startswith("inductor") and p["full"] and not p["wrong"]}
    return min(made.items(), key=lambda item: best_us(item[1])) if made else None


def shape_text(row):
    skip = {"dtype", "epilogue", "out_dtype", "bias_dtype", "accumulate", "align", "layout", "b_layout"}
    shown = list(row["dims"].items()) + [(k, v) for k, v in row["attributes"].items() if k not in skip and v not in ("", "0")]
    return " ".join(f"{key}={value}" for key, value in shown)


def read(path):
    """Headers by run, and rows in the order of the file."""
    headers, rows = {}, []
    with open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError:  # a run that was ended while it wrote
                print(f"{path}:{number}: not a whole line, left out", file=sys.stderr)
                continue
            row.setdefault("run", "")
            if row.get("run_header"):
                headers[row["run"]] = row
            else:
                rows.append(row)
    return headers, rows


class Results:
    def __init__(self, lists, headers, rows):
        self.lists, self.headers, self.rows = lists, headers, rows
        self.runs = list(dict.fromkeys([*headers, *(row["run"] for row in rows)]))
        self.of = {}  # run -> problem -> row
        for row in rows:
            problem = lists.problem_of.get(row["label"])
            if problem is not None and row["providers"]:
                self.of.setdefault(row["run"], {})[problem] = row

    def missing(self, group, run):
        """Problems of a group that a run lacks."""
        have = self.of.get(run, {})
        return [problem for problem in self.lists.problems_of(group) if problem not in have]

    def run_of(self, group):
        """The newest run that has the whole group, or else the one that has most of it."""
        if not self.runs:
            return ""
        return min(reversed(self.runs), key=lambda run: len(self.missing(group, run)))

    def newest(self):
        """The newest row of each problem, those that only failed behind any that was measured."""
        rows = {}
        for row in self.rows:
            key = json.dumps([row["op"], row["dims"], row["attributes"]], sort_keys=True)
            if row["providers"] or key not in rows:
                rows[key] = row
        return list(rows.values())

    def copy_us(self, run, count):
        """What a copy that moves `count` bytes takes in that run, between the sizes that were measured; None without any."""
        points = self.headers.get(run, {}).get("copies", [])
        if not points:
            return None
        points = sorted((p["bytes"], p["us"]) for p in points)
        if count >= points[-1][0]:
            return count * points[-1][1] / points[-1][0]
        below = [p for p in points if p[0] <= count] or points[:1]
        above = [p for p in points if p[0] > count]
        (x0, y0), (x1, y1) = below[-1], above[0]
        return y0 + (y1 - y0) * max(0, count - x0) / (x1 - x0)

    def copy_bandwidth(self, run):
        """Bytes a second of the quickest large copy of that run; 2.96 TB/s of an earlier day where it measured none."""
        rates = [p["bytes"] / p["us"] * 1e6 for p in self.headers.get(run, {}).get("copies", [])]
        return max(rates) if rates else 2.96e12


def total(results, run, counts, pick):
    """Count-weighted sum in ms, its deviation, and the problems that have no such time."""
    time, variance, without = 0.0, 0.0, []
    for problem, count in counts.items():
        row = results.of.get(run, {}).get(problem)
        provider = pick(row) if row else None
        if provider is None:
            without.append(problem)
            continue
        time += count * best_us(provider)
        variance += (count * best_mad(provider)) ** 2
    return time / 1e3, math.sqrt(variance) / 1e3, without


def own(row):
    return row["providers"]["kgen"] if verified(row["providers"]["kgen"]) else None


def vendors(row):
    best = best_vendor(row)
    return best[1] if best else None


def group_lines(results):
    lines = ["| group | launches | recorded vendor | best vendor, this run | ± | limit | reach | kgen | ± | vendor / kgen | reached |",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"]
    notes, lists = [], results.lists
    for group in lists.groups:
        if group.get("kind", "total") != "total":
            continue
        run = results.run_of(group)
        counts = lists.counts(group["entries"])
        launches = sum(counts.values())
        if launches != group["launches"]:
            notes.append(f"**{group['name']}**: the lists have {launches} launches, {group['launches']} were expected.")
        vendor_counts = lists.counts(group["vendor_entries"]) if "vendor_entries" in group else counts
        mine, mine_mad, lacking = total(results, run, counts, own)
        theirs, theirs_mad, untimed = total(results, run, vendor_counts, vendors)
        cells = [group["name"], str(launches), f"{group['recorded_ms']:g}" if "recorded_ms" in group else ""]
        cells += ["incomplete", ""] if untimed or not vendor_counts else [f"{theirs:.3f}", f"{theirs_mad:.3f}"]
        cells += [f"{group['limit_ms']:g}" if "limit_ms" in group else "", f"{group['reach_ms']:g}"]
        if lacking or not counts:
            cells += ["**incomplete**", "", "", "no"]
            names = ", ".join(lists.ids[problem][0] + why_not(results, run, problem) for problem in lacking[:6])
            notes.append(f"**{group['name']}**: {len(lacking)} of {len(counts)} problems without a verified time of kgen: {names}"
                         + (" …" if len(lacking) > 6 else ""))
        else:
            cells += [f"{mine:.3f}", f"{mine_mad:.3f}", "" if untimed else f"{theirs / mine:.2f}",
                      "yes" if mine <= group["reach_ms"] else "no"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines, notes


def why_not(results, run, problem):
    row = results.of.get(run, {}).get(problem)
    if row is None:
        return " (not measured)"
    return " (WRONG)" if row["providers"]["kgen"]["wrong"] else " (not verified)"


def ratio_lines(results):
    lines = []
    for group in results.lists.groups:
        if group.get("kind") != "ratio":
            continue
        run = results.run_of(group)
        have = results.of.get(run, {})
        problems = results.lists.problems_of(group)
        rows = [have[p] for p in problems if p in have]
        pairs = [(vendors(r), own(r)) for r in rows]
        values = [best_us(vendor) / best_us(mine) for vendor, mine in pairs if vendor and mine]
        if not values:
            lines.append(f"* {group['name']}: no problem measured")
            continue
        mean = statistics.geometric_mean(values)
        done = "reached" if mean >= group["reach"] and len(values) == len(problems) else "not reached"
        lines.append(f"* {group['name']}: geometric mean of best vendor / kgen **{mean:.3f}** over {len(values)} of {len(problems)} "
                     f"problems (worst {min(values):.2f}, best {max(values):.2f}); to reach: {group['reach']}, {done}")
    return lines


def bandwidth_lines(results):
    lines = []
    for group in results.lists.groups:
        if group.get("kind") != "bandwidth":
            continue
        run = results.run_of(group)
        have = results.of.get(run, {})
        peak = results.copy_bandwidth(run)
        found, unverified = [], []
        for problem in results.lists.problems_of(group):
            row = have.get(problem)
            if row is None or row["bytes"] < group["min_bytes"]:
                continue
            mine = own(row)
            if mine is None:
                unverified.append(row)
                continue
            us = best_us(mine)
            copy = results.copy_us(run, row["bytes"])
            made = best_compiled(row)
            slack = best_mad(mine) + (best_mad(made[1]) if made else 0)
            slower = made is not None and us > best_us(made[1])
            found.append((row, us, row["bytes"] / us * 1e6 / peak, copy / us if copy else None, made, slower, slower and us - best_us(made[1]) > slack))
        if not found:
            lines.append(f"{group['name']}: no problem measured.")
            continue
        shares, alike = [f[2] for f in found], [f[3] for f in found if f[3] is not None]
        compiled = [f for f in found if f[4]]
        reached = min(shares) >= group["reach"] and not unverified
        lines += [f"{len(found)} problems of at least {group['min_bytes'] / 1e6:g} MB. Bandwidth of a copy in the same run: {peak / 1e12:.3f} TB/s. Share of it: "
                  f"lowest **{min(shares):.2f}**, mean **{statistics.mean(shares):.2f}** (to reach: {group['reach']}, "
                  f"{'reached' if reached else 'not reached'}). "
                  + (f"Against a copy of as many bytes in the same run, timed alike: lowest {min(alike):.2f}, mean {statistics.mean(alike):.2f}. " if alike else "")
                  + f"Slower than torch.compile: {sum(f[5] for f in compiled)} of {len(compiled)}, by more than the two deviations: "
                  f"{sum(f[6] for f in compiled)}.", ""]
        if unverified:
            lines += ["**Not verified, left out:** " + ", ".join(r["label"] for r in unverified), ""]
        lines += ["| op | problem | dtype | MB | kgen µs | ± | share of copy bandwidth | of a copy that size | torch.compile µs | ± | torch.compile / kgen |",
                  "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
        for row, us, share, of_copy, made, slower, clearly in found:
            mine = row["providers"]["kgen"]
            cells = [row["op"], shape_text(row), row["attributes"]["dtype"], f"{row['bytes'] / 1e6:.1f}", f"{us:.2f}", f"{best_mad(mine):.2f}",
                     f"{share:.2f}", "" if of_copy is None else f"{of_copy:.2f}"]
            cells += [f"{best_us(made[1]):.2f}", f"{best_mad(made[1]):.2f}", f"{best_us(made[1]) / us:.2f}" + (" slower" if clearly else "")] if made else ["", "", ""]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def run_lines(results):
    lines = ["| run | device | driver | PyTorch, cuDNN | problems | empty kernel µs (graph) | copy TB/s |", "|---|---|---|---|---:|---:|---:|"]
    for run in results.runs:
        header = results.headers.get(run, {})
        rows = [r for r in results.rows if r["run"] == run]
        first = header or (rows[0] if rows else {})
        empty = f"{header['empty_us']:.2f} ({header['empty_graph_us']:.2f})" if "empty_us" in header else ""
        copy = f"{results.copy_bandwidth(run) / 1e12:.3f}" if header.get("copies") else ""
        lines.append(f"| {run or 'one'} | {first.get('device', '')} | {first.get('driver', '')} | {first.get('torch', '')}, {first.get('cudnn', '')} | "
                     f"{sum(bool(r['providers']) for r in rows)} | {empty} | {copy} |")
    return lines


def op_lines(rows):
    lines, ratios = [], {}
    for op in sorted({r["op"] for r in rows}):
        mine = [r for r in rows if r["op"] == op and r["providers"]]
        if not mine:
            continue
        lines += ["", f"## {op}", "",
                  "| problem | dtype | epilogue | kgen µs | ± | TFLOP/s | GB/s | best vendor | µs | ± | bare µs | best / kgen | rel. L2 |",
                  "|---|---|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|"]
        for r in mine:
            kgen, best = r["providers"]["kgen"], best_vendor(r)
            us = best_us(kgen)
            bare = [best_us(p) for p in r["providers"].values() if not p["full"]]
            mark = "" if verified(kgen) else " **WRONG**" if kgen["wrong"] else " **NOT VERIFIED**"
            error = "not compared" if kgen["rel_l2"] is None else f"{kgen['rel_l2']:.1e}"
            cells = [shape_text(r), r["attributes"]["dtype"], r["attributes"].get("epilogue", ""), f"{us:.2f}" + mark, f"{best_mad(kgen):.2f}",
                     f"{r['flops'] / us / 1e6:.1f}", f"{r['bytes'] / us / 1e3:.0f}"]
            if best:
                ratio = best_us(best[1]) / us
                cells += [best[0], f"{best_us(best[1]):.2f}", f"{best_mad(best[1]):.2f}", f"{min(bare):.2f}" if bare else "", f"{ratio:.2f}", error]
                if verified(kgen):
                    ratios.setdefault(op, []).append((ratio, r))
            else:
                cells += ["none", "", "", f"{min(bare):.2f}" if bare else "", "", error]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Summary", "", "| op | problems | geometric mean of best vendor / kgen | worst | best |", "|---|---:|---:|---:|---:|"]
    for op, found in ratios.items():
        values = [ratio for ratio, _ in found]
        lines.append(f"| {op} | {len(values)} | {statistics.geometric_mean(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    worst = sorted((item for found in ratios.values() for item in found), key=lambda item: item[0])[:10]
    lines += ["", "The ten worst ratios:", ""]
    lines += [f"* {ratio:.2f}: {r['op']} {shape_text(r)} {r['attributes']['dtype']} ({r['label']}), {best_vendor(r)[0]}" for ratio, r in worst]
    return lines


def page(results):
    rows = results.newest()
    wrong = [r for r in rows if r["providers"] and not verified(r["providers"]["kgen"])]
    groups, notes = group_lines(results)
    lines = [
        "# Tuned kernels beside the vendor library", "",
        "Written by bench/report.py from the rows of bench/side_by_side.py (`bench/h100.sh`): vendor and kgen in one process on one device, turns",
        "taken, the L2 cache displaced by reading 256 MB before each sample. Every time is a median, ± its median absolute deviation; of plain",
        "calls and replays of a CUDA graph the smaller median, for both sides alike. `best vendor` is the quickest that does the whole",
        "problem; `bare` is cuBLAS's or cuDNN's product without its epilogue. Every result of kgen was compared in the same run with a float32",
        "or float64 computation, and again, bit for bit, after it was timed; what failed is marked and counts nowhere.", "",
    ]
    if wrong:
        lines += [f"**{len(wrong)} results of kgen are WRONG or not verified:** "
                  + ", ".join(f"{r['op']} {r['label']} ({r['providers']['kgen'].get('fault') or r['providers']['kgen']['rel_l2']})" for r in wrong), ""]
    else:
        lines += [f"All {sum(bool(r['providers']) for r in rows)} results of kgen were verified.", ""]
    lines += run_lines(results)
    lines += ["", "## Groups", "", "Sums over the entries of the shape lists, count x median, in ms; ± adds the deviations of the problems in squares. What",
              "belongs to a group, and the numbers to reach, stand in bench/groups.yaml. Each group is of one run.", ""] + groups + [""]
    lines += [f"* {note}" for note in notes] + ratio_lines(results)
    lines += ["", "## Memory-bound operators", ""] + bandwidth_lines(results)
    lines += op_lines(rows)
    missing = [r for r in rows if not r["providers"]]
    if missing:
        lines += ["", "Not compared:", ""] + [f"* {r['op']} {shape_text(r)}: {r['note']}" for r in missing]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jsonl")
    parser.add_argument("--shapes", required=True)
    parser.add_argument("--markdown")
    options = parser.parse_args()
    text = page(Results(ShapeLists(options.shapes), *read(options.jsonl)))
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(text)
    print(text[text.index("## Groups"):text.index("| op | problem |") if "| op | problem |" in text else None])
    return 0


if __name__ == "__main__":
    sys.exit(main())
