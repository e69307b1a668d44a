"""The flat public names: every example runs, results agree with the rooms below, bad input is one line."""

import doctest
import importlib
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.held_out import held_out, model_with_tokenizer, random_crosscoder
from safetensors.torch import save_file

import xtalk
from xtalk.activations import Harvest
from xtalk.api import inputs
from xtalk.api.inputs import crosscoder_in, sequences_of
from xtalk.data import read_documents
from xtalk.evaluation.evaluate import evaluate_crosscoder
from xtalk.evaluation.validation import ValidationConfig
from xtalk.models.hookpoints import Hookpoint
from xtalk.training import quick

DOCUMENTS = 48
HOOKS = ("blocks.1.ln2", "blocks.2.ln2")
PAGE = Path(__file__).parents[1] / "docs" / "library.md"
UNCHECKED = inspect.unwrap(xtalk.pair_interactions)  # no type check of tests before xtalk's own


@pytest.fixture(scope="module")
def embedded():
    """The embedded model, short texts, and a crosscoder whose directions are activations."""
    model = xtalk.load_model("embedded")
    texts = [text[:300] for text in read_documents("embedded", 100_000)[:DOCUMENTS]]
    points = [model.hookpoint(name) for name in HOOKS]
    x_BPD = model.capture(torch.from_numpy(sequences_of(model, texts, tokens=4096).tokens).long(), points)
    x_BPD = x_BPD.flatten(0, 1).float()
    sizes = {"hook_names": HOOKS, "architecture": "topk", "k": 6}
    P, D, L = len(HOOKS), model.d_model, 64
    zeros = {"W_enc": torch.zeros(P, D, L), "W_dec": torch.zeros(L, P, D)}
    cc = xtalk.Crosscoder.from_tensors(**zeros, b_enc=torch.zeros(L), b_dec=torch.zeros(P, D), **sizes)
    chosen = torch.randperm(len(x_BPD), generator=torch.Generator().manual_seed(0))[:L]
    cc.initialise(x_BPD.mean(0), x_BPD[chosen] - x_BPD.mean(0))
    return {"model": model, "texts": texts, "cc": cc.requires_grad_(False)}


def examples(name: str) -> list[doctest.DocTest]:
    module, _, attribute = name.rpartition(".")
    return doctest.DocTestFinder(recurse=True).find(getattr(importlib.import_module(module), attribute), name)


@pytest.mark.parametrize("name", [*(f"xtalk.{name}" for name in xtalk.__all__), "xtalk.api.pairs.Pairs"])
def test_examples_of_public_docstrings(name: str, embedded, tmp_path: Path, monkeypatch):
    if name == "xtalk.train":
        monkeypatch.setattr("xtalk.training.config._CALIBRATION_TOKENS", 1024)
        monkeypatch.setattr(quick, "_SCALING_TOKENS", 1024)
    torch.manual_seed(0)
    ran = 0
    for number, test in enumerate(examples(name)):
        folder = tmp_path / str(number)
        test.globs = {"xtalk": xtalk, "torch": torch, "folder": folder, **embedded}
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
        assert not result.failed, test.name
        ran += result.attempted
    assert ran, f"{name} has no example"


@pytest.mark.parametrize("name", xtalk.__all__)
def test_public_docstrings_begin_with_one_sentence_and_say_what_is_wrong_with_bad_input(name: str):
    value = getattr(xtalk, name)
    first = (inspect.getdoc(value) or "").partition("\n\n")[0]
    assert first.endswith((".", ":")) and "\n" not in first
    if inspect.isfunction(value) and name != "interaction":
        assert "Error" in str(value.__doc__)


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_code_blocks_of_the_library_page(block: int, embedded, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xtalk.training.config._CALIBRATION_TOKENS", 2048)
    (tmp_path / "stories.jsonl").write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in embedded["texts"])
    )
    cc = embedded["cc"]
    one = {"W_enc": cc.W_enc[0], "W_dec": cc.W_dec[:, 0], "b_enc": cc.b_enc - 2, "b_dec": cc.b_dec[0]}
    save_file({name: tensor.contiguous() for name, tensor in one.items()}, tmp_path / "sae.safetensors")
    own = xtalk.Crosscoder.from_tensors(**one, hook_names="blocks.1.ln2", architecture="relu")
    own.save(tmp_path / "sae")
    lines = [line for line in BLOCKS[block].splitlines() if line.strip()]
    assert len(lines) < 10
    exec(BLOCKS[block], {})
    assert capsys.readouterr().out or block == 0


