"""Every claim in the world in which it is false: `python tools/counter_worlds.py [CLAIM ..]`; what is in the file with seeds enough for a verdict is not made again."""
import json
from pathlib import Path

from fastcore.script import Param, call_parse, store_true

from babyvlm.config import profile, repo_root
from babyvlm.estimate import FEWEST
from babyvlm.experiments.claims import QUANTITIES, kept, seeds_of, with_seeds
from babyvlm.experiments.counter_worlds import counter_world, where_false
from babyvlm.store import read_json

FILE = 'babyvlm/assets/counter_worlds.json'


@call_parse
def main(claims:Param('ids such as v1.4; default: all', str, nargs='*'),
         file:Param('where the results are kept; default: the committed file', str)=None,
         again:Param('make again what is in the file', store_true)=False):
    "Make the counter-worlds that are missing, one line each."
    path, p = Path(file or repo_root()/FILE), profile('toy')
    found = read_json(path) if path.exists() else {}
    for c in claims or QUANTITIES:
        if c in found and len(found[c]['seeds']) >= FEWEST and not again: continue
        enough = with_seeds(p, range(max(FEWEST, len(seeds_of(c, p)))))
        found[c] = kept(c, where_false(c, enough), seeds_of(c, enough)) | dict(why=counter_world(c).why)
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + '\n')
        print(c, found[c]['verdict'], found[c]['value'], flush=True)
