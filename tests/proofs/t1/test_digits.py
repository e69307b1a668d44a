"""The digits: a split without leaks, noise that keeps shapes, and the network that ships."""

import torch
from proofs.small_finite import untrained

from xtalk.proofs.t1.digits import digits, load_digits_network, save_digits, shifted_and_noisy


def test_the_split_is_seeded_and_shares_nothing():
    first, again, other = digits(0), digits(0), digits(1)
    assert torch.equal(first.test_TI, again.test_TI)
    assert not torch.equal(first.test_TI, other.test_TI)
    assert (len(first.train_RI), len(first.test_TI)) == (1348, 449)
    images = torch.cat([first.train_RI, first.test_TI])
    assert len(images.unique(dim=0)) == len(images) == 1797
    assert float(images.min()) == 0
    assert float(images.max()) == 1


def test_some_images_move_by_a_pixel_at_most():
    image_I = torch.zeros(64)
    image_I[27] = 100.0  # row 3, column 3
    moved_BI = shifted_and_noisy(image_I.expand(2000, 64), torch.Generator().manual_seed(0))
    places = moved_BI.argmax(1)
    assert set(places.tolist()) == {27 + 8 * down + right for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert 0.84 < (places == 27).double().mean() < 0.90  # 85 %, and a ninth of the rest
    assert 0.14 < (moved_BI[:, 0]).std() < 0.16


def test_networks_are_saved_whole(tmp_path):
    network, crosscoder = untrained()
    save_digits(tmp_path / "digits.safetensors", network, crosscoder)
    again, crosscoder_again = load_digits_network(tmp_path / "digits.safetensors")
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in network.state_dict().items())
    assert torch.equal(crosscoder.W_dec, crosscoder_again.W_dec)
    assert crosscoder_again.config == crosscoder.config
