import numpy as np
import torch
from proofs.small_networks import LOOKUP, MAX, random_network

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.proofs.t3.activations import NetworkActivations
from xtalk.proofs.t3.attention_network import AttentionNetwork, AttentionSizes
from xtalk.proofs.t3.sum_network import SumNetwork


def crosscoder_of(directions_LD):
    """A crosscoder that reads and writes each latent's direction at the MLP's input."""
    latents, width = directions_LD.shape
    crosscoder = Crosscoder(
        CrosscoderConfig(d_in=width, d_sae=latents, k=1, hook_names=SumNetwork.hook_names)
    )
    with torch.no_grad():
        crosscoder.W_enc[1] = directions_LD.T
        crosscoder.W_dec[:, 1] = directions_LD
    return crosscoder


def test_tokens_of_a_feature_and_a_class_make_a_column_numbered_by_class():
    network = random_network(MAX).float()
    with (
        torch.no_grad()
    ):  # tokens 0 and 3, of class 0, share a direction, as do 1 and 4; 5 and 6 do, not with 2
        network.embed.copy_(torch.eye(5)[[0, 1, 2, 0, 1, 3, 3]])
    dictionary = network.dictionary(crosscoder_of(torch.eye(5)[:4]), MAX)
    assert dictionary.feature_of_token == (0, 1, 2, 0, 1, 3, 3)
    assert dictionary.features == 4
    assert dictionary.columns.of_token == (0, 1, 2, 0, 1, 3, 3)


def test_a_feature_of_several_classes_is_split():
    network = random_network(MAX).float()
    dictionary = network.dictionary(crosscoder_of(torch.ones(1, 5)), MAX)
    assert dictionary.features == 1
    assert dictionary.columns.of_token == MAX.classes


def test_queries_stand_alone_and_keys_are_kept_apart():
    network = random_network(LOOKUP).float()
    dictionary = network.dictionary(crosscoder_of(torch.ones(1, 5)), LOOKUP)
    kinds = list(zip(dictionary.columns.of_token, (-1, -2, 0, 0, 0, 1, 1, 1), LOOKUP.classes, strict=True))
    assert len(set(dictionary.columns.of_token)) == len(set(kinds)) == len({kind[1:] for kind in kinds})


def test_activations_are_those_of_the_sequences():
    network = random_network(MAX).float()
    source = NetworkActivations(network, MAX, 40, seed=0)
    rows = np.array([7, 3])
    read = next(source.read(rows))
    tokens = MAX.sample(40, torch.Generator().manual_seed(0))[[7, 3]]
    x = network.embed[tokens].sum(1)
    assert not read.requires_grad
    assert read.shape == (2, 1, 3, 5) and len(source.sequences) == 40
    torch.testing.assert_close(read[:, 0, 0], x)
    torch.testing.assert_close(read[:, 0, 2], network.mlp(x))
    assert source.identity.hookpoints == SumNetwork.hook_names


def test_tokens_that_attend_to_themselves_choose_their_feature():
    """Features read the embedding here, and the value there."""
    network = AttentionNetwork(AttentionSizes(7, 3, 5, 5), torch.Generator().manual_seed(0))
    crosscoder = Crosscoder(CrosscoderConfig(d_in=5, d_sae=5, k=1, hook_names=network.hook_names))
    with torch.no_grad():
        network.embed.copy_(torch.eye(5)[[0, 1, 2, 0, 1, 3, 3]])
        network.w_value.copy_(torch.eye(5))
        network.w_out.copy_(torch.eye(5))
        crosscoder.W_dec[:, 0] = torch.eye(5)
        for hookpoint in range(2):
            crosscoder.W_enc.zero_()
            crosscoder.W_enc[hookpoint] = torch.eye(5)
            dictionary = network.dictionary(crosscoder, MAX)
            assert dictionary.feature_of_token == (0, 1, 2, 0, 1, 3, 3)
            assert dictionary.columns.of_token == (0, 1, 2, 0, 1, 3, 3)
