"""problems.py DEVICE OUT: an ops.yaml of what the back end would use in the small models."""
import sys
import torch
import kgen.torch
from blocks import blocks

place, out = sys.argv[1:3]
device, dtype = ("cuda", torch.bfloat16) if place != "host" else ("cpu", torch.float32)
for number, (name, model, inputs, wanted) in enumerate(blocks(device, dtype)):
    for entry, dims, count in kgen.torch.problems(model, *inputs, path=f"{out}/problems{number}.yaml"):
        print(name, count, entry, dims)
