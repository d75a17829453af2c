"""The EgoBabyVLM submission: published files pass, what is written is read back, every fault has its field, nothing but the named error is raised."""
import json
import os
import math
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from babyvlm.benchmarks.egobaby import (FAMILIES, FIELDS, TEXTS, EgoBabyError, check_egobaby, egobaby_entry, egobaby_faults, egobaby_notes, read_egobaby,
                                        read_score, score_text, write_egobaby)
from babyvlm.run.cli import app

# Values as the organisers publish them: every kind of file that they have.
MINE = dict(id='babyview_clip_plus', model='CLIP+', team='EgoBabyVLM (paper)', architecture='contrastive', training_data='BabyView', category='baseline', n_seeds=3,
            multimodal=dict(lexical='53.4 ± 0.7', grammatical='53.8 ± 2.4', overall='53.6 ± 1.5'),
            vision=[dict(ft='CLIP+', object_recognition='50.9 ± 0.4', visual_properties='38.0 ± 0.4', overall='44.4 ± 0.4')],
            language=[dict(encoder='BERT', ft='CLIP+', syntax='71.8 ± 0.0', semantics='71.0 ± 0.0', overall='71.4 ± 0.0')])
PUBLISHED = [MINE, dict(id='babyview_no_ft', model='BabyView (no FT)', team='EgoBabyVLM (paper)', architecture='—', training_data='BabyView', category='baseline',
                        n_seeds=3, language=[dict(encoder='BERT', ft='none', syntax='72.9 ± 0.2', semantics='71.8 ± 0.5', overall='72.4 ± 0.3'),
                                             dict(encoder='GPT-2', ft='none', syntax='61.7 ± 0.9', semantics='55.8 ± 1.3', overall='58.8 ± 1.1')]),
             dict(id='offshelf_gemma_4', model='Gemma 4', team='Off-the-shelf reference', architecture='generative', training_data='Web-scale',
                  category='offshelf', n_seeds=1, multimodal=dict(lexical='92.1', grammatical='75.5', overall='83.8')),
             dict(id='offshelf_dinov2_vit_b_14', model='DINOv2 ViT-B/14', team='Off-the-shelf reference', architecture='vision encoder', training_data='Web-scale',
                  category='offshelf', n_seeds=1, vision=[dict(ft='none', object_recognition='76.3 ± 0.2', visual_properties='43.5 ± 0.7', overall='59.9 ± 0.4')])]
FACTS = {k: MINE[k] for k in (*TEXTS, 'category', 'n_seeds')}
INDEX = dict(schema_version=1, description='kept', submissions=['toplines/z.json', 'baselines/a.json'])
SCORES = dict(multimodal=dict(lexical=[.5, .6, .7], grammatical=[.7, .6, .5]))


@pytest.mark.parametrize('d', PUBLISHED, ids=lambda d: d['id'])
def test_published_files_have_no_fault(d):
    assert egobaby_faults(d, d['id'] + '.json') == []
    assert ['n_seeds' in n for n in egobaby_notes(d)].count(True) == (d['n_seeds'] == 1)
    assert not [n for n in egobaby_notes(d) if 'overall' in n or 'share' in n]


def put(*keys, value):
    "The valid file with one value set, or taken away."
    d = deepcopy(MINE)
    at = d
    for k in keys[:-1]: at = at[k]
    if value is ...: del at[keys[-1]]
    else: at[keys[-1]] = value
    return d


WRONG = [*[(put(k, value=...), f'{k}: is missing') for k in (*TEXTS, 'category', 'n_seeds')],
         *[(put(k, value=' '), f'{k}: is empty') for k in TEXTS if k != 'id'], (put('id', value='other'), 'id: '), (put('id', value='../x'), 'id: '),
         (put('team', value=None), 'team: null is no text'), (put('team', value='a\nb'), 'team: '), (put('category', value=['baseline']), 'category: '),
         (put('category', value='Baseline'), 'category: '), *[(put('n_seeds', value=v), 'n_seeds: ') for v in (2, 0, -3, -10 ** 5000, 3., '3', True, None, math.nan)],
         (put('n_seed', value=3), "'n_seed': no such field; is n_seeds meant?"), (put('code_url', value='github'), 'code_url: '), (put('report_url', value=3), 'report_url: '),
         *[(put('multimodal', 'lexical', value=v), 'multimodal.lexical: ')
           for v in (.534, 53.4, None, [], '', '—', '53.4', '53.4 +- 0.7', '53.4±0.7', '53 ± 1', '0.534 ± 0.007', '153.4 ± 0.7', '-3.0 ± 0.7', 'nan ± 0.7', '53.4 ± 80.0', '٥٣.٤ ± ٠.٧')],
         (put('multimodal', value=[]), 'multimodal: a list is no object'), (put('multimodal', 'overall', value=...), 'multimodal.overall: is missing'),
         (put('vision', value={}), 'vision: an object is no list'), (put('vision', value=[]), 'vision: '), (put('language', value=None), 'language: null is no list'),
         (put('vision', 0, value='x'), "vision[0]: 'x' is no object"), (put('vision', 0, 'encoder', value='ViT'), "vision[0].'encoder': no such field"),
         (put('language', 0, 'encoder', value=...), 'language[0].encoder: is missing'), (put('vision', value=MINE['vision'] * 2), 'vision[1]: a second entry'),
         (FACTS, 'multimodal, vision, language: one'), ([MINE], 'submission: a list')]


