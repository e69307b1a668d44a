"""Ball arithmetic: bounds are rounded to the safe side."""

import pytest
from flint import arb, arb_mat
from xtalk_check.data import magnitude, root
from xtalk_check.errors import OverBudget, Rejected
from xtalk_check.limits import Budget
from xtalk_check.work import Work, floor, hull, hulls, lead, plus, rows, smallest


def test_floors_are_below_the_ball():
    assert floor(arb(1.5, 0.25), 0) == 1 and floor(arb(1.5, 0.75), 0) == 0
    assert floor(arb(-0.5, 0.25), 0) == -1 and floor(arb(-1.5, 1), 0) == -3
    assert floor(arb(0.75), 2) == 3 and floor(arb(0.7), 2) == 2 and floor(arb(-0.7), 2) == -3
    assert floor(arb(3), 5) == 96
    for ball in (arb("nan"), arb("inf"), arb(0, "inf")):
        with pytest.raises(Rejected, match="not a finite number"):
            floor(ball, 3)


def test_hulls_hold_all_balls():
    ball = hull([arb(1, 0.5), arb(-2), arb(0.25)])
    assert all(ball.contains(arb(x)) for x in (1.5, -2, 0.25)) and ball.rad() < 1.76
    least = smallest([arb(1, 0.5), arb(0.75), arb(3)])
    assert least.contains(arb(0.5)) and least.contains(arb(0.75)) and not least.contains(arb(1))

    assert all(
        wide.contains(x) for wide, x in zip(hulls([[arb(1), arb(5)], [arb(2), arb(3)]]), (2, 3), strict=True)
    )


def test_leads_and_sums_of_rows():
    assert lead([arb(1), arb(4), arb(2)], 1) == [3, 0, 2]
    assert plus([arb(1), arb(4)], [arb(2), arb(-1)]) == [3, 3]


def test_plans_count_beside_what_is_spent():
    work = Work(budget=Budget(work=10))
    work.spend(6)
    work.plan(4, "a")
    with pytest.raises(OverBudget, match="b takes 11 units"):
        work.plan(5, "b")


def test_rows_of_a_matrix():
    assert [[float(x) for x in row] for row in rows(arb_mat(2, 3, range(6)))] == [[0, 1, 2], [3, 4, 5]]


def test_roots_are_above_the_ball():
    """Whatever number the ball holds; and 0 where none of them has a root."""
    assert root(arb(4, 0)) == 2 and root(arb(2, 2)) >= 2 and root(arb(0, 9)) >= 3
    assert root(arb(-1, 0.5)) == 0 and magnitude([arb(0, 3), arb(4)]) >= 5
    assert root(arb(2, 2)) < arb(2.001)


def test_budgets_count_every_unit():
    """A multiply-add, a read and a step are one each, an evaluation ten; what fits exactly is done."""
    for spent, units in (
        ({"multiply_adds": 7}, 7),
        ({"evaluations": 2}, 20),
        ({"reads": 3}, 3),
        ({"steps": 4}, 4),
        ({"multiply_adds": 1, "evaluations": 1, "reads": 1, "steps": 1}, 13),
    ):
        Work(budget=Budget(work=units)).spend(**spent)
        with pytest.raises(
            OverBudget, match=rf"takes {units} units of work or more; the budget is {units - 1}"
        ):
            Work(budget=Budget(work=units - 1)).spend(**spent)
    work = Work(budget=Budget(work=20))
    work.spend(5, steps=5)
    work.spend(5, steps=5)
    with pytest.raises(OverBudget, match=r"everything takes 10\^30 units of work or more"):
        work.plan(10**30, "everything")


def test_budgets_count_what_is_held():
    work = Work(budget=Budget(memory=10))
    work.fit(10, "a")
    work.fit(10, "b")
    work.hold(4, "c")
    work.hold(6, "d")
    with pytest.raises(OverBudget, match="e takes the memory of 11 balls or more; the budget is 10"):
        work.fit(1, "e")
    with pytest.raises(OverBudget, match="a product of matrices"):
        Work(budget=Budget(memory=5)).product(arb_mat(2, 1, [1, 1]), arb_mat(1, 3, [1] * 3))
