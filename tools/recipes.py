"""Recipes of the toy models, side by side on fresh validation items: python tools/recipes.py PAPER NAME ...; all when none is named"""
import json
import sys
import tempfile
from datetime import date
from pathlib import Path

from babyvlm.benchmarks.devcv.files import toy_devcv
from babyvlm.benchmarks.devcv.score import TASKS, evaluate_devcv
from babyvlm.config import profile
from babyvlm.estimate import crossed
from babyvlm.experiments import v1, v2
from babyvlm.nursery.world import Nursery
from babyvlm.numerics import numerics
from babyvlm.run.results import Journal

SHORT = {'v2_data.recordings': 8, 'v2.phase1.epochs': 1, 'v2.phase2.epochs': 2}
MANY = {'v2_data.train': 3300, 'v2.phase3.epochs': 8}
LONG = {'babyllava.phase2.epochs': 24}
TWICE = {'nursery.utterances': 14000}
V2 = {                              # what each changes in the toy profile
    'as in toy': {},
    'few recordings': SHORT,
    'few recordings, quick vision': SHORT | {'v2.vision_lr': 2e-3},
    'quick vision': {'v2.vision_lr': 2e-3},
    'ten passes': {'v2.phase3.epochs': 10},
    'more words, 24 passes': {'v2_data.vocabulary': 2, 'v2.phase3.epochs': 24},
    'three times the records, more words, eight passes': MANY | {'v2_data.vocabulary': 2},
    'as in study: three times the records, words three times a pass, eight passes': MANY | {'v2.often': {'picture_vocabulary': 3}},
    'few recordings, three times the passes': SHORT | {'v2.phase1.epochs': 6, 'v2.phase2.epochs': 12},
}
V1 = {
    'as in toy': {},
    'longer DINO': {'vision.epochs': 8},
    'twice the utterances': TWICE,
    'small batches': {'babyllava.phase2.batch': 16},
    '16 passes': {'babyllava.phase2.epochs': 16},
    '24 passes, small batches': LONG | {'babyllava.phase2.batch': 16},
    '24 passes, longer DINO': LONG | {'vision.epochs': 8},
    '24 passes, twice the utterances': LONG | TWICE,
    '24 passes after two of phase 0': LONG | {'babyllava.phase0.epochs': 2},
    '24 passes': LONG,
}
OUT = Path('babyvlm/assets/recipes.json')


def of_v1(changes, n, root):
    "BabyLLaVA on words and phrases of recordings that are neither trained nor tested on."
    p, places = profile('toy', changes), dict(vtwt='frames', labeled_s='labeled_s')
    Nursery(p.nursery.seed, p.nursery.size).write_benchmarks(root, 20, 8*n, 10, 8, split='val')
    model, out = v1.V1(p).model(v1.Spec('BabyLLaVA-GPT2')), {}
    for t, place in places.items():
        items = v1.LOADERS[t](root/v1.FILES[t], images=root/place)
        right = v1.outcomes(t, v1.evaluate(model, items, Journal(root/f'{t}.jsonl', dict(model=model.id))), items)
        out[t] = crossed(right[None], [i.group or i.uid for i in items])
    return out


def of_v2(changes, n, root):
    "BabyLLaVA-V2 on validation items of every task."
    p, few = profile('toy', changes), dict(memory=round(.4*n))
    toy_devcv(root, Nursery(p.nursery.seed, p.nursery.size), {}, {t: few.get(t, n) for t in TASKS}, {}, sources=['home'])
    got = evaluate_devcv(v2.V2(p).model(v2.Tuned()), root/'home', split='val')
    return {t: r.scores[TASKS[t].primary] for t, r in got.items()}


def main(paper, *names, n=100):
    kept, (candidates, score) = json.loads(OUT.read_text()), dict(v1=(V1, of_v1), v2=(V2, of_v2))[paper]
    for name in names or candidates:
        with tempfile.TemporaryDirectory() as root: found = score(candidates[name], n, Path(root))
        told = {t: [*(round(float(v), 3) for v in (e.value, e.low, e.high)), e.n] for t, e in found.items()}
        kept[paper][name] = dict(changes=candidates[name], seed=0, date=str(date.today()), processor=numerics()['processor'], scores=told)
        OUT.write_text(json.dumps(kept, indent=1) + '\n')
        print(name, told)


if __name__ == '__main__': main(*sys.argv[1:])
