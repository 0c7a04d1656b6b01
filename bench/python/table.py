"""table.py OUT: the results of run.sh as Markdown."""
import json
import pathlib
import sys

out = pathlib.Path(sys.argv[1])


def read(name):
    path = out / name
    return json.loads(path.read_text()) if path.exists() else None


def number(value):
    if isinstance(value, str) and "has no operator" in value:
        return "not run: was not tuned in time"
    return f"{value:.1e}" if isinstance(value, float) else str(value)[:60].replace("|", "/").replace("\n", " ") if value is not None else "-"


print("# Python and PyTorch on a GPU\n\nMade by `bench/python/run.sh` and `table.py`, which say how.")


def verdict(row):
    if row.get("ok"):
        return "right"
    wrong = [row[kind] for kind in ("eager", "graph", "compile") if kind in row and not (isinstance(row[kind], float) and row[kind] <= row["limit"])]
    return "not run" if all("has no operator" in str(item) or str(item).startswith("not run") for item in wrong) else "WRONG"


checked = read("result.json")
if checked:
    stages = [kind for kind in ("eager", "graph", "compile") if any(kind in row for row in checked["rows"])]
    print(f"\n## Every operator against float64 torch ({checked['torch']})\n")
    print("Relative L2 error. `graph`: captured, replayed on other activations. `compile`: torch.compile(fullgraph=True).\n")
    print(f"| operator | {' | '.join(stages)} | limit | |\n|---|{'---|' * (len(stages) + 2)}")
    for row in checked["rows"]:
        print(f"| {row['op']} | " + " | ".join(number(row.get(kind)) for kind in stages) + f" | {row['limit']:g} | {verdict(row)} |")
    extra = {name: row.get("result") for name, row in checked["extra"].items()}
    if isinstance(extra.get("overhead"), dict):
        print("\nMicroseconds of a call of m = 1, n = k = 4096 on the CPU until it is issued (until the device has ended): "
              + ", ".join(f"`{name}` {issued} ({ended})" for name, (issued, ended) in extra["overhead"].items()) + ".")
    print(f"\n- in an autocast region, float32 operands: error {number(extra.get('autocast'))}")
    if isinstance(extra.get("dynamic"), list):
        print(f"- torch.compile(dynamic=True, fullgraph=True), four sizes: error {number(extra['dynamic'][0])}")
    else:
        print(f"- torch.compile(dynamic=True): {extra.get('dynamic')}")
    print(f"- torch.compile(mode=\"reduce-overhead\"), which captures graphs itself: error {number(extra.get('reduce_overhead'))}")
    print(f"- torch.library.opcheck: {extra.get('opcheck')}")
blocks = read("backend.json")
if blocks:
    print('\n## torch.compile(backend="kgen", fullgraph=True) on small models\n')
    print("Microseconds of a CUDA graph's replay; relative L2 error against float64. The DB was tuned from what `kgen.torch.problems` wrote (budget 2).\n")
    print("| model | eager us | inductor us | kgen us | error eager | inductor | kgen | kgen, in a graph | replaced |\n|---|---|---|---|---|---|---|---|---|")
    for row in blocks:
        times = [f"{row[key]:.1f}" if isinstance(row.get(key), float) else "-" for key in ("eager us", "inductor us", "kgen us")]
        found = ", ".join(f"{count} {op}" for op, count in row.get("found", {}).items())
        missing = f"; MISSING {row['missing']}" if row.get("missing") else ""
        print(f"| {row['name']} | {' | '.join(times)} | " + " | ".join(number(row.get(key)) for key in ("eager", "inductor", "kgen", "graph")) + f" | {found}{missing} |")
encoder = read("qwen2_vl.json")
if encoder:
    print(f"\n## trace → tune → optimize on Qwen2-VL's vision encoder ({encoder['layers']} layers, 5476 patches)\n")
    print(f"- trace's worst: `{encoder['worst']}` ({encoder['worst_op']}), {encoder['worst_us']:.1f} us where {encoder['worst_bound_us']:.1f} us would do")
    print(f"- replaced: {len(encoder['replaced'])} modules, among them {', '.join(encoder['replaced'][:3])}; left: {len(encoder['left'])}")
    print(f"- convolutions left: {', '.join(encoder['conv left']) or 'none'}; kgen::conv3d_patchify takes {', '.join(f'{us:.1f}' for us in encoder['kgen us'])} us")
    print(f"- the encoder, eager: {encoder['before_ms']:.2f} ms before, {encoder['after_ms']:.2f} ms after; relative difference {encoder['difference']:.1e}")
whole = read("whole.json")
if whole:
    print('\n## Whole models by torch.compile(backend="kgen")\n')
    print("Replayed from a CUDA graph, microseconds; the DB is the one of docs/results/models.md, not tuned for the back end's own problems. Difference: relative L2 to torch eager.\n")
    print("| model | torch eager us | kgen back end us | difference | matches | replaced | left |\n|---|---|---|---|---|---|---|")
    for row in whole:
        if "error" in row:
            print(f"| {row['name']} | {row['error'][:200].replace('|', '/')} | | | | | |")
            continue
        count = lambda items: ", ".join(f"{number} {name}" for name, number in items.items())  # noqa: E731
        times = [f"{row[key]:.0f}" if key in row else "-" for key in ("eager us", "kgen us")]
        print(f"| {row['name']} | {' | '.join(times)} | {number(row.get('graph difference', row['difference']))} | {count(row['kinds'])} | {count(row['replaced'])} | {sum(row['left'].values())} |")
