"""Mutants of what checks theorems about sequences, each with the test that must fail; see mutants.py."""

DENOMINATOR = "margins_times_the_denominator_are_bounded_below"
OWN = "tokens_of_their_own_prove_all_that_is_true"
SUPPORTED = "only_tasks_of_two_parts_are_supported"
ALIKE = "columns_of_tokens_alike_lose_nothing"

LENGTH = "length_is_counted_cell_by_cell"
DOUBT = "length_is_counted_where_answers_are_in_doubt"
SIZE = "cells_are_counted_without_listing_them"
RATIONAL = "rounding_bound_in_rational_numbers"
MARGINS = [
    ("wrong < answer", "wrong > answer", "ties_lose_or_go_to_the_lowest"),
    ('self.ties == "lose" or ', "", "ties_lose_or_go_to_the_lowest"),
    ("if claimed > certified:", "if claimed > certified + 1:", "claims_must_follow"),
    ("if claimed_total != total:", "if claimed_total > total:", "claims_must_follow"),
]
ROUNDING = [
    ("else 2 * rounding_error", "else rounding_error", "slack_is_twice_the_error"),
    ('== "real"', '!= "none"', "float32_asks_for_a_margin"),
    ("(exact + carried) * _gamma(terms)", "(exact + carried) * 0", "rounding_bound_by_hand"),
    ("return exact, carried + ", "return exact, carried * 0 + ", "rounding_bound_by_hand"),
    ("h_error * slope + ", "", "rounding_bound_by_hand"),
    ("(exact + carried) * _gamma", "exact * _gamma", RATIONAL),
    ("reached = h + h_error", "reached = h", RATIONAL),
    ("(x + x_error) * _gamma", "x * _gamma", RATIONAL),
    ("largest = [abs(network.embed[0, d])", "largest = [(network.embed[0, d])", RATIONAL),
    ("worst = worst.max(entry.upper())", "worst = entry.upper()", RATIONAL),
    ("h_error * slope + ", "h_error + ", "errors_pass_the_activation_at_its_steepest_slope"),
    (" + _absolute(arb_mat(1, w.ncols(), bias))", "", "biases_count_in_rounding"),
    (
        "_absolute(arb_mat(1, w.ncols(), bias))",
        "arb_mat(1, w.ncols(), list(bias))",
        "biases_count_in_rounding",
    ),
    (" + reached * ACTIVATION_ERROR", "", "rounding_bound_by_hand"),
    ("ACTIVATION_ERROR = arb(2) ** -20", "ACTIVATION_ERROR = arb(2) ** -21", "rounding_bound_by_hand"),
    ("UNIT = arb(2) ** -24", "UNIT = arb(2) ** -25", "rounding_bound_by_hand"),
    ("y_error = y_error + x_error + ", "y_error = y_error + ", "rounding_bound_by_hand"),
    (" + (x + x_error) * _gamma(hidden + 2)", "", "rounding_bound_by_hand"),
    ("* _gamma(n) + _tiny(size)", "* _gamma(n)", "underflow_counts_at_every_stage"),
    ("* ACTIVATION_ERROR + _tiny(hidden)", "* ACTIVATION_ERROR", "underflow_counts_at_every_stage"),
    ("* _gamma(terms) + _tiny(w.ncols())", "* _gamma(terms)", "underflow_counts_at_every_stage"),
    ("if terms >= 1 << 23:", "if terms >= 1 << 25:", "sums_without_a_useful_bound_are_refused"),
    ("x_error = x * _gamma(n)", "x_error = x * _gamma(1)", "rounding_bound_by_hand"),
    ("y = y + x\n", "y = y\n", "rounding_bound_by_hand"),
    (
        "largest = [a.max(abs(network.embed[token, d]))",
        "largest = [a",
        "rounding_is_that_of_the_largest_token",
    ),
]
COUNTING = [
    ("    work.spend(len(bounds) * len(cell.slots))\n", "", DOUBT),
    ("    work.spend(len(bounds) * (columns + 1))\n", "", DOUBT),
    ("    work.spend(len(bounds) + columns)\n", "", DOUBT),
    ("len(ways) * len(slot.scores)", "len(slot.scores)", "products_of_polynomials_are_counted"),
    ("if score - lowest < needed:", "if score - lowest < needed - 1:", "counts_on_the_edge"),
    (
        "mul_low(fmpz_poly(coefficients), needed)",
        "mul_low(fmpz_poly(coefficients), needed - 1)",
        "counts_on_the_edge",
    ),
    ("    if needed <= 0:", "    if needed <= 1:", "counts_on_the_edge"),
    ("s + best >= least", "s + best > least", "counts_on_the_edge"),
    ("needed = least - sum", "needed = least - 1 - sum", "counts_on_the_edge"),
    ("+= tokens\n", "+= 1\n", "counts_on_the_edge"),
    ("for _ in range(slot.copies):", "for _ in range(1):", "counts_on_the_edge"),
    ("for i in range(len(ways)))", "for i in range(len(ways) - 1))", "counts_on_the_edge"),
    ("if needed > WIDEST:", "if needed > 2 * WIDEST:", "scores_of_too_wide_a_range_are_refused"),
    ("slot.copies * smallest(s) for", "slot.copies * s[-1] for", "no_more_is_proven_than_is_true"),
    ("slot.copies * smallest(s) for", "smallest(s) for", "ties_between_sums_of_scores"),
    ("        > 0\n", "        >= 0\n", "ties_between_sums_of_scores"),
    (
        "certified -= cell.fillings - wins",
        "certified = wins",
        "fillings_are_counted_with_scores_rounded_down",
    ),
    (
        "[floor(score, bits) for score",
        "[floor(score, bits) + 1 for score",
        "fillings_are_counted_with_scores_rounded_down",
    ),
    (
        "needed - floor(bound.base, bits)",
        "needed - floor(bound.base, bits) - 1",
        "fillings_are_counted_with_scores_rounded_down",
    ),
    (
        "[bound.base / positions for",
        "[bound.base / (2 * positions) for",
        "fillings_are_counted_with_scores_rounded_down",
    ),
    ("map(smallest, zip(*of_slot", "map(max, zip(*of_slot", "fillings_are_counted_with_scores_rounded_down"),
]
TASKS = [
    ('2 if name == "lookup" else 1', "1", "tasks_that_are_refused"),
    ("len(classes) <= n - 1 or len", "len", "tasks_that_are_refused"),
    (
        'task.integers("classes", 0, answers - 1)',
        'task.integers("classes", 0, answers)',
        "tasks_that_are_refused",
    ),
    (
        "range(self.n // 2 + 1, self.n + 1)\n            )",
        "range(3, self.n + 1)\n            )",
        "totals_of_majorities",
    ),
    ("slots += beside.cells + beside.slots", "slots += beside.slots", SIZE),
    ("columns += beside.cells * own.width + beside.columns", "columns += beside.columns", SIZE),
    (
        "with_one = comb(max(blocks + positions - 2, 0)",
        "with_one = comb(max(blocks + positions - 1, 0)",
        SIZE,
    ),
    ("columns += here + sum(", "columns += sum(", SIZE),
    ("return Size(cells, self.n * cells, columns)", "return Size(cells, cells, columns)", SIZE),
    ("self.width += column not in columns", "self.width += 1", SIZE),
    ("            if cells > enough:", "            if cells < 0:", "counting_cells_stops_at_enough"),
    ("arrangements * comb(self.n, copies)", "arrangements", "cells_partition_the_space"),
    ("                    free.add(tokens[block])\n", "", "cells_partition_the_space"),
    (
        "enumerate(self.classes) if other != answer)",
        "enumerate(self.classes))",
        "cells_partition_the_space",
    ),
    ("range(self.n // 2 + 1 if", "range(self.n // 2 if", "cells_partition_the_space"),
    (
        "for copies in range(self.n // 2 + 1, self.n + 1)",
        "for copies in range(self.n // 2, self.n + 1)",
        "answers_and_totals",
    ),
    ("sum(slot.tokens) ** slot.copies", "sum(slot.tokens)", "cells_partition_the_space"),
    ('-1 if self.name == "min" else 1', "1", "cells_partition_the_space"),
    ("% self.answers\n                yield", "\n                yield", "cells_partition_the_space"),
    (
        "self._columns.setdefault(self._partition.block(token)",
        "self._columns.setdefault(0",
        "columns_count_only_the_tokens_that_are_allowed",
    ),
    ("factorial(sum(numbers)) // ", "factorial(sum(numbers)) * ", "answers_and_totals"),
    (
        "if classes.setdefault(block, answer) != answer:",
        "if answer < 0:",
        "blocks_of_several_classes_are_refused",
    ),
    ("return classes[1 + tokens[0]]", "return classes[1]", "answers_and_totals"),
    ("2 * copies > self.n", "2 * copies >= self.n", "answers_and_totals"),
    ("max(answer, other) if", "min(answer, other) if", "tokens_of_their_own_prove_all_that_is_true"),
    ("(answer + other) % self.answers", "(answer + other)", "tokens_of_their_own_prove_all_that_is_true"),
    (
        "others = [_Slots(1, group, rest) for group in groups if group is not own]",
        "others = [_Slots(1, group, rest) for group in groups]",
        "cells_partition_the_space",
    ),
]
T3 = [
    ("work.spend(len(slots), evaluations=1)", "", LENGTH),
    ("work.spend(len(slots) + len(boxes), evaluations=1)", "", LENGTH),
    ("work.spend(2 * len(slots) + 3 *", "work.spend(2 * len(slots) + 2 *", LENGTH),
    ("work.spend(3 * len(moved))", "", "length_of_cells_in_which_phi_bends_both_ways"),
    (" - winning.slack", "", "float32_asks_for_a_margin"),
    ("+ network.b_logit[right] - network.b_logit[wrong]", "", "margins_are_bounded_below"),
    ("term + logit[right] - logit[wrong] for", "term for", "margins_are_bounded_below"),
    ("(value - here) * weight", "(value - here) * weight * weight", "neurons_lie_between_the_ends"),
    ("[g / weight if weight > 0 else g for", "[g for", "neurons_lie_between_the_ends"),
    ("tangents = [slope * g for", "tangents = [slope * g * 2 for", "neurons_lie_between_the_ends"),
    ("tangents = [slope * g for", "tangents = [-slope * g for", "neurons_lie_between_the_ends"),
    ("g * further / 2", "g * further / 4", "where_phi_bends_both_ways"),
    ("(a - concave * bend)", "a", "where_phi_bends_both_ways"),
    ("(b + concave * bend)", "(b)", "where_phi_bends_both_ways"),
    ("(a - concave * bend)", "(a + concave * bend)", "where_phi_bends_both_ways"),
    ("(b + concave * bend)", "(b - concave * bend)", "where_phi_bends_both_ways"),
    ("chords, tangents, convex\n", "tangents, chords, convex\n", "where_phi_bends_both_ways"),
    ("(-curvature).upper()", "(-curvature).upper() / 2", "where_phi_bends_both_ways"),
    ("curvature.upper().max", "curvature.lower().max", "where_phi_bends_both_ways"),
    (
        "curvature is None or curvature >= 0",
        "curvature is None or curvature.upper() >= 0",
        "where_phi_bends_both_ways",
    ),
    ("phi.ranges(centre + hull([arb(0), *ahead]))", "phi.ranges(centre)", "where_phi_bends_both_ways"),
    ("term + slope * box", "term", "neurons_lie_between_the_ends"),
    ("slope = phi.ranges(reach).slope", "slope = phi.slope(centre)", "neurons_lie_between_the_ends"),
    (" + hull([arb(0), *slot.boxes])", "", "slopes_are_those_within_reach"),
    ("hull([arb(0), *slot.deviations]) + hull", "hull", "slopes_are_those_within_reach"),
    ("*slot.boxes])) * slot.copies", "*slot.boxes]))", "slopes_are_those_within_reach"),
    ("if moves) <= 1:", "if moves) <= 2:", "neurons_lie_between_the_ends"),
    ("total = sum((w * slot.copies for", "total = sum((w for", "neurons_lie_between_the_ends"),
    ("(slot.centre * slot.copies for slot", "(slot.centre for slot", "neurons_lie_between_the_ends"),
    (
        "bounds.append(Bound(wrong, base, scores))",
        "bounds = [Bound(wrong, base, scores)]",
        "no_more_is_proven_than_is_true",
    ),
]
NETWORK = [
    (
        "b_logit=b_logit.entries()",
        'b_logit=weights.vector("b_unembed", classes)',
        "brute_force_counts_what_is_right",
    ),
    (
        'b_hidden=weights.vector("b_in", w_in.ncols())',
        "b_hidden=[arb(0)] * w_in.ncols()",
        "brute_force_counts_what_is_right",
    ),
    ("unembed=unembed if residual else None", "unembed=None", "rounding_bound_by_hand"),
    ("[[a - b for a, b in zip(right", "[[b - a for a, b in zip(right", "margins_are_bounded_below"),
    (
        "direct=rows(work.product(embed, unembed))",
        "direct=rows(work.product(embed, unembed) * 2)",
        "brute_force_counts_what_is_right",
    ),
]
CODEBOOK = [
    ("else ball - centre", "else arb(0)", "margins_are_bounded_below"),
    ("hull(entries) for entries", "entries[0] for entries", "margins_are_bounded_below"),
]
PARTITION = [
    ("if len(set(columns)) < len(blocks):", "if not blocks:", "codebooks_are_partitions"),
    ("    advice.done()\n", "", "codebooks_are_partitions"),
]
BRUTE_FORCE = [
    ("margin > 0 if winning.least", "margin >= 0 if winning.least", "ties_lose_or_go_to_the_lowest"),
    ("certified += orders", "certified += 1", "brute_force_counts_what_is_right"),
    (" - winning.slack for other", " for other", "float32_asks_for_a_margin"),
    ("if answer is not None and _wins", "if _wins", "brute_force_counts_what_is_right"),
    ("work.spend(len(tokens) * len(h))", "", "the_length_of_brute_force"),
]
ATTENTION = [
    ("work.spend(2 + sum(map(len, bound.scores)))", "", "bounds_are_scaled_by_one_positive_number"),
    ("before = Task(question.name, question.n - 1,", "before = Task(question.name, question.n,", OWN),
    ("question.joined(cell.answer, *asked)", "cell.answer", OWN),
    ("if len(asked) > 1:", "if not asked:", "query_columns_are_of_one_class"),
    ("len(asking) * cell.arrangements * fillings", "cell.arrangements * fillings", ALIKE),
    ("len(asking) * cell.arrangements * fillings", "len(asking) * fillings", OWN),
    (", w_query), keys)", ", w_key), keys)", DENOMINATOR),
    ("resting + work.product(embed, unembed) if residual", "resting if residual", DENOMINATOR),
    ("b_logit = work.product(b_out, unembed) + arb_mat", "b_logit = arb_mat", DENOMINATOR),
    ("hull(entries) for entries", "entries[0] for entries", DENOMINATOR),
    ("hull(score - shift for score, shift", "max(score - shift for score, shift", DENOMINATOR),
    ("hull(score - shift for score", "hull(score for score", DENOMINATOR),
    ("[hull(shifted[t] for t in members) for", "[shifted[members[0]] for", DENOMINATOR),
    ("own = [of_query[q] - shift for", "own = [of_query[q] for", DENOMINATOR),
    ("both = [a + b for", "both = [a for", DENOMINATOR),
    ("[weight * margin for margin in _ahead(both", "[margin for margin in _ahead(both", DENOMINATOR),
    ("[smallest(of_answer) for", "[of_answer[0] for", DENOMINATOR),
    ("[weight * (a + b) for", "[weight * a for", DENOMINATOR),
    ("[weight * (a + b) for", "[a + b for", DENOMINATOR),
    ("hull(margins)\n", "margins[0]\n", DENOMINATOR),
    ("[logits[right] - logit for", "[logit - logits[right] for", DENOMINATOR),
    ("unit = 1 / largest if", "unit = -1 / largest if", "bounds_are_scaled_by_one_positive_number"),
    ("[[score * unit for", "[[score for", "bounds_are_scaled_by_one_positive_number"),
    ('not in ("max", "min", "modular_addition") or question.n < 2', "is None", SUPPORTED),
    ("len(self._asking) * self._network.classes", "0", "length_is_counted"),
    ("len(self._weights[codebook]) * self._network.classes", "0", "length_is_counted"),
]
