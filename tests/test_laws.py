"""Laws over generated worlds: what may not depend on order, names, batches or luck."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.analysis.probing import group_split
from babyvlm.data.saycam import assign_splits
from babyvlm.data.taxonomy import Taxonomy, build_questions
from babyvlm.matching import match, verify
from babyvlm.matching import exact

few = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)
GROUPS = st.lists(st.sampled_from('abcdefghij'), min_size=12, max_size=60).filter(lambda g: len(set(g)) > 2)


@few
@given(GROUPS, SEEDS)
def test_splits_do_not_depend_on_the_order_of_items(groups, seed):
    shuffled = np.random.default_rng(seed).permutation(groups).tolist()
    where = assign_splits(groups, seed=seed % 7)
    assert assign_splits(shuffled, seed=seed % 7) == where
    assert set(where) == set(groups) and set(where.values()) == {'train', 'val', 'test'}


@few
@given(GROUPS, SEEDS, st.floats(.1, .5))
def test_groups_stay_together(groups, seed, share):
    "On one side each, in any order of the rows; both sides hold some, and never more than the share and a group."
    g = np.array(groups)
    second = group_split(g, share, seed)
    assert not set(g[second]) & set(g[~second]) and second.any() and not second.all()
    assert second.sum() < share*len(g) + np.unique(g, return_counts=True)[1].max()
    order = np.random.default_rng(seed).permutation(len(g))
    assert (group_split(g[order], share, seed) == second[order]).all()


def test_equal_copies_go_out_in_order():
    "Of equal queries and equal pool items the lowest get each other; a pool item is full before the next is used."
    x = np.ones((4, 2))
    for solver in ('dense', 'lists'):
        assert match(x, np.ones((5, 2)), solver=solver).columns.tolist() == [0, 1, 2, 3]
        assert match(x, np.ones((3, 2)), capacity=2, solver=solver).columns.tolist() == [0, 0, 1, 1]


def test_an_answer_without_proof_is_an_error():
    "A total that its prices do not prove is refused, whoever made it."
    x, y = np.eye(2), np.eye(2)
    with pytest.raises(ArithmeticError, match='not proved optimal'):
        exact._certified(x, y, 1, 1., np.array([1, 0]), np.ones(2), np.zeros(2), 0, True, True)
    assert exact._certified(x, y, 1, 1., np.array([0, 1]), np.ones(2), np.zeros(2), 0, True, True).total == 2


def test_a_price_on_a_free_seat_is_slack():
    from dataclasses import replace
    x, y = np.eye(2), np.vstack([np.eye(2), np.zeros((1, 2))])
    m = match(x, y)
    asks = replace(m, certificate=replace(m.certificate, col_prices=np.array([0., 0., .5])))
    proof = verify(x, y, asks)
    assert proof.slackness == .5 == proof.gap


def test_similar_choices_are_the_closest_names():
    "The wrong options of a picture are the names nearest to it, counted by hand."
    names = list('abcdef')
    rows = torch.nn.functional.normalize(torch.tensor([[np.cos(t), np.sin(t)] for t in np.linspace(0, 2.5, 6)]).float(), dim=1)
    t = Taxonomy({n: (n,) for n in names}, 'toy')
    made = list(build_questions(t, [f'{n}.jpg' for n in names], names, rows, dict(zip(names, rows)), wrong=2))
    for i, a in enumerate(made):
        near = sorted((n for n in names if n != a.label), key=lambda n: abs(names.index(n) - i))
        distances = sorted(abs(names.index(n) - i) for n in a.choices[0] if n != a.label)
        assert distances == [abs(names.index(n) - i) for n in near[:2]], a
