"""Tables as files: one tidy form that programs read, Markdown and LaTeX as drawings of it, LaTeX that fits its page."""
import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.estimate import Estimate
from babyvlm.reporting.published import PAPERS, is_percent, key_of, published, spelled
from babyvlm.reporting.tables import (NUMBERS, TEXT_WIDTH, as_latex, as_text, compare, from_row, measured_in, readable, row, save_table, tidy,
                                      _panels, _needed, _tex_columns, _widths, _GAP)

ROOT = Path(__file__).parent.parent
COMMITTED = sorted((ROOT/'figures'/'study').glob('*/*.csv'))


@pytest.fixture(autouse=True)
def figures(monkeypatch, tmp_path):
    monkeypatch.setenv('BABYVLM_FIGURES', str(tmp_path))
    return tmp_path


def estimate(value=.7, n=400, **more): return Estimate(value, value - .05, value + .05, n, **dict(dict(chance=.5, seeds=3), **more))


def read(path):
    with open(path, encoding='utf-8', newline='') as f: return list(csv.DictReader(f))


def faults(lines):
    "What a program that plots a table would stumble over."
    if not lines: return ['no row']
    names, said = list(lines[0]), []
    if names[-len(NUMBERS):] != list(NUMBERS): said.append(f'columns {names}')
    for i, r in enumerate(lines, 1):
        for c in (*NUMBERS, 'published'):
            if c in ('unit', 'run') or not r.get(c): continue
            try: float(r[c])
            except ValueError: said.append(f'row {i}, {c}: {r[c]!r} is no number')
        for c, x in r.items():
            if re.search(r'\d \[-?\d|, n = \d', x or ''): said.append(f'row {i}, {c}: {x!r} is an estimate as text')
        if r.get('low') and not said and not float(r['low']) <= float(r['value']) <= float(r['high']): said.append(f'row {i}: the value lies outside its interval')
        if r.get('n') and '.' in r['n']: said.append(f'row {i}: n = {r["n"]} is no count')
        if r.get('n') == '1' and not r.get('low'): said.append(f'row {i}: a count is no mean over one item')
    if any(not any(r[c] for r in lines) for c in names if c not in NUMBERS): said.append('an empty column')
    if any('_' in c for c in names if c not in NUMBERS): said.append(f'a name for programs among {names}')
    return said


# tables in the forms that the pages save
FORMS = {
    'compared': lambda: compare([row('CVCL', 'VTWT', 'accuracy', estimate(), run='r1')], published('v1', 'main'), {'CLIP-large': 'needs its weights'}),
    'without derived columns': lambda: FORMS['compared']().drop(columns=['low', 'high', 'run', 'difference']),
    'one estimate a row': lambda: pd.DataFrame([dict(model=m, differs=k, estimate=estimate(v), status='toy world') for m, k, v in (('CVCL', 'noun', .6), ('CVCL', 'verb', .7))]),
    'rows of results': lambda: pd.DataFrame([row('CVCL', 'VTWT', m, estimate(), run='r2') for m in ('HCA', 'Acc_leaf')]),
    'several estimates a row': lambda: pd.DataFrame([dict(task=t, tuned=estimate(), untuned=estimate(.1, no_answer=3), which='text only', gain=estimate(.2, chance=None))
                                                     for t in ('memory', 'vdr-open')]),
    'missing cells': lambda: pd.DataFrame([dict(number=1, all=estimate(), hardened=None), dict(number=2, all=estimate(), hardened=estimate(.3))]),
    'refused': lambda: pd.DataFrame([dict(task='VTWT', metric='acc', estimate=estimate(), status='toy world'), dict(task='VTWT', metric='acc', estimate='refused', status='toy world')]),
    'counts': lambda: pd.DataFrame([dict(format='pictures', published=768000., this_run=983), dict(format='clips', published=181000., this_run=419)]),
    'counts and shares': lambda: pd.DataFrame([dict(set='train', task='memory', items=770, most_frequent=.250649, chance=.25), dict(set='test', task='count', items=12, most_frequent=1/3, chance=1/12)]),
    'words': lambda: pd.DataFrame([dict(claim='v1.1', where_true='supported', where_false='contradicted'), dict(claim='v1.2', where_true='supported', where_false='undecided')]),
    'verdicts': lambda: pd.DataFrame([dict(claim='v1.1', rule='x above 0 (matters from 0.05)', result=estimate(), verdict='supported', power=.9),
                                      dict(claim='v1.2', rule='y above 0', result=None, verdict='not tested: no truth', power=float('nan'))])}


@pytest.mark.parametrize('form', FORMS)
def test_a_saved_table_is_one_tidy_file(form, figures):
    save_table(FORMS[form](), f'v1/{form.replace(" ", "_")}', 'A caption.', 'toy')
    assert faults(read(figures/'toy'/'v1'/f'{form.replace(" ", "_")}.csv')) == []


def test_every_committed_table_is_tidy():
    assert len(COMMITTED) > 30, 'the tables of the papers are not here'
    assert {p.name: faults(read(p)) for p in COMMITTED if faults(read(p))} == {}


