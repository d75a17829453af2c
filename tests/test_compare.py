"""Comparisons: known answers, laws, coverage and error rates in simulations."""
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from babyvlm.run.compare import (Answers, as_lines, compare, compare_all, compare_html, equivalence, flat,
                                 items_needed, matched, mcnemar, sign_flip, smallest_difference)
from babyvlm.run.evaluate import Unit


def answers(name, credit, group=None, task='t', key=None, prefix=''):
    units = tuple(Unit(f'{prefix}{k}', '' if key is None else key, '' if group is None else str(group[k]), float(c)) for k, c in enumerate(credit))
    return Answers(name, task, 'acc', units)


@pytest.mark.parametrize('b,c', [(0, 0), (3, 3), (10, 2), (0, 7), (40, 60)])
def test_mcnemar_is_the_binomial_of_the_discordant_items(b, c):
    assert mcnemar(b, c) == mcnemar(c, b) == (binomtest(b, b + c).pvalue if b + c else 1)


def test_a_comparison_turned_round_says_the_same():
    rng = np.random.default_rng(0)
    for binary in (True, False):
        x, y = (rng.integers(0, 2, 60) if binary else rng.random(60) for _ in 'ab')
        a, b = answers('a', x, np.arange(60) // 3), answers('b', y, np.arange(60) // 3)
        one, two = compare(a, b), compare(b, a)
        assert one['difference'].value == pytest.approx(-two['difference'].value) == pytest.approx((x - y).mean())
        assert one['p'] == pytest.approx(two['p'], abs=.02) and one['test'] == 'sign flips' and one['clusters'] == 20


def test_the_order_of_items_is_nothing():
    rng = np.random.default_rng(1)
    x, y, order = rng.integers(0, 2, 50), rng.integers(0, 2, 50), rng.permutation(50)
    a, b = answers('a', x), answers('b', y)
    mixed = Answers('a', 't', 'acc', tuple(a.units[k] for k in order))
    assert compare(a, b)['p'] == compare(mixed, b)['p'] and compare(a, b)['difference'].value == pytest.approx(compare(mixed, b)['difference'].value)


def test_items_that_are_only_called_alike_do_not_pair():
    a, b = answers('a', [1, 0, 1], key='x'), answers('b', [1, 1, 1], key='y')
    assert not matched(a, b) and compare(a, b)['pairing'] == 'unpaired'
    assert len(matched(a, answers('b', [1, 1, 1]))) == 3, 'a log without fingerprints pairs by uid'
    assert compare(answers('a', [1] * 5), answers('b', [0] * 8))['left_out'] == 3


def test_models_without_a_difference_are_rarely_told_apart():
    rng, found = np.random.default_rng(2), 0
    for _ in range(300):
        word = np.repeat(rng.normal(size=(2, 25)), 4, axis=1)               # each model is good at some words: clusters of 4
        x, y = (word + rng.normal(size=(2, 100)) > 0).astype(float)
        found += compare(answers('a', x, np.arange(100) // 4), answers('b', y, np.arange(100) // 4), n_boot=10)['p'] < .05
    assert found <= 27, found                                               # 15 expected; McNemar alone is wrong here


def test_many_comparisons_are_corrected():
    rng = np.random.default_rng(3)
    models = [answers(f'm{k}', rng.integers(0, 2, 80)) for k in range(8)]
    t = compare_all(models, n_boot=50)
    p = np.sort(t.p.to_numpy()); m = len(p)
    assert m == 28
    holm = np.minimum(1, np.maximum.accumulate(p * (m - np.arange(m))))
    bh = np.minimum(1, np.minimum.accumulate((p * m / np.arange(1, m + 1))[::-1])[::-1])
    assert np.allclose(np.sort(t.p_holm), holm) and np.allclose(np.sort(t.p_bh), bh)


def test_models_that_share_a_label_set_are_not_compared_across_others():
    rng = np.random.default_rng(5)
    def on(name, labels): return replace(answers(name, rng.integers(0, 2, 40), prefix=labels), labels=labels)
    def pairs(*models): return {(a, b) for a, b in zip(*(compare_all(list(models), n_boot=50)[k] for k in 'ab'))}
    both = pairs(*(on(m, l) for m in ('m', 'w') for l in ('home', 'away')))
    assert both == {('m, home', 'm, away'), ('w, home', 'w, away'), ('m, home', 'w, home'), ('m, away', 'w, away')}
    assert pairs(on('m', 'home'), on('m', 'away'), on('w', 'home')) == {('m, home', 'm, away'), ('m, home', 'w')}
    assert pairs(on('m', 'home'), on('w', 'away')) == {('m', 'w')}, 'no set in common: across is all there is'


def test_sameness_is_claimed_only_with_evidence():
    rng = np.random.default_rng(4)
    assert equivalence(0., 0., 10, .05) == pytest.approx(.95 ** 10), 'ten items without disagreement do not show much'
    assert equivalence(.06, .001, 500, .05) > .99 and equivalence(.0, .01, 500, .05) < .001
    wrong = 0
    for _ in range(400):                                                    # the truth lies at the margin
        d = rng.choice([1., 0., -1.], 400, p=[.175, .7, .125])
        wrong += compare(answers('a', d > 0), answers('b', d < 0), n_boot=10)['p_same'] < .05
    assert wrong <= 34, wrong                                               # 20 expected


@pytest.mark.parametrize('difference,differing', [(.05, .2), (.1, .3), (.2, .2)])
def test_a_planned_study_finds_what_it_was_planned_for(difference, differing):
    n, rng = items_needed(difference, differing), np.random.default_rng(5)
    draws = rng.multinomial(n, [(differing + difference) / 2, (differing - difference) / 2, 1 - differing], 400)
    assert .7 < np.mean([mcnemar(b, c) < .05 for b, c, _ in draws]) < .92
    assert smallest_difference(n, differing) <= difference + 1e-9
    assert items_needed(difference, differing, comparisons=20) > n and items_needed(difference, differing, cluster=5, icc=.3) > 2 * n


def test_a_plan_that_cannot_be_is_refused():
    for words in (dict(difference=.5, differing=.3), dict(difference=0), dict(difference=.1, power=1)):
        with pytest.raises(ValueError, match='expected 0 <|power lies'): items_needed(**words)
    assert math.isnan(smallest_difference(3))


def test_names_are_text_on_the_page():
    a, b = answers('<script>', [1, 0] * 20), answers('b', [0, 0] * 20)
    t = compare_all([a, b])
    assert '<script>' not in compare_html(t) and 'is better' in as_lines(t)
    assert {'difference', 'low', 'high', 'p_holm'} <= set(flat(t)) and sign_flip([0, 0]) == 1


@pytest.mark.parametrize('x, y', [([0]*40, [0]*40), ([1]*40, [0]*40), ([1, 0]*20, [1]*60), ([.5]*7, [.5]*9)])
def test_other_items_that_all_came_out_alike_leave_room(x, y):
    r = compare(answers('a', x, prefix='a'), answers('b', y, prefix='b'))
    d = r['difference']
    assert r['pairing'] == 'unpaired' and -1 <= d.low < d.high <= 1 and d.low <= d.value <= d.high and 0 < r['p'] <= 1


def test_the_interval_for_other_items_covers():
    rng, hit = np.random.default_rng(0), 0
    for k in range(400):
        a, b = (answers(n, rng.random(m) < p, prefix=n) for n, m, p in (('a', 40, .9), ('b', 80, .5)))
        d = compare(a, b, n_boot=1)['difference']
        hit += d.low <= .4 <= d.high
    assert .92 < hit/400 <= 1
