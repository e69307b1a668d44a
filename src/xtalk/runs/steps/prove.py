"""The prove step of a run: certificates of small networks, made and checked on the spot.

The certificates are about networks of the step's own, not about the run's model (docs/proofs): one that is
trained for each entry of the configuration, by theorem T3, and the digits network that ships, by theorem T1.
"""

from xtalk.progress import Report
from xtalk.proofs.config import DigitsConfig, TheoremConfig
from xtalk.proofs.prove import prove
from xtalk.runs.workbench import Workbench

CERTIFICATES = "certificates.json"
FOLDER = "certificates"


def prove_run(workbench: Workbench, progress: Report) -> list[str]:
    """Make the certificates; returns the names of their files, and of the one with their figures."""
    folder, run = workbench.folder, workbench.config
    configs: list[TheoremConfig] = [
        wanted.model_copy(update={"seed": run.seed}) for wanted in run.certificates
    ]
    if configs:
        configs.append(DigitsConfig())
    rows = [
        prove(config, folder.file(FOLDER), progress=progress).in_folder(FOLDER).as_json()
        for config in configs
    ]
    folder.write_json(CERTIFICATES, rows)
    stems = [f"{FOLDER}/{config.name}" for config in configs]
    files = [f"{stem}{end}" for stem in stems for end in (".json", ".spec.json", ".weights")]
    return [*files, CERTIFICATES]
