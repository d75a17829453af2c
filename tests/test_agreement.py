"""One set of replies, two ways to a number: `babyvlm evaluate` and the tables of the papers agree to the last digit."""
import csv
import hashlib
import math
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from babyvlm.benchmarks.devcv.files import write_devcv
from babyvlm.benchmarks.devcv.score import TASKS as DEVCV, credit as devcv_credit
from babyvlm.benchmarks.hierarchy.questions import crossed_scores
from babyvlm.benchmarks.v1 import TASKS
from babyvlm.config import profile
from babyvlm.data.taxonomy import build_questions, save_annotations
from babyvlm.experiments import planted
from babyvlm.experiments.planted import Arm, Planted
from babyvlm.experiments.v1 import METRICS, TASKS as TITLES, V1, Spec, over_both
from babyvlm.experiments.v2 import V2
from babyvlm.items import Reply, Status, score_shape
from babyvlm.nursery.clips import draw_bank
from babyvlm.nursery.world import Nursery
from babyvlm.pictures import open_image
from babyvlm.run import scorecard
from babyvlm.run.cli import app
from babyvlm.run.results import load_results
from babyvlm.store import Store

COUNTED = ('value', 'n', 'chance', 'ties', 'no_answer', 'skipped')
SIZES = {t: 14 for t in DEVCV} | {'memory': 6, 'leftright': 24}


class Scripted:
    "Says the same to the same question, whoever asks it and in whatever order: whole scores that often tie, or nothing."
    name = 'scripted'

    def reply(self, items):
        for i in items: [open_image(p) for p in i.images]
        return [self.one(i) for i in items]

    def one(self, item):
        asked = [Path(p).name for p in item.images], item.group.lower(), tuple(item.meta.get('names', item.options)), len(item.rounds)
        rng = np.random.default_rng(list(hashlib.sha256(str(asked).encode()).digest()))
        if rng.random() < .2: return self.silence(item)
        if item.choice == 'open': return Reply(item.uid, text=item.gold[:rng.integers(1, 40)])
        return Reply(item.uid, scores=rng.integers(0, 3, score_shape(item)))

    def silence(self, item):
        if item.benchmark.startswith('devcv/'): return Reply(item.uid, text='I see a cup')   # what a parser finds no answer in
        return Reply(item.uid, status=Status.NOANSWER, reason='said nothing')


class Broken:
    "One likelihood is not a number."
    name = 'broken'
    def loglik(self, items): return [np.full(score_shape(i), math.nan if i is items[-1] else 0.) for i in items]


def spoil(items):
    "One picture is empty, one is gone: such items are skipped."
    for i, damage in zip((items[1], items[-2]), (lambda p: p.write_bytes(b''), lambda p: p.unlink())): damage(Path(i.images[-1]))


# the way of the command

