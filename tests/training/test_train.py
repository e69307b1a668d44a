"""The training loop: it learns, resumes bit for bit, calibrates, and stops with one clear line."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch
from safetensors.torch import load_file
from training.tiny_training import (
    RandomMlps,
    SparseSource,
    batches,
    crosscoder_config,
    scaling_of,
    training_config,
)

from xtalk.activations import Scaling
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.nonlinearities import NONLINEARITIES, nonlinearity
from xtalk.errors import XtalkError
from xtalk.interactions.penalties import PENALTIES as PENALTIES_THERE_ARE
from xtalk.training.checkpoint import FILE
from xtalk.training.train import _recon_weights, train_crosscoder

PENALTIES = {"sum_minus_max": 1.0, "keep_one": 0.5}


def train(config=None, training=None, stream=None, scaling=None, model=None, **how) -> Crosscoder:
    return train_crosscoder(
        config or crosscoder_config(),
        training or training_config(),
        stream or batches(),
        model or RandomMlps(),
        scaling or scaling_of(),
        **how,
    ).crosscoder


def assert_same_bytes(first: Crosscoder, second: Crosscoder) -> None:
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


@torch.no_grad()
def fvu(crosscoder: Crosscoder) -> float:
    """Fraction of variance unexplained, in scaled space, on tokens of the stream's end."""
    stream = batches()
    stream.tokens_seen = stream.tokens_available - 64 * 20
    x_BPD = torch.cat([batch.activations for batch in stream])
    scaling = scaling_of()
    error = scaling.apply(crosscoder.decode(crosscoder.encode_sparse(x_BPD)) - x_BPD).square().sum()
    return float(error / scaling.apply(x_BPD - x_BPD.mean(0)).square().sum())


@pytest.mark.parametrize(
    ("architecture", "sparsity"), [("batchtopk", 0.0), ("topk", 0.0), ("relu", 1.0), ("jumprelu", 100.0)]
)
def test_every_architecture_learns(architecture: str, sparsity: float):
    config = crosscoder_config(architecture=architecture, d_sae=48, k=3)
    training = training_config(steps=250, lr=4e-3, sparsity=sparsity)
    records = []
    crosscoder = train(config, training, log=records.append)
    assert [record["step"] for record in records] == [50, 100, 150, 200, 250]
    assert records[-1]["recon"] < 0.5 * records[0]["recon"]
    x_BPD = next(batches()).activations
    l0 = float((crosscoder.encode_sparse(x_BPD).values > 0).sum(1).float().mean())
    if architecture == "relu":  # the L1 loss has no k to aim at
        assert records[-1]["l0"] < 0.7 * records[0]["l0"]
    else:
        assert l0 == pytest.approx(config.k, rel=0.3)
        assert fvu(crosscoder) < 0.35


def test_a_site_that_counts_more_is_rebuilt_better():
    x_BPD = next(batches()).activations
    mids = [name.endswith("resid_mid") for name in crosscoder_config().hook_names]

    def error(weights: dict[str, float]) -> float:
        crosscoder = train(training=training_config(steps=60, lr=4e-3, recon_weights=weights))
        rebuilt_BPD = crosscoder.decode(crosscoder.encode_sparse(x_BPD)).detach()
        return float((rebuilt_BPD - x_BPD)[:, mids].square().mean())

    assert error({"resid_mid": 8.0}) < 0.9 * error({})


def test_the_weight_of_a_site_without_hookpoints_is_refused():
    config = crosscoder_config(hook_names=("blocks.0.ln2", "blocks.1.ln2"))
    with pytest.raises(XtalkError, match="recon_weights names resid_mid; the hookpoints are of ln2"):
        _recon_weights(config, training_config(recon_weights={"resid_mid": 2.0}), scaling_of())


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones():
    training = training_config(penalties=PENALTIES)
    first = train(training=training)
    assert_same_bytes(first, train(training=training))
    assert not torch.equal(first.W_dec, train(training=training_config(penalties=PENALTIES, seed=1)).W_dec)


class Killed(Exception):
    pass


def stop_at(step: int):
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("penalties", [{}, dict.fromkeys(PENALTIES_THERE_ARE, 0.5)], ids=["none", "all"])
@pytest.mark.parametrize("architecture", NONLINEARITIES)
def test_a_resumed_training_has_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, architecture: str, penalties: dict[str, float], bfloat16: bool
):
    """Of every nonlinearity, penalty and precision."""
    needs = nonlinearity(architecture).needs_sparsity_loss
    config = crosscoder_config(architecture=architecture)
    training = training_config(
        steps=6, penalties=penalties, bfloat16=bfloat16, sparsity=float(needs), checkpoint_every=2
    )
    whole = train(config, training)
    with pytest.raises(Killed):
        train(config, training, checkpoint_folder=tmp_path, progress=stop_at(3))
    assert_same_bytes(whole, train(config, training, checkpoint_folder=tmp_path))


