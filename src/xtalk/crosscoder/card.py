"""The card of a crosscoder on the Hugging Face hub: what it is, how good it is, and where it comes from."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.formats.contents import checked, json_in
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.crosscoder.provenance import Provenance
from xtalk.errors import XtalkError


class _Lenient(BaseModel):
    """A part of metrics.json, of which the card shows these keys, where they are there."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _Model(_Lenient):
    name: str | None = None
    ce: float | None = None


class _Spliced(_Lenient):
    ce: float
    kl: float | None = None


class _Fidelity(_Lenient):
    block: int | str
    resid_mid: str
    baseline: str
    full: float
    keep_1: float
    ci95: dict[str, tuple[float, float]] = Field(default_factory=dict[str, tuple[float, float]])


class _Certificate(_Lenient):
    theorem: str
    what: str
    bound: float
    unit: str
    verdict: str


class _Measured(_Lenient):
    name: str
    l0: float | None = None
    dead: int | None = None
    fvu: float | None = None
    fvu_by_hookpoint: dict[str, float] = Field(default_factory=dict[str, float])
    dominant_share: float | None = None
    spliced: dict[str, _Spliced] = Field(default_factory=dict[str, _Spliced])
    fidelity: tuple[_Fidelity, ...] = ()
    warnings: tuple[str, ...] = ()


class _Metrics(_Lenient):
    model: _Model = _Model()
    crosscoders: tuple[_Measured, ...]
    certificates: tuple[_Certificate, ...] = ()


class Figures(BaseModel):
    """What was measured of one crosscoder, and of the model and the run that it was measured in."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: _Model
    measured: _Measured
    certificates: tuple[_Certificate, ...]

    @classmethod
    def read(cls, metrics: Path, crosscoder: str | None = None) -> "Figures":
        """The figures of a crosscoder in a metrics.json, by its name there, or of the only one.

        Errors: XtalkError for a file that is no metrics.json, and for a crosscoder that it does not have.
        """
        content = json_in(metrics)
        if content is None:
            raise XtalkError(f"{metrics} is missing, or no JSON; expected the metrics.json of a run")
        whole = checked(_Metrics, metrics, content)
        named = {one.name: one for one in whole.crosscoders}
        if crosscoder not in named and len(named) != 1:
            raise XtalkError(
                f"{metrics} has no figures of a crosscoder {crosscoder!r}; it has {', '.join(named)}; push "
                "the folder of one of them"
            )
        measured = named[crosscoder] if crosscoder in named else next(iter(named.values()))
        return cls(model=whole.model, measured=measured, certificates=whole.certificates)


def card(name: str, config: CrosscoderConfig, provenance: Provenance, figures: Figures | None) -> str:
    """The README.md of a crosscoder's repository: Markdown, with the keys of the hub in front.

    What is unknown is left out of tables, and named at the end.
    """
    parts = [_front(provenance), f"# {name}", _opening(config, provenance), _use(name, config)]
    parts += ["## What it is", _table(("", ""), _facts(config))]
    parts += _measurements(figures) if figures else ["## Figures", "None were given when it was uploaded."]
    parts += ["## Where it comes from", _origin(provenance)]
    return "\n\n".join(parts) + "\n"


def _front(provenance: Provenance) -> str:
    keys: dict[str, Any] = {"library_name": "xtalk", "tags": ["crosscoder", "sparse-autoencoder", "xtalk"]}
    if provenance.model_name and re.fullmatch(r"[\w.-]+/[\w.-]+", provenance.model_name):
        keys["base_model"] = provenance.model_name
    return f"---\n{yaml.safe_dump(keys, sort_keys=False)}---"


def _opening(config: CrosscoderConfig, provenance: Provenance) -> str:
    kind = "transcoder" if config.hook_names_out else "crosscoder"
    where = f"{len(config.hook_names)} hookpoint{'s' if len(config.hook_names) > 1 else ''}"
    of = f" of {provenance.model_name}" if provenance.model_name else ""
    return f"A {kind} over {where}{of}, in the format of xtalk."


def _use(name: str, config: CrosscoderConfig) -> str:
    shape = "(..., D)" if len(config.hook_names) == 1 else "(..., P, D)"
    return (
        f'```python\nimport xtalk\n\ncc = xtalk.Crosscoder.load("{name}")\n'
        f"f = cc.encode(x)  # x: {shape}, in the model's own units\n```"
    )


def _facts(config: CrosscoderConfig) -> list[tuple[str, str]]:
    rows = [("reads", _code(config.hook_names))]
    rows += [("writes", _code(config.hook_names_out))] if config.hook_names_out else []
    rows += [("d_in", str(config.d_in)), ("d_sae", str(config.d_sae)), ("nonlinearity", config.architecture)]
    rows += [("k", str(config.k))] if nonlinearity(config.architecture).infers_by_k else []
    rows += [("also", "a linear map beside the latents")] if config.skip else []
    rows += [("also", "a threshold of each latent at each hookpoint")] if config.gated else []
    return rows


def _measurements(figures: Figures) -> list[str]:
    one, parts = figures.measured, ["## Figures"]
    rows = [
        ("L0, active latents per token", _number(one.l0)),
        ("latents that never were active", None if one.dead is None else str(one.dead)),
        ("FVU, fraction of variance unexplained", _number(one.fvu)),
        *((f"FVU at `{point}`", _number(fvu)) for point, fvu in one.fvu_by_hookpoint.items()),
        ("dominant share", _number(one.dominant_share)),
        ("cross-entropy of the model, nat per token", _number(figures.model.ce)),
        *(
            (f"the same with `{point}` from the crosscoder", _number(spliced.ce))
            for point, spliced in one.spliced.items()
        ),
    ]
    parts.append(_table(("held-out text", ""), [(name, value) for name, value in rows if value is not None]))
    mean = [row for row in one.fidelity if row.baseline == "mean"]
    if mean:
        parts.append(
            "Fidelity of MLP outputs that are rebuilt from the crosscoder's contributions, 1 for the model's "
            "own loss and 0 for the loss with the output's mean (Phi_mean), with 95 % intervals:"
        )
        cells = [
            (str(row.block), row.resid_mid, _interval(row, "full"), _interval(row, "keep_1")) for row in mean
        ]
        header = ("block", "resid_mid from", "all contributions", "one contribution a neuron")
        parts.append(_table(header, cells))
    parts += [f"- {warning}" for warning in one.warnings]
    parts += ["## Certificates", _certified(figures.certificates)]
    return parts


def _certified(certificates: Iterable[_Certificate]) -> str:
    rows = [(row.theorem, row.what, f"{row.bound:.4g} {row.unit}", row.verdict) for row in certificates]
    if not rows:
        return "None are known."
    return "Of the same run:\n\n" + _table(("theorem", "of", "bound", "verdict"), rows)


def _origin(provenance: Provenance) -> str:
    known = provenance.model_dump(mode="json", exclude_none=True)
    rows = [(name.replace("_", " "), _value(value)) for name, value in known.items()]
    unknown = ", ".join(name.replace("_", " ") for name in provenance.unknown)
    parts = [_table(("", ""), rows)] if rows else []
    parts += [f"Unknown: {unknown}."] if unknown else []
    return "\n\n".join(parts)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {number:g}" for key, number in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(f"{number:.4g}" for number in value)
    return str(value)


def _interval(row: _Fidelity, scheme: str) -> str:
    low_high = row.ci95.get(scheme)
    value = f"{getattr(row, scheme):.3f}"
    return f"{value} ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else value


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(c.replace('|', '¦').split()) for c in line)} |" for line in lines
    )
