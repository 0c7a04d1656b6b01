"""whole.py DB DEVICE OUT [NAME…]: models of examples/models by torch.compile(backend="kgen"), captured in a CUDA graph, with a DB that
examples/models/run.py tuned. A process for each model; all are made ready side by side, then timed one at a time once $OUT/go is there."""
import collections
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback

path, place, out, *names = sys.argv[1:]
names = names or ["vit_base", "resnet152", "llama2_7b_decode", "mhc_t1", "doclayout_yolo", "qwen2_vl_patch_embed"]
for folder in (pathlib.Path(__file__).parents[2] / "examples/models", pathlib.Path(__file__).parent / "models"):
    sys.path.insert(0, str(folder))


def one(name):
    import torch
    import kgen.torch  # noqa: F401  registers the back end
    import run

    cuda = place != "host"
    kind = run.models([name])[name]
    sizes = {"device": "cuda"} if cuda else {"device": "cpu", "dtype": "bf16" if name.startswith("mhc") else "fp32", **sys.modules[kind.__module__].TINY[name]}
    row = {"name": name}
    with torch.no_grad():
        start = time.time()
        model = kind(**sizes)
        module, inputs = model.module(), model.inputs()
        want = module(*inputs)
        reports = []
        compiled = torch.compile(module, backend="kgen", fullgraph=True, dynamic=False, options={"db": path, "device": place, "report": reports})
        got = compiled(*inputs)
        row["difference"] = ((got.double() - want.double()).norm() / want.double().norm()).item()
        row["replaced"] = dict(collections.Counter(item.op.partition("[")[0] for item in reports[0] if item.match is not None))
        row["kinds"] = dict(collections.Counter(item.match.kind for item in reports[0] if item.match is not None))
        row["left"] = dict(collections.Counter(f"{item.op}: {item.reason[:160]}" for item in reports[0] if item.match is None))
        row["ready_s"] = round(time.time() - start, 1)
        if cuda:
            graphs = {}
            for kind, call in (("kgen", compiled), ("eager", module)):
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(2):
                        call(*inputs)
                torch.cuda.current_stream().wait_stream(side)
                graphs[kind] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graphs[kind]):
                    result = call(*inputs)
                if kind == "kgen":
                    graphs[kind].replay()
                    torch.cuda.synchronize()
                    row["graph difference"] = ((result.double() - want.double()).norm() / want.double().norm()).item()
            while not os.path.exists(f"{out}/go"):
                time.sleep(0.2)
            with open(f"{out}/lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for kind, graph in graphs.items():
                    times = []
                    for _ in range(60):
                        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                        torch.cuda.synchronize()
                        start.record()
                        graph.replay()
                        end.record()
                        end.synchronize()
                        times.append(start.elapsed_time(end) * 1e3)
                    row[f"{kind} us"] = sorted(times[10:])[25]
    return row


if len(names) == 1:
    try:
        result = one(names[0])
    except Exception as error:
        traceback.print_exc()
        result = {"name": names[0], "error": f"{type(error).__name__}: {str(error)[:500]}"}
    pathlib.Path(f"{out}/whole_{names[0]}.json").write_text(json.dumps(result))
else:
    logs = [open(f"{out}/whole_{name}.log", "w") for name in names]
    for process in [subprocess.Popen([sys.executable, __file__, path, place, out, name], stdout=log, stderr=log) for name, log in zip(names, logs)]:
        process.wait()
    done = [pathlib.Path(f"{out}/whole_{name}.json") for name in names]
    rows = [json.loads(file.read_text()) for file in done if file.exists()]
    json.dump(rows, open(f"{out}/whole.json", "w"), indent=1)
    for row in rows:
        print(json.dumps(row)[:600])
