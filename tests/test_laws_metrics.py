"""Laws and known answers of the metrics of paths and of Memory, worked out by hand."""
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.benchmarks.devcv.score import memory_outcomes
from babyvlm.benchmarks.hierarchy.metrics import (METRICS, guessing, level_accuracy, load_rows, outcomes, paths_of,
                                                  paths_of_binary, save_rows, score_paths, score_rows)
from babyvlm.benchmarks.v1 import score
from babyvlm.items import Item

few = settings(max_examples=60, deadline=None, derandomize=True)
NAMES = st.sampled_from(['a', 'b', 'c', None])
PAIRS = st.integers(1, 5).flatmap(lambda n: st.tuples(st.lists(st.sampled_from('abc'), min_size=n, max_size=n), st.lists(NAMES, min_size=n, max_size=n)))


def row(*levels, **more):
    "A result row of (truth, answer, options) levels."
    return more | {f'{k}{i}': v for i, l in enumerate(levels, 1)
                   for k, v in zip(('ground_truth_level', 'predicted_level', 'choices_level'), (l[0], l[1], dict(zip('ABCD', l[2]))))}


@few
@given(PAIRS)
def test_metrics_lie_between_0_and_1_and_are_ordered(pair):
    t, p = pair
    v = {m: float(outcomes([t], [p], m)[0]) for m in METRICS}
    assert all(0 <= x <= 1 for x in v.values()) and v['hca'] <= v['s_por'] <= v['por'] and v['hca'] <= v['leaf_acc']
    assert (v['hca'] == 1) == (t == p) == (v['por'] == 1)


@few
@given(PAIRS)
def test_renaming_every_name_changes_nothing(pair):
    t, p = pair
    new = dict(a='Xa', b='Xb', c='Xc') | {None: None}
    for m in METRICS:
        assert outcomes([t], [p], m)[0] == outcomes([[new[x] for x in t]], [[new[x] for x in p]], m)[0], m


def test_metrics_by_hand():
    t, p = [['a', 'b', 'c', 'd']], [['a', 'b', 'c', 'x']]
    want = dict(hca=0, leaf_acc=0, por=3/4, s_por=3/4, tor=2/3, por_f1=3/4, hierarchical_f1=3/4)
    assert {m: outcomes(t, p, m)[0] for m in METRICS} == pytest.approx(want)
    t, p = [['a', 'b']], [['a']]
    want = dict(hca=0, leaf_acc=0, por=1/2, s_por=1/2, tor=0, por_f1=2/3, hierarchical_f1=2/3)
    assert {m: outcomes(t, p, m)[0] for m in METRICS} == pytest.approx(want)
    assert outcomes([['a']], [['a']], 'tor')[0] == 0 and outcomes([['a']], [[]], 'leaf_acc')[0] == 0
    assert outcomes([['r', 'b']], [['x', 'b']], 'hca', True)[0] == 1 == outcomes([['r']], [['r']], 'hca', True)[0]
    assert level_accuracy([['a', 'b'], ['a']], [['a'], ['x']]) == {1: 1/2, 2: 0}


def test_levels_without_a_choice_are_no_part_of_a_path_or_of_chance():
    rows = [row(('r', 'r', 'r'), ('t', 't', 'tx'), ('u', 'x', 'uxyz'), label='S')]
    assert paths_of(rows).true == [['t', 'u']]
    s = score_rows(rows, n_boot=20)
    assert (s['hca'].chance, s['level 1'].chance, s['level 2'].chance) == (1/8, 1/2, 1/4)
    assert (s['por'].value, s['por'].no_answer, s['por'].skipped) == (1/2, 0, 0)
    assert guessing([[2, 4]])['tor'] == 1/8 and guessing([[3]])['tor'] == 0


def test_what_was_not_answered_or_cannot_be_scored_is_counted():
    rows = [row(('t', 'unknown', 'tx'), ('u', None, 'ux')), row(('r', 'r', 'r'))]
    s = score_rows(rows, skipped=3, n_boot=20)['por']
    assert (s.value, s.n, s.no_answer, s.skipped) == (0, 1, 2, 4)
    with pytest.raises(ValueError, match='none of 1 rows'): score_rows(rows[1:])
    bare = score_rows([row(('t', 't', ''), ('u', 'u', ''))], n_boot=20)['por']
    assert bare.chance is None and bare.value == 1
    assert score_rows([row(('t', 't', 'tx'), ('u', 'u', 'ux'))], reference=True, n_boot=20)['hca'].chance is None


def test_chance_of_a_level_is_the_mean_over_the_paths_that_reach_it():
    s = score_paths([['a', 'b'], ['a']], [['a', 'b'], ['a']], options=[[2, 4], [4]], n_boot=20)
    assert (s['level 1'].chance, s['level 2'].chance, s['level 1'].n, s['level 2'].n) == (3/8, 1/4, 2, 1)


def test_the_published_rule_skips_the_root_unless_it_is_cub():
    rows = [row(('r', 'r', 'rx'), ('t', 't', 'tx'))]
    assert paths_of(rows, reference=True).true == [['t']] and paths_of(rows, reference=True, cub=True).true == [['r', 't']]
    p = paths_of_binary([row(('Cat', None, ('Dog', 'Cat'))) | {'dog': 0, 'cat': 1}])
    assert (p.true, p.pred, p.kept) == ([['Cat']], [['Cat']], [0])


def test_rows_come_back_from_their_file(tmp_path):
    rows = [row(('é', 'é', 'éx'), label='S')]
    assert load_rows(save_rows(rows, tmp_path/'r.json')) == rows and 'é' in (tmp_path/'r.json').read_text()
    (tmp_path/'bad.json').write_text(json.dumps([rows[0], {'image': 'x'}]))
    with pytest.raises(ValueError, match='row 2 has no ground_truth_level'): load_rows(tmp_path/'bad.json')


@pytest.mark.parametrize('said, right, adjusted', [('ABA', [1, 1, 1], 1), ('ABB', [1, 1, 0], 0), ('AAB', [1, 0, 0], 0), ('BBA', [0, 1, 1], 1)])
def test_a_learned_thing_counts_when_both_its_tests_are_right(said, right, adjusted):
    rounds = [dict(prompt='?', images=1, options=('A', 'B'), gold=g) for g in 'ABA']
    item = Item('m', 'devcv/memory', (), rounds=rounds, choice='open', gold='A B A', meta=dict(pairs=[0, 0]))
    found = memory_outcomes(item, list(said))
    assert (found[0].tolist(), *found[1:]) == (right, adjusted, 0)


def test_ties_are_counted_where_the_best_scores_are_equal():
    s = score('vtwt', [[1, 1], [1, 0], [0, 1]])['acc']
    assert (s.value, s.ties) == (1/2, 1)
