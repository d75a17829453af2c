"""How often `crossed` holds the truth: 2,000 simulated worlds for every number of seeds, share, spread and design.

    python tools/bench/intervals.py            # about two minutes on one core; writes tools/bench/intervals.json

A world draws seeds, items and their interaction on the scale of log odds (items 1, interaction 0.5), then outcomes.
A difference is taken between two models that are equally good and answer the same items.
"""
import json
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from babyvlm.estimate import _ends

SEEDS, SHARES = (2, 3, 5, 10), (.03, .5, .97)
SPREADS = {'none': 0., 'small': .3, 'large': 1.}        # of training seeds; at one half, 'large' is about 0.2
DESIGNS = {'100 items': (100, 1), '40 clusters of 5': (40, 5)}
ITEMS, BOTH = 1., .5
NODES, MASS = np.polynomial.hermite_e.hermegauss(61)


def centre_of(share, spread):
    "The log odds around which the mean share is `share`."
    def miss(c): return (MASS / MASS.sum() / (1 + np.exp(-c - spread * NODES))).sum() - share
    return brentq(miss, -30, 30)


def model(rng, items, seeds, per, share, spread):
    "Shares (worlds, seeds, units) of a model whose mean over seeds and items is `share`."
    n, m = items.shape
    odds = centre_of(share, np.sqrt(spread**2 + ITEMS**2 + BOTH**2)) + ITEMS * items[:, None]
    odds = odds + spread * rng.standard_normal((n, seeds, 1)) + BOTH * rng.standard_normal((n, seeds, m))
    return rng.binomial(per, 1 / (1 + np.exp(-odds))) / per


def held(kind, seeds, design, share, spread, worlds=2000):
    "Share of worlds whose interval holds the truth, and the mean width."
    rng, (m, per) = np.random.default_rng([seeds, m_of(design), round(100 * share), round(10 * spread)]), DESIGNS[design]
    items = rng.standard_normal((worlds, m))
    x = model(rng, items, seeds, per, share, spread)
    if kind == 'difference': x = x - model(rng, items, seeds, per, share, spread)
    mean, truth, least = x.mean((1, 2)), (share, 0.)[kind == 'difference'], (0., -1.)[kind == 'difference']
    low, high = _ends(mean, x - mean[:, None, None], least, 1., 1., .95)
    return float(np.mean((low <= truth) & (truth <= high))), float(np.mean(high - low))


def m_of(design): return DESIGNS[design][0]


def table(worlds=2000):
    rows = []
    for kind, shares in (('share', SHARES), ('difference', SHARES[:2])):
        for seeds in SEEDS:
            for design in DESIGNS:
                for share in shares:
                    for spread, sd in SPREADS.items():
                        covered, width = held(kind, seeds, design, share, sd, worlds)
                        rows.append(dict(kind=kind, seeds=seeds, design=design, share=share, spread=spread, worlds=worlds,
                                         covered=round(covered, 4), width=round(width, 3)))
    return rows


if __name__ == '__main__':
    path = Path(__file__).with_suffix('.json')
    path.write_text(json.dumps(table(), indent=0) + '\n')
    print(path)
