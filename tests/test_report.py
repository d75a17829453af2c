"""Tables and figures as files: nothing dropped, nothing run as a command, everything with its origin."""
import csv
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.config import Profile
from babyvlm.estimate import Estimate
from babyvlm.reporting.published import published
from babyvlm.reporting.figures import use_style
from babyvlm.reporting.tables import (STATUS, Table, as_text, compare, figure_path, look, plot_comparison,
                                      provenance, row, save_figure, save_table)
from babyvlm.store import Store, canonical_json

NASTY = '<script>alert("50% & x_1 | #1 $2 {a} ~b ^c \\d")</script>'


@pytest.fixture(autouse=True)
def figures(monkeypatch, tmp_path):
    monkeypatch.setenv('BABYVLM_FIGURES', str(tmp_path)); yield tmp_path
    plt.close('all')


def ours(model='CVCL', task='VTWT', metric='accuracy', value=.7, **more):
    return row(model, task, metric, Estimate(value, value - .05, value + .05, 400, chance=.5), **more)


names = st.sampled_from(['CVCL', 'CLIP', 'blind'])
tasks = st.sampled_from(['VTWT', 'Labeled-S'])
metrics = st.sampled_from(['accuracy', 'HCA'])
rows = st.lists(st.tuples(names, tasks, metrics, st.integers(0, 3)), max_size=8)
cells = st.lists(st.tuples(names, tasks, metrics, st.sampled_from(['', 'filtered'])), max_size=8)


@settings(deadline=None)
@given(rows, cells)
def test_compare_drops_no_published_cell_and_no_row_of_ours(mine, theirs):
    results = [row(m, t, k, Estimate(.5, n=i), run=f'r{i}', setting=f'seed {s}') for i, (m, t, k, s) in enumerate(mine)]
    reference = pd.DataFrame([dict(model=m, task=t, metric=k + ' (%)', setting=s, value=float(i)) for i, (m, t, k, s) in enumerate(theirs)],
                             columns=['model', 'task', 'metric', 'setting', 'value'])
    table = compare(results, reference)
    assert not len(table) or {f'r{i}' for i in range(len(mine))} == set(table.run) - {''}
    for i, (m, t, k, _) in enumerate(theirs):
        shown = table[(table.model == m) & (table.task == t) & (table.metric == k)]
        assert (shown.published == i / 100).any(), 'a published cell is missing'
    partners = [max(sum(p[:3] == r[:3] for r in mine), 1) for p in theirs]
    alone = [r for r in mine if r[:3] not in {p[:3] for p in theirs}]
    assert len(table) == sum(partners) + len(alone)


@pytest.mark.parametrize('paper', ['v1', 'v2', 'hierarchy'])
def test_compare_with_everything_published(paper):
    reference = published(paper)
    table = compare([ours('a model of ours')], reference)
    assert len(table) == len(reference) + 1 and list(table.model[1:]) == list(reference.model)   # filled rows first
    assert table.status[1:].str.startswith('not possible here: ').all()


def test_missing_models_are_listed_with_their_reason():
    table = compare([ours()], published('v1', 'main').query("task == 'VTWT'"), {'CLIP-large': 'needs its weights'}).set_index('model')
    assert table.loc['CLIP-large', 'status'] == 'not possible here: needs its weights'
    assert table.loc['LLaVA-v1.5-7B', 'status'] == 'not possible here: no run of this model'
    assert table.loc['CVCL', 'status'] == 'toy world' and table.loc['CVCL', 'difference'] == pytest.approx(.7 - .649)
    assert table.loc['CLIP-large', 'this run'] is None and table.loc['CLIP-large', 'n'] == 0
    assert np.isnan(table.loc['CLIP-large', 'difference'])


@pytest.mark.parametrize('status', STATUS)
def test_a_status_may_carry_a_reason(status): assert ours(status=f'{status}: why')['status'] == f'{status}: why'


@pytest.mark.parametrize('status', ['', 'reproduced', 'same', 'toy'])
def test_a_bare_claim_is_no_status(status):
    with pytest.raises(ValueError, match='unknown status'): ours(status=status)


def test_html_takes_no_command_from_data():
    frame = pd.DataFrame({'model': [NASTY], 'status': [f'not possible here: {NASTY}'], 'group': [NASTY], 'v': [Estimate(.5)]})
    for groups in (None, 'group'):
        page = Table(frame, NASTY, NASTY, groups)._repr_html_()
        assert '<script' not in page and page.count('&lt;script&gt;') >= 4, 'shown, not run'
    assert NASTY in repr(Table(frame, 'title'))


def test_the_title_decides_the_id_so_a_rerun_gives_the_same_page():
    frame = pd.DataFrame({'a': [1.]})
    assert Table(frame, 'x')._repr_html_() == Table(frame, 'x')._repr_html_()


