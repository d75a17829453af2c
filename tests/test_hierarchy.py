"""Metrics of the hierarchy paper against its own code's values, and against theory on the real CUB-200 files."""
import json
import math
from collections import Counter

import numpy as np
import pytest

from babyvlm.benchmarks.hierarchy.metrics import (METRICS, guessing, hca, leaf_acc, level_accuracy, outcomes,
                                                  paths_of, paths_of_binary, por, s_por, score_paths,
                                                  score_rows, tor)
from babyvlm.benchmarks.parsing import parse_letter

NAMES = dict(hca='hca', leaf='leaf_acc', por='por', strict_por='s_por', tor='tor', por_f1='por_f1',
             hierarchical_f1='hierarchical_f1')


@pytest.fixture(scope='module')
def values(golden): return json.loads((golden/'hierarchy.json').read_text())


def agree(expected, true, pred):
    "Compare a block of golden values, percentages; the number compared."
    n = 0
    for flag, want in expected.items():
        ignore = flag.endswith('true')
        for key, name in NAMES.items():
            assert 100 * outcomes(true, pred, name, ignore).mean() == pytest.approx(want[key], abs=1e-9), (flag, key)
            n += 1
        ours = level_accuracy(true, pred)
        if ignore: ours[1] = 0.
        unreached = {int(k) for k in want['layer_accuracy']} - set(ours)   # longer predictions: the reference says 0
        assert all(k > max(map(len, true)) for k in unreached)
        ours |= dict.fromkeys(unreached, 0.)
        assert {str(k): pytest.approx(100 * v, abs=1e-9) for k, v in ours.items()} == want['layer_accuracy'], flag
        n += len(want['layer_accuracy'])
    return n


def test_all_golden_values(values):
    n = sum(agree(w['expected'], w['y_true'], w['y_pred']) for w in values['worked_examples'])
    for case in values['extraction']:
        p = paths_of(values['extraction_rows'], reference=True, cub=case['cub'])
        assert p.true == case['y_true'] and p.pred == case['y_pred']
        n += agree(case['expected'], p.true, p.pred)
    b = values['binary']
    p = paths_of_binary(b['rows'])
    assert p.true == b['y_true'] and p.pred == b['y_pred']
    n += agree(b['expected'], p.true, p.pred)
    keys = 'ground_truth_level', 'predicted_level'
    rows = [{f'{k}{i}': n for k, path in zip(keys, r) for i, n in enumerate(path, 1)} for r in values['large']]
    for cub, part in values['large_by_cub'].items():
        p = paths_of(rows, reference=True, cub=cub == 'true')
        assert len(p.kept) == part['n_pairs']
        n += agree(part['expected'], p.true, p.pred)
    assert n >= 238


def test_the_five_functions_are_the_metrics():
    t, p = [['a', 'b', 'c', 'd']], [['A', 'b', 'x', 'd']]
    assert [f(t, p) for f in (hca, leaf_acc, por, s_por, tor)] == [0, 1, .75, .5, 1 / 3]


def test_legacy_parser_golden(values):
    for c in values['answer_parsing']['cases']:
        assert (parse_letter(c['response'], 'ABCD', 'legacy').answer or 'Unknown') == c['letter'], c


def test_order_of_rows_changes_nothing():
    rng = np.random.default_rng(0)
    true = [[f'{j}{x}' for j, x in enumerate(r)] for r in rng.integers(0, 3, (60, 5))]
    pred = [[n if rng.random() < .7 else None for n in t] for t in true]
    order = rng.permutation(60)
    for m in METRICS:
        assert outcomes(true, pred, m)[order] == pytest.approx(
            outcomes([true[i] for i in order], [pred[i] for i in order], m))


def test_level_ten_follows_level_nine():
    row = {f'ground_truth_level{i}': f't{i}' for i in range(1, 13)} | {f'predicted_level{i}': f't{i}' for i in range(1, 13)}
    for reference in (False, True):
        p = paths_of([row], reference, cub=True)
        assert p.true == [[f't{i}' for i in range(1, 13)]] == p.pred


@pytest.fixture(scope='module')
def cub(real_data):
    from babyvlm.data.taxonomy import load_annotations, released_file
    if not released_file('CUB-200', 'similar', real_data).is_file(): pytest.skip('CUB-200 annotations are not here')
    return load_annotations('CUB-200', 'similar', real_data)


