"""A certificate from before the checker was a distribution of its own stays accepted, for what it claims."""

import json
from pathlib import Path

import pytest
import xtalk_check

FIXTURE = Path(__file__).parent / "fixtures" / "max-4-of-64"
CLAIM = {"certified": 16_744_236, "total": 16_777_216}


@pytest.fixture
def files():
    return [FIXTURE.with_suffix(end).read_bytes() for end in (".json", ".spec.json", ".weights")]


def test_the_claim_is_proven_as_it_was(files):
    verdict = xtalk_check.check(*files)
    assert (verdict.verdict, verdict.theorem, verdict.claim) == ("accepted", "T3", CLAIM)
    assert verdict.proven == CLAIM
    assert verdict.weights == "10487e9b4b7eabe3fb512cd83465e4c2aa33e14c1430399e4b1386ddfe96a963"


def test_one_input_more_is_not_proven(files):
    certificate = json.loads(files[0])
    certificate["claim"]["certified"] += 1
    assert xtalk_check.check(json.dumps(certificate).encode(), *files[1:]).verdict == "rejected"
