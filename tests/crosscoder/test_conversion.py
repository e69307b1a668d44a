"""`xtalk convert`: round trips to the bit, and what a format cannot carry is refused or named."""

import json
from pathlib import Path

import pytest
import torch
from crosscoder.small import D, L, P, activations, small_crosscoder
from typer.testing import CliRunner

from xtalk.cli import app
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.provenance import Provenance

FILES = Path(__file__).parent / "formats" / "files"
PROVENANCE = Provenance(model_name="tiny", text_hash="ab" * 32, scaling_factors=(0.5, 2.0, 4.0), seed=3)
ONE = "blocks.1.resid_mid"


def saved(folder: Path, architecture: str, hooks: int = P, threshold: float | None = None) -> Path:
    """A crosscoder without the thresholds that its nonlinearity does not use, or with one for all."""
    cc = small_crosscoder(architecture) if hooks == P else small_crosscoder(architecture, hook_names=(ONE,))
    with torch.no_grad():
        if not cc.nonlinearity.infers_by_threshold:
            cc.threshold.zero_()
        elif threshold is not None:
            cc.threshold.fill_(threshold)
    cc.save(folder, PROVENANCE if hooks == P else PROVENANCE.model_copy(update={"scaling_factors": (0.5,)}))
    return folder


def convert(source: Path, out: Path, to: str, *more: str):
    return CliRunner().invoke(app, ["convert", str(source), str(out), "--to", to, *more])


def converted(source: Path, out: Path, to: str, *more: str) -> Path:
    result = convert(source, out, to, *more)
    assert result.exit_code == 0, result.output
    return out


def same(one: Path, other: Path) -> None:
    a, b = Crosscoder.load(one), Crosscoder.load(other)
    assert (a.config, a.provenance) == (b.config, b.provenance)
    for (name, tensor), (again, twin) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert (name, tensor.numpy(force=True).tobytes()) == (again, twin.numpy(force=True).tobytes())


ROUND_TRIPS = [
    ("saelens", "relu", 1, None),
    ("saelens", "topk", 1, None),
    ("saelens", "batchtopk", 1, None),
    ("saelens", "jumprelu", 1, None),
    ("crosscoder_learning", "relu", P, None),
    ("crosscoder_learning", "batchtopk", P, 0.3),
    ("crosscoder_learning", "jumprelu", 1, 0.3),
    ("paper", "relu", P, None),
    ("paper", "topk", P, None),
    ("paper", "batchtopk", P, 1.0),  # whose logarithm is exact
    ("xtalk", "batchtopk", P, None),
]


@pytest.mark.parametrize(("to", "architecture", "hooks", "threshold"), ROUND_TRIPS)
def test_round_trips_are_exact(tmp_path: Path, to: str, architecture: str, hooks: int, threshold):
    source = saved(tmp_path / "a", architecture, hooks, threshold)
    there = converted(source, tmp_path / "b", to)
    same(source, there)
    back = converted(there, tmp_path / "c", "xtalk")
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (source / name).read_bytes() == (back / name).read_bytes()


@pytest.mark.parametrize("case", ["transcoder", "skip_transcoder", "jumprelu_skip_transcoder"])
def test_transcoders_go_to_saelens_and_back(tmp_path: Path, case: str):
    ours = converted(FILES / "saelens" / case, tmp_path / "a", "xtalk")
    same(ours, converted(ours, tmp_path / "b", "saelens"))


@pytest.mark.parametrize(
    ("to", "source", "match"),
    [
        ("saelens", "llamascopium/crosscoder_relu", "SAELens has no crosscoders of several hookpoints"),
        ("saelens", "sparsify/layers.2.mlp", "SAELens has no transcoders with topk"),
        ("crosscoder_learning", "saelens/topk", "has no topk at inference"),
        ("crosscoder_learning", "llamascopium/crosscoder_jumprelu", "has no gates"),
        ("crosscoder_learning", "saelens/transcoder", "has no transcoders"),
        ("paper", "saelens/transcoder", "has no transcoders"),
        ("crosscoder_learning", "saelens/jumprelu", "would lose the latents' own scale"),
        ("paper", "saelens/jumprelu", "would lose the thresholds' last digits"),
    ],
)
def test_what_a_format_cannot_carry_is_refused(tmp_path: Path, to: str, source: str, match: str):
    result = convert(FILES / source, tmp_path / "out", to)
    assert result.exit_code == 2
    assert match in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["crosscoder_learning", "paper"])
def test_lossy_names_what_is_lost_and_keeps_the_outputs(tmp_path: Path, to: str):
    source = saved(tmp_path / "a", "jumprelu")
    result = convert(source, tmp_path / "b", to, "--lossy", "--json")
    lost = json.loads(result.stdout)["lost"]
    assert len(lost) == 1
    before, after = Crosscoder.load(source), Crosscoder.load(tmp_path / "b")
    assert not torch.equal(before.threshold, after.threshold)
    assert torch.allclose(before(activations()), after(activations()), atol=1e-4)
    assert before.config == after.config


def test_hookpoints_are_named(tmp_path: Path):
    names = "blocks.0.ln2,blocks.1.ln2, blocks.2.ln2"
    folder = converted(FILES / "crosscoder_learning/relu", tmp_path / "a", "xtalk", "--hookpoints", names)
    assert Crosscoder.load(folder).config.hook_names == tuple(f"blocks.{b}.ln2" for b in range(3))


def test_what_is_there_stays(tmp_path: Path):
    source = saved(tmp_path / "a", "relu")
    for out, to, match in (
        (source, "xtalk", "is there and not empty"),
        (tmp_path / "b", "gguf", "no format 'gguf' to write; expected one of xtalk, saelens"),
    ):
        result = convert(source, out, to)
        assert result.exit_code == 2
        assert match in result.stderr


def test_a_record_that_does_not_fit_is_refused(tmp_path: Path):
    there = converted(saved(tmp_path / "a", "jumprelu", 1), tmp_path / "b", "saelens")
    cfg = json.loads((there / "cfg.json").read_text())
    for change, match in (
        ({"nonlinearity": "topk"}, "has the nonlinearity topk"),
        ({"hook_names": ["a", "b"]}, "other hookpoints"),
        ({"hook_names": 3}, "hook_names"),
        ({"k": L + D}, "more than d_sae"),
    ):
        cfg_changed = cfg | {"metadata": cfg["metadata"] | {"xtalk": cfg["metadata"]["xtalk"] | change}}
        (there / "cfg.json").write_text(json.dumps(cfg_changed))
        result = convert(there, tmp_path / "c", "xtalk")
        assert result.exit_code == 2
        assert match in result.stderr
