"The audit against theory, on each way of choosing."
import math

import numpy as np
import pytest

from babyvlm.benchmarks import v1
from babyvlm.benchmarks.audit import DEGENERATE, Benchmark, audit, plot_audit, shuffle_images, surprises
from babyvlm.estimate import Estimate, wilson
from babyvlm.items import Item

N = 600


def vtwt(n=N, first=False):
    rng = np.random.default_rng(0)
    def one(k):
        words = [f'word{w}' for w in rng.integers(0, 40, 2)]
        return Item(f'{k}', 'vtwt', (f'{k}.jpg',), options=(f'a {words[0]}', f'b {words[1]}'), gold=0 if first else int(rng.integers(2)))
    return [one(k) for k in range(n)]


def winoground(n=N):
    return [Item(f'{k}', 'baby_winoground', (f'{k}.jpg', f'{k}_neg.jpeg'), options=(f'x {k}', f'y {k}'), choice='both') for k in range(n)]


def labeled(n=N):
    rng = np.random.default_rng(1)
    def one(k):
        c = rng.permutation(22)[:4]
        return Item(f'{k}', 'labeled_s', tuple(f'{j}/{k}_{j}.jpg' for j in c), options=(f'word{c[0]}',), gold=0, choice='images')
    return [one(k) for k in range(n)]


def value(table, model, metric): return table.loc[model, metric].value


def test_balanced_two_way_choice_is_at_chance_for_all_but_the_ideal_observer():
    t = audit(v1.benchmark('vtwt', vtwt()))
    assert value(t, 'ideal', 'acc') == 1 and t.loc['not a number', 'acc'] == 'refused'
    assert value(t, 'constant', 'acc') == .5 == t.loc['chance', 'acc']
    for m in t.index[2:]:
        if m != 'not a number': assert abs(value(t, m, 'acc') - .5) < .08, m
    assert surprises(t, tolerance=.03) == []


def test_a_fixed_place_is_found():
    t = audit(v1.benchmark('vtwt', vtwt(first=True)))
    found = {s.split(' gets')[0] for s in surprises(t, .02)}
    assert {'acc: first', 'acc: last'} <= found and not {'acc: constant', 'acc: longest', 'acc: random (0)'} & found
    reference = audit(v1.benchmark('vtwt', vtwt(first=True), 'reference'))
    assert value(reference, 'constant', 'acc') == 1
    assert value(reference, 'random, rounded (0)', 'acc') > value(t, 'random, rounded (0)', 'acc') + .05


def test_winoground_by_theory():
    t = audit(v1.benchmark('baby_winoground', winoground()))
    theory = {'constant': [1/4, 1/4, 1/3, 1/3, 1/6, 1/2, 1/2],
              'first': [1/4, 0, 1/2, 0, 0, 1, 0],
              'text only (0)': [1/4, 0, 1/4, 1/4, 0, 1/2, 1/2],
              'image only (0)': [0, 1/4, 1/4, 1/4, 0, 1/2, 1/2],
              'random (0)': [1/4, 1/4, 1/3, 1/3, 1/6, 1/2, 1/2],
              'random, rounded (0)': [1/4, 1/4, 1/3, 1/3, 1/6, 1/2, 1/2],
              'images shuffled (0)': [1/4, 1/4, 1/3, 1/3, 1/6, 1/2, 1/2], 'ideal': [1] * 7}
    for model, row in theory.items():
        for metric, v in zip(v1.WINOGROUND, row): assert abs(value(t, model, metric) - v) < .07, (model, metric)
    assert set(t.loc['not a number']) == {'refused'}


def test_labeled_s_by_theory():
    t = audit(v1.benchmark('labeled_s', labeled()))
    assert (value(t, 'constant', 'acc'), value(t, 'longest', 'acc'), value(t, 'first', 'acc'), value(t, 'last', 'acc')) == (.25, .25, 1, 0)
    assert abs(value(t, 'image only (0)', 'acc') - .25) < .06 and abs(value(t, 'images shuffled (0)', 'acc') - .25) < .06
    assert value(audit(v1.benchmark('labeled_s', labeled(), 'reference')), 'constant', 'acc') == 1


def test_captions():
    items = [Item(f'{k}', 'saycam_caption', (f'{k}.jpg',), gold=f'there is a thing{k} here .', choice='open') for k in range(12)]
    t = audit(v1.benchmark('saycam_caption', items, wordnet=False), seeds=(0,))
    metric = 'METEOR (exact+stem)'
    assert value(t, 'constant', metric) == 0 and value(t, 'ideal', metric) > .99
    assert 0 < value(t, 'images shuffled (0)', metric) < value(t, 'ideal', metric)
    assert t.loc['text only (0)', metric] == '' == t.loc['not a number', metric]


def test_rounding_does_not_change_a_fair_expectation():
    items = winoground(3000)
    t = audit(v1.benchmark('baby_winoground', items), models=('random', 'random, rounded'), seeds=(0, 1))
    for m in v1.WINOGROUND:
        assert abs(value(t, 'random (0)', m) - value(t, 'random, rounded (0)', m)) < .04, m


def test_a_metric_that_lets_nan_through_is_named():
    def careless(items, replies): return {'acc': wilson(sum(not (r.scores[1] > r.scores[0]) for r in replies), len(items), .5)}
    t = audit(Benchmark('careless', vtwt(), careless), seeds=(0,))
    assert any(s.startswith('acc: NaN scores are not refused') for s in surprises(t))


def test_only_a_refusal_of_nan_is_caught():
    def broken(items, replies): raise KeyError('bug')
    with pytest.raises(KeyError): audit(Benchmark('broken', vtwt(4), broken))
    def picky(items, replies): raise ValueError('no')
    with pytest.raises(ValueError): audit(Benchmark('picky', vtwt(4), picky), models=('constant',))


def test_letters_for_talking_benchmarks():
    items = vtwt(50)
    for name, model in DEGENERATE.items():
        for i, r in zip(items, model(items, 0)):
            if r.chosen is not None: assert r.text == 'AB'[r.chosen], name
    number = Item('n', 'count', ('a',), options=('1', '2', '3'), gold=1, meta={'answer': 'number'})
    assert DEGENERATE['ideal']([number])[0].text == '2'


def test_repeats_are_equal_and_shuffling_moves_every_picture():
    b = v1.benchmark('vtwt', vtwt(60))
    assert audit(b).astype(str).equals(audit(b).astype(str))
    moved = shuffle_images(b.items, 3)
    assert not any(a.images == c.images for a, c in zip(moved, b.items)) and {i.images for i in moved} == {i.images for i in b.items}
    with pytest.raises(ValueError, match='nobody'): shuffle_images(b.items[:1])
    with pytest.raises(ValueError, match=r'\[1, 2\] pictures'): shuffle_images([b.items[0], winoground(1)[0]])


def test_the_picture_shows_every_cell():
    t = audit(v1.benchmark('baby_winoground', winoground(40)), seeds=(0,))
    ax = plot_audit(t)
    said = [x.get_text() for x in ax.texts]
    assert said.count('refused') == 7 and len([x for x in said if x]) == sum(isinstance(e, Estimate) for e in t.iloc[1:].to_numpy().flat) + 7
    assert math.isclose(t.loc['chance', 'group_score'], 1/6)
