"""A batch norm folded into the product before it, in fp32."""
import torch


def _scale(eps, gain, variance):
    return torch.rsqrt(variance.float() + eps) * (1.0 if gain is None else gain.float())


def folded_weight(eps, weight, gain, variance):
    return (weight.float() * _scale(eps, gain, variance).reshape(-1, *([1] * (weight.dim() - 1)))).to(weight.dtype)


def folded_bias(eps, weight, gain, variance, bias, mean, shift):
    start = (-mean.float() if bias is None else bias.float() - mean.float()) * _scale(eps, gain, variance)
    return (start if shift is None else start + shift.float()).to(weight.dtype)