@pytest.mark.parametrize(("architecture", "sparsity"), [("batchtopk", 0.0), ("jumprelu", 10.0)])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, architecture: str, sparsity: float):
    config = crosscoder_config(architecture=architecture)
    training = training_config(
        penalties=PENALTIES, sparsity=sparsity, checkpoint_every=5, dead_after_tokens=100
    )
    whole_records, records = [], []
    whole = train(config, training, log=whole_records.append)
    for step in (3, 6, 11):  # before the first checkpoint, after it, after the second
        with pytest.raises(Killed):
            train(config, training, checkpoint_folder=tmp_path, progress=stop_at(step))
    started_at = []
    resumed = train(
        config, training, checkpoint_folder=tmp_path, log=records.append,
        progress=lambda done, total: started_at.append(done),
    )  # fmt: skip
    assert started_at == [11, 12]
    assert_same_bytes(whole, resumed)
    del whole_records[-1]["tokens_per_second"], records[-1]["tokens_per_second"]
    assert whole_records[-1] == records[-1]


def test_a_training_killed_by_the_system_goes_on(tmp_path: Path):
    code = """
import os, signal, sys
from pathlib import Path
from training.test_train import PENALTIES, train, training_config
def kill(done, total):
    if done == 8: os.kill(os.getpid(), signal.SIGKILL)
training = training_config(penalties=PENALTIES, checkpoint_every=3)
train(training=training, checkpoint_folder=Path(sys.argv[1]), progress=kill)
"""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    training = training_config(penalties=PENALTIES, checkpoint_every=3)
    steps = []
    resumed = train(
        training=training, checkpoint_folder=tmp_path, progress=lambda done, total: steps.append(done)
    )
    assert steps[0] == 7
    assert_same_bytes(resumed, train(training=training))


def test_a_training_resumed_at_its_last_step_still_has_its_rate(tmp_path: Path):
    how = crosscoder_config(), training_config(checkpoint_every=12), batches(), RandomMlps(), scaling_of()
    records = []
    first = train_crosscoder(*how, checkpoint_folder=tmp_path, log=records.append)
    assert first.tokens_per_second == median(record["tokens_per_second"] for record in records)
    how = *how[:2], batches(), *how[3:]
    again = train_crosscoder(*how, checkpoint_folder=tmp_path, log=records.append)
    assert len(records) == 1
    assert again.tokens_per_second == first.tokens_per_second


