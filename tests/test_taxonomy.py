"""Taxonomies and question rows: the six released trees, and every way in which a file can be wrong."""
import json

import numpy as np
import pytest

from babyvlm.data.taxonomy import (RELEASED, Annotation, Taxonomy, build_questions, check_annotations, choice_statistics,
                                   load_annotations, load_hierarchy, oddities, random_taxonomy, released_file,
                                   save_annotations, statistics)

SIZES = {'iNat21-Animal': (5388, '7', '1, 6, 27, 152, 715, 2988, 5388', 9277, 9277),
         'iNat21-Plant': (4271, '7', '1, 5, 14, 85, 286, 1702, 4271', 6364, 6364),
         'ImgNet-Animal': (397, '4-12', '1, 2, 10, 37, 81, 123, 81, 65, 41, 64, 34, 2', 541, 541),
         'ImgNet-Artifact': (494, '3-8', '1, 5, 40, 149, 205, 162, 62, 44', 668, 669),
         'CUB-200': (200, '4', '13, 37, 124, 200', 372, 374), 'Food-101': (84, '3-5', '1, 6, 29, 40, 24', 100, 100)}


@pytest.fixture(scope='module')
def data(real_data):
    if not released_file('CUB-200', root=real_data).is_file(): pytest.skip('the six taxonomies are not here')
    return real_data


def test_statistics_of_all_six(data):
    trees = [load_hierarchy(n, data) for n in RELEASED]
    table = statistics(trees).set_index('taxonomy')
    for n, want in SIZES.items():
        assert tuple(table.loc[n, ['leaves', 'depth', 'names per level', 'names', 'positions']]) == want
    odd = {t.name: oddities(t) for t in trees}
    assert set(odd['CUB-200']['at two levels']) == {'sayornis', 'geococcyx'} and len(odd['CUB-200']['spelled twice']) == 1
    assert set(odd['ImgNet-Artifact']['under two parents']) == {'sports equipment'}
    assert not any(odd[n] for n in ('iNat21-Animal', 'iNat21-Plant', 'ImgNet-Animal', 'Food-101'))
    questions = sum(RELEASED[n].images * np.mean([len(p) for p in t.paths.values()]) for n, t in zip(RELEASED, trees))
    assert round(questions) == 1_067_756


def test_cub_rows(data):
    tree = load_hierarchy('cub200', data)
    for kind, sets in (('similar', (7.1, 12.1, 16.6, 11.8)), ('random', (27.3, 28.9, 29.0, 29.0))):
        rows = load_annotations('cub200', kind, data)
        assert len(rows) == 5794 and check_annotations(rows, tree) == []
        got = choice_statistics(rows, tree)
        assert got['sets a leaf'].round(1).tolist() == pytest.approx(sets, abs=.06)
        assert {len(c) for a in rows for c in a.choices} == {4}
    ours = list(build_questions(tree, [a.image for a in rows], [a.label for a in rows]))
    mine = choice_statistics(ours, tree)
    assert mine['sets a leaf'].tolist() == pytest.approx(got['sets a leaf'].tolist(), abs=.5)
    assert mine['true parent'][1:].tolist() == pytest.approx(got['true parent'][1:].tolist(), abs=.02)


@pytest.mark.parametrize('text, why', [
    ('{"gull": ["bird", "gull"], "gull": ["bird", "gull"]}', 'occurs twice'), ('{"gull": "bird"}', 'list of names'),
    ('{"gull": []}', 'list of names'), ('{"gull": ["bird", null, "gull"]}', 'is no name'), ('{}', 'empty'),
    ('{"gull": ["bird", "tern"]}', 'leaf comes last'), ('[1', 'not JSON'), ('{"a": ["x", "a"], "b": ["x", "a", "b"]}', 'has children'),
    ('{"A": ["x", "A"], "b": ["x", "a", "b"]}', 'has children'), ('{"a": ["x", "a"], "A": ["y", "A"]}', 'one name in lower case'),
    ('[1]', 'maps each leaf'), ('{"a": ["x ", "a"]}', 'is no name')])
def test_bad_taxonomies_are_named(tmp_path, text, why):
    (tmp_path/'t.json').write_text(text)
    with pytest.raises(ValueError, match=f't.json.*{why}'): load_hierarchy(tmp_path/'t.json')


GOOD = dict(image='1.jpg', label='gull', split='test', level1='bird', choices_level1=['bird', 'fish'])


@pytest.mark.parametrize('change, why', [
    (dict(level1='tree'), "'tree' is 0 times"), (dict(choices_level1=['bird', 'bird']), '2 times'), (dict(image=3), 'no image'),
    (dict(choices_level1=['bird', 'fish', 'fish']), 'occurs twice'), (dict(level3='x', choices_level3=['x']), 'do not follow'),
    (dict(choices_level1=None), 'has no options'), (dict(size=3), "unknown key 'size'"), ([], 'a row is an object'),
    (dict(choices_level1=['bird', None]), 'None is no name'), (dict(level1=3, choices_level1=[3, 'fish']), '3 is no name'), (dict(image=' '), 'no image')])