def test_cub_ideal_constant_and_random(cub):
    "5,794 pictures: the ideal observer is perfect, a constant letter scores what the truth's places say, chance is theory."
    assert len(cub) == 5794
    true = [list(a.truth) for a in cub]
    assert [f(true, true) for f in (hca, leaf_acc, por, s_por, tor)] == [1.] * 5
    always_a = [[c[0] for c in a.choices] for a in cub]
    first = np.array([[t == c[0] for t, c in zip(a.truth, a.choices)] for a in cub])
    assert hca(true, always_a) == pytest.approx(first.all(1).mean())
    assert leaf_acc(true, always_a) == pytest.approx(first[:, -1].mean())
    assert por(true, always_a) == pytest.approx(first.mean())
    assert s_por(true, always_a) == pytest.approx(np.cumprod(first, 1).mean())
    assert tor(true, always_a) == pytest.approx((first[:, 1:] & first[:, :-1]).mean())
    c = guessing([[len(o) for o in a.choices] for a in cub])
    assert c['hca'] == pytest.approx(.25**4) and c['leaf_acc'] == c['por'] == .25
    assert c['s_por'] == pytest.approx((.25 + .25**2 + .25**3 + .25**4) / 4) and c['tor'] == pytest.approx(.0625)
    rng = np.random.default_rng(0)
    free = [[o[rng.integers(len(o))] for o in a.choices] for a in cub]
    for m in ('hca', 'leaf_acc', 'por', 's_por', 'tor'):
        x = outcomes(true, free, m)
        assert abs(x.mean() - c[m]) < 4 * x.std() / math.sqrt(len(x)) + 1e-3, m


def test_constant_is_at_chance_on_cub(cub):
    "The truth's place is uniform, so answering 'A' forever is a guess."
    rows = []
    for a in cub[::5]:
        d = dict(image=a.image, label=a.label)
        for i, (t, c) in enumerate(zip(a.truth, a.choices), 1):
            d |= {f'ground_truth_level{i}': t, f'predicted_level{i}': c[0], f'choices_level{i}': dict(zip('ABCD', c))}
        rows.append(d)
    s = score_rows(rows, n_boot=200)
    for m in ('leaf_acc', 'por', 's_por'): assert abs(s[m].value - s[m].chance) < .03, m


def test_unequal_counts_are_refused():
    with pytest.raises(ValueError, match='2 true paths, 1 predicted'): hca([['a'], ['b']], [['a']])
    with pytest.raises(ValueError, match='true path 0 is empty'): por([[]], [['a']])


def test_species_make_the_interval_wider():
    rng = np.random.default_rng(1)
    species = np.repeat(np.arange(20), 30)
    good = rng.random(20) < .5
    true = [['t'] * 3] * 600
    pred = [['t'] * 3 if good[s] else ['x'] * 3 for s in species]
    wide, narrow = (score_paths(true, pred, species=k, n_boot=400)['hca'] for k in (species, range(600)))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_guessing_by_hand_on_levels_of_two_three_and_four():
    c = guessing([[2, 3, 4]])
    want = dict(hca=1/24, leaf_acc=1/4, por=13/36, s_por=(1/2 + 1/6 + 1/24)/3, tor=(1/6 + 1/12)/2)
    assert {m: c[m] for m in want} == pytest.approx(want)


def test_levels_of_a_score_are_the_accuracies_of_the_levels():
    true = [['a', 'b', 'c'], ['a', 'b'], ['a', 'x', 'y'], ['a']]
    pred = [['a', 'n', 'c'], ['a', 'b'], ['n', 'x', None], ['a']]
    s = score_paths(true, pred, n_boot=20)
    assert {k: s[f'level {k}'].value for k in (1, 2, 3)} == pytest.approx(level_accuracy(true, pred))
    assert [s[f'level {k}'].n for k in (1, 2, 3)] == [4, 3, 2]
    assert s['hca'] == score_paths(true, pred, n_boot=20, seed=0)['hca']


def answered(k, species, *said):
    row = dict(image=f'{k}.jpg', label=species)
    for i, n in enumerate(said, 1):
        row |= {f'ground_truth_level{i}': f't{i}', f'predicted_level{i}': n, f'choices_level{i}': dict(A=f't{i}', B='x')}
    return row


def test_a_missing_answer_keeps_the_others_at_their_levels():
    p = paths_of([answered(0, 's', 't1', 'Unknown', 't3')])
    assert p.pred == [['t1', None, 't3']] and outcomes(p.true, p.pred, 'por').tolist() == [2/3]


def test_rows_are_clustered_by_species():
    rows = [answered(k, f's{k // 30}', *(['t1', 't2'] if k // 30 % 2 else ['x', 'x'])) for k in range(600)]
    alone = [dict(r, label=str(k)) for k, r in enumerate(rows)]
    wide, narrow = (score_rows(r, n_boot=400)['hca'] for r in (rows, alone))
    assert wide.value == narrow.value and wide.high - wide.low > 2*(narrow.high - narrow.low)
