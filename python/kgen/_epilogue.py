"""What may follow a product within its kernel, in the words of the operators' epilogues (docs/op-format.md, ops/gemm.yaml)."""

ACTIVATIONS = ("relu", "gelu_erf", "gelu_tanh", "silu", "quick_gelu", "sigmoid")


def words(steps):
    """The epilogue that does `steps` in their order, or None where none does. A step is "bias", "add" (another tensor),
    "mul" (by another tensor) or an activation. Kernels take the bias first, then one tensor that is added before or after
    the one activation, then one that multiplies."""
    made = []
    for step in steps:
        if step == "bias":
            if made:
                return None
            made.append("bias")
        elif step == "add":
            if "add_residual" in made or "mul_other" in made:
                return None
            made.append("add_residual")
        elif step == "mul":
            if "mul_other" in made:
                return None
            made.append("mul_other")
        elif step in ACTIVATIONS:
            if "mul_other" in made or any(word in ACTIVATIONS for word in made):
                return None
            made.append(step)
        else:
            return None
    return made


def longest_first(steps, fixed=0):
    """(how many steps, epilogue) for each beginning of `steps` that has one, the longest first; no shorter than `fixed`."""
    found = ((count, words(steps[:count])) for count in range(len(steps), fixed - 1, -1))
    return [(count, made) for count, made in found if made is not None]
