"""Creatures: real taxonomies, nested facts, equal exposure."""
import numpy as np
import pytest

from babyvlm.data.taxonomy import load_hierarchy, random_taxonomy
from babyvlm.nursery.creatures import Zoo, corpus, facts, ideal_reader, stated

NAMES = ('CUB200', 'Food', 'imagenet_animal', 'imagenet_artifact', 'Inat_plantae')


@pytest.mark.parametrize('name', NAMES)
def test_every_released_taxonomy_can_be_drawn(real_data, name):
    t = load_hierarchy(real_data/'hierarchy'/'taxonomies'/f'hierarchy_{name}.json')
    zoo = Zoo(t)
    assert len(set(zoo.looks.values())) == len(t), 'two species look the same'
    some = list(t)[::max(1, len(t)//20)]
    assert [zoo.recognise(zoo[leaf]) for leaf in some] == [list(t[leaf]) for leaf in some]
    assert zoo.picture(some[0], 3).tobytes() == Zoo(t).picture(some[0], 3).tobytes()


@pytest.mark.parametrize('by', ['species', 'fact'])
def test_facts_are_nested_and_withheld_ones_are_never_said(by):
    t = random_taxonomy((4, 3, 2), seed=5, root='')
    before = frozenset()
    for share in (0., .3, .6, 1.):
        told = stated(t, share, 3, by)
        assert before <= told
        before, lines = told, [set(s.split()) for s in corpus(t, told, 1)]
        for f in facts(t):
            assert any({f.leaf, f.name} <= line for line in lines) == (f in told)
    assert before == frozenset(facts(t))


def test_ideal_reader_is_perfect_and_a_blind_one_at_chance():
    t, rng, right, blind = random_taxonomy((4, 2, 2), seed=1, root=''), np.random.default_rng(0), [], []
    told = stated(t, 1.)
    for f in facts(t):
        names = [n for n in t.level_names(f.level) if n != f.name]
        options = rng.permutation([f.name, *rng.choice(names, 3, replace=False)]).tolist()
        right.append(ideal_reader(told, f.leaf, f.level, options) == f.name)
        blind.append(ideal_reader(frozenset(), f.leaf, f.level, options) is None)
    assert all(right) and all(blind)