def evaluated(models, model, benchmark, labels, out, *more):
    "metric -> `Estimate` of each task, from the records, and the same from scores.csv."
    for known in (Scripted(), Broken()): (folder := models/known.name).mkdir(parents=True, exist_ok=True); (folder/'config.json').write_text('{}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorecard, 'load_model', lambda path, **how: Scripted() if path.name == 'scripted' else Broken())
        words = ['evaluate', '--models', models/model, '--labels', labels, '--out', out, *more]
        for b in benchmark: words += ['--benchmark', b]
        done = CliRunner().invoke(app, [str(w) for w in words])
    return done, {e.task: e.scores for e in load_results(out)} if out.exists() else {}


def in_csv(out):
    "(task, metric) -> what scores.csv says of it."
    def number(s): return None if s == '' else float(s)
    with (out/'scores.csv').open(newline='') as f: return {(r['benchmark'], r['metric']): {k: number(r[k]) for k in COUNTED} for r in csv.DictReader(f)}


def facts(e): return {k: getattr(e, k) for k in COUNTED}


# V1

class TableV1(V1):
    "The tables' own way to their numbers, with other labels and without training."
    def clip(self): return self.asked, 'scripted'
    def _prepare(self, specs): pass


def table_v1(labels, root, model):
    run = TableV1(profile('toy'), Store(root))
    run.sources = SimpleNamespace(in_nursery=True, folder=lambda part: (labels, f'{part} of the test'), status=lambda *_: 'toy world')
    run.asked = model
    return run


SPEC = Spec('LLaVA-v1.5-7B', '')


@pytest.fixture(scope='module')
def v1(tmp_path_factory):
    root = tmp_path_factory.mktemp('v1')
    labels = Nursery(seed=3).write_benchmarks(root/'labels', 2, 40, 30, 24)
    run = table_v1(labels, root/'store', Scripted())
    for t in TASKS: spoil(run.items(t))
    run.model = lambda spec: run.asked
    done, found = evaluated(root/'models', 'scripted', ['v1'], labels, root/'out')
    assert done.exit_code == 0, done.output
    rows = run.rows(run.answers([SPEC]), metrics=[m for t in TASKS for m in METRICS[t]])
    return SimpleNamespace(root=root, labels=labels, found=found, rows=rows, csv=in_csv(root/'out'))


@pytest.mark.parametrize('task', TASKS)
def test_v1(v1, task):
    table = {METRICS[task][r['metric']][0]: r['estimate'] for r in v1.rows if r['task'] == TITLES[task]}
    assert table and set(v1.found[task]) <= set(table)
    for m, e in v1.found[task].items():
        assert facts(table[m]) == facts(e) == v1.csv[task, m], m
        assert e.skipped >= 2 and e.no_answer and (e.ties or task == 'saycam_caption')


# DevCV

class TableV2(V2):
    "The same for DevCV: one training seed, and `root` for its toolbox."
    asked, seeds = Scripted(), (0,)
    def source(self, name='home'): return self.root
    def _asked(self, *what): return 'the toolbox of the test'
    def checkpoint(self, spec): return self.note(self.store.get('weights', dict(on=spec.on), lambda path: (path/'x').write_text('x') and None))
    def model(self, spec, grey=False): return self.asked


def table_v2(labels, root, model):
    run = TableV2(profile('toy'), Store(root))
    run.root, run.asked = labels, model
    return run


@pytest.fixture(scope='module')
def v2(tmp_path_factory):
    root = tmp_path_factory.mktemp('v2')
    bank = draw_bank(root/'bank', Nursery(seed=5), 70, 14)
    write_devcv(root/'labels', bank, SIZES, start='canvas')
    run = table_v2(root/'labels', root/'store', Scripted())
    for t in DEVCV: spoil(run.items(t))
    run._items.clear()   # read again: who looks now does not find one picture of each task
    done, found = evaluated(root/'models', 'scripted', ['devcv'], root/'labels', root/'out')
    assert done.exit_code == 0, done.output
    results = run.answers()
    return SimpleNamespace(root=root, found=found, results=results, rows=run.rows(results, 'scripted'), csv=in_csv(root/'out'))


@pytest.mark.parametrize('task', DEVCV)
def test_devcv(v2, task):
    found, x = v2.found[f'devcv/{task}'], DEVCV[task]
    (table,) = [r['estimate'] for r in v2.rows if (r['task'], r['metric']) == (x.column, x.published_metric)]
    assert facts(table) == facts(found[x.primary]) == v2.csv[f'devcv/{task}', x.primary]
    assert table.skipped >= 2 and table.no_answer and table.ties and table.unit == found[x.primary].unit
    (result,) = v2.results[task].runs
    for m, c in devcv_credit(result.items, result.replies).items():
        assert facts(over_both([c], [i.uid for i in result.items], found[m].chance)) == facts(found[m]), m


# the hierarchy

SMALL = {'creatures.branching': (4, 2, 2), 'creatures.tests': 2, 'creatures.shares': (1.,), 'creatures.seeds': (0,)}


class TablePlanted(Planted):
    "The same for the planted experiment: drawn creatures, no training."
    def eyes(self): return self._made('eyes', lambda path: self._keep_pictures(path/'pictures'))
    def model(self, arm): return self._made('weights', lambda path: (path/'x').write_text('x') and None)
    @cached_property
    def pictures(self): return self.eyes().path/'pictures'

    def labels_file(self, kind, path):
        "The questions of `items` as a file of annotations."
        rows = self.rows('test') if kind == 'image' else [(leaf, 0) for leaf in self.taxonomy]
        names = [f'{leaf}-{i}' for leaf, i in rows]
        asked = build_questions(self.taxonomy, [f'{n}.png' for n in names], [leaf for leaf, _ in rows], seed=self.c.world)
        save_annotations(asked, path)
        return path


def table_hierarchy(root, model, patch):
    patch.setattr(planted, 'BabyLlava', SimpleNamespace(from_pretrained=lambda *_, **__: None))
    patch.setattr(planted, 'Generative', lambda _: model)
    return TablePlanted(profile('toy', SMALL), Store(root))


@pytest.mark.parametrize('kind', ['image', 'text'])
def test_hierarchy(kind, tmp_path, monkeypatch):
    run, task = table_hierarchy(tmp_path/'store', Scripted(), monkeypatch), 'hierarchy/cub200' + '/text'*(kind == 'text')
    if kind == 'image': spoil(run.items())
    labels = run.labels_file(kind, tmp_path/'rows.jsonl')
    done, found = evaluated(tmp_path/'models', 'scripted', [task], labels, tmp_path/'out', '--images', run.pictures)
    assert done.exit_code == 0, done.output
    found, seen, arm = found[task], in_csv(tmp_path/'out'), Arm(1.)
    assert facts(run.hca([arm], kind)) == facts(found['hca'])
    credits, species = run._paths(arm, kind), [i.group for i in run.items(kind) if i.meta['level'] == 1]
    matrix = run.replies(arm, kind)[None, :, :run.taxonomy.depth - (kind == 'text')]
    for m, e in crossed_scores(matrix, species).items():
        assert facts(over_both([credits[m]], species, credits[m].chance)) == facts(found[m]) == seen[task, m], m
        assert facts(e) == facts(found[m]) | dict(ties=0, no_answer=0), m   # a matrix of credits does not say why
        assert found[m].ties and found[m].no_answer and found[m].skipped == 2*(kind == 'image')


# what is refused

def test_a_likelihood_that_is_no_number_is_refused_by_both(v1, v2, tmp_path, monkeypatch):
    why = 'is not finite; the model is broken'
    run = table_hierarchy(tmp_path/'h', Broken(), monkeypatch)
    rows = run.labels_file('image', tmp_path/'rows.jsonl')
    for benchmark, labels, more in (('v1/vtwt', v1.labels, ()), ('devcv/count', v2.root/'labels', ()), ('hierarchy/cub200', rows, ('--images', run.pictures))):
        done, found = evaluated(tmp_path/'models', 'broken', [benchmark], labels, tmp_path/benchmark, *more)
        assert done.exit_code == 1 and why in done.output and not found
    first, second = table_v1(v1.labels, tmp_path/'v1', Broken()), table_v2(v2.root/'labels', tmp_path/'v2', Broken())
    first.model = lambda spec: first.asked
    for table in (lambda: first.answers([SPEC]), lambda: second.answers(tasks=['count'], protocol='loglik'), lambda: run.hca([Arm(1.)])):
        with pytest.raises(ValueError, match=why): table()
