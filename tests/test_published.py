"""The published values as they lie in the package: complete, sourced, and read as they are written."""
import csv
import re
from importlib.resources import files

import pandas as pd
import pytest

from babyvlm.config import repo_root
from babyvlm.estimate import Estimate
from babyvlm.experiments import claims
from babyvlm.experiments.v2 import published_cells
from babyvlm.reporting import coverage
from babyvlm.reporting import published as module
from babyvlm.reporting.published import PAPERS, disputes, published
from babyvlm.reporting.tables import compare, readable, row, tidy

FOLDER = files('babyvlm').joinpath('published_data')
FILES = sorted(f.name for f in FOLDER.iterdir() if f.name.endswith('.csv'))
COLUMNS = ['table', 'model', 'setting', 'task', 'metric', 'value', 'source']


def lines(name):
    with FOLDER.joinpath(name).open(encoding='utf-8', newline='') as f: return list(csv.DictReader(f))


@pytest.mark.parametrize('name', FILES)
def test_every_row_has_a_source_and_says_what_it_is(name):
    for i, row in enumerate(lines(name), 2):
        assert list(row) in (COLUMNS, [*COLUMNS, 'disputed']) and row.get('disputed', '') in ('', 'yes'), f'{name} line {i}: {row}'
        for c in ('table', 'metric', 'value', 'source'): assert row[c].strip(), f'{name} line {i} has no {c}'
        assert not re.search(r'seed (file|0)|\.txt\b', row['source']), f"{name} line {i}: '{row['source']}' is a file of ours"
        assert len(row['source']) >= 10, f"{name} line {i}: '{row['source']}' is no source that somebody could look up"


@pytest.mark.parametrize('name', FILES)
def test_no_row_is_there_twice(name):
    rows = [tuple(r.values()) for r in lines(name)]
    assert len(rows) == len(set(rows))


def test_every_file_belongs_to_a_paper(): assert all(f.split('_')[0] in PAPERS for f in FILES) and len(FILES) == 18


@pytest.mark.parametrize('paper', PAPERS)
def test_nothing_is_lost_or_invented_in_reading(paper):
    d = published(paper)
    written = [(f.removesuffix('.csv').removeprefix(f'{paper}_'), r) for f in FILES if f.startswith(paper + '_') for r in lines(f)]
    assert len(d) == len(written)
    for (file, raw), row in zip(written, d.to_dict('records')):
        assert row['file'] == file and row['text'] == raw['value'] and row['source'] == raw['source']
        try: number = float(raw['value'])
        except ValueError: assert pd.isna(row['value'])
        else: assert row['value'] == number


@pytest.mark.parametrize('paper', PAPERS)
def test_tables_are_found_by_file_and_by_name(paper):
    d = published(paper)
    for file, part in d.groupby('file'): assert len(published(paper, file)) >= len(part)
    for table, part in d.groupby('table'): assert published(paper, table).source.isin(d.source).all()
    assert set(d.trust) <= {'read directly', 'second hand', 'other paper'}


def test_a_cell_on_which_sources_disagree_keeps_all_its_values():
    d = published('v2').query('disputed')
    found = {k: sorted(v) for k, v in d.groupby(['model', 'task']).text}
    assert found == {('Human (adult volunteers)', 'Memory'): ['87.3', '97.9'], ('Human (adult volunteers)', 'Localization'): ['87.3', '98.2'],
                     ('BabyLLaVA-V2', 'overall'): ['55.2', '63.9'], ('BabyLLaVA-V2', 'Who Has More (naturalistic)'): ['60.5', '99.7'],
                     ('BabyLLaVA-V2', 'Who Has More (synthetic)'): ['99.7']}
    assert d.source.nunique() > 3 and not published('v1').disputed.any() and not published('hierarchy').disputed.any()
    assert len(published('v2', 'additions')) == 27 and len(published('hierarchy', 'VL-Taxon open-set')) == 2


def test_a_note_names_both_values_and_who_gives_them():
    said = disputes(published_cells())
    for who, value in (('Kylian07/Baby-VLM METHOD.md', '97.9%'), ('papernotes CVPR2026 note', '87.3%'), ('Muszic/daily-research note on arXiv v1', '55.2%')):
        assert f'{value} ({who})' in said
    assert disputes(published('v1')) == ''


def of_ours(p): return [row(m, t, k, Estimate(.5, .4, .6, 100)) for m, t, k in sorted({(r.model, r.task, r.metric) for r in p.itertuples()})]


def test_both_values_of_a_disputed_cell_stand_in_a_table_and_its_files():
    p = published_cells()
    t = compare(of_ours(p), p)
    there = t[t.get('sources', '') == 'disagree']
    assert len(there) == p.disputed.sum() and sorted(there.published) == sorted(p.share[p.disputed])
    assert there.difference.isna().all() and t.difference[t.sources == ''].notna().all()
    assert (tidy(t).sources == 'disagree').sum() == len(there) and 'sources' in readable(t)[0]
    assert 'sources' not in compare(of_ours(published('v1', 'main')), published('v1', 'main'))


def test_no_verdict_rests_on_a_disputed_value(monkeypatch):
    saved = coverage.read_saved(repo_root()/'figures'/'study')
    def verdicts():
        p = published_cells()
        return compare(of_ours(p), p).difference.tolist(), coverage.published_cells(saved).difference.tolist()
    before, d = verdicts(), module._load('v2')
    assert all(sum(x == x for x in found) > 5 for found in before)
    other, of = d.copy(), (d.disputed, ['value', 'share'])
    other.loc[of] = d.loc[of].values[::-1]              # each gets another's
    load = module._load
    monkeypatch.setattr(module, '_load', lambda paper: other if paper == 'v2' else load(paper))
    assert (published('v2').share - d.share).abs().gt(0).sum() > 6
    for a, b in zip(before, verdicts()): assert repr(a) == repr(b)
    assert not [k for k, v in vars(claims).items() if getattr(v, '__module__', '') == module.__name__], 'the rules of claims read no published value'


def test_a_caller_cannot_change_what_the_next_one_reads():
    d = published('v1'); d.loc[:, 'value'] = 0.
    e = published('v1', 'main'); e.loc[:, 'value'] = 0.
    assert (published('v1', 'main').value > 0).all() and (published('v1').value != 0).any()


def test_accuracies_of_the_main_table_are_shares():
    main = published('v1', 'main')
    assert main.value.between(0, 1).all() and set(main.task) == {'Labeled-S', 'VTWT', 'Baby Winoground', 'SAYCam Caption'}


@pytest.mark.parametrize('call, says', [(lambda: published('v3'), "unknown paper 'v3': one of v1, v2, hierarchy"),
                                        (lambda: published('v1', 'ablaton'), "did you mean 'ablation'"),
                                        (lambda: published('v2', 'main'), "did you mean 'main_results'")])
def test_a_wrong_name_gets_the_nearest(call, says):
    with pytest.raises(ValueError, match=says): call()
