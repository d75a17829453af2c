"""The report: every published value once, links that hold, nothing run as a command; verification that can fail."""
import json
import re
import shutil
import subprocess

import nbformat
import pandas as pd
import pytest
import torch

from babyvlm.config import profile
from babyvlm.estimate import Estimate
from babyvlm.reporting.coverage import collect, needs, published_cells, read_saved
from babyvlm.reporting.page import report_html, write_report
from babyvlm.reporting.published import PAPERS, published
from babyvlm.reporting.tables import compare, row, save_table, tidy
from babyvlm.run import verify as verification
from babyvlm.store import Store
from browser import browser, opened

NASTY = '</td><script>document.title="TAKEN"</script> 50% & x_1 | #1 $2 {a}'


@pytest.fixture
def run(tmp_path, monkeypatch):
    "A saved table with a run and its journal behind it, and names that try to become part of the page."
    monkeypatch.setenv('BABYVLM_FIGURES', str(tmp_path/'figures'))
    store = Store(tmp_path/'store')
    def build(path):
        lines = [dict(journal=1), dict(uid='vtwt_1', chosen=0, status='answered', rule=NASTY, text='the canary sings at noon')]
        (path/'vtwt.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    made = store.get('replies', dict(spec=dict(model='CVCL', note=NASTY)), build)
    rows = [row('CVCL', 'VTWT', 'accuracy', Estimate(.71, .66, .76, 400, .5), run=made), row(NASTY, NASTY, NASTY, Estimate(.5, n=3), status=f'toy world: {NASTY}')]
    table = compare(rows, published('v1', 'main'), {'CLIP-large': NASTY})
    save_table(table.drop(columns=['run']), 'v1/63_main_results', NASTY, 'toy')
    return tmp_path/'figures'/'toy', store, made


def test_every_published_value_is_there_once_with_a_value_or_a_reason():
    cells = published_cells([])
    assert len(cells) == sum(len(published(p)) for p in PAPERS) and cells.id.is_unique
    assert (cells.value.notna() | (cells.why.str.len() > 10)).all()
    assert {(p, f) for p in PAPERS for f in published(p).file} == {(p, f) for p, f, _ in needs()}


def test_numbers_and_runs_are_those_that_were_saved(run):
    folder, store, made = run
    r = collect(folder, store)
    c = r.cells[(r.cells.model == 'CVCL') & (r.cells.task == 'VTWT') & (r.cells.file == 'main')].iloc[0]
    assert (c.published, c.value, c.low, c.high, c.n, c.run) == (.649, .71, .66, .76, 400, made.run)
    assert r.cells[(r.cells.model == 'CLIP-large') & (r.cells.file == 'main')].why.eq(NASTY).all()
    assert 'canary' not in json.dumps(r.records), 'what a model wrote stays in the store'


def test_a_report_says_with_how_many_seeds_and_where_it_was_made_and_counts_verdicts(run):
    folder, store, made = run
    assert collect(folder, store).made == '' and collect(folder, store).verdicts.startswith('| paper |')
    settings = dict(profile=profile('study').model_dump(mode='json'))
    save_table(pd.DataFrame(dict(claim=['v1.1', 'v1.2'], text=['a', 'b'], rule=['r', 'r'], verdict=['supported', 'undecided'])), 'v1/69_claims', 'Claims.', 'toy', [made], settings)
    found = collect(folder, store)
    assert 'BabyVLM V1 5, BabyVLM-V2 5, planted experiment 5' in found.made and torch.__version__ in found.made and found.made in found.in_short
    assert found.verdicts.splitlines()[::2] == ['| paper | supported | undecided |', '| BabyVLM V1 | 1 | 1 |']


def test_page_takes_no_command_from_data_and_every_link_holds(run):
    folder, store, made = run
    page = report_html(collect(folder, store))
    assert page.count('<script') == page.count('</script>') == 1
    ids, targets = set(re.findall(r' id="([^"]+)"', page)), set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= ids and len(re.findall(r' id="cell-', page)) == sum(len(published(p)) for p in PAPERS)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page), 'self-contained'


