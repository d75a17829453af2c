"""The explorer in a kernel without a screen and in a real browser; what data say stays text; gated pictures stay where they are."""
import json
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from babyvlm.analysis.explorer import Explorer, safe_json, verdict
from babyvlm.benchmarks.devcv.files import toy_devcv
from babyvlm.benchmarks.devcv.score import ideal_replies
from babyvlm.benchmarks.devcv.read import load_items
from babyvlm.benchmarks.v1 import load_baby_winoground, load_labeled_s, load_saycam_caption, load_vtwt
from babyvlm.items import Item, Reply, score_shape
from babyvlm.nursery.world import Nursery
from babyvlm.reporting.coverage import collect, explored
from babyvlm.reporting.page import _cell_row
from babyvlm.store import Store
from browser import browser, opened

NASTY = '</script><script>document.title="TAKEN"</script><img src=x onerror="document.title=\'TAKEN\'"> {{data}} <b>&amp;'


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    root = tmp_path_factory.mktemp('world')
    Nursery(0, 64).write_benchmarks(root, labeled_s=1, vtwt=8, winoground=3, captions=3)
    items = [*load_labeled_s(root/'labeled_s.csv', root/'labeled_s'), *load_vtwt(root/'vtwt.csv', root/'frames'),
             *load_baby_winoground(root/'baby_winoground.csv', root/'frames'), *load_saycam_caption(root/'SAYCam_caption.csv', root/'frames')]
    items[0] = replace(items[0], prompt=NASTY)
    rng = np.random.default_rng(0)
    def answer(i): return Reply(i.uid, text=NASTY) if i.choice == 'open' else Reply(i.uid, rng.random(score_shape(i)), text=NASTY, rule=NASTY)
    return root, Explorer(items, {m: [answer(i) for i in items] for m in ('CVCL', NASTY)})


def test_filters_agree_with_the_table(shown):
    _, e = shown
    d = e.table()
    assert len(e.select()) == len(e.items) and set(d.verdict) == {'right', 'wrong', 'not judged'}
    for v in set(d.verdict): assert e.select(model='CVCL', verdict=v) == [i.uid for i in e.items if i.uid in set(d[(d.model == 'CVCL') & (d.verdict == v)].uid)]
    both = d.pivot(index='uid', columns='model', values='verdict')
    assert set(e.select(disagree=True)) == {u for u, r in both.iterrows() if set(r) == {'right', 'wrong'}}


@pytest.mark.parametrize('scores, said', [((1, 0, 0, 0), 'right'), ((0, 1, 0, 0), 'wrong'), ((1, 1, 0, 0), 'tie'), ((0, 1, 1, 0), 'tie'), ((0, 0, 0, 0), 'tie')])
def test_a_tie_is_never_right(scores, said):
    item = Item('a', 'labeled_s', tuple('abcd'), options=('ball',), gold=0, choice='images')
    assert verdict(item, Reply('a', scores)) == said


def test_no_text_of_data_becomes_markup(shown):
    _, e = shown
    assert '<script' not in e.item_html(e.items[0].uid) and 'onerror="' not in e.item_html(e.items[0].uid)
    assert json.loads(safe_json([NASTY])) == [NASTY] and '<' not in safe_json([NASTY])