@pytest.mark.parametrize('d, fault', WRONG, ids=[f'{i} {f}' for i, (_, f) in enumerate(WRONG)])
def test_every_fault_is_named_by_its_field(d, fault):
    found = egobaby_faults(d, 'babyview_clip_plus.json')
    assert len(found) == 1 and found[0].startswith(fault) and '\n' not in found[0]


keys = st.sampled_from([*FIELDS, *(k for names, parts in FAMILIES.values() for k in (*names, *parts)), 'overall']) | st.text(max_size=4)
leaves = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(10 ** 400)
          | st.sampled_from(['babyview_clip_plus', 'offshelf', 'baseline', '55.1 ± 0.6', '92.1', '999.9 ± 0.0']))
values = st.recursive(leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(keys, x, max_size=8), max_leaves=20)
near = st.dictionaries(st.sampled_from(FIELDS), values, max_size=4).map(lambda d: MINE | d)


@given(values | near)
def test_the_checker_raises_nothing_on_any_json(d):
    found = egobaby_faults(d, 'babyview_clip_plus.json')
    assert all(isinstance(f, str) and len(f.splitlines()) == 1 and f.isprintable() for f in found)
    if not found: assert all(isinstance(n, str) for n in egobaby_notes(d))


@given(st.fixed_dictionaries(FACTS | {k: st.just(v) for k, v in FACTS.items()}) | near, values)
def test_the_writer_raises_its_named_error_or_makes_a_valid_entry(facts, scores):
    try: made = egobaby_entry(facts, scores)
    except EgoBabyError as e: assert e.faults
    else: assert egobaby_faults(made, made['id'] + '.json') == []