def test_bad_rows_are_named(tmp_path, change, why):
    bad = GOOD | change if isinstance(change, dict) else change
    (tmp_path/'a.jsonl').write_text(json.dumps(GOOD) + '\n' + json.dumps(bad) + '\n')
    with pytest.raises(ValueError, match=f'line 2: .*{why}'): load_annotations(tmp_path/'a.jsonl')


def test_a_file_without_rows_and_a_key_written_twice(tmp_path):
    (tmp_path/'a.jsonl').write_text('\n')
    with pytest.raises(ValueError, match='holds no rows'): load_annotations(tmp_path/'a.jsonl')
    (tmp_path/'a.jsonl').write_text(json.dumps(GOOD)[:-1] + ', "image": "2.jpg"}')
    with pytest.raises(ValueError, match="line 1: the key 'image' occurs twice"): load_annotations(tmp_path/'a.jsonl')


def test_embeddings_that_cannot_rank_are_refused():
    tree, x = random_taxonomy((2, 3), seed=1), np.ones((2, 4))
    leaves, names = list(tree)[:2], {n: np.ones(4) for level in range(3) for n in tree.level_names(level + 1)}
    def build(x, names): return list(build_questions(tree, ['a.jpg', 'b.jpg'], leaves, x, names))
    with pytest.raises(ValueError, match="'b.jpg' is not finite"): build(x * [[1], [np.nan]], names)
    with pytest.raises(ValueError, match=f"'{leaves[0]}' is not finite"): build(x, names | {leaves[0]: np.full(4, np.inf)})
    with pytest.raises(ValueError, match=f"the first: '{leaves[0]}'"): build(x, {n: v for n, v in names.items() if n != leaves[0]})
    assert list(build_questions(tree, [], [])) == []


def test_null_levels_are_absent(tmp_path):
    (tmp_path/'a.jsonl').write_text(json.dumps(GOOD | dict(level2=None, choices_level2=None)) + '\n')
    assert load_annotations(tmp_path/'a.jsonl')[0].truth == ('bird',)


def test_an_interrupted_write_leaves_no_file(tmp_path):
    def rows():
        yield Annotation('1.jpg', 'gull', ('bird',), [('bird', 'fish')])
        raise KeyboardInterrupt
    for name in ('a.jsonl', 'a.parquet'):
        with pytest.raises(KeyboardInterrupt): save_annotations(rows(), tmp_path/name)
        assert not (tmp_path/name).exists()


def test_both_formats_hold_the_same(tmp_path):
    tree = random_taxonomy(((1, 3), (1, 3), 2), seed=4)
    rows = list(build_questions(tree, [f'{i}.jpg' for i in range(500)], [list(tree)[i % len(tree)] for i in range(500)]))
    for name in ('a.jsonl', 'a.parquet'):
        assert save_annotations(iter(rows), tmp_path/name, block=77) == 500
        assert load_annotations(tmp_path/name) == rows


def test_options_stay_when_rows_are_added_in_blocks():
    rng, tree = np.random.default_rng(0), random_taxonomy((4, 3, 3), seed=2)
    leaves = [list(tree)[i % len(tree)] for i in range(300)]
    names = {n: v / np.linalg.norm(v) for level in range(4) for n in tree.level_names(level + 1) for v in [rng.normal(size=16)]}
    x = rng.normal(size=(300, 16))
    runs = [list(build_questions(tree, leaves, leaves, x, names, block=b)) for b in (1, 64, 300)]
    assert runs[0] == runs[1] == runs[2]


def test_ragged_depths_have_absent_levels():
    tree = Taxonomy({'soup': ['food', 'soup'], 'ham': ['food', 'meat', 'ham'], 'beef': ['food', 'meat', 'beef']})
    rows = list(build_questions(tree, ['1', '2'], ['soup', 'ham']))
    assert [len(a.truth) for a in rows] == [2, 3]
    assert set(rows[0].choices[1]) == {'soup', 'meat'} and rows[1].choices[0] == ('food',)


def test_the_truth_stands_at_every_place_alike():
    tree = random_taxonomy((3, 3, 3), root='', seed=1)
    rows = list(build_questions(tree, [f'{i}.jpg' for i in range(900)], [list(tree)[i % len(tree)] for i in range(900)], wrong=2))
    for level in range(3):
        places = np.bincount([a.choices[level].index(a.truth[level]) for a in rows], minlength=3)
        assert abs(places/900 - 1/3).max() < .06, (level, places)


def test_statistics_count_levels_from_one():
    from babyvlm.data.taxonomy import choice_statistics
    tree = random_taxonomy((2, 2), root='')
    assert choice_statistics(list(build_questions(tree, list(tree), list(tree))), tree)['level'].tolist() == [1, 2]


def test_endings_in_any_case_and_digits_that_are_no_level(tmp_path):
    (tmp_path/'T.JSON').write_text('{"crow": ["bird", "crow"]}')
    assert load_hierarchy(tmp_path/'T.JSON').paths == {'crow': ('bird', 'crow')}
    row = dict(image='a.jpg', label='crow', level1='bird', choices_level1=['bird', 'fish'])
    (tmp_path/'a.jsonl').write_text(json.dumps(row | {'level²': 'x'}))
    with pytest.raises(ValueError, match="a.jsonl line 1: unknown key 'level²'"): load_annotations(tmp_path/'a.jsonl')