def test_latex_takes_no_command_from_data(figures):
    save_table(pd.DataFrame({'leaf_acc (%)': ['50 % & more', NASTY]}), 'v1/x', 'A 95 % interval & s_por of #1', 'toy')
    tex = (figures/'toy'/'v1'/'x.tex').read_text()
    assert r'{leaf acc (\%)}' in tex and r'50 \% \& more' in tex and r'\caption{A 95 \% interval \& s\_por of \#1' in tex
    assert r'x\_1 \textbar{} \#1 \$2 \{a\} \textasciitilde{}b \textasciicircum{}c \textbackslash{}d' in tex
    body = tex[tex.index(r'\toprule'):tex.index(r'\bottomrule')].replace(r'\\', '')
    assert not re.search(r'(?<!\\)[%#_$&]', body), 'a special character is left'
    assert tex.count('{') == tex.count('}')


def test_markdown_keeps_its_columns(figures):
    save_table(pd.DataFrame({'a|b': [NASTY], 'c': [1.5]}), 'v1/x', 'Caption.', 'toy', note='A note.')
    head, rule, line, *below = (figures/'toy'/'v1'/'x.md').read_text().splitlines()
    assert [len(re.split(r'(?<!\\)\|', x)) for x in (head, rule, line)] == [4, 4, 4] and below == ['', 'Caption. A note.']


def test_csv_has_every_cell(figures):
    table = compare([ours(run='abc')], published('v1', 'main'))
    save_table(table, 'v1/main', 'Main results.', 'toy')
    with (figures/'toy'/'v1'/'main.csv').open(newline='') as f: lines = list(csv.DictReader(f))
    assert len(lines) == len(table) == 21
    assert [float(x['published']) for x in lines] == [round(v, 6) for v in table.published]
    filled = next(x for x in lines if x['value'])
    assert {k: filled[k] for k in ('model', 'value', 'low', 'high', 'level', 'n', 'unit', 'chance', 'seeds', 'run')} == dict(
        model='CVCL', value='0.7', low='0.65', high='0.75', level='0.95', n='400', unit='items', chance='0.5', seeds='0', run='abc')


def test_provenance_names_runs_settings_and_code(figures, tmp_path):
    a = Store(tmp_path/'store').get('train', {'seed': 1}, lambda path: (path/'w').write_text('w') and None)
    save_table(compare([ours(run=a), ours('blind', run='b2')], published('v1', 'main')), 'v1/main', 'Main results.', 'toy', [a, 'c3', ''],
               {'profile': Profile(), 'seeds': (0, 1)}, 'A note.')
    d = json.loads((figures/'toy'/'v1'/'main.json').read_text())
    assert d['runs'] == sorted([a.run, 'b2', 'c3']) and (d['name'], d['kind']) == ('v1/main', 'table')
    assert d['settings'] == {'profile': Profile().model_dump(mode='json'), 'seeds': [0, 1]}
    assert d['caption'] == 'Main results.' and d['note'].startswith('A note.')
    assert len(d['made_on']) == 1 and d['made_on'][0].endswith(f'torch {torch.__version__}')
    assert {'commit', 'dirty', 'python', 'device', 'packages'} <= set(d['record']) and d['record']['packages']['torch']
    assert json.loads(canonical_json(provenance('v1/main', 'table'))) == json.loads(canonical_json(provenance('v1/main', 'table')))


def test_a_figure_is_the_same_file_again_and_says_what_it_shows(figures):
    use_style()
    table, alt, made = compare([ours()], published('v1', 'main')), 'Dots of accuracy beside published ones & <more>.', []
    for _ in range(2):
        path = save_figure(plot_comparison(table, ['VTWT', 'Labeled-S']), 'v1/dots', alt, 'toy', ['r1'])
        made.append([path.with_suffix(s).read_bytes() for s in ('.svg', '.png', '.json')])
    assert made[0] == made[1]
    assert b'&amp; &lt;more&gt;' in made[0][0] and b'<dc:date>' not in made[0][0]
    d = json.loads(made[0][2])
    assert (d['kind'], d['runs'], d['alt']) == ('figure', ['r1'], alt)


def test_a_picture_shows_every_row():
    use_style()
    table = compare([ours(), ours('blind')], published('v1', 'main').query("task == 'VTWT'"))
    ax = plot_comparison(table, ['VTWT']).axes[0]
    hollow = sum(line.get_markerfacecolor() == 'none' for line in ax.lines)
    filled = sum(line.get_marker() in {look(m)['marker'] for m in ('CVCL', 'blind')} and line.get_markerfacecolor() != 'none' for line in ax.lines)
    assert hollow == table.published.notna().sum() == 6 and filled == 2


def test_no_alt_text_no_figure(figures):
    fig, _ = plt.subplots()
    with pytest.raises(ValueError, match="alt text of 'v1/x' is too short"): save_figure(fig, 'v1/x', 'a plot', 'toy')
    assert not list(figures.rglob('x.*'))


def test_files_go_where_the_profile_says(figures, monkeypatch):
    monkeypatch.setenv('BABYVLM_PROFILE', 'paper')
    assert figure_path('v2/t') == figures/'paper'/'v2'/'t' and figure_path('v2/t', 'toy').parent == figures/'toy'/'v2'


def test_text_of_cells():
    t = as_text(pd.DataFrame({'x': [np.nan, .12345], 'e': [Estimate(.5, n=3), None], 'n': [1, 2]}))
    assert t.values.tolist() == [['', '0.500, n = 3', '1'], ['0.123', '', '2']]
