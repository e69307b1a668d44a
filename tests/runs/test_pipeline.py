"""The steps of a run on a tiny model: what they leave, and what they refuse."""

from pathlib import Path

import pytest
import torch
from reference.tiny_models import BLOCKS, CONTEXT, D_MODEL, save_tiny
from runs.local_run import local_config, local_folder, write_text
from safetensors.torch import load_file, save_file

from xtalk.data import read_documents, tokenise, without
from xtalk.errors import XtalkError
from xtalk.runs.run import Run
from xtalk.runs.workbench import Workbench


def test_harvest_records_model_text_and_scaling(tmp_path: Path):
    folder = local_folder(tmp_path)
    Run(folder.path).harvest()
    record = folder.read_json("harvest.json")
    assert record["blocks"] == BLOCKS
    assert len(record["hookpoints"]) == 4 * BLOCKS + 1
    assert record["train_tokens"] > record["held_out_tokens"] >= 400
    assert record["epochs"] == -(-folder.config.training.tokens_needed // record["train_tokens"])
    workbench = Workbench(folder, "cpu")
    scaling = workbench.scaling
    norms = [scaling.apply(batch.activations).norm(dim=-1) for batch in workbench.batches()]
    mean_norm = torch.cat(norms).mean(0)
    torch.testing.assert_close(mean_norm, torch.full_like(mean_norm, D_MODEL**0.5), rtol=0.1, atol=0)


def test_a_held_out_text_of_its_own_is_evaluated_and_never_trained_on(tmp_path: Path):
    own = tmp_path / "own.jsonl"
    write_text(own, documents=40, seed=1)
    config = local_config(tmp_path)
    text = Path(config.text)
    text.write_text(text.read_text() + "\n" + "\n".join(own.read_text().splitlines()[:9]))
    workbench = Workbench(local_folder(tmp_path, held_out_text=str(own)), "cpu")
    plain = tokenise(read_documents(own), workbench.model.tokenizer, CONTEXT)
    held_out = workbench.held_out_sequences
    assert (held_out.tokens == plain.tokens[: len(held_out)]).all()
    without_own = without(read_documents(text), read_documents(own))
    assert len(without_own) == 60
    assert (
        workbench.train_sequences.text_hash
        == tokenise(without_own, workbench.model.tokenizer, CONTEXT).text_hash
    )


def test_harvest_is_the_same_each_time(tmp_path: Path):
    first = local_folder(tmp_path)
    Run(first.path).harvest()
    first.path.rename(tmp_path / "first")
    second = local_folder(tmp_path)
    Run(second.path).harvest()
    for name in ("harvest.json", "scaling.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == second.file(name).read_bytes()


def test_a_complete_step_is_not_done_again_and_a_damaged_one_is(tmp_path: Path):
    folder = local_folder(tmp_path)
    Run(folder.path).harvest()
    whole = folder.file("scaling.safetensors").read_bytes()
    before = folder.file("harvest.json").stat().st_mtime_ns
    Run(folder.path).harvest()
    assert folder.file("harvest.json").stat().st_mtime_ns == before
    folder.file("scaling.safetensors").write_bytes(whole[:40])
    Run(folder.path).harvest()
    assert folder.file("scaling.safetensors").read_bytes() == whole


def test_a_stored_harvest_gives_the_same_batches(tmp_path: Path):
    streamed = local_folder(tmp_path / "streamed")
    stored = local_folder(tmp_path / "stored", harvest={"store": True})
    for folder in (streamed, stored):
        Run(folder.path).harvest()
    assert "activations/manifest.json" in stored.outputs("harvest")
    pairs = zip(Workbench(streamed, "cpu").batches(), Workbench(stored, "cpu").batches(), strict=True)
    for one, other in pairs:
        assert torch.equal(one.tokens, other.tokens)
        torch.testing.assert_close(
            one.activations, other.activations, rtol=1e-5, atol=1e-6
        )  # other micro-batches


def test_short_text_is_read_again_and_said_so(tmp_path: Path, caplog):
    write_text(tmp_path / "text.jsonl", documents=30)
    folder = local_folder(tmp_path)
    Run(folder.path).harvest()
    assert folder.read_json("harvest.json")["epochs"] > 1
    assert "it reads the text" in caplog.text


def test_a_model_changed_since_the_harvest_is_refused(tmp_path: Path):
    folder = local_folder(tmp_path)
    Run(folder.path).harvest()
    save_tiny(tmp_path / "model", seed=1)
    with pytest.raises(XtalkError, match="the model has changed since"):
        Workbench(folder, "cpu").model  # noqa: B018


def test_a_text_changed_since_the_harvest_is_refused(tmp_path: Path):
    folder = local_folder(tmp_path)
    Run(folder.path).harvest()
    write_text(tmp_path / "text.jsonl", seed=1)
    with pytest.raises(XtalkError, match="the text has changed since"):
        Workbench(folder, "cpu").train_sequences  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hookpoints": ("blocks.9.ln2",)}, "blocks.9"),
        ({"sequence_length": CONTEXT + 1}, f"the model's context is {CONTEXT}"),
        ({"held_out": 0.2}, "held-out documents: the text has .* tokens; one sequence needs"),
        ({"held_out": 0.8}, "documents to train on: the text has .* tokens; one sequence needs"),
        ({"text": "none.txt"}, r"none\.txt does not exist"),
        ({"model": "./none"}, r"\./none"),
    ],
)
def test_what_the_model_or_the_text_cannot_do_is_refused(tmp_path: Path, changes, message: str):
    texts = "\n".join(f'{{"text": "{" ".join(["w1"] * n)}"}}' for n in range(8, 13))
    (tmp_path / "text.jsonl").write_text(texts)
    folder = local_folder(tmp_path, **changes)
    with pytest.raises(XtalkError, match=message) as caught:
        Run(folder.path).run()
    assert "\n" not in str(caught.value)
    assert not folder.file("harvest.json").exists()


def test_nan_activations_stop_the_harvest(tmp_path: Path):
    folder = local_folder(tmp_path)
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    tensors["transformer.h.1.mlp.c_fc.weight"][0, 0] = float("inf")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(XtalkError, match=r"NaN"):
        Run(folder.path).harvest()
    assert not folder.file("scaling.safetensors").exists()


def test_a_text_with_too_few_held_out_documents_is_refused_before_training(tmp_path: Path):
    write_text(tmp_path / "text.jsonl", documents=6)
    with pytest.raises(XtalkError, match="documents; confidence intervals need"):
        Run(local_folder(tmp_path).path).harvest()
