"""Dictionaries of dictionary_learning: its own classes, saved as its trainers save them, run by it."""

import json
from importlib.metadata import version

import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from writing import D, L, draw, expect, inputs, out


def write(dictionary, **trainer) -> None:
    draw(dictionary)
    if "threshold" in dict(dictionary.named_buffers()):
        dictionary.threshold.fill_(0.6)
    kind = type(dictionary).__name__
    folder = out(f"dictionary_learning/{kind}")
    torch.save(dictionary.state_dict(), folder / "ae.pt")
    keys = {"dict_class": kind, "activation_dim": D, "dict_size": L, "layer": 3, "seed": 0, **trainer}
    keys |= {"lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_3"}
    (folder / "config.json").write_text(json.dumps({"trainer": keys, "buffer": {"ctx_len": 128}}))
    x = inputs(D)
    peer = f"dictionary_learning {version('dictionary-learning')}"
    expect(folder, peer, x=x, y=dictionary(x), f=dictionary.encode(x))


write(AutoEncoder(D, L))
write(AutoEncoderNew(D, L))
write(GatedAutoEncoder(D, L))
write(JumpReluAutoEncoder(D, L))
write(AutoEncoderTopK(D, L, 3), k=3)
write(BatchTopKSAE(D, L, 3), k=3)
write(MatryoshkaBatchTopKSAE(D, L, 3, [4, 8]), k=3)