def test_a_checkpoint_written_halfway_leaves_the_one_before(tmp_path: Path, monkeypatch):
    training = training_config(checkpoint_every=4)
    with pytest.raises(Killed):
        train(training=training, checkpoint_folder=tmp_path, progress=stop_at(4))
    before = (tmp_path / FILE).read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(before[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("xtalk.training.checkpoint.save_file", full)
        with pytest.raises(XtalkError, match="no space left"):
            train(training=training, checkpoint_folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).read_bytes() == before
    assert_same_bytes(train(training=training, checkpoint_folder=tmp_path), train(training=training))


def test_a_checkpoint_of_another_training_or_a_broken_one_is_refused(tmp_path: Path):
    training = training_config(checkpoint_every=4)
    with pytest.raises(Killed):
        train(training=training, checkpoint_folder=tmp_path, progress=stop_at(5))
    others = [
        ("lr was 0.001, now 0.002", {"training": training_config(checkpoint_every=4, lr=2e-3)}),
        ("k was 4, now 5", {"config": crosscoder_config(k=5)}),
        ("scaling was", {"scaling": replace(scaling_of(), factor_P=scaling_of().factor_P * 2)}),
        ("stream with text", {"stream": batches(other_text())}),
    ]
    for match, how in others:
        with pytest.raises(XtalkError, match=match) as caught:
            train(checkpoint_folder=tmp_path, **{"training": training} | how)
        assert "\n" not in str(caught.value)
    path = tmp_path / FILE
    whole = path.read_bytes()
    for size in (0, 7, 500, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(XtalkError, match=r"cannot be read .* remove it") as caught:
            train(training=training, checkpoint_folder=tmp_path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    train(training=training, checkpoint_folder=tmp_path)


def other_text() -> SparseSource:
    source = SparseSource()
    source.identity = replace(source.identity, text="other")
    return source


def test_calibration_gives_k_active_latents_on_the_tokens_after_training():
    """Under the final weights, over 16,384 tokens that training did not see."""
    training = training_config()
    stream = batches()
    crosscoder = train(training=training, stream=stream)
    assert stream.tokens_seen == training.tokens_needed == (12 + 256) * 64
    assert len(crosscoder.threshold.unique()) == 1
    again = batches()
    again.tokens_seen = 12 * 64
    active = sum(
        int((crosscoder.encode_sparse(next(again).activations).values > 0).sum()) for _ in range(256)
    )
    assert active == pytest.approx(4 * 16384, abs=3)  # folding the scaling rounds


def test_nothing_is_trained_on_calibration_tokens_or_beyond():
    short = batches(SparseSource(sequences=(12 + 256) * 2))  # exactly tokens_needed
    long = batches(SparseSource(sequences=(12 + 256) * 2))
    scaling = scaling_of()
    assert_same_bytes(train(stream=short, scaling=scaling), train(stream=long, scaling=scaling))
    with pytest.raises(StopIteration):
        next(short)


def test_results_are_in_the_models_own_units():
    scaling = scaling_of()
    crosscoder = train(training=training_config(steps=1, lr=1e-9), scaling=scaling)
    assert not torch.allclose(scaling.factor_P, torch.ones(1), rtol=0.2)
    torch.testing.assert_close(crosscoder.b_dec.detach(), scaling.mean_PD, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path):
    class BreaksInTheThirdBufferOfTraining(SparseSource):
        buffers = 0

        def read(self, rows):
            self.buffers += 1
            for x in super().read(rows):
                yield x * (float("nan") if self.buffers == 32 + 3 else 1)

    source = BreaksInTheThirdBufferOfTraining()  # 32 are read for the start
    with pytest.raises(
        XtalkError, match=r"training step 16: recon is nan; expected a finite number"
    ) as caught:
        train(
            stream=batches(source),
            training=training_config(steps=20, checkpoint_every=1),
            checkpoint_folder=tmp_path,
        )
    assert "\n" not in str(caught.value)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / FILE).values())


def test_a_penalty_that_is_not_finite_is_named():
    class Huge(RandomMlps):
        def mlp_weights(self, block: int):
            mlp = super().mlp_weights(block)
            return replace(mlp, W_in=mlp.W_in * 1e30)

    training = training_config(penalties={"sum_minus_max": 1e20})
    with pytest.raises(XtalkError, match=r"training step 0: (sum_minus_max|loss|gradient) is (inf|nan)"):
        train(training=training, model=Huge())


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"stream": batches(SparseSource(sequences=100))},
         r"has 3200 tokens left; 12 steps of 64 tokens and calibration need 17152; give more text"),
        ({"stream": batches(batch_tokens=32)}, "batches have 32 tokens, training's 64"),
        ({"stream": batches(SparseSource(blocks=3))}, r"crosscoder is for 12 at each of blocks.0.resid_pre"),
        ({"config": crosscoder_config(d_in=11)}, "activations are 12 numbers"),
        ({"scaling": Scaling(torch.ones(2), torch.ones(2, 12))}, r"scaling is of \(2, 12\)"),
        ({"config": crosscoder_config(architecture="relu")}, "nothing keeps a relu crosscoder sparse"),
        ({"config": crosscoder_config(architecture="jumprelu")}, "nothing keeps a jumprelu"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(how, match: str):
    with pytest.raises(XtalkError, match=match) as caught:
        train(**how)
    assert "\n" not in str(caught.value)


def test_log_has_what_a_reader_of_the_run_needs():
    records, progress = [], []
    train(
        crosscoder_config(d_sae=300),
        training_config(penalties=PENALTIES, dead_after_tokens=1),
        log=records.append,
        progress=lambda done, total: progress.append((done, total)),
    )
    [record] = records
    expected = {
        "step",
        "tokens",
        "recon",
        "aux",
        "sum_minus_max",
        "keep_one",
        "l0",
        "dead",
        "tokens_per_second",
    }
    assert set(record) == expected
    assert all(math.isfinite(value) for value in record.values())
    assert progress == [(step, 12) for step in range(1, 13)]


def test_every_latent_starts_near_some_tokens_deviation_from_the_mean():
    scaling = scaling_of()
    crosscoder = train(training=training_config(steps=1, lr=1e-9), scaling=scaling)
    start_LX = scaling.apply(crosscoder.W_dec.detach()).flatten(1)
    x_BPD = torch.cat([batch.activations for batch in batches()])
    deviation_BX = scaling.apply(x_BPD - scaling.mean_PD).flatten(1)
    cosine_LB = torch.nn.functional.cosine_similarity(start_LX[:, None], deviation_BX[None, ::16], dim=2)
    assert float(cosine_LB.amax(1).median()) > 0.6  # as much noise as token: 0.7 with its own


def test_a_start_is_trained_on_from_and_has_to_fit(tmp_path: Path):
    start = train(training=training_config(steps=40, lr=4e-3))
    still = train(training=training_config(steps=1, lr=1e-12), start=start)
    for name in ("W_enc", "W_dec", "b_enc", "b_dec"):  # the threshold is calibrated anew
        torch.testing.assert_close(getattr(still, name), getattr(start, name), rtol=1e-4, atol=1e-5)
    first: list[dict[str, float]] = []
    train(training=training_config(steps=1), start=start, log=first.append)
    new: list[dict[str, float]] = []
    train(training=training_config(steps=1), log=new.append)
    assert first[0]["recon"] < 0.8 * new[0]["recon"]
    with pytest.raises(XtalkError, match=r"`start` has the config .*; it must equal"):
        train(crosscoder_config(k=5), start=start)
    train(training=training_config(steps=5, checkpoint_every=5), start=start, checkpoint_folder=tmp_path)
    with pytest.raises(XtalkError):
        train(training=training_config(steps=5, checkpoint_every=5), start=still, checkpoint_folder=tmp_path)
