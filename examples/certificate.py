"""A certificate: made by the prover, accepted by the checker, refused after one number was changed."""

import argparse
import json
from pathlib import Path

import xtalk

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("certificates"))
parser.add_argument("--vocabulary", type=int, default=64)
parser.add_argument("--steps", type=int, default=600)
given = parser.parse_args()

sizes = {
    "vocabulary": given.vocabulary,
    "n": 3,
    "network_steps": given.steps,
    "crosscoder_steps": given.steps,
}
row = xtalk.prove(given.out, post_hoc=True, **sizes)
stem = str(given.out / row["path"]).removesuffix(".json")
certificate, spec, weights = (Path(f"{stem}{suffix}") for suffix in (".json", ".spec.json", ".weights"))
verdict = xtalk.check(certificate, spec, weights)
print(verdict.verdict, verdict.statement.claims)

changed = json.loads(certificate.read_text())
changed["claim"]["certified"] += 1
certificate.with_suffix(".changed").write_text(json.dumps(changed))
verdict = xtalk.check(certificate.with_suffix(".changed"), spec, weights)
print(verdict.verdict, verdict.reason)