@pytest.mark.parametrize('spoilt, said', [(lambda d: d.assign(value='0.7 [0.6, 0.8], n = 3'), 'no number'), (lambda d: d.drop(columns='level'), 'columns'),
                                          (lambda d: d.assign(model='0.711 [0.605, 0.816], n = 660'), 'as text'), (lambda d: d.assign(n='72.000'), 'no count'),
                                          (lambda d: d.assign(low='0.9'), 'outside'), (lambda d: d.assign(model=''), 'empty'),
                                          (lambda d: d.assign(n='1', low='', high=''), 'no mean'), (lambda d: d.rename(columns=dict(setting='tuned_on')).assign(tuned_on='no'), 'for programs')])
def test_the_law_finds_each_fault(spoilt, said):
    good = tidy(FORMS['rows of results']()).astype(str)
    lines = lambda d: list(csv.DictReader(io.StringIO(d.to_csv(index=False))))
    assert faults(lines(good)) == [] and any(said in f for f in faults(lines(spoilt(good))))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6), st.sampled_from([None, .25, .5]), st.integers(0, 5), st.sampled_from(['', 'pictures']), st.sampled_from([0, 2, 39.5])), min_size=1, max_size=6))
def test_what_was_written_is_read_back(cells):
    "The CSV holds the estimate to six digits, and n, chance, seeds, unit and missing answers (a mean over seeds) as they are."
    es = [Estimate(round(v, 6), round(v - .1, 6), round(v + .1, 6), n, c, seeds=s, unit=u, no_answer=k) for v, n, c, s, u, k in cells]
    d = tidy(pd.DataFrame({'model': [f'm{i}' for i in range(len(es))], 'accuracy': es}))
    again = [from_row(r) for r in csv.DictReader(io.StringIO(d.to_csv(index=False)))]
    assert [str(a) for a in again] == [str(e) for e in es] and list(d.metric) == ['accuracy'] * len(es)


def test_no_cell_is_lost_and_none_is_invented():
    for form in FORMS:
        t = FORMS[form]()
        d, filled = tidy(t), sum(isinstance(x, Estimate) for c in t for x in t[c])
        if filled: assert d.value.notna().sum() == filled, form
    d = tidy(FORMS['missing cells']())
    assert list(d.metric) == ['all', 'all', 'hardened'] and list(d.number) == [1, 2, 2]


def test_five_lines_of_pandas_plot_it(figures):
    save_table(FORMS['compared'](), 'v1/main', 'Main results.', 'toy')
    d = pd.read_csv(figures/'toy'/'v1'/'main.csv').query('value.notna()')
    ax = d.plot.scatter('value', 'published')
    ax.errorbar(d.value, d.published, xerr=[d.value - d.low, d.high - d.value])
    assert d.value.dtype == float and d.n.tolist() == [400]


MAIN = ROOT/'figures'/'study'/'v1'/'63_main_results.csv'


def test_five_lines_of_pandas_plot_the_main_results():
    t = pd.read_csv(MAIN).dropna(subset='value')
    fig, axes = plt.subplots(1, t.task.nunique(), sharey=True)
    for ax, (task, g) in zip(axes, t.groupby('task')):
        ax.errorbar(g.value, g.model, xerr=[g.value - g.low, g.high - g.value], fmt='o')
        ax.set_title(task)
    plt.close(fig)
    assert len(t) > 10 and not t.duplicated(['model', 'setting', 'task', 'metric']).any() and t[['value', 'low', 'high', 'n', 'seeds']].notna().all(axis=None)


R = """t <- subset(read.csv("%s"), !is.na(value) & task == "VTWT"); y <- seq_along(t$model)
pdf("%s"); par(mar = c(5, 9, 2, 1)); plot(t$value, y, xlim = c(0, 1), yaxt = "n", pch = 19, xlab = t$metric[1], ylab = "", main = t$task[1])
arrows(t$low, y, t$high, y, angle = 90, code = 3, length = .05); axis(2, y, t$model, las = 1); abline(v = t$chance[1], lty = 3)
invisible(dev.off()); cat(nrow(t), sapply(t[c("value", "low", "high", "chance", "n", "ties", "seeds")], is.numeric))
"""


@pytest.mark.skipif(not shutil.which('Rscript'), reason='R is not installed')
def test_five_lines_of_r_plot_the_main_results(tmp_path):
    (tmp_path/'plot.R').write_text(R % (MAIN.as_posix(), (tmp_path/'p.pdf').as_posix()))
    said = subprocess.run(['Rscript', str(tmp_path/'plot.R')], capture_output=True, text=True, check=True).stdout.split()
    rows = pd.read_csv(MAIN).query("task == 'VTWT' and value.notna()")
    assert said == [str(len(rows)), *['TRUE']*7] and (tmp_path/'p.pdf').stat().st_size > 2000


