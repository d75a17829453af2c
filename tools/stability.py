"""Every claim again with fresh training seeds: `python tools/stability.py [--n 20] [CLAIM ..]`; killed, it goes on where it was."""
import json
from pathlib import Path

from fastcore.script import Param, call_parse

from babyvlm.config import profile, repo_root
from babyvlm.estimate import FEWEST
from babyvlm.experiments.claims import QUANTITIES, RUNS, claim_of, kept, seeds_of, with_seeds
from babyvlm.store import read_json

FILE = 'babyvlm/assets/stability.json'
FIRST = 1000   # seeds of reruns are none that a profile trains with


@call_parse
def main(claims:Param('ids such as v1.4; default: all', str, nargs='*'),
         n:Param('reruns of each claim', int)=20,
         file:Param('where the results are kept; default: the committed file', str)=None):
    "Rerun claims, all of them once before any a second time."
    path, p = Path(file or repo_root()/FILE), profile('toy')
    found = read_json(path) if path.exists() else {}
    for k in range(n):
        for c in claims or QUANTITIES:
            if str(k) in found.setdefault(c, {}): continue
            many = max(FEWEST, len(seeds_of(c, p)))
            fresh = with_seeds(p, [FIRST + many*k + i for i in range(many)])
            paper, _ = claim_of(c)
            e = QUANTITIES[c](RUNS[paper](fresh), c)
            found[c][str(k)] = kept(c, e, seeds_of(c, fresh))
            path.write_text(json.dumps(found, indent=1, sort_keys=True) + '\n')
            print(k, c, found[c][str(k)]['verdict'], flush=True)
