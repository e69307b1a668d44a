"""Prove something of a network, by any theorem: the one entry, from a configuration to files and a row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xtalk.files import write_text
from xtalk.progress import Report, silent
from xtalk.proofs.config import (
    ChartsConfig,
    DigitsConfig,
    LanguageConfig,
    PositionsConfig,
    ProveConfig,
    TheoremConfig,
)
from xtalk.proofs.proof import Proof
from xtalk.proofs.row import CertificateRow
from xtalk.proofs.t1.prove import prove_charts, prove_digits
from xtalk.proofs.t1_language.prove import prove_language
from xtalk.proofs.t3.prove import prove_sequences
from xtalk.proofs.t3.prove_positions import prove_positions

THEOREMS: dict[str, tuple[type[TheoremConfig], dict[str, Any]]] = {
    "T3": (ProveConfig, {}),
    "T3-attention": (ProveConfig, {"network": "attention", "post_hoc": True}),
    "T3-positions": (PositionsConfig, {}),
    "T1": (DigitsConfig, {}),
    "T1-language": (LanguageConfig, {}),
    "charts": (ChartsConfig, {}),
}
"""By its name on the command line: a theorem's configuration, and the keys that the name fixes."""

_PROVERS: dict[type[TheoremConfig], Callable[[Any, Report], Proof]] = {
    ProveConfig: prove_sequences,
    PositionsConfig: prove_positions,
    DigitsConfig: prove_digits,
    ChartsConfig: prove_charts,
    LanguageConfig: prove_language,
}


def prove(config: TheoremConfig, folder: Path, *, progress: Report = silent) -> CertificateRow:
    """Train or load a network, certify it and measure it; what the configuration asks for, by its theorem.

    Leaves NAME.json, NAME.spec.json and NAME.weights, which `xtalk-check` takes, and the row in
    NAME.figures.json, NAME being the configuration's. Returns the row. Errors: XtalkError for settings that
    make no task, and where the checker refuses the certificate.
    """
    proof = _PROVERS[type(config)](config, progress)
    row = proof.row(proof.certificate.save(folder, config.name))
    text = json.dumps(row.as_json(), indent=1, allow_nan=False)
    write_text(folder / f"{config.name}.figures.json", text + "\n")
    return row
