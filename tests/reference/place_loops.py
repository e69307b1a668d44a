"""Contributions of a dictionary in the residual stream, by loops over tokens: slow and obvious.

Each token is a case of its own for `interaction_loops`: what lies between the dictionary and the MLP is put
into that token's directions, codes and bias, coordinate by coordinate.
"""

import math

import torch

from xtalk.selftest.interaction_loops import Case


def scale(norm, x_D) -> float:
    mean = sum(float(x) for x in x_D) / len(x_D) if norm.centred else 0.0
    return math.sqrt(sum((float(x) - mean) ** 2 for x in x_D) / len(x_D) + norm.eps)


def linear(norm, x_D, at: float) -> torch.Tensor:
    """The norm of x without its bias, its scale replaced by `at`."""
    mean = sum(float(x) for x in x_D) / len(x_D) if norm.centred else 0.0
    return torch.stack([(x - mean) / at * w for x, w in zip(x_D, norm.weight, strict=True)])


def token_case(norm, mlp, d_LD, b_dec_D, latents_K, values_K, stream_D, error: str) -> Case:
    """One token: directions through the norm at the token's scale, f_i as they are, and the token's bias.

    norm: None where the dictionary reads the MLP's input. stream_D: what the model has there.
    """
    at = None if norm is None else scale(norm, stream_D)

    def through(x_D):
        return x_D if norm is None else linear(norm, x_D, at)

    decoder_LD = torch.stack([through(d_D) for d_D in d_LD])
    bias_D = through(b_dec_D)
    if error == "keep":
        left_out_D = stream_D - b_dec_D
        for latent, value in zip(latents_K.tolist(), values_K, strict=True):
            left_out_D = left_out_D - value * d_LD[latent]
        bias_D = bias_D + through(left_out_D)
    if norm is not None:
        bias_D = bias_D + norm.bias
    return Case(decoder_LD, bias_D, latents_K[None], values_K[None], mlp)
