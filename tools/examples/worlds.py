"""A folder with every benchmark of the three papers in the toy world: V1, DevCV and the hierarchy."""
import json
import random
from pathlib import Path

from babyvlm.benchmarks.devcv import score as devcv
from babyvlm.benchmarks.devcv.files import toy_devcv
from babyvlm.benchmarks.devcv.score import find_tasks, load_items, score_items
from babyvlm.benchmarks.hierarchy import run as protocol
from babyvlm.benchmarks.protocols import evaluate
from babyvlm.benchmarks.v1 import FILES, LOADERS, TASKS, score
from babyvlm.nursery.creatures import Zoo
from babyvlm.nursery.world import Nursery

TREE = {'robin': ('bird', 'songbird', 'robin'), 'wren': ('bird', 'songbird', 'wren'), 'owl': ('bird', 'raptor', 'owl'),
        'hawk': ('bird', 'raptor', 'hawk'), 'cat': ('mammal', 'carnivore', 'cat'), 'fox': ('mammal', 'carnivore', 'fox'),
        'mouse': ('mammal', 'rodent', 'mouse'), 'squirrel': ('mammal', 'rodent', 'squirrel')}


def write_hierarchy(folder, each=2, seed=0):
    "Pictures of creatures and four-choice questions at each level, in the released row format."
    folder, zoo, rng, rows = Path(folder), Zoo(TREE), random.Random(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for leaf, path in TREE.items():
        for n in range(each):
            zoo.picture(leaf, n).save(folder/f'{leaf}{n}.png')
            row = dict(image=f'{leaf}{n}.png', label=leaf, split='test')
            for level, truth in enumerate(path, 1):
                others = sorted({p[level - 1] for p in TREE.values()} - {truth})
                choices = [truth, *rng.sample(others, min(3, len(others)))]
                rng.shuffle(choices)
                row |= {f'level{level}': truth, f'choices_level{level}': choices}
            rows.append(row)
    (folder/'rows.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    return folder/'rows.jsonl'


def write_world(folder, n=8):
    "Every benchmark below a folder; what is there already is not made again."
    folder = Path(folder)
    if not (folder/'done').exists():
        Nursery(0, 64).write_benchmarks(folder/'v1', labeled_s=2, vtwt=n, winoground=n, captions=n)
        toy_devcv(folder/'devcv', train=0, val=0, test=n, recordings=8)
        write_hierarchy(folder/'hierarchy')
        (folder/'done').write_text('')
    return folder


def everything(model, folder, chat=None):
    "benchmark -> {metric: Estimate} of a model on all of it; `chat` is what it is asked as where words are needed."
    folder, out = Path(folder), {}
    for task in TASKS:
        if task == 'saycam_caption' and not hasattr(model, 'reply'): continue   # a caption needs words
        items = LOADERS[task](folder/'v1'/FILES[task], folder/'v1'/('labeled_s' if task == 'labeled_s' else 'frames'))
        out[f'v1/{task}'] = score(task, evaluate(model, items), items=items)
    for task in find_tasks(folder/'devcv'/'home'):
        items = load_items(folder/'devcv'/'home', task)
        out[f'devcv/{task}'] = score_items(items, devcv.ask(chat or model, items))
    items = protocol.load_items('cub200', folder/'hierarchy'/'rows.jsonl', folder/'hierarchy')
    out['hierarchy'] = protocol.score('cub200', items, protocol.ask(model, 'cub200', items))
    return out


def report(scores):
    "One line a metric."
    return '\n'.join(f'{name:<32} {metric:<24} {e}' for name, d in scores.items() for metric, e in d.items())
