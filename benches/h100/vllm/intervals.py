"""Ratios of interleaved rounds, with a bootstrap interval."""

import numpy as np

Block = dict[str, float]


def ratio(sets: list[list[Block]], above: str, below: str, draws: int = 2000) -> dict | None:
    """The median of `above / below` over all blocks, which hold one time of each configuration.

    The interval draws sets of engines, and blocks within each: what is peculiar to an engine counts once.
    """
    logs = [[np.log(b[above] / b[below]) for b in blocks if above in b and below in b] for blocks in sets]
    kept = [np.array(one) for one in logs if one]
    if not kept:
        return None
    random = np.random.default_rng(20261124)
    medians = np.empty(draws)
    for draw in range(draws):
        chosen = random.integers(len(kept), size=len(kept))
        medians[draw] = np.median(np.concatenate([random.choice(kept[i], len(kept[i])) for i in chosen]))
    low, high = np.quantile(medians, (0.025, 0.975))
    return {
        "ratio": round(float(np.exp(np.median(np.concatenate(kept)))), 5),
        "low": round(float(np.exp(low)), 5),
        "high": round(float(np.exp(high)), 5),
        "sets": [round(float(np.exp(np.median(one))), 5) for one in kept],
        "blocks": sum(map(len, kept)),
    }