def test_no_run_folder_is_written(embedded, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    xtalk.pair_interactions(**given(embedded), tokens=512)
    xtalk.fidelity(**given(embedded), tokens=1024, resamples=100)
    assert list(tmp_path.iterdir()) == []


def given(embedded) -> dict:
    return {"model": embedded["model"], "crosscoder": embedded["cc"], "texts": embedded["texts"]}


def test_top_pairs_are_those_of_the_matrix(embedded):
    pairs = xtalk.pair_interactions(**given(embedded))
    for block, normaliser in (("sum", "none"), (2, "co_occurrence"), (1, "relative")):
        part = "sum" if block == "sum" else f"blocks.{block}"
        dense_LL = pairs.matrix.interactions(part, normaliser).toarray()
        errors_LL = pairs.matrix.standard_errors(part, normaliser).toarray()
        rows = pairs.top(25, block=block, normaliser=normaliser)
        assert [row["interaction"] for row in rows] == pytest.approx(np.sort(dense_LL.ravel())[::-1][:25])
        for row in rows:
            assert row["interaction"] == dense_LL[row["i"], row["j"]]
            assert row["standard_error"] == errors_LL[row["i"], row["j"]]
            assert row["co_occurrences"] == pairs.matrix.co_active()[row["i"], row["j"]]
            assert row["block"] == block
    assert len(pairs.top(10**6)) == np.count_nonzero(pairs.matrix.interactions().toarray())


def test_copies_in_a_list_of_texts_are_dropped_and_count_as_no_documents(caplog):
    """Of one document eight times, as of a file of that, there is one."""
    model, words = (
        model_with_tokenizer(),
        [" ".join(f"w{1 + (7 * i + j) % 50}" for j in range(20)) for i in range(9)],
    )
    whole, copied = (inputs.sequences_of(model, texts, tokens=400, length=8) for texts in (words, words * 3))
    assert whole.text_hash == copied.text_hash
    assert "18 documents are copies of others; they are dropped" in caplog.text
    cc = random_crosscoder(model)
    with pytest.raises(xtalk.XtalkError, match="has 1 documents"):
        xtalk.fidelity(model, cc, words[:1] * 8, sequence_length=8)


def test_fidelity_is_that_of_an_evaluation():
    """The same figures as `evaluate_crosscoder`, from which no scaling, baselines or run are asked."""
    model, sequences, means = model_with_tokenizer(), held_out(), held_out(seed=1)
    cc = random_crosscoder(model)
    found = xtalk.fidelity(model, cc, sequences, mean_texts=means, resamples=100, seed=3)
    from xtalk.data import Counted
    from xtalk.evaluation import mean_mlp_outputs, measure_baselines

    counted = Counted(skip_positions=1)
    mean_outputs = mean_mlp_outputs(model, means, 8192, range(model.n_blocks), counted)
    baselines = measure_baselines(model, sequences, mean_outputs, counted=counted)
    ones_P = torch.ones(len(cc.config.hook_names))
    expected = evaluate_crosscoder(model, cc, ones_P, sequences, baselines, resamples=100, seed=3)
    assert found.by_block == expected.fidelity
    assert found.averaged == expected.averaged
    assert found.ce == baselines.ce
    assert found.ce_mean == {block: baselines.ce_mean(block) for block in range(model.n_blocks)}
    mean = next(
        r for r in expected.fidelity if (r.block, r.resid_mid, r.baseline) == ("mean", "model", "mean")
    )
    assert found["keep_1"] == mean.phi["keep_1"]
    row = next(r for r in found.rows() if r["scheme"] == "keep_2" and r["block"] == 1)
    assert (row["phi"], row["ce"]) == (
        expected.fidelity[1].phi["keep_2"].value,
        expected.fidelity[1].ce["keep_2"],
    )
    assert f"keep_1            {mean.phi['keep_1'].value:9.3f}" in str(found)


def test_training_is_that_of_small_crosscoders(tmp_path: Path, monkeypatch):
    """One implementation: the same stream, scaling and seed give the same bytes."""
    for name, value in {"BATCH": 64, "K": 4, "EXPANSION": 2, "_SCALING_TOKENS": 256}.items():
        monkeypatch.setattr(quick, name, value)
    monkeypatch.setattr("xtalk.training.config._CALIBRATION_TOKENS", 256)
    model, sequences = model_with_tokenizer(), held_out(60, 12)
    source = Harvest(model, sequences, [Hookpoint(0, "ln2")])
    kept = quick.small_crosscoder(tmp_path, source, model, 5, steps=3)
    sizes = {"d_sae": 2 * model.d_model, "k": 4, "steps": 3, "batch_tokens": 64, "seed": 5}
    seen: list[tuple[str, int, int]] = []
    cc = xtalk.train(
        model, sequences, hookpoints=["blocks.0.ln2"], **sizes, progress=lambda *step: seen.append(step)
    )
    for name, tensor in kept.state_dict().items():
        assert torch.equal(cc.state_dict()[name], tensor)
    assert cc.provenance == kept.provenance == xtalk.Crosscoder.load(tmp_path).provenance
    assert cc.provenance.unknown == ()
    assert seen == [("train", step, 3) for step in (1, 2, 3)]


def test_training_reads_no_text_twice_where_there_is_enough(embedded, monkeypatch, caplog):
    monkeypatch.setattr("xtalk.training.config._CALIBRATION_TOKENS", 1024)
    monkeypatch.setattr(quick, "_SCALING_TOKENS", 1024)
    cc = xtalk.train(
        embedded["model"], "embedded", hookpoints=["blocks.0.ln2"], d_sae=32, k=4, steps=4, warmup_steps=1,
        penalties={"sum_minus_max": 1.0}, lr=1e-4,
    )  # fmt: skip
    assert "every token has been seen" not in caplog.text
    assert cc.provenance.penalties == {"sum_minus_max": 1.0}


def test_clusters_are_those_of_their_similarity(embedded):
    clusters = xtalk.cluster(**given(embedded), method="louvain", seed=1)
    rows = clusters.rows()
    assert len(rows) == len(clusters)
    assert [row["size"] for row in rows] == sorted((row["size"] for row in rows), reverse=True)
    members = [latent for row in rows for latent in row["members"]]
    assert len(set(members)) == len(members)
    assert set(members) == set(np.flatnonzero(clusters.labels_L >= 0))
    assert set(members) <= set(clusters.similarity.latents_F)


def test_validation_has_a_row_for_each_measure(embedded):
    few = ValidationConfig(pairs=20, loss_pairs=5, occurrences=2, loss_occurrences=1, resamples=20)
    rows = xtalk.validate(**given(embedded), config=few)
    assert {row.block for row in rows} == {1, 2, "mean"}


def test_texts_of_every_kind(embedded, tmp_path: Path):
    model, texts = embedded["model"], embedded["texts"]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    kinds = [texts, tuple(texts), file, str(file), tmp_path]
    hashes = {sequences_of(model, kind, tokens=1024, length=64).text_hash for kind in kinds}
    assert len(hashes) == 1
    sequences = sequences_of(model, texts, tokens=1000, length=64)
    assert sequences.tokens.shape == (16, 64)
    assert sequences_of(model, sequences, tokens=1) is sequences


def test_the_crosscoder_that_is_given_stays_as_it_is(embedded, caplog):
    cc = xtalk.Crosscoder(embedded["cc"].config).to(torch.bfloat16)
    assert crosscoder_in(embedded["model"], cc).W_dec.dtype == torch.float32
    assert cc.W_dec.dtype == torch.bfloat16
    assert crosscoder_in(embedded["model"], embedded["cc"]) is embedded["cc"]
    cc.provenance = cc.provenance.model_copy(update={"model_name": "x", "model_weights_hash": "ab"})
    crosscoder_in(embedded["model"], cc)
    assert "the crosscoder was trained on x (weights ab); it is read in embedded (weights " in caplog.text


def own(D: int, *hooks: str) -> xtalk.Crosscoder:
    P, L = len(hooks), 4
    return xtalk.Crosscoder.from_tensors(
        W_enc=torch.zeros(P, D, L), W_dec=torch.zeros(L, P, D), b_enc=torch.zeros(L), b_dec=torch.zeros(P, D),
        hook_names=hooks, architecture="relu",
    )  # fmt: skip


REFUSED = {
    "a hookpoint that the model lacks": (
        lambda model, cc, texts: xtalk.pair_interactions(model, own(128, "blocks.9.ln2"), texts),
        r"the model has no hookpoint 'blocks.9.ln2'; it has blocks 0 to 3",
    ),
    "another width": (
        lambda model, cc, texts: xtalk.fidelity(model, own(64, "blocks.0.ln2"), texts),
        "d_in is 64, and the model embedded has d_model 128",
    ),
    "no MLP input": (
        lambda model, cc, texts: xtalk.fidelity(model, own(128, "blocks.3.resid_post"), texts),
        "no hookpoint in front of an MLP",
    ),
    "no folder": (
        lambda model, cc, texts: xtalk.pair_interactions(model, "./nowhere", texts),
        "no folder './nowhere'",
    ),
    "an unknown site": (
        lambda model, cc, texts: UNCHECKED(model, cc, texts, sites=("mpl",)),
        "unknown site 'mpl'; expected some of mlp, qk, ov, norm",
    ),
    "no site": (lambda model, cc, texts: xtalk.pair_interactions(model, cc, texts, sites=()), "no site"),
    "no text": (lambda model, cc, texts: xtalk.pair_interactions(model, cc, []), "texts of nothing"),
    "texts of bytes": (
        lambda model, cc, texts: inspect.unwrap(inputs._documents)([b"a"], 10, model),
        "texts of bytes; expected strings",
    ),
    "too little text": (
        lambda model, cc, texts: xtalk.fidelity(model, cc, ["Once upon a time."]),
        "one sequence needs 256; give more text or a shorter sequence length",
    ),
    "too few documents": (
        lambda model, cc, texts: xtalk.fidelity(model, cc, texts[:5], sequence_length=16),
        "5 documents; confidence intervals need 8",
    ),
    "sequences beyond the context": (
        lambda model, cc, texts: xtalk.fidelity(model, cc, texts, sequence_length=10**6),
        "sequences of 1000000 tokens; the model's context is 256",
    ),
    "no tokens": (lambda model, cc, texts: xtalk.fidelity(model, cc, texts, tokens=0), "0 tokens of text"),
    "an unknown scheme": (
        lambda model, cc, texts: xtalk.fidelity(model, cc, texts, tokens=1024, resamples=100)["keep_3"],
        "no scheme 'keep_3'; expected one of full",
    ),
    "a site that was not measured": (
        lambda model, cc, texts: xtalk.pair_interactions(model, cc, texts).top(site="qk"),
        "site 'qk' was not measured; measured are mlp",
    ),
    "a block that was not measured": (
        lambda model, cc, texts: xtalk.pair_interactions(model, cc, texts).top(block=3),
        "no part 'blocks.3' in the pair matrix; it has sum, blocks.1, blocks.2",
    ),
    "an unknown method": (
        lambda model, cc, texts: xtalk.cluster(model, cc, texts, method="k"),
        "no clustering",
    ),
    "co-occurrences of several sites": (
        lambda model, cc, texts: xtalk.cluster(
            model, cc, texts, sites=("mlp", "ov"), normaliser="co_occurrence"
        ),
        "normaliser co_occurrence for several sites",
    ),
    "an unknown key of training": (
        lambda model, cc, texts: xtalk.train(model, texts, learning_rate=1.0),
        "training: learning_rate: Extra inputs",
    ),
    "an unknown penalty": (
        lambda model, cc, texts: xtalk.train(model, texts, penalties={"sum": 1.0}),
        "unknown penalty 'sum'; expected one of",
    ),
    "an unknown nonlinearity": (
        lambda model, cc, texts: xtalk.train(model, texts, architecture="gated", steps=1),
        "unknown nonlinearity 'gated'; expected one of relu",
    ),
    "more active latents than there are": (
        lambda model, cc, texts: xtalk.train(model, texts, d_sae=4, k=5, steps=1),
        "k is 5, more than d_sae 4",
    ),
    "a hookpoint to train on that the model lacks": (
        lambda model, cc, texts: xtalk.train(model, texts, hookpoints=["blocks.1.mlp_out"]),
        "no hookpoint 'blocks.1.mlp_out'",
    ),
    "nothing left of a sequence": (
        lambda model, cc, texts: xtalk.train(model, texts, skip_positions=256),
        "skip_positions 256 leaves nothing of 256 tokens",
    ),
    "an unknown key of a proof": (lambda model, cc, texts: xtalk.prove("out", tokens=3), "tokens"),
    "no certificate": (
        lambda model, cc, texts: xtalk.check("no.json", "no.spec.json", "no.weights"),
        "no.json cannot be read: No such file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(case: str, embedded, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, match = REFUSED[case]
    with pytest.raises(xtalk.XtalkError, match=match) as caught:
        call(**embedded)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_tokenizer_takes_token_sequences():
    model, cc = model_with_tokenizer(), random_crosscoder(model_with_tokenizer())
    model.tokenizer = None
    with pytest.raises(xtalk.XtalkError, match="without a tokenizer"):
        xtalk.pair_interactions(model, cc, ["a b"])
    assert xtalk.pair_interactions(model, cc, held_out()).top(1)


def test_a_certificate_that_was_tampered_with_is_rejected(tmp_path: Path):
    row = xtalk.prove(
        tmp_path,
        vocabulary=8,
        classes=4,
        dictionary=4,
        n=3,
        post_hoc=True,
        network_steps=60,
        crosscoder_steps=20,
    )
    stem = tmp_path / row["path"].removesuffix(".json")
    files = [f"{stem}.json", f"{stem}.spec.json", f"{stem}.weights"]
    assert xtalk.check(*files).verdict == "accepted"
    certificate = json.loads(Path(files[0]).read_text())
    certificate["claim"]["certified"] += 1
    Path(files[0]).write_text(json.dumps(certificate))
    assert xtalk.check(*files).verdict == "rejected"


def test_the_names_of_steps_have_left_the_flat_namespace():
    for name in ("harvest", "interact", "evaluate", "report", "run"):
        assert name not in xtalk.__all__
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(xtalk, name)
    assert set(xtalk.__all__) <= set(dir(xtalk))


def test_a_fidelity_that_cannot_be_right_is_said_beside_it():
    model = xtalk.load_model("embedded")
    cc = xtalk.train(model, "embedded", hookpoints=["blocks.1.ln2"], d_sae=64, k=8, steps=5)
    with torch.no_grad():
        cc.b_dec += 30 * cc.b_dec.abs().max()
    found = xtalk.fidelity(model, cc, "embedded", tokens=2048)
    assert found["full"].value < -1
    assert "WARNING: fidelity of all contributions is -" in str(found)