def test_widgets_in_a_kernel_without_a_screen(tmp_path):
    code = ('from babyvlm.nursery.world import Nursery\nfrom babyvlm.benchmarks.v1 import load_vtwt\nfrom babyvlm.items import Reply\n'
            'from babyvlm.analysis.explorer import Explorer\nNursery(0, 64).write_benchmarks("w", labeled_s=1, vtwt=6, winoground=2, captions=2)\n'
            'items = load_vtwt("w/vtwt.csv", "w/frames")\ne = Explorer(items, {"a": [Reply(i.uid, (1., 0.)) for i in items], "b": [Reply(i.uid, (0., 1.)) for i in items]})\n'
            'w = e.widget(); w.controls["disagree"].value = True; w.next.click(); w.back.click(); w.controls["verdict"].value = "wrong"; w.count.value')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell('w')])
    NotebookClient(nb, timeout=120, resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    assert nb.cells[0].outputs[-1].data['text/plain'] == "'1 of 6 items'"
    assert 'application/vnd.jupyter.widget-view+json' in nb.cells[1].outputs[-1].data


def test_the_file_in_a_real_browser(shown):
    root, e = shown
    file = e.export(root/'explorer.html', NASTY)
    with browser() as b:
        page = opened(b, file)
        assert page.locator('article').count() == 25 and page.title() == NASTY and page.complaints == []
        assert page.locator('#count').inner_text() == f'{len(e.items)} of {len(e.items)} items'
        page.click('#more')
        assert page.locator('article').count() == len(e.items)
        page.select_option('#task', 'vtwt')
        page.select_option('#model', 'CVCL')
        page.select_option('#verdict', 'right')
        assert page.locator('article').count() == len(e.select('vtwt', 'CVCL', 'right'))
        page.fill('#find', 'no such word')
        assert page.locator('article').count() == 0
        assert page.evaluate("document.querySelectorAll('#items script, #items [onerror]').length") == 0
        linked = opened(b, f'file://{file}#task=Labeled-S&disagree=true')
        assert linked.locator('article').count() == len(e.select('labeled_s', disagree=True))
        linked.evaluate("for (const i of document.images) i.loading = 'eager'")
        linked.wait_for_function("[...document.images].every(i => i.alt && i.complete && i.naturalWidth > 0)")
        assert linked.complaints == []
        phone = opened(b, file, width=380)
        assert phone.evaluate('document.documentElement.scrollWidth') <= 380


def test_gated_pictures_stay_where_they_are(shown, monkeypatch, tmp_path):
    root, e = shown
    monkeypatch.setenv('BABYVLM_DATA', str(root))
    with pytest.raises(ValueError, match='gated'): e.export(tmp_path/'x.html')
    assert not (tmp_path/'x.html').exists()
    assert 'data:image' not in e.export(tmp_path/'x.html', pictures=False).read_text()
    assert 'do not share' in e.export(tmp_path/'x.html', restricted=True).read_text()


def test_words_and_patterns_find_the_same_in_both(shown):
    root, e = shown
    item = next(i for i in e.items if i.benchmark == 'vtwt')
    words = item.options[0].split()
    for find in (' '.join(reversed(words)), f"/{words[0]}.{words[-1][:2]}/"):
        assert item.uid in e.select(find=find) and len(e.select(find=find)) < len(e.items)
    with browser() as b:
        page = opened(b, e.export(root/'found.html'))
        for find in (' '.join(reversed(words)), f"/{words[0]}.{words[-1][:2]}/"):
            page.fill('#find', find)
            assert page.locator('#count').inner_text() == f'{len(e.select(find=find))} of {len(e.items)} items'
        page.fill('#find', '/(/')
        assert page.locator('#count').inner_text() == 'no regular expression yet'
        page.fill('#find', '')
        page.select_option('#task', 'vtwt')
        assert page.url.endswith('#task=vtwt') and opened(b, page.url).locator('#task').input_value() == 'vtwt'
        page.evaluate('window.scrollTo(0, document.body.scrollHeight)')
        page.select_option('#verdict', 'wrong')
        assert page.evaluate("document.querySelector('article').getBoundingClientRect().top >= document.getElementById('filters').getBoundingClientRect().bottom")


def test_pairs_say_which_score_is_whose(shown):
    root, e = shown
    pair = next(i for i in e.items if i.choice == 'both')
    page = e.item_html(pair.uid)
    assert 'picture 2: phrase 1 ' in page and 'phrase 2, right for picture 2: ' in page


def test_devcv_replies_are_read_by_their_own_parser(tmp_path):
    toy_devcv(tmp_path, train=1, val=1, test=3, recordings=6)
    for task in ('vdr-open', 'memory', 'count', 'leftright'):
        items = load_items(tmp_path/'home', task)
        right = Explorer(items, {'ideal': ideal_replies(items), 'silent': [Reply(i.uid, text=json.dumps(['hm']*15) if i.rounds else 'hm') for i in items]}).table()
        assert set(right[right.model == 'ideal'].verdict) == {'right'} and set(right[right.model == 'silent'].verdict) == {'no answer'}
    half = ideal_replies(load_items(tmp_path/'home', 'memory'))[0]
    flipped = json.loads(half.text); flipped[-1] = 'AB'[flipped[-1] == 'A']
    assert verdict(load_items(tmp_path/'home', 'memory')[0], replace(half, text=json.dumps(flipped))) == 'in part'


def test_work_grows_with_the_answers_not_with_their_square():
    "Each reply is looked up, never searched for: counted by how often the items of a reply are compared."
    class Uid(str):
        compared = 0
        __hash__ = str.__hash__
        def __eq__(self, other): Uid.compared += 1; return str.__eq__(self, other)
    def cost(n):
        items = [Item(Uid(f'i{k}'), 'vtwt', ('a.jpg',), options=('x y', 'y x'), gold=0) for k in range(n)]
        e = Explorer(items, {m: [Reply(Uid(i.uid), (1., 0.)) for i in items] for m in 'ab'})
        Uid.compared = 0
        e.data(pictures=False); e.select(find='x'); e.item_html(items[-1].uid)
        return Uid.compared
    assert cost(400) < 3*cost(200)


def test_tests_have_their_names_and_the_report_links_to_those_that_are_shown(shown, tmp_path):
    _, e = shown
    named = Explorer(e.items, e.replies, names=dict(vtwt='VTWT', labeled_s='Labeled-S'))
    found = explored(named.export(tmp_path/'explorer.html', pictures=False))
    assert found['vtwt', 'CVCL'] == 'VTWT' and found['labeled-s', NASTY] == 'Labeled-S'
    assert set(dict(named.widget().controls['task'].options)) == {'all', 'VTWT', 'Labeled-S', 'baby_winoground', 'saycam_caption'}
    cells = collect(tmp_path, Store(tmp_path/'store')).cells
    cell = cells[(cells.model == 'CVCL') & (cells.task == 'VTWT')].iloc[0].copy()
    cell['value'], cell['part'] = .5, 'v1/63_main_results'
    assert 'explorer.html#task=VTWT&' in _cell_row(cell, [], found) and 'explorer.html' not in _cell_row(cell, [], {})
