"""Matching at the papers' sizes, up to 67,000 x 3,000,000: minutes on a CPU, so a part of its own that only `--full` runs."""
from bench_matching import at_scale


def rows(quick=True):
    "No peer can hold the matrix: the floor is one bare pass over all similarities."
    if quick: return
    for regime, pool in (('clip', 1_000_000), ('video', 1_000_000), ('clip', 3_000_000)): yield at_scale(regime, 67_000, pool)


if __name__ == '__main__':
    for row in rows(False): print(row)
