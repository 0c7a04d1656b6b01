"""table.py OUT: the results of run.sh as Markdown."""
import json
import pathlib
import sys

out = pathlib.Path(sys.argv[1])


def read(name):
    path = out / name
    return json.loads(path.read_text()) if path.exists() else None


def number(value):
    return f"{value:.1e}" if isinstance(value, float) else str(value)[:60].replace("|", "/").replace("\n", " ") if value is not None else "-"


checked = read("result.json")
if checked:
    stages = [kind for kind in ("eager", "graph", "compile") if any(kind in row for row in checked["rows"])]
    print(f"## Every operator against float64 torch ({checked['torch']})\n")
    print("Relative L2 error. `graph`: captured, replayed on other activations. `compile`: torch.compile(fullgraph=True).\n")
    print(f"| operator | {' | '.join(stages)} | limit | |\n|---|{'---|' * (len(stages) + 2)}")
    for row in checked["rows"]:
        print(f"| {row['op']} | " + " | ".join(number(row.get(kind)) for kind in stages) + f" | {row['limit']:g} | {'right' if row.get('ok') else 'WRONG'} |")
    print("\n| | |\n|---|---|")
    for name, row in checked["extra"].items():
        print(f"| {name} | {str(row.get('result')).replace('|', '/')[:300]} |")
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
