"""Directions and text probes: what does not depend on names, and the released split."""
import json

import numpy as np
import pytest

from babyvlm.analysis.directions import orthogonality, parent_child
from babyvlm.analysis.text_probe import check_split, species_split
from babyvlm.data.taxonomy import load_hierarchy

TREE = {f's{i}': [f'c{i//8}', f'g{i//2}', f's{i}'] for i in range(24)}


def test_inner_products_of_siblings_cancel_whatever_the_vectors_are():
    x = np.random.default_rng(0).normal(size=(24, 7))
    e = parent_child(x, list(TREE), TREE)
    assert np.allclose(e.groupby('parent')['product'].sum(), 0)


def test_rotation_and_scale_change_nothing():
    rng = np.random.default_rng(1)
    x, q = rng.normal(size=(24, 6)), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    a, b = (orthogonality(v, list(TREE), TREE, deals=5).rms for v in (x, 3*x @ q + 2))
    assert np.allclose(a, b)


def test_missing_leaf_and_lone_children_are_errors():
    x = np.ones((24, 3))
    with pytest.raises(ValueError, match="the first is 's23'"): parent_child(x[:-1], list(TREE)[:-1], TREE)
    with pytest.raises(ValueError, match='no parent has two children'):
        orthogonality(np.eye(2), ['a', 'b'], {'a': ['x', 'a'], 'b': ['y', 'b']})


def test_released_lists_follow_the_rule(real_data):
    folder = real_data/'hierarchy'/'probing'/'LLM'/'CUB200'
    train, test = (json.loads((folder/f'{p}_taxonomy.json').read_text()) for p in ('train', 'test'))
    found = check_split(train, test)
    assert (found['train'], found['test'], found['shared'], found['unseen']) == (137, 63, 0, [0, 0, 0])
    assert found['test_classes'] == [10, 21, 37]
    ours = species_split(load_hierarchy(real_data/'hierarchy'/'taxonomies'/'hierarchy_CUB200.json'))
    assert (int((~ours).sum()), int(ours.sum())) == (137, 63)
