"""The bound of a cell, one column, neuron and answer at a time."""

from torch import Tensor


def cell_margin(
    network, columns, fixed: dict[int, int], free: list[tuple[list[int], int]], right: int, wrong: int
):
    """Lower bound on the margin of `right` over `wrong`; `free`: columns and copies of each group."""
    phi, kappa = network.activation, {"relu": 0.0, "gelu": 0.1085}[network.sizes.activation]
    members = [[t for t, c in enumerate(columns.of_token) if c == k] for k in range(len(columns))]
    hidden = network.embed @ network.w_in
    out = network.w_out @ network.unembed
    m = sum(copies for allowed, copies in free if len(allowed) > 1)
    logit = network.b_out @ network.unembed + network.b_unembed

    def box(column: int, k: int) -> tuple[Tensor, Tensor]:
        values = [hidden[t, k] for t in members[column]]
        return (min(values) + max(values)) / 2, (max(values) - min(values)) / 2

    def direct(column: int) -> Tensor | float:
        if not network.sizes.residual:
            return 0.0
        return min(
            network.embed[t] @ (network.unembed[:, right] - network.unembed[:, wrong])
            for t in members[column]
        )

    margin = logit[right] - logit[wrong]
    centres, worst = [], [{column: direct(column) for column in allowed} for allowed, _ in free]
    for k in range(network.sizes.neurons):
        ahead = out[k, right] - out[k, wrong]
        h = network.b_in[k]
        for column, copies in fixed.items():
            middle, half = box(column, k)
            h = h + copies * middle
            margin = margin - copies * ahead.abs() * half * phi.lipschitz
        centres = [sum(box(column, k)[0] for column in allowed) / max(1, len(allowed)) for allowed, _ in free]
        h = h + sum(copies * centre for centre, (_, copies) in zip(centres, free, strict=True))
        margin = margin + ahead * phi(h)
        slope = _slope(network, h)
        for group, (allowed, _) in enumerate(free):
            for column in allowed:
                middle, half = box(column, k)
                g = middle - centres[group]
                if m > 1:
                    high = (phi(h + m * g) - phi(h)) / m + kappa / 2 * m * g**2
                    low = slope * g - kappa / 2 * m * g**2
                else:
                    high = low = phi(h + g) - phi(h)
                end = low if ahead > 0 else high
                worst[group][column] = worst[group][column] + ahead * end - ahead.abs() * half * phi.lipschitz
    for column, copies in fixed.items():
        margin = margin + copies * direct(column)
    for scores, (_, copies) in zip(worst, free, strict=True):
        if copies:
            margin = margin + copies * min(scores.values())
    return margin


def _slope(network, h: Tensor) -> Tensor:
    if network.sizes.activation == "relu":
        return (h > 0).to(h.dtype)
    from torch.distributions import Normal

    normal = Normal(0.0, 1.0)
    return normal.cdf(h) + h * normal.log_prob(h).exp()
