"""The prove step of a run: certificates of small networks, made and checked on the spot.

What is certified are networks of the step's own, not the run's model (docs/proofs.md): one that is trained
for each entry of the configuration, by theorem T3, and the digits network that ships, by theorem T1.
"""

from pathlib import Path
from typing import Any

from xtalk.progress import Report
from xtalk.proofs.brute_force import least_seconds
from xtalk.proofs.prove import prove, speed
from xtalk.proofs.t1.certificate import certify_accuracy
from xtalk.proofs.t1.digits import digits, load_digits_network
from xtalk.proofs.t1.network import Mlp, accuracy, answers
from xtalk.runs.layout import CERTIFICATE_FILES as FOLDER
from xtalk.runs.layout import CERTIFICATES
from xtalk.runs.workbench import Workbench

_SHIPPED_SPLIT = 0  # of the data that the digits network has not seen
_ENTRIES, _RISK = 4, 10_000  # of each feature's table; millionths


def prove_run(workbench: Workbench, progress: Report) -> None:
    """Make the certificates, and the file with their figures."""
    folder, run = workbench.folder, workbench.config
    configs = [wanted.model_copy(update={"seed": run.seed}) for wanted in run.certificates]
    rows = [prove(config, folder.file(FOLDER), progress=progress) for config in configs]
    rows.append(prove_digits(folder.file(FOLDER)))
    for row in rows:
        row["path"] = f"{FOLDER}/{row['path']}"
    folder.write_json(CERTIFICATES, rows)


def prove_digits(folder: Path) -> dict[str, Any]:
    """Certify the digits network that ships on its held-out digits; leaves digits.json and its files.

    Returns the entry of metrics.json; there is no network before the bound to compare with.
    """
    data = digits(_SHIPPED_SPLIT)
    network, crosscoder = load_digits_network()
    inputs_TI, labels_T = data.test_TI, data.test_labels_T
    certificate = certify_accuracy(
        network, crosscoder, inputs_TI, labels_T, "tables", entries=_ENTRIES, risk=_RISK
    )
    every = certify_accuracy(network, crosscoder, inputs_TI, labels_T, "exact").verdict.length.multiply_adds

    def measured(mlp: Mlp) -> dict[str, Any]:
        return {"value": accuracy(network, inputs_TI, labels_T, data.train_RI, mlp), "exhaustive": True}

    claim, verdict = certificate.claim, certificate.verdict
    bound, constant = claim["certified"] / claim["total"], int(labels_T.bincount().max()) / len(labels_T)
    return {
        "path": certificate.save(folder, "digits").name,
        "theorem": verdict.theorem,
        "what": f"digits, {len(labels_T)} held out, proof-aware",
        "claim": claim,
        "bound": bound,
        "vacuous": bound <= constant,
        "true": measured("whole"),
        "mlp_ablated": measured("ablated"),
        "unconstrained": {},
        "constant_answer": constant,
        "macs": verdict.length.multiply_adds,
        "evaluations": verdict.length.evaluations,
        "reads": verdict.length.reads,
        "brute_force_macs": every,
        "break_even_inputs": -(-verdict.length.multiply_adds * len(labels_T) // every),
        "check_seconds": verdict.seconds,
        **speed(certificate, every, least_seconds(lambda: answers(network, inputs_TI))),
        "verdict": verdict.verdict,
    }
