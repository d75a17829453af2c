"""Every claim again with fresh training seeds: `python tools/stability.py [--n 20] [--pool 9] [CLAIM ..]`; killed, it goes on where it was."""
import json
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
from fastcore.script import Param, call_parse
from filelock import FileLock

from babyvlm.config import profile, repo_root
from babyvlm.estimate import FEWEST
from babyvlm.experiments.claims import QUANTITIES, RUNS, claim_of, kept, seeds_of, with_seeds
from babyvlm.store import read_json, write_whole

FILE = 'babyvlm/assets/stability.json'
FIRST = 1000   # seeds of reruns are none that a profile trains with


def seed_sets(n, many, pool=0):
    "`n` sets of `many` fresh seeds: no seed twice, or sets drawn from a pool of trained ones, none twice."
    if not pool: return [[FIRST + many*k + i for i in range(many)] for k in range(n)]
    every = list(combinations(range(FIRST, FIRST + pool), many))
    if n > len(every): raise ValueError(f'--pool {pool}: {len(every)} sets of {many}, fewer than --n {n}')
    return [list(every[i]) for i in np.random.default_rng(FIRST).permutation(len(every))[:n]]


def _known(path): return read_json(path) if path.exists() else {}


@call_parse
def main(claims:Param('ids such as v1.4; default: all', str, nargs='*'),
         n:Param('reruns of each claim', int)=20,
         pool:Param('draw the sets from this many seeds; 0: no seed twice', int)=0,
         file:Param('where the results are kept; default: the committed file', str)=None):
    "Rerun claims, all of them once before any a second time."
    path, p = Path(file or repo_root()/FILE), profile('toy')
    lock, run, of = FileLock(Path(tempfile.gettempdir())/'babyvlm-stability.lock'), None, None   # several may write
    for k in range(n):
        for c in claims or QUANTITIES:
            paper, seeds = claim_of(c)[0], seed_sets(n, max(FEWEST, len(seeds_of(c, p))), pool)[k]
            if _known(path).get(c, {}).get(str(k), {}).get('seeds') == seeds: continue
            if of != (paper, seeds): run, of = RUNS[paper](with_seeds(p, seeds)), (paper, seeds)
            result = kept(c, QUANTITIES[c](run, c), seeds)
            with lock:
                found = _known(path)
                found.setdefault(c, {})[str(k)] = result
                write_whole(path, json.dumps(found, indent=1, sort_keys=True) + '\n')
            print(k, c, seeds, result['verdict'], flush=True)
