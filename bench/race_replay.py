#!/usr/bin/env python3
"""What the rule that ends a race (tuner/stats.h, still_in) costs and is worth: races are drawn again and again from the sittings of finals that
went to their end.

    race_replay.py docs/results/races_h100.json.xz

The file has a list of races, each a process of its own: {kernel: [median us of each sitting]}. The truth is the mean over all races of a kernel's
ratio to one that is in every race. Prints, for each rule: the mean loss of the winner, how many winners are more than 1 % off, sittings, and
candidates loaded.
"""
import json
import lzma
import math
import random
import statistics as st
import sys

FIRST, REPEATS = 6, 40


def still_in(costs, sure, worth):
    """As tuner/stats.cpp; a list of costs is empty where the kernel is out."""
    alive = [bool(c) for c in costs]
    best = min((st.fmean(c), i) for i, c in enumerate(costs) if c)[1]
    matters = False
    for i, c in enumerate(costs):
        if not alive[i] or i == best:
            continue
        over = [a / b - 1 for a, b in zip(c, costs[best])]
        mean, error = st.fmean(over), math.sqrt(st.pvariance(over) / (len(over) - 1))
        alive[i] = mean < sure * error or mean == 0
        matters |= alive[i] and mean - sure * error < -worth
    return alive if matters else [i == best for i in range(len(costs))]


def race(sittings, sure, worth, most, draw):
    """Winner, sittings, loads."""
    names = list(sittings)
    costs, alive, loads = [[] for _ in names], [True] * len(names), 0
    for sitting in range(most):
        if sitting >= FIRST:
            alive = still_in([c if alive[i] else [] for i, c in enumerate(costs)], sure, worth)
            if sum(alive) == 1:
                break
        row = draw.randrange(len(sittings[names[0]]))
        for i, name in enumerate(names):
            if alive[i]:
                costs[i].append(sittings[name][row])
                loads += 1
    last = max(map(len, costs))
    return min((st.fmean(c), names[i]) for i, c in enumerate(costs) if len(c) == last)[1], last, loads


def main():
    with lzma.open(sys.argv[1], "rt") as file:
        races = json.load(file)
    everywhere = next(name for name in races[0] if all(name in r for r in races))
    ratios = {name: [st.fmean(a / b for a, b in zip(r[name], r[everywhere])) for r in races if name in r] for name in races[0] | races[-1]}
    truth = {name: st.fmean(values) for name, values in ratios.items()}
    least = min(truth.values())
    loss = {name: value / least - 1 for name, value in truth.items()}
    print(f"{len(races)} races; " + ", ".join(f"{name} +{100 * value:.2f} %" for name, value in sorted(loss.items(), key=lambda x: x[1])))
    print("| sure | worth a race | most sittings | mean loss | over 1 % off | sittings | loads |\n| --- | --- | --- | --- | --- | --- | --- |")
    for sure, worth, most in ((3, 0.01, 32), (3, 0.005, 32), (3, 0.002, 32), (3, 0.002, 48), (3, 0.002, 64), (99, 1e9 * -1, 32)):
        draw, lost, held, loaded = random.Random(5), [], [], []
        for _ in range(REPEATS):
            for one in races:
                winner, sittings, loads = race({k: v for k, v in one.items() if k in loss}, sure, worth, most, draw)
                lost.append(loss[winner])
                held.append(sittings)
                loaded.append(loads)
        rule = "all" if worth < 0 else f"{100 * worth:g} %"
        print(f"| {sure} | {rule} | {most} | {100 * st.fmean(lost):.2f} % | {100 * sum(x > 0.01 for x in lost) / len(lost):.1f} % | "
              f"{st.fmean(held):.1f} | {st.fmean(loaded):.0f} |")


if __name__ == "__main__":
    main()
