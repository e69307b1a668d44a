"""On a real model, xtalk's figures are those of a few lines of torch on transformers' own model.

`make test-real MODEL=FOLDER` runs it, where FOLDER is a Hugging Face folder of a Llama-like model; no other
run of the tests does.
"""

import os
from functools import cache

import numpy as np
import pytest
import torch
from real import plain
from transformers import AutoModelForCausalLM

import xtalk
from xtalk.data import Counted, read_documents, tokenise
from xtalk.data.tokens import token_sequences
from xtalk.evaluation import evaluate_crosscoder, mean_mlp_outputs, measure_baselines

FOLDER = os.environ["XTALK_REAL_MODEL"]
SEQUENCES, LENGTH, SKIP = 16, 128, 1
L, K = 256, 8
PLACES = (0.1, 0.47, 0.87)  # of the depth: of SmolLM2-135M's 30 blocks 3, 14 and 26


@cache
def blocks() -> tuple[int, ...]:
    depth = hf().config.num_hidden_layers
    return tuple(int(place * depth) for place in PLACES)


@cache
def hf():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@cache
def language_model():
    return xtalk.load_model(FOLDER)


@cache
def text():
    """Stories, each sequence a document."""
    sequences = tokenise(read_documents("embedded", 200_000), language_model().tokenizer, LENGTH)
    documents = np.repeat(np.arange(SEQUENCES, dtype=np.int32)[:, None], LENGTH, axis=1)
    return token_sequences(sequences.tokens[:SEQUENCES], documents)


@cache
def read():
    """What transformers' own model makes of the text: MLP inputs, outputs and logits."""
    return plain.activations(hf(), torch.from_numpy(text().tokens).long(), blocks())


@cache
def tensors() -> dict[str, torch.Tensor]:
    """A crosscoder that knows the text: its directions are some tokens' deviations from the mean."""
    x_BPD = read()[0][:, SKIP:].flatten(0, 1)
    mean_PD = x_BPD.mean(0)
    chosen = torch.randperm(len(x_BPD), generator=torch.Generator().manual_seed(0))[:L]
    direction_LPD = x_BPD[chosen] - mean_PD
    scale_P1 = direction_LPD.square().sum(2).mean(0).sqrt()[:, None]  # every hookpoint has as much of a code
    W_enc = direction_LPD / scale_P1**2
    W_enc = W_enc / (W_enc * direction_LPD).sum((1, 2), keepdim=True)
    b_enc = -(mean_PD * W_enc).sum((1, 2))
    return {"W_enc": W_enc.permute(1, 2, 0), "W_dec": 0.4 * direction_LPD, "b_enc": b_enc, "b_dec": mean_PD}


@cache
def codes():
    return plain.codes(read()[0], tensors()["W_enc"], tensors()["b_enc"], K)


@cache
def evaluated():
    """xtalk's figures of the same crosscoder on the same text."""
    names = [f"blocks.{block}.ln2" for block in blocks()]
    crosscoder = xtalk.Crosscoder.from_tensors(**tensors(), hook_names=names, architecture="topk", k=K)
    counted, model = Counted(SKIP), language_model()
    means = mean_mlp_outputs(model, text(), SEQUENCES * LENGTH, blocks(), counted)
    baselines = measure_baselines(model, text(), means, counted=counted)
    ones_P = torch.ones(len(names))
    return evaluate_crosscoder(model, crosscoder, ones_P, text(), baselines, resamples=100, seed=0), baselines


def close(value: float):
    return pytest.approx(value, rel=1e-4)


def test_reconstruction():
    expected = plain.fvu(read()[0], codes(), tensors()["W_dec"], tensors()["b_dec"], SKIP)
    found = evaluated()[0].reconstruction
    assert list(found.fvu_by_hookpoint.values()) == close(expected)
    active = (codes()[:, SKIP:] > 0).sum(2).double().mean().item()
    assert found.l0 == close(active)
    assert 0.01 < max(expected) < 1


@pytest.mark.parametrize("p", range(len(PLACES)))
def test_interaction_and_fidelity(p: int):
    tokens_mS, block = torch.from_numpy(text().tokens).long(), blocks()[p]
    mlp, (_, outputs, logits) = hf().model.layers[block].mlp, read()
    own_mTD = outputs[block][:, SKIP:]
    mean_mTD = own_mTD.double().mean((0, 1)).float().expand_as(own_mTD)
    ce = plain.loss(logits, tokens_mS, SKIP)
    ablation = plain.loss_with(hf(), tokens_mS, block, mean_mTD, SKIP) - ce
    d_LD, bias_D = tensors()["W_dec"][:, p], tensors()["b_dec"][p]
    T, share, rebuilt = plain.interaction(codes(), d_LD, bias_D, mlp, SKIP)

    evaluation, baselines = evaluated()
    measured = next(row for row in evaluation.interaction if row.block == block)
    assert measured.T.value == close(T)
    assert measured.dominant_share.value == close(share)
    assert baselines.ce == close(ce)
    key = (block, "model", "mean")
    row = next(r for r in evaluation.fidelity if (r.block, r.resid_mid, r.baseline) == key)
    assert row.ablation.value == close(ablation)
    variance = (own_mTD - mean_mTD).square().sum().item()
    for scheme, output_mTD in rebuilt.items():
        lost = plain.loss_with(hf(), tokens_mS, block, output_mTD, SKIP) - ce
        assert row.lost[scheme].value == close(lost)
        assert row.phi[scheme].value == close(1 - lost / ablation)
        assert row.nmse[scheme].value == close((output_mTD - own_mTD).square().sum().item() / variance)
