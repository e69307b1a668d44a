"""Means over seeds and tables."""

import pytest

from studies import pages
from xtalk.errors import XtalkError


def test_intervals_over_seeds_are_students():
    assert pages.over_seeds([1.0, 2.0, 3.0]) == "2.00 ± 2.48"  # 4.303 * 1 / sqrt(3)
    assert pages.over_seeds([1.0, 2.0], 1, bold=True) == "**1.5** ± 6.4"  # 12.706 * 0.707 / sqrt(2)
    assert pages.over_seeds([1.0]) == "1.00"


def test_a_table_has_a_line_a_row():
    assert pages.table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"


def test_what_stands_between_marks_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- t -->\nold\n<!-- /t -->\nafter\n")
    pages.write_table(page, "t", "new")
    pages.write_table(page, "t", "newer")
    assert page.read_text() == "before\n<!-- t -->\nnewer\n<!-- /t -->\nafter\n"
    with pytest.raises(XtalkError, match="without one <!-- u -->"):
        pages.write_table(page, "u", "new")
