"""The cluster and dormant steps on a tiny run: what they leave, what settings do, what they refuse."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference.tiny_models import BLOCKS, VOCABULARY, save_tiny
from runs.local_run import local_folder, write_text

import xtalk.clustering.comparison as module
from xtalk import cli
from xtalk.clustering import asking, find_clusters, methods, normalised_interaction
from xtalk.clustering.endpoint import Endpoint
from xtalk.clustering.planted import planted_ami
from xtalk.clustering.similarity import activation_similarity
from xtalk.data import read_documents, tokenise
from xtalk.dormant import neuron_rates
from xtalk.dormant import neurons as dormant
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix, combine
from xtalk.models.language_model import load_model
from xtalk.runs.folder import RunFolder
from xtalk.runs.run import Run
from xtalk.runs.steps.cluster import ClusterSettings, cluster_settings, cluster_study
from xtalk.runs.steps.dormant import dormant_settings
from xtalk.runs.workbench import Workbench

ONE = [{"name": "unpenalised", "penalties": {}}]


@pytest.fixture(scope="module")
def interacted(tmp_path_factory) -> RunFolder:
    specs = [*ONE, {"name": "sparse", "penalties": {"sum_minus_max": 1.0}}]
    place = tmp_path_factory.mktemp("clusters")
    write_text(place / "text.jsonl", documents=150)
    folder = local_folder(place, crosscoders=specs, evaluation={"tokens": 500})
    Run(folder.path).interact()
    return folder


@pytest.fixture
def folder(interacted: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(interacted.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def test_settings_that_fail_leave_what_was_there(folder: RunFolder):
    Run(folder.path).cluster()
    Run(folder.path).dormant()

    def made() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.path.glob("*.json")}

    before = made()
    with pytest.raises(XtalkError, match="does not exist"):
        Run(folder.path).dormant(text=str(folder.path / "none.txt"))
    with pytest.raises(XtalkError, match=r"seed.*less than"):
        Run(folder.path).cluster(seed=2**40)
    with pytest.raises(KeyboardInterrupt):
        Run(folder.path, progress=_interrupt).cluster(method="louvain")
    assert made() == before
    assert cluster_settings(folder).method == "spectral"


def _interrupt(what: str, done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_clusters_are_of_the_run_s_seed_unless_another_is_given(folder: RunFolder):
    study = cluster_study(Workbench(folder, "cpu"), ClusterSettings())
    assert study.seed == folder.config.seed
    assert cluster_study(Workbench(folder, "cpu"), ClusterSettings(seed=3)).seed == 3


def test_clusters_share_out_the_latents_and_say_what_the_judge_could(folder: RunFolder):
    Run(folder.path).cluster()
    record, shown = folder.read_json("clusters.json"), folder.read_json("cluster_map.json")
    assert (record["crosscoder"], record["method"], record["normaliser"]) == ("sparse", "spectral", "total")
    members = [latent for cluster in record["clusters"] for latent in cluster["members"]]
    assert len(set(members)) == len(members) <= record["latents"]
    assert record["latents"] + record["left_out"] == 32
    assert record["count"] == len(record["clusters"])
    assert record["unjudged"] is not None or set(record["accuracy"]) == {"any", "rate", "coactivation"}
    assert {f["latent"]: f["cluster"] for f in shown["features"] if f["cluster"] >= 0} == {
        latent: number for number, cluster in enumerate(record["clusters"]) for latent in cluster["members"]
    }
    assert all(pair["neurons"] and pair["tokens"] for pair in shown["pairs"])
    before = folder.file("clusters.json").stat().st_mtime_ns
    Run(folder.path).cluster()
    assert folder.file("clusters.json").stat().st_mtime_ns == before


def test_settings_are_kept_and_do_the_step_again(folder: RunFolder):
    Run(folder.path).cluster(crosscoder="unpenalised", method="louvain", seed=3)
    record = folder.read_json("clusters.json")
    assert (record["crosscoder"], record["method"], record["seed"]) == ("unpenalised", "louvain", 3)
    assert cluster_settings(folder) == ClusterSettings(crosscoder="unpenalised", method="louvain", seed=3)
    before = folder.file("clusters.json").stat().st_mtime_ns
    Run(folder.path).cluster(seed=3)
    assert folder.file("clusters.json").stat().st_mtime_ns == before
    Run(folder.path).cluster(seed=4)
    assert folder.read_json("clusters.json")["seed"] == 4
    assert cluster_settings(folder).method == "louvain"


def test_other_sites_are_clustered_alone_and_together(folder: RunFolder):
    with pytest.raises(XtalkError, match=r"no crosscoder 'best' in .*; it has unpenalised, sparse"):
        Run(folder.path).interact(["qk"], crosscoders=["best"])
    Run(folder.path).interact(["norm"], crosscoders=["sparse"])
    stamp = folder.file("interactions/sparse.norm.safetensors").stat().st_mtime_ns
    Run(folder.path).cluster(sites=["norm", "qk"])  # measures those of qk first
    assert folder.file("interactions/sparse.norm.safetensors").stat().st_mtime_ns == stamp
    assert not folder.file("interactions/unpenalised.qk.safetensors").exists()
    found = {}
    for sites in (["mlp"], ["qk"], ["norm", "mlp", "qk"]):
        Run(folder.path).cluster(sites=sites)
        found[tuple(sites)] = folder.read_json("clusters.json"), folder.read_json("cluster_map.json")
    together, shown = found["norm", "mlp", "qk"]
    assert together["sites"] == ["mlp", "qk", "norm"]
    assert shown["pairs"]
    _, of_scores = found[("qk",)]
    assert not of_scores["pairs"]  # they meet at no neuron
    members = [[c["members"] for c in record["clusters"]] for record, _ in found.values()]
    assert members[0] != members[1] != members[2] != members[0]
    source = folder.read_json("crosscoders/sparse/cfg.json")["sae_weights_sha256"]
    paths = {site: folder.file(f"interactions/sparse.{site}.safetensors") for site in ("mlp", "qk", "norm")}
    matrix = combine({site: PairMatrix.load(path, source) for site, path in paths.items()})
    expected = find_clusters(normalised_interaction(matrix, "total"), "spectral", 32, 0)
    assert members[2] == [expected.members(c).tolist() for c in range(expected.count)]
    with pytest.raises(XtalkError, match="sites count co-occurrences differently"):
        Run(folder.path).cluster(normaliser="co_occurrence")


def test_words_of_planted_text_are_known_and_clusters_compared_with_its_factors(
    folder: RunFolder, monkeypatch
):
    Run(folder.path).cluster()
    assert folder.read_json("clusters.json")["planted_ami"] == {}
    names = {f"w{i}": f"{'abc'[i % 3]}{i % 4}v0" for i in range(1, VOCABULARY)}
    tokenizer = type(load_model(folder.config.model).tokenizer)
    words = tokenizer.convert_ids_to_tokens

    def planted(self, ids):
        found = words(self, ids)
        return [names.get(one, "") for one in found] if isinstance(found, list) else names.get(found, "")

    monkeypatch.setattr(tokenizer, "convert_ids_to_tokens", planted)
    Run(folder.path).cluster(seed=1)
    ami = folder.read_json("clusters.json")["planted_ami"]
    assert set(ami) == {"interaction", "coactivation", "activation", "decoder", "random"}
    study = cluster_study(Workbench(folder, "cpu"), cluster_settings(folder))
    tokens = [words(study.model.tokenizer, v) for v in range(study.model.vocabulary)]
    factor_V = [int(names.get(token, "a-1v0")[1:-2]) for token in tokens]
    mass = np.zeros((32, 4))
    for place, token in enumerate(study.corpus.tokens_B.tolist()):
        if factor_V[token] >= 0:
            mass[:, factor_V[token]] += study.corpus.codes_BL[[place]].toarray()[0]
    whole = np.asarray(study.corpus.codes_BL.sum(0)).ravel()
    factor_L = np.where((whole > 0) & (mass.max(1) >= 0.5 * whole), mass.argmax(1), -1)
    assert ami["interaction"] == pytest.approx(planted_ami(study.clustering, factor_L))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sites": ["attention"]}, "clustering: sites.0: Input should be 'mlp', 'qk', 'ov' or 'norm'"),
        ({"sites": []}, "clustering: sites"),
        ({"crosscoder": "best"}, "the run has no crosscoder 'best'; it has unpenalised, sparse"),
        ({"method": "means"}, "clustering: method: Input should be 'spectral'"),
        ({"normaliser": "softmax"}, "clustering: normaliser"),
    ],
)
def test_unknown_settings_are_refused_and_not_kept(folder: RunFolder, given, message: str):
    with pytest.raises(XtalkError, match=message):
        Run(folder.path).cluster(**given)
    assert cluster_settings(folder) == ClusterSettings()


def _without_pairs(matrix: PairMatrix) -> PairMatrix:
    none = slice(0, 0)
    listed = (matrix.column_E[none], matrix.together_E[none], matrix.sums_EP[none], matrix.errors_EQ[none])
    names = ("column_E", "together_E", "sums_EP", "errors_EQ")
    return replace(matrix, start_L=np.zeros_like(matrix.start_L), **dict(zip(names, listed, strict=True)))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda matrix: replace(matrix, sums_EP=matrix.sums_EP * np.nan), "holds NaN or infinite"),
        (lambda matrix: replace(matrix, source="0" * 64), "was measured of other weights .000000000000, not"),
        (_without_pairs, r"\d+ latents are active at 8 tokens or more, and no two of them interact"),
        (None, "louvain finds all \\d+ latents in one cluster; choose another method"),
    ],
)
def test_a_matrix_that_cannot_be_clustered_is_one_line_and_the_rest_is_kept(
    folder: RunFolder, monkeypatch, capsys, broken, message: str
):
    path = folder.file("interactions/sparse.mlp.safetensors")
    if broken is None:
        monkeypatch.setattr(methods, "RESOLUTION", 0.01)
    else:
        broken(PairMatrix.load(path)).save(path)
        record = folder.read_json("steps.json")  # as if `interact` had left it so
        record["interact/sparse"]["outputs"] = folder._hashes(record["interact/sparse"]["outputs"])
        folder.write_json("steps.json", record)
    kept = path.read_bytes()
    monkeypatch.setattr(sys, "argv", ["xtalk", "cluster", "--out", str(folder.path), "--method", "louvain"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("xtalk: ")]
    assert exit_.value.code == 2
    assert len(told) == 1
    assert re.search(message, told[0])
    assert path.read_bytes() == kept
    assert not folder.file("clusters.json").exists()


def test_clusters_stay_when_the_judge_has_too_little_text(interacted: RunFolder, tmp_path: Path):
    small = local_folder(tmp_path, crosscoders=ONE, evaluation={"tokens": 10_000})
    Run(small.path).cluster()
    record = small.read_json("clusters.json")
    assert "no held-out text is left for the judge" in record["unjudged"]
    assert record["accuracy"] == {}
    assert record["count"] > 0


def test_a_baseline_without_clusters_is_left_out_and_the_rest_kept(folder: RunFolder, monkeypatch, caplog):
    def no_decoder(decoder_LX, latents_F):
        raise XtalkError("no two are alike")

    def no_activation(similarity, method, n_latents, seed):
        if similarity.values_FF.sum() == wanted:
            raise XtalkError("louvain finds no cluster")
        return find_clusters(similarity, method, n_latents, seed)

    study = cluster_study(Workbench(folder, "cpu"), ClusterSettings())
    activation = activation_similarity(study.measured_codes_BL, study.interaction.latents_F)
    wanted = activation.values_FF.sum()
    monkeypatch.setattr(module, "decoder_similarity", no_decoder)
    Run(folder.path).cluster(method="louvain")
    assert "without the baseline decoder: no two are alike" in caplog.text
    record = folder.read_json("clusters.json")
    assert record["unjudged"] is None
    assert set(record["accuracy"]["any"]) == {"interaction", "coactivation", "activation", "random"}
    monkeypatch.setattr(module, "find_clusters", no_activation)
    monkeypatch.setattr(
        module, "coactivation_similarity", lambda codes, latents: activation_similarity(codes, latents)
    )
    Run(folder.path).cluster(seed=1)
    assert "without the baseline activation: louvain finds no cluster" in caplog.text
    assert set(folder.read_json("clusters.json")["accuracy"]["any"]) == {"interaction", "random"}


def test_dormant_neurons_of_the_runs_model_and_of_a_fine_tuned_one(folder: RunFolder, tmp_path: Path):
    Run(folder.path).cluster()
    Run(folder.path).dormant()
    plain = folder.read_json("dormant.json")
    assert plain["woken_by_trigger"] is None
    assert len(plain["neurons_by_block"]) == BLOCKS
    assert plain["neurons"] == sum(plain["neurons_by_block"])
    assert all(one["q_value"] >= one["p_value"] > 0 for one in plain["clusters"])
    save_tiny(tmp_path / "tuned", seed=5)
    tuned, own = str(tmp_path / "tuned"), folder.config.model
    with pytest.raises(XtalkError, match="a trigger of 5 tokens in sequences of 19; expected"):
        Run(folder.path).dormant(model=tuned, control=own, trigger="w3 w4 w5 w6 w7")
    Run(folder.path).dormant(model=tuned, control=own, trigger="w3")
    found = folder.read_json("dormant.json")
    assert (found["model"], found["control"], found["trigger"]) == (tuned, own, "w3")
    assert found["neurons"] != plain["neurons"] or found["neurons_by_block"] != plain["neurons_by_block"]
    assert len(found["woken"]) == found["woken_by_trigger"]
    assert isinstance(found["woken_in_control"], int)


def test_neurons_that_another_text_wakes(folder: RunFolder, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dormant, "QUIET", 0.2)  # a random model has few that are off on ordinary text
    monkeypatch.setattr(dormant, "AWAKE", 0.3)
    Run(folder.path).cluster()
    other = tmp_path / "other.txt"
    other.write_text("w3 w4 w5 w4 " * 60)  # unlike the run's text, where every word is as frequent
    with pytest.raises(XtalkError, match="dormant: a trigger and another text; give the one"):
        Run(folder.path).dormant(text=str(other), trigger="w3")
    with pytest.raises(XtalkError, match=r"nowhere\.jsonl"):
        Run(folder.path).dormant(text="nowhere.jsonl")
    Run(folder.path).dormant(trigger="w3")
    Run(folder.path).dormant(text=str(other))
    found = folder.read_json("dormant.json")
    assert (found["trigger"], found["text"], found["woken_by_trigger"]) == (None, str(other), None)
    assert found["woken_by_text"] == len(found["woken"]) > 0
    model, reference = load_model(folder.config.model), Workbench(folder, "cpu").held_out_sequences.tokens
    tokens = tokenise(read_documents(other), model.tokenizer, reference.shape[1]).tokens
    assert len(tokens) < len(reference)
    rates = neuron_rates(model, reference, np.ones(reference.shape, dtype=bool))
    expected = neuron_rates(model, tokens, np.ones(tokens.shape, dtype=bool), rates.scale_b)
    for row in found["woken"]:
        where = row["block"], row["neuron"]
        assert row["on_other"] == pytest.approx(expected.on_bN[where])
        assert row["on_other"] >= 0.3
        assert row["on_reference"] == pytest.approx(rates.on_bN[where])
        assert row["on_reference"] <= 0.2
    Run(folder.path).dormant(trigger="w3")
    assert dormant_settings(folder).text is None


def test_a_model_of_other_sizes_and_an_empty_trigger_are_refused(folder: RunFolder):
    Run(folder.path).cluster()
    with pytest.raises(XtalkError, match="dormant: trigger: String should have at least 1 character"):
        Run(folder.path).dormant(trigger="")
    assert not folder.file("dormant_settings.json").exists()
    with pytest.raises(XtalkError, match="the model embedded has other sizes"):
        Run(folder.path).dormant(model="embedded")


def test_an_endpoint_judges_what_the_folder_has_and_what_it_said_is_kept(folder: RunFolder, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://nowhere.invalid")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    asked: list[str] = []

    def answer(self: Endpoint, body) -> str:
        prompt = body["messages"][0]["content"]
        asked.append(prompt)
        return "B" if "one letter" in prompt else "words"

    monkeypatch.setattr(Endpoint, "_post", answer)
    with pytest.raises(XtalkError, match=r"this takes \d+ requests .*--yes") as caught:
        Run(folder.path).judge("stub", describe=True)
    assert not asked
    requests = int(re.search(r"this takes (\d+) requests", str(caught.value)).group(1))
    Run(folder.path).judge("stub", describe=True, confirmed=True)
    assert len(asked) == len(set(asked)) == requests
    record = folder.read_json("endpoint.json")
    names = {"interaction", "coactivation", "activation", "decoder", "random"}
    assert set(record["accuracy"]) == {"any", "rate", "coactivation"}
    assert all(set(by_name) == names for by_name in record["accuracy"].values())
    assert set(record["descriptions"].values()) == {"words"}
    study = cluster_study(Workbench(folder, "cpu"), cluster_settings(folder))
    assert record["trials"] == {name: judged.trials for name, judged in study.judged["rate"].items()}
    assert all(re.search(r"\[\[ ?w", prompt) for prompt in asked)
    count = len(asked)
    assert Run(folder.path).judge("stub", describe=True) == record  # nothing to send, so nothing to confirm
    assert Run(folder.path).judge("stub") == record  # descriptions stay
    assert len(asked) == count
    assert folder.read_json("endpoint.json") == record
    assert not any("key" in file.read_text().split() for file in folder.file("endpoint_cache").iterdir())
    assert "words" in folder.file("clusters.html").read_text()
    assert re.search(r"; stub in \d+ %", folder.file("clusters.html").read_text())
    table = asking.table(record).splitlines()
    assert table[0].startswith("accuracy of stub") and len(table) == 2 + len(names)
    ours = "{:.2f} [{:.2f}, {:.2f}]".format(*record["accuracy"]["rate"]["interaction"])
    [row] = [line for line in table if line.startswith("interaction ")]
    assert ours in row and row.endswith(f"3 x {record['trials']['interaction']}")


@pytest.mark.parametrize("left", [None, "{", "[]", '{"model": "other"}'])
def test_what_an_endpoint_said_of_these_clusters_stays_and_the_rest_goes(
    folder: RunFolder, monkeypatch, left: str | None
):
    Run(folder.path).cluster()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://nowhere.invalid")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setattr(Endpoint, "_post", lambda self, body: "B")
    complete = Run(folder.path).judge("stub", describe=True, confirmed=True)
    if left is not None:
        folder.file("endpoint.json").write_text(left)
    shutil.rmtree(folder.file("endpoint_cache"))
    asked: list[str] = []

    def breaking(self: Endpoint, body) -> str:
        asked.append(body["messages"][0]["content"])
        if len(asked) == 2:
            raise self._failed("answered 503")
        return "B"

    monkeypatch.setattr(Endpoint, "_post", breaking)
    with pytest.raises(XtalkError, match="answered 503"):
        Run(folder.path).judge("stub", confirmed=True)
    if left is None:
        assert folder.read_json("endpoint.json") == complete
    monkeypatch.setattr(Endpoint, "_post", lambda self, body: "A")
    again = Run(folder.path).judge("stub", confirmed=True)
    assert again["descriptions"] == (complete["descriptions"] if left is None else {})
    other = Run(folder.path).judge("another", confirmed=True)
    assert other["model"] == "another" and not other["descriptions"]


@pytest.mark.parametrize("breaks_at", ["one letter", "Say in at most"])
def test_what_an_endpoint_said_before_it_broke_off_is_kept(
    folder: RunFolder, monkeypatch, capsys, breaks_at: str
):
    Run(folder.path).cluster()
    asked: list[str] = []

    def answer(self: Endpoint, body) -> str:
        asked.append(body["messages"][0]["content"])
        if sum(breaks_at in prompt for prompt in asked) > 3:
            raise self._failed("answered 503 Service Unavailable")
        return "A" if "one letter" in asked[-1] else "words"

    monkeypatch.setattr(Endpoint, "_post", answer)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://nowhere.invalid")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    command = ["xtalk", "judge", "--out", str(folder.path), "--model", "stub", "--describe", "--yes"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("xtalk: ")]
    assert (exit_.value.code, len(told)) == (2, 1)
    assert "answered 503" in told[0]
    assert len(list(folder.file("endpoint_cache").iterdir())) == len(asked) - 1
    if breaks_at == "Say in at most":
        record = folder.read_json("endpoint.json")
        assert len(record["descriptions"]) == 3
        assert "interaction" in record["accuracy"]["any"]
        assert "words" in folder.file("clusters.html").read_text()