def test_three_forms_hold_the_same_values(run):
    folder, store, _ = run
    write_report(folder, store)
    md, tex = (folder/'report.md').read_text(), (folder/'report.tex').read_text()
    for text in (md, tex): assert '0.710' in text and '0.649' in text
    assert tex.count(r'\begin{longtable}') == tex.count(r'\end{longtable}') == 5
    body = re.sub(r'\\[a-z]+\{[^{}]*\}|\\.', '', tex.split(r'\scriptsize')[1])
    assert not re.search('[#%_^~$]', body), 'a special character of LaTeX is left'
    rows = [l for l in md.splitlines() if l.startswith('| ') and 'main results' in l]
    assert len({len(re.split(r'(?<!\\)\|', l)) for l in rows}) == 1


def test_in_a_real_browser(run):
    folder, store, made = run
    write_report(folder, store)
    with browser() as b:
        page = opened(b, folder/'report.html')
        every = sum(len(published(p)) for p in PAPERS)
        assert page.title() == 'Reproduction report' and page.locator('#count').inner_text() == f'{every} of {every}'
        page.select_option('#s', 'toy world')
        assert page.locator('#cells tbody tr:visible').count() == 1
        page.click(f'#cells a[href="#run-{made.run}"]')
        page.wait_for_function(f"document.getElementById('run-{made.run}').open")
        assert 'vtwt_1' in page.locator(f'[id="run-{made.run}"]').inner_text() and page.complaints == []
        phone = opened(b, folder/'report.html', width=380, color_scheme='dark')
        assert phone.evaluate('document.documentElement.scrollWidth') <= 380


@pytest.fixture(scope='module')
def committed(tmp_path_factory):
    "The report of the committed tables."
    folder = tmp_path_factory.mktemp('committed')
    (folder/'report.html').write_text(report_html(collect('figures/study', Store(folder))), encoding='utf-8')
    return folder/'report.html'


def test_report_of_the_committed_tables_is_short_on_a_phone_and_read_by_key(committed):
    page = committed.read_text(encoding='utf-8')
    assert page.count('<main>') == page.count('</main>') == 1 and page.count('<table') == page.count('<caption>')
    assert not re.findall('<th>', page), 'a head cell without scope'
    assert page.index('id="claims"') < page.index('id="summary"') < page.index('id="needs"')
    with browser() as b:
        phone = opened(b, committed, width=390)
        assert phone.evaluate('document.documentElement.scrollHeight') <= 20_000
        source = phone.locator('td.why summary').first
        source.focus(); phone.keyboard.press('Enter')
        assert phone.locator('td.why details[open]').count() == 1
        name = phone.locator('details[id^="part-"]').first.get_attribute('id')
        phone.evaluate(f'location.hash = "{name}"')
        phone.wait_for_function(f'document.getElementById("{name}").open')


TOO_WIDE = """() => [...document.querySelectorAll('.scroll, figure, html')].filter(e => e.scrollWidth > e.clientWidth + 1)
                .map(e => `${e.ariaLabel ?? e.tagName}: ${e.scrollWidth - e.clientWidth} px`)"""


@pytest.mark.parametrize('width, scheme', [(1366, 'light'), (768, 'dark'), (390, 'light')])
def test_no_table_of_the_report_is_wider_than_the_screen(committed, width, scheme):
    "On a desk tables stay tables; where one is too wide its rows become cards, each value behind the head of its column."
    with browser() as b:
        page = opened(b, committed, width, color_scheme=scheme)
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        page.wait_for_timeout(300)
        assert page.evaluate(TOO_WIDE) == [] and page.complaints == []
        assert (page.locator('.cards').count() > 0) == (width < 1366)
        if width == 390:
            assert page.locator('#cells td').nth(6).get_attribute('data-head') == 'published'
            picture = page.locator('.zoom').first
            small = picture.bounding_box()['width']; picture.focus(); page.keyboard.press('Enter')
            assert small <= 390 < picture.bounding_box()['width']
            page.select_option('#s', 'same data')
            assert page.locator('#cells tbody tr:visible').count() == page.locator('#cells tr[data-status="same data"]').count()


