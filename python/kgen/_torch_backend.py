"""The entry point of torch.compile(backend="kgen"): importing this does not import torch."""


def compile_graph(graph_module, example_inputs, **keywords):
    from .torch import backend
    return backend(graph_module, example_inputs, **keywords)