@given(st.binary(max_size=60) | values.map(lambda v: json.dumps(v).encode()) | st.just(b'[' * 99999))
def test_no_file_makes_the_checker_raise(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp()/'any.json'
    path.write_bytes(text)
    wrong, notes = check_egobaby(path)
    assert wrong and not notes
    with pytest.raises(EgoBabyError): read_egobaby(path)


shares = st.floats(0, 1)


@st.composite
def seed_scores(draw):
    "(number of seeds, scores) with at least one family."
    n = draw(st.integers(3, 5))
    seeds = st.lists(shares, min_size=n, max_size=n)
    row = lambda names, parts: st.fixed_dictionaries({k: st.sampled_from(['none', 'BERT', 'é']) for k in names} | {k: seeds for k in parts})
    each = {k: row(*v) if k == 'multimodal' else st.lists(row(*v), min_size=1, max_size=2, unique_by=lambda e, names=v[0]: tuple(e[k] for k in names))
            for k, v in FAMILIES.items()}
    return n, draw(st.fixed_dictionaries({}, optional=each).filter(bool))


@given(seed_scores())
def test_what_is_written_is_read_back_to_the_printed_digit(tmp_path_factory, case):
    n, scores = case
    path = write_egobaby(tmp_path_factory.getbasetemp()/'back', FACTS | dict(n_seeds=n), scores)
    back = read_egobaby(path)
    assert {k: back[k] for k in FACTS} == FACTS | dict(n_seeds=n) and set(back) - set(FACTS) == set(scores) and check_egobaby(path)[0] == []
    for family, (names, parts) in FAMILIES.items():
        if family not in scores: continue
        rows = [(scores[family], back[family])] if family == 'multimodal' else zip(scores[family], back[family], strict=True)
        for put_in, found in rows:
            assert [found[k] for k in names] == [put_in[k] for k in names]
            for k, v in (put_in | dict(overall=[(a + b) / 2 for a, b in zip(*(put_in[k] for k in parts))])).items():
                if k in names: continue
                mean = math.fsum(v) / n
                spread = math.sqrt(math.fsum((x - mean) ** 2 for x in v) / (n - 1))
                assert found[k].mean == pytest.approx(mean, abs=5.001e-4) and found[k].spread == pytest.approx(spread, abs=5.001e-4)


@given(st.integers(0, 1000), st.none() | st.integers(0, 707))
def test_a_printed_value_is_read_exactly(mean, spread):
    text = f'{mean / 10:.1f}' + ('' if spread is None else f' ± {spread / 10:.1f}')
    assert read_score(text) == (mean / 1000, None if spread is None else spread / 1000)


def test_arrays_of_any_kind_print_alike():
    assert score_text([.5, .6, .7]) == score_text(np.array([.5, .6, .7])) == '60.0 ± 10.0' and score_text([.921]) == '92.1'
    pairs = [(.5, .6, .7), np.array([.5, .6, .7]), [np.float32(.5), np.float64(.6), .7]]
    assert len({egobaby_entry(FACTS, dict(multimodal=dict(lexical=v, grammatical=v)))['multimodal']['lexical'] for v in pairs}) == 1


@pytest.mark.parametrize('change, fault', [([.5, .6], 'multimodal.lexical: 2 scores, but n_seeds is 3'), ([.5] * 4, 'multimodal.lexical: 4 scores'),
                                           ([.5, math.nan, .5], 'nan is no share'), ([.5, math.inf, .5], 'inf is no share'), ([.5, 55., .5], '55.0 is no share'),
                                           ([.5, -.1, .5], '-0.1 is no share'), ([.5, True, .5], 'true is no share'), ([.5, '.5', .5], 'is no share'),
                                           (.5, 'is no list'), (np.ones((3, 3)), 'a list is no share'), ('0.5', 'is no list')])
def test_scores_that_are_refused_leave_the_folder_alone(tmp_path, change, fault):
    (tmp_path/'index.json').write_text(json.dumps(INDEX))
    with pytest.raises(EgoBabyError, match=fault): write_egobaby(tmp_path, FACTS, dict(multimodal=SCORES['multimodal'] | dict(lexical=change)))
    assert [p.name for p in tmp_path.iterdir()] == ['index.json'] and json.loads((tmp_path/'index.json').read_text()) == INDEX


@pytest.mark.parametrize('facts, scores, fault', [(FACTS | dict(teem='x'), SCORES, 'is team meant'), (FACTS, SCORES | dict(audio={}), "'audio': no such field"),
                                                  (FACTS, dict(multimodal=SCORES['multimodal'] | dict(lexicon=[1])), 'is lexical meant'), (FACTS, {}, 'one of them'),
                                                  (FACTS | dict(n_seeds=2), dict(multimodal=dict(lexical=[.5, .6], grammatical=[.5, .6])), 'at least 3')])
def test_unknown_fields_and_too_few_seeds_are_refused(tmp_path, facts, scores, fault):
    with pytest.raises(EgoBabyError, match=fault): write_egobaby(tmp_path/'new', facts, scores)
    assert not (tmp_path/'new').exists()


def test_the_index_keeps_its_order_and_lists_a_file_once(tmp_path):
    (tmp_path/'index.json').write_text(json.dumps(INDEX))
    for _ in range(2): path = write_egobaby(tmp_path, FACTS, SCORES)
    assert json.loads((tmp_path/'index.json').read_text()) == INDEX | dict(submissions=[*INDEX['submissions'], 'babyview_clip_plus.json'])
    assert check_egobaby(path) == ([], ['code_url: is missing; without code a row is never called verified'])
    with pytest.raises(EgoBabyError, match='taken by baselines/a.json'): write_egobaby(tmp_path, FACTS | dict(id='a'), SCORES)
    for listed, why in (([], "lacks 'babyview_clip_plus.json'"), ([path.name] * 2, 'lists'), ('all', 'no list of file names')):
        (tmp_path/'index.json').write_text(json.dumps(dict(submissions=listed)))
        assert [why in f for f in check_egobaby(path)[0]] == [True]
    (tmp_path/'index.json').write_text('{')
    with pytest.raises(EgoBabyError, match='index.json: not JSON'): write_egobaby(tmp_path, FACTS, SCORES)


def test_a_file_in_a_folder_of_submissions_is_found_in_their_index(tmp_path):
    path = tmp_path/'submissions'/'baselines'/'babyview_clip_plus.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(MINE))
    index = tmp_path/'submissions'/'index.json'
    index.write_text(json.dumps(INDEX | dict(submissions=['baselines/babyview_clip_plus.json'])))
    assert check_egobaby(path)[0] == []
    index.write_text(json.dumps(INDEX | dict(submissions=['babyview_clip_plus.json'])))
    assert 'baselines/babyview_clip_plus.json' in check_egobaby(path)[0][0]


def test_file_and_index_are_written_both_or_not_at_all(tmp_path, monkeypatch):
    move = os.replace
    def full(a, b):
        if str(b).endswith('index.json'): raise OSError('no space left')
        move(a, b)
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='no space'): write_egobaby(tmp_path, FACTS, SCORES)
    assert not list(tmp_path.iterdir())


def test_the_command_exits_0_or_1_and_says_a_line_a_fault(tmp_path):
    path = write_egobaby(tmp_path, FACTS, SCORES)
    run = lambda p: CliRunner().invoke(app, ['leaderboard', '--egobaby', str(p)])
    good = run(path)
    assert good.exit_code == 0 and 'code_url: is missing' in good.output
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(n_seeds=2, category='mine')))
    bad = run(path)
    assert bad.exit_code == 1 and [l.split(': ')[:2] for l in bad.output.splitlines()] == [[path.name, 'category'], [path.name, 'n_seeds']]
    assert run(tmp_path/'none.json').exit_code == 1
