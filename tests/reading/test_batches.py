"""What is not finite, and texts of which nothing counts, are refused where they are read."""

import numpy as np
import pytest
import torch
from evaluation.held_out import held_out
from reference.tiny_models import tiny_model

from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.reading.batches import batches, finite, next_token_loss

TEXT = held_out()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_refused(value: float):
    logits_mSV = torch.zeros(2, 4, 5)
    tokens_mS = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]])
    assert next_token_loss(logits_mSV, tokens_mS).flatten().tolist() == pytest.approx([np.log(5)] * 6)
    logits_mSV[0, -1] = torch.nan  # of which no prediction is read
    next_token_loss(logits_mSV, tokens_mS)
    logits_mSV[1, 0, 2] = value
    with pytest.raises(XtalkError, match=r"loss is NaN or infinite at 1 of 6 predictions; .* in float32"):
        next_token_loss(logits_mSV, tokens_mS)
    with pytest.raises(XtalkError, match="logits are NaN or infinite"):
        finite(logits_mSV)


def test_a_text_of_which_nothing_counts_is_refused():
    model = tiny_model("gpt_neo")
    mask_nS = Counted(TEXT.length).mask(TEXT.tokens)
    with pytest.raises(XtalkError, match=f"none of the text's {TEXT.tokens.size} tokens counts"):
        next(batches(model, TEXT, counted_nS=mask_nS))