def test_one_unit_and_one_spelling():
    reference = pd.DataFrame([dict(model='a', task='Who Has More (synthetic)', metric='accuracy_pct', value=99.7)])
    t = compare([row('a', 'compare_synthetic', 'acc', estimate())], reference)
    assert t.published.tolist() == [.997] and t.task.tolist() == ['Who Has More, synthetic'] and t.metric.tolist() == ['accuracy']
    for paper in PAPERS:
        p = published(paper)
        assert (p.share.dropna() == [v / 100 if is_percent(m, paper) else v for v, m in zip(p.value, p.metric) if v == v]).all()
        assert not [x for x in {*p.task, *p.metric} if spelled(spelled(x)) != spelled(x) or '(%)' in spelled(x)]
    assert spelled('memory') == 'Memory, both rounds' and key_of('Memory, one round') == key_of('Memory')


def test_people_are_spared_empty_and_constant_columns():
    d, said = readable(pd.DataFrame(dict(model=['a', 'b'], run='r', published=np.nan, status='toy world', items=[3., 12000.], score=[.5, -1e-9])))
    assert list(d.columns) == ['model', 'items', 'score'] and said == 'In all rows status: toy world.'
    assert as_text(d).values.tolist() == [['a', '3', '0.500'], ['b', '12,000', '0.000']]


words = st.text('abc de,_%&#$-', min_size=0, max_size=60)
columns = st.lists(st.sampled_from(['words', 'number', 'count', 'estimate', 'bare']), min_size=1, max_size=11)


@settings(deadline=None, max_examples=25)
@given(columns, st.integers(1, 70), words)
def test_latex_fits_its_page_by_estimate(kinds, rows, word):
    make = dict(words=lambda i: f'{word} {i}', number=lambda i: i / 7, count=lambda i: i * 1000, estimate=lambda i: estimate(n=100 + i), bare=lambda i: Estimate(.5, n=i))
    frame = pd.DataFrame({f'{k} column {j}': [make[k](i) for i in range(rows)] for j, k in enumerate(kinds)})
    for panel in _panels(_tex_columns(readable(frame)[0])[0]):
        assert sum(_widths(panel)) + _GAP * len(panel) <= TEXT_WIDTH + 1e-6 or len(panel) <= 3
    tex = as_latex(frame, word, 'v1/x', word)
    assert tex.count(r'\begin{tabular}') == tex.count(r'\end{tabular}') and tex.count(r'\label{') == 1 and r'\centering' in tex


@pytest.mark.skipif(not shutil.which('pdflatex'), reason='no LaTeX on this machine')
def test_latex_compiles_and_fits(figures, tmp_path):
    wide = pd.DataFrame([dict(task=f'Visual Delayed Response, open {i}', tuned=estimate(n=150 + i), untuned=estimate(.1), blind=estimate(.3), which='most frequent answer',
                              over_blind=estimate(.1, chance=None), against_untuned='better', against_blind='not told apart', published=.5 + i/100) for i in range(60)])
    tables = {k: f() for k, f in FORMS.items()} | {'wide': wide}
    body = '\n'.join(as_latex(t, f'A 95 % interval & {k}', f'v1/{k}', 'A note of #1 with leaf_acc.') for k, t in tables.items())
    committed = [p.read_text(encoding='utf-8') for p in sorted((ROOT/'figures'/'study').glob('*/*.tex'))]
    doc = (r'\documentclass[twocolumn]{article}\usepackage[textwidth=505pt,textheight=680pt]{geometry}\setlength{\columnsep}{15pt}\usepackage[utf8]{inputenc}'
           r'\usepackage[T1]{fontenc}\usepackage{array,booktabs,siunitx}\extrafloats{200}\begin{document}')
    (tmp_path/'x.tex').write_text(doc + body + r'\clearpage' + '\n\\clearpage\n'.join(committed) + r'\end{document}', encoding='utf-8')
    done = subprocess.run(['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'x.tex'], cwd=tmp_path, capture_output=True, text=True, errors='replace')
    assert done.returncode == 0, done.stdout[-1500:]
    wide = [l for l in done.stdout.splitlines() if l.startswith('Overfull \\hbox') and float(re.search(r'\(([\d.]+)pt', l)[1]) > 1]
    assert wide == [] and 'Float too large' not in done.stdout, (wide, done.stdout[-800:])


def test_counts_and_constants_are_no_means_and_stay_whole():
    d = tidy(pd.DataFrame([row('', 'Labeled-S', 'items', Estimate(1320)), row('', 'clips', 'seconds', Estimate(.5))]))
    assert d[['n', 'unit', 'ties', 'seeds']].isna().all().all() and d.value.tolist() == [1320, .5] and str(Estimate(.5)) == '0.500'
    assert [str(from_row(r)) for r in csv.DictReader(io.StringIO(d.to_csv(index=False)))] == ['1320.000', '0.500']
    assert as_text(pd.DataFrame(dict(difference=[-64224., 0., 1., np.nan]))).difference.tolist() == ['-64,224', '0', '1', '']
    assert list(tidy(pd.DataFrame([dict(task='VTWT', tuned_on=True, gain=estimate())])).columns[:2]) == ['task', 'tuned on']
