"""Recipes of the toy BabyLLaVA-V2, side by side on fresh validation items: python tools/recipes.py NAME ...; all when none is named"""
import json
import sys
import tempfile
from datetime import date
from pathlib import Path

from babyvlm.benchmarks.devcv.files import toy_devcv
from babyvlm.benchmarks.devcv.score import TASKS, evaluate_devcv
from babyvlm.config import profile
from babyvlm.experiments.v2 import V2, Tuned
from babyvlm.nursery.world import Nursery
from babyvlm.numerics import numerics

SHORT = {'v2_data.recordings': 8, 'v2.phase1.epochs': 1, 'v2.phase2.epochs': 2}
CANDIDATES = {                     # what each changes in the toy profile
    'chosen': {},
    'few recordings': SHORT,
    'few recordings, quick vision': SHORT | {'v2.vision_lr': 2e-3},
    'quick vision': {'v2.vision_lr': 2e-3},
    'ten passes': {'v2.phase3.epochs': 10},
    'more words, 24 passes': {'v2_data.vocabulary': 2, 'v2.phase3.epochs': 24},
    'three times the records, more words, eight passes': {'v2_data.train': 3300, 'v2_data.vocabulary': 2, 'v2.phase3.epochs': 8},
    'three times the records, words three times a pass, eight passes': {
        'v2_data.train': 3300, 'v2.often': {'picture_vocabulary': 3}, 'v2.phase3.epochs': 8},
    'few recordings, three times the passes': SHORT | {'v2.phase1.epochs': 6, 'v2.phase2.epochs': 12},
}
OUT = Path(__file__).with_suffix('.json')


def scores(changes, n):
    "The validation score of every task; test items are never opened."
    run = V2(profile('toy', changes))
    world = Nursery(run.profile.nursery.seed, run.profile.nursery.size)
    with tempfile.TemporaryDirectory() as root:
        few = dict(memory=round(.4*n))
        toy_devcv(root, world, {}, {t: few.get(t, n) for t in TASKS}, {}, sources=['home'])
        got = evaluate_devcv(run.model(Tuned()), Path(root)/'home', split='val')
    return {t: [round(float(v), 3) for v in (e.value, e.low, e.high)]
            for t, r in got.items() for e in [r.scores[TASKS[t].primary]]}


def main(names, n=100):
    kept = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in names or CANDIDATES:
        kept[name] = dict(changes=CANDIDATES[name], items=n, seed=0, date=str(date.today()), processor=numerics()['processor'],
                          scores=scores(CANDIDATES[name], n))
        OUT.write_text(json.dumps(kept, indent=1) + '\n')
        print(name, kept[name]['scores'])


if __name__ == '__main__': main(sys.argv[1:])
