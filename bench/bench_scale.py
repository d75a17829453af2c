"""Matching at the papers' size, 67,000 x 1,000,000: minutes on a CPU, so a part of its own that only `--full` runs."""
from bench_matching import at_scale


def rows(quick=True):
    "No peer can hold the matrix: the floor is one bare pass over all similarities."
    if not quick: yield at_scale('clip', 67_000, 1_000_000)


if __name__ == '__main__':
    for row in rows(False): print(row)