def test_a_part_stays_in_place_while_its_pictures_arrive_and_the_bar_has_its_key(committed):
    assert not re.findall(r'<img(?![^>]* width="\d+" height="\d+")', committed.read_text(encoding='utf-8'))
    with browser() as b:
        page = opened(b, f'file://{committed}#paper-hierarchy')
        page.wait_for_timeout(500)
        assert abs(page.locator('#paper-hierarchy').bounding_box()['y']) < 40
        def shades(where): return set(page.eval_on_selector_all(where, 'all => all.map(e => getComputedStyle(e).backgroundColor)'))
        assert shades('.bar i') == shades('.key') and len(shades('.key')) == 3 and 'rgba(0, 0, 0, 0)' not in shades('.key')


def page_that_saves(value):
    code = ('import pandas as pd\nfrom babyvlm.estimate import Estimate\nfrom babyvlm.reporting.tables import save_table\n'
            f"_ = save_table(pd.DataFrame([dict(model='CVCL', estimate=Estimate({value}, {value} - .05, {value} + .05, 400), n=400)]), 'v1/61_small', 'Small.')")
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("profile_name = 'toy'", metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell(code)],
                                    metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')))


def test_verify_runs_the_tables_again_and_can_fail(tmp_path, monkeypatch):
    for k in ('BABYVLM_DATA', 'BABYVLM_FIGURES', 'BABYVLM_STORE'): monkeypatch.delenv(k, raising=False)
    papers = tmp_path/'nbs'/'papers'/'v1'; papers.mkdir(parents=True)
    (tmp_path/'settings.ini').write_text('')
    nbformat.write(page_that_saves(.7), papers/'61_small.ipynb')
    monkeypatch.chdir(tmp_path)
    figures = tmp_path/'figures'
    made = verification.rerun([papers.relative_to(tmp_path)/'61_small.ipynb'], tmp_path/'once', say=lambda l: None)
    assert made == {'v1/61_small': ''}
    shutil.copytree(tmp_path/'once'/'figures', figures)
    verification.keep_tables(figures/'toy')
    for words in (['init', '-q'], ['add', 'figures'], ['-c', 'user.name=t', '-c', 'user.email=t@t', 'commit', '-qm', 'x']): subprocess.run(['git', *words], check=True)
    said = []
    assert verification.verify(say=said.append) == 0 and any('1 agree, 0 differ' in l for l in said), said
    (figures/'toy.json').write_text('spoilt after the commit')   # the commit counts, not what lies around
    nbformat.write(page_that_saves(.74), papers/'61_small.ipynb')
    said = []
    assert verification.verify(say=said.append) == 1 and any("'0.7'" in l and "'0.74'" in l for l in said), said


def test_another_kind_of_machine_is_judged_by_intervals():
    from babyvlm.estimate import Estimate
    def table(*values): return tidy(pd.DataFrame({'model': list('abc')[:len(values)], 'accuracy': [Estimate(v, v - .05, v + .05, 400, .5, seeds=s) for v, s in values]})).astype(str)
    old = table((.7, 3), (.6, 3), (.5, 1))
    there = verification.table_changes(old, table((.76, 3), (.69, 3), (.9, 1)), exact=False)
    assert (there.judged, len(there.outside), len(there.shown), there.wrong) == (3, 1, 1, [])   # one seed is not judged
    assert verification.table_changes(old, old.assign(model=list('abd')), exact=False).shown
    assert verification.table_changes(old, old[:2], exact=False).wrong == ['3 rows became 2']
    assert len(verification.table_changes(old, table((.701, 3), (.6, 3), (.5, 1))).wrong) == 3   # value, low, high: the same machine promises every character
    assert 0 < verification.tolerated(100) < 20


def test_a_failing_notebook_is_a_difference(tmp_path):
    old = {'v1/61_small': pd.DataFrame({'a': ['1']})}
    assert verification.compare_tables(old, tmp_path, {'v1/61_small': 'NameError: x'}) == {'v1/61_small': verification.Changes(['its notebook failed: NameError: x'])}


def test_committed_tables_are_read(): assert all(s.path.with_suffix('.csv').exists() for s in read_saved('figures/study') if s.kind == 'table')
