"""The certificates behind the headline figures: accepted for what the pages say, and for no more."""

import json
from hashlib import sha256

import pytest
import xtalk_check

from audit.headlines import FOLDER, HEADLINES, main


def test_the_pages_say_what_the_certificates_prove():
    assert main(["--check"]) == 0
    assert {path.name.split(".")[0] for path in FOLDER.iterdir()} == {headline.name for headline in HEADLINES}


@pytest.mark.parametrize("headline", HEADLINES[-2:], ids=lambda headline: headline.name)
def test_one_input_more_is_not_proven(headline):
    certificate, spec, weights = headline.files()
    claimed = json.loads(certificate)
    claimed["claim"]["certified"] += 1
    verdict = xtalk_check.check(json.dumps(claimed).encode(), spec, weights)
    assert verdict.verdict == "rejected" and "are proven" in verdict.reason


@pytest.mark.parametrize("headline", HEADLINES, ids=lambda headline: headline.name)
def test_specifications_pin_the_weights(headline):
    _, spec, weights = headline.files()
    assert json.loads(spec)["weights"] == sha256(weights).hexdigest()
