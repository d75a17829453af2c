"""The documentation builds offline: everything up to the call of Quarto."""
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import yaml

from browser import browser, opened

from babyvlm.reporting.figures import contrast

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(p.relative_to(ROOT/'nbs') for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


@pytest.fixture(scope='module')
def site():
    subprocess.run([sys.executable, '.ci/prepare_docs.py'], cwd=ROOT, check=True, capture_output=True)
    return ROOT/'_proc'


def front_matter(text):
    assert text.startswith('---\n'), 'no front matter'
    return yaml.safe_load(text.split('---\n')[1])


def test_configuration_parses(site):
    for name in ('_quarto.yml', 'nbdev.yml'): assert yaml.safe_load((site/name).read_text())


def test_every_notebook_has_a_page(site):
    seen = {}
    for p in NOTEBOOKS:
        nb = nbformat.read(site/p, 4)
        front = front_matter(nb.cells[0].source)
        assert front.get('title'), f'{p}: no title'
        assert front.get('description') or p.stem == 'index', f'{p}: no description'
        out = (p.parent, front.get('output-file', p.stem))
        assert out not in seen, f'{p} and {seen[out]} write the same page'
        seen[out] = p


def test_data_cards_travel(site):
    cards = [c for c in (ROOT/'data_cards').iterdir() if c.is_dir()]
    for card in cards: assert (site/'data_cards'/card.name/'README.md').exists(), card.name


LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)[^)]*\)')
CODE = re.compile(r'^```.*?^```$|`[^`\n]+`', re.M | re.S)


def markdown(path):
    "Markdown of a notebook (cells and outputs) or of a card."
    if path.suffix == '.md': return path.read_text(encoding='utf-8')
    cells = nbformat.read(path, 4).cells
    said = [c.source for c in cells if c.cell_type == 'markdown']
    return '\n\n'.join(said + [o.data['text/markdown'] for c in cells for o in c.get('outputs', ()) if 'text/markdown' in o.get('data', {})])


def slug(heading): return re.sub(r'[^0-9a-z]+', '-', heading.lower()).strip('-')


@pytest.mark.parametrize('path', [ROOT/'nbs'/p for p in NOTEBOOKS] + sorted((ROOT/'data_cards').glob('*/README.md')), ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_no_dead_link(path):
    for bang, label, target in LINK.findall(CODE.sub('', markdown(path))):
        if re.match(r'[a-z]+:', target): continue
        name, _, part = target.partition('#')
        file = (path.parent/name).resolve() if name else path
        assert file.exists(), f'{path.name} refers to {target}, which does not exist'
        if bang: assert len(label) > 20, f'{path.name}: the picture {target} has no description'
        if part and file.suffix in ('.ipynb', '.md'):
            heads = {slug(h) for h in re.findall(r'^#+ (.+)$', markdown(file), re.M)}
            assert slug(part) in heads or file.suffix == '.ipynb', f'{path.name}: no heading {part} in {file.name}'


@pytest.fixture(scope='module')
def plain(site, tmp_path_factory):
    "All pages as plain HTML, by the renderer that `make docs` uses where Quarto is missing."
    pytest.importorskip('latex2mathml', reason='latex2mathml is not installed')
    sys.path.insert(0, str(ROOT/'.ci'))
    try: import render
    finally: sys.path.remove(str(ROOT/'.ci'))
    to = render.render(site, tmp_path_factory.mktemp('site'))
    return to, {f.relative_to(to).as_posix(): Page(f) for f in sorted(to.rglob('*.html'))}


class Page(HTMLParser):
    "What a reader meets on a page: the words, the links, the places that can be linked to, the pictures."
    def __init__(self, file):
        super().__init__()
        self.words, self.links, self.ids, self.pictures, self.silent = [], [], set(), [], 0
        self.feed(file.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.silent += tag in ('script', 'style')
        if a.get('id'): self.ids.add(a['id'])
        if tag == 'img': self.pictures.append(a.get('alt') or '')
        self.links += [t for t in (a.get('href'), a.get('src')) if t is not None and not re.match(r'[a-z]+:', t)]

    def handle_endtag(self, tag): self.silent -= tag in ('script', 'style')
    def handle_data(self, data):
        if not self.silent: self.words.append(data)

    @property
    def text(self): return ' '.join(' '.join(self.words).split())


def test_links_of_the_site_lead_to_pages_and_places_of_the_site(plain):
    to, pages = plain
    dead = []
    for name, page in pages.items():
        for target in page.links:
            path, _, part = target.partition('#')
            goal = os.path.normpath(Path(name).parent/path) if path else name
            found = (to/goal).exists() and (not part or goal not in pages or Path(goal).name == 'explorer.html' or part in pages[goal].ids)
            if not found: dead.append((name, target))
    assert dead == [], dead


def test_every_picture_has_words(plain):
    for name, page in plain[1].items():
        for alt in page.pictures: assert len(alt) > 3 and 'No description' not in alt, name


OBJECT = re.compile(r'object at 0x|\bat 0x[0-9a-f]{6}|<[\w.]+ object|OptionInfo|HTML\(value=')


def test_no_page_shows_an_address_an_object_or_this_machine(plain):
    "What a cell echoes for its author is not for readers, and a signature shows the defaults of a user."
    to, pages = plain
    for name, page in pages.items():
        for wrong in (OBJECT, re.compile('|'.join(re.escape(str(p)) + r'\b' for p in (ROOT, Path.home(), Path(sys.prefix))) + r'|/tmp/\w{6}|site-packages')):
            found = wrong.search(page.text)
            assert not found, f'{name}: .. {page.text[max(0, found.start() - 60):found.end() + 40]} ..'
    lines = (to/'llms.txt').read_text(encoding='utf-8').splitlines()
    own = [n for n in pages if not n.startswith('figures/')]
    assert lines[0] == '# babyvlm' and sum(l.startswith('- [') for l in lines) == len(own)


def test_every_page_has_contents_neighbours_and_a_place_in_the_search(plain):
    to, pages = plain
    index = json.loads((to/'search-index.js').read_text(encoding='utf-8').removeprefix('const PAGES = ').removesuffix(';\n').replace('<\\/', '</'))
    own = {n: p for n, p in pages.items() if not n.startswith('figures/')}
    assert {p['url'] for p in index} == set(own)
    for name, page in own.items():
        text = (to/name).read_text(encoding='utf-8')
        assert 1 <= len(re.findall(r'<a rel="(?:prev|next)"', text)) <= 2, name
        assert len(re.findall('<h2 ', text)) < 3 or 'class="contents"' in text, name


def test_pages_of_results_begin_with_the_figure_and_show_no_trace_of_their_cells(plain):
    to, pages = plain
    for name in (n for n in pages if n.startswith('papers/')):
        text = (to/name).read_text(encoding='utf-8')
        figure, table = text.find('<img'), text.find('<table')
        assert min(figure, table) < 0 or figure < table, f'{name}: the figure stands below a table'
        assert 'jp-OutputArea-executeResult' not in text or not re.search(r'<pre>\s*[\d.]+\s*</pre>', text), f'{name}: a bare number'


def test_a_paper_page_leads_to_the_committed_run(plain):
    "Its outputs are of the small profile; what the front page counts is in a report that git does not keep, and its items are in the explorer."
    to, pages = plain
    assert {'figures/study/report.html', 'figures/study/explorer.html'} <= set(pages)
    assert [n for n in pages if n.startswith('papers/') and 'figures/study/report.html' not in ' '.join(pages[n].links)] == []


def test_tables_are_whole_and_have_one_header(plain):
    to, pages = plain
    for name in (n for n in pages if not n.startswith('figures/')):
        text = (to/name).read_text(encoding='utf-8')
        assert not re.search(r'\d+ rows × \d+ columns', text), f'{name}: rows of a table are left out'
        assert not name.endswith('/claims.html') or not name.startswith('papers/') or '...</td>' not in text, f'{name}: a rule is cut off'
        assert not re.search(r'</th>\s*</tr>\s*<tr>\s*<th>[^<]+</th>(\s*<th></th>)+\s*</tr>\s*</thead>', text), f'{name}: the name of an index has a row of its own'


def test_who_searches_finds_words_and_no_code(plain):
    index = (plain[0]/'search-index.js').read_text(encoding='utf-8')
    assert 'import pandas as pd' not in index and 'read_text ( )' not in index and 'Wilson' in index


@pytest.mark.parametrize('width, scheme', [(1280, 'light'), (390, 'dark')])
def test_axe_finds_nothing_serious_on_the_site(plain, width, scheme):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='axe-playwright-python is not installed').Axe()
    with browser() as b:
        for name in ('index.html', 'guides/v1.html', 'guides/reliability.html', 'papers/v1/main_results.html', 'estimate.html', 'run/cli.html', 'data/conversations.html', 'analysis/explorer.html'):
            page = opened(b, plain[0]/name, width, color_scheme=scheme)
            found = axe.run(page).response['violations']
            assert [(v['id'], v['nodes'][0]['html'][:100]) for v in found if v['impact'] in ('serious', 'critical', 'moderate')] == [], name


CSS = (ROOT/'.ci'/'site.css').read_text(encoding='utf-8')
THEMES = {night: dict(re.findall(r'--(\w+): (#\w+)', re.search(r'^:root%s \{(.*)\}$' % re.escape(night), CSS, re.M)[1])) for night in ('', '[data-theme=dark]')}


@pytest.mark.parametrize('night', THEMES)
def test_words_of_both_themes_can_be_read(night):
    t = THEMES[night]
    pairs = [(ink, ground) for ink in ('fg', 'dim', 'key') for ground in ('bg', 'soft', 'bar')]
    code = {c for line in CSS.splitlines() if '.highlight' in line and ('dark' in line) == bool(night) for c in re.findall(r'color: (#\w+)', line)}
    assert len(code) == 3 and [p for p in pairs if contrast(t[p[0]], t[p[1]]) < 4.5] + [c for c in code if contrast(c, t['soft']) < 4.5] == []


def unreadable(text):
    "Colours that an element brings along and that cannot be read by day or by night; the site's style has its own for cells that are grey."
    found = set()
    for style in re.findall(r'<[a-z]+\b[^>]*? style="([^"]*)"', re.sub(r'<svg.*?</svg>|<table\b[^>]*gt_table.*?</table>', '', text, flags=re.S)):
        own = {k.strip(): v.strip() for k, _, v in (x.partition(':') for x in style.split(';')) if re.fullmatch('#[0-9a-fA-F]{3,6}', v.strip())}
        ink, ground = own.get('color'), own.get('background') or own.get('background-color')
        if ink is None and ground is None: continue
        if any(contrast(ink or t['fg'], ground or t['bg']) < 4.5 for t in THEMES.values()): found.add(style)
    return found


def test_colours_that_a_cell_brings_along_can_be_read_by_day_and_by_night(plain):
    assert unreadable('<td style="color:#2e7d4f">right</td>') and unreadable('<p style="background:#cfe0f5">x</p>') and not unreadable('<b style="color:#222;background:#cfe0f5">x</b>')
    to, pages = plain
    assert {n: u for n in pages if not n.startswith('figures/') and (u := unreadable((to/n).read_text(encoding='utf-8')))} == {}


class Wide(HTMLParser):
    "Tables and code of a page that have no place to be scrolled in."
    VOID = {'area', 'br', 'col', 'hr', 'img', 'input', 'link', 'meta', 'source', 'wbr'}
    PLACES = {'output_subarea', 'rendered_html', 'jp-RenderedHTMLCommon', 'jp-OutputArea-output'}

    def __init__(self, text):
        super().__init__()
        self.above, self.loose = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        place = bool(self.PLACES & set((a.get('class') or '').split())) or 'overflow' in (a.get('style') or '') or tag == 'pre'
        if tag == 'table' and not place and self.above[-1:] != [('main', False)] and not any(p for _, p in self.above): self.loose.append(self.getpos())
        if tag not in self.VOID: self.above.append((tag, place))

    def handle_endtag(self, tag):
        names = [t for t, _ in self.above]
        if tag in names: del self.above[len(names) - 1 - names[::-1].index(tag):]


def test_what_may_be_wider_than_a_phone_has_a_place_to_be_scrolled_in(plain):
    "Held without a browser: the style gives these places their bar, and pictures their limit."
    for rule in (r'^\.jp-OutputArea-output, \.output_subarea, \.jp-RenderedHTMLCommon \{[^}]*overflow-x: auto', r'^main > table, [^{]*\{[^}]*overflow-x: auto', r'^\.rendered_html, [^{]*\{[^}]*overflow-x: auto',
                 r'^pre \{[^}]*overflow-x: auto', r'^img, svg \{ max-width: 100%', r'^\.cut \{ overflow-x: auto'): assert re.search(rule, CSS, re.M), rule
    assert Wide('<main><div><table></table></div></main>').loose and not Wide('<main><table></table><div class="rendered_html"><p>x<div><table></table></div></div></main>').loose
    to, pages = plain
    assert {n: w for n in pages if not n.startswith('figures/') and (w := Wide((to/n).read_text(encoding='utf-8')).loose)} == {}


def test_headings_show_no_sign_of_a_link_to_themselves(plain): assert [n for n, p in plain[1].items() if '\u00b6' in p.text] == []


KINDS = ('index.html', 'guides/v1.html', 'run/cli.html', 'estimate.html', 'papers/v2/main_results.html', 'papers/v1/contexts.html', 'data_cards/vtwt/index.html', 'analysis/survey/power.html',
         'nursery/world.html', 'figures/study/explorer.html')   # the report has tests of its own


@pytest.mark.parametrize('width', [1366, 768, 390])
def test_no_kind_of_page_is_scrolled_sideways_and_a_finger_hits_what_it_presses(plain, width):
    with browser() as b:
        for name in KINDS:
            page = opened(b, plain[0]/name, width)
            page.wait_for_load_state('load')
            assert page.evaluate('document.documentElement.scrollWidth') <= width, f'{name} is wider than {width} px'
            small = page.eval_on_selector_all('button, summary, select, input:not([type=checkbox])', """all => all.filter(e => e.checkVisibility()).map(e => [e.innerText || e.id, e.getBoundingClientRect()])
                .filter(([_, r]) => r.width && Math.min(r.width, r.height) < 24).map(([w, r]) => `${w} ${Math.round(r.width)} x ${Math.round(r.height)}`)""")
            assert small == [] or width > 960, (name, small)
            if name == 'papers/v2/main_results.html' and width == 390:
                figure = page.locator('.zoom').first
                figure.click()
                assert figure.locator('img').evaluate('e => e.clientWidth == (Number(e.getAttribute("width")) || e.naturalWidth)') and page.evaluate('document.documentElement.scrollWidth') <= width
                assert page.locator('.more').count() > 0, 'a table that goes on does not say so'
            assert page.complaints == []
            page.close()


def test_site_in_a_real_browser(plain):
    to, _ = plain
    with browser() as b:
        page = opened(b, to/'index.html')
        assert page.locator('main h1').inner_text() == 'babyvlm' and page.complaints == []
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click('#dark')
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        page.fill('#search', 'departures')
        page.wait_for_selector('#found a')
        page.click('#found a')
        assert 'departures' in page.locator('main h1').inner_text() and page.locator('math').count() > 0
        assert page.locator('#pages a[aria-current]').count() == 1 and page.locator('.neighbours a').count() == 2
        page.keyboard.press('/')
        page.keyboard.type('two-word')
        page.wait_for_selector('#found a small')
        page.keyboard.press('ArrowDown'); page.keyboard.press('ArrowUp')
        first = page.locator('#found a[aria-selected=true]').get_attribute('href')
        page.keyboard.press('Enter')
        page.wait_for_url(f"**/{first.removeprefix('../')}")
        result = opened(b, to/'papers/v1/main_results.html')
        assert result.locator('.copy').count() == result.locator('main .highlight pre').count() > 0
        assert opened(b, to/'guides/questions.html').locator('.contents li').count() > 2
        for name in ('index.html', 'guides/start_toy.html', 'guides/questions.html', 'papers/v1/main_results.html', 'data_cards/vtwt/index.html'):
            phone = opened(b, to/name, width=380)
            assert phone.evaluate('document.documentElement.scrollWidth') <= 380, f'{name} is wider than a phone'
            assert not phone.locator('#pages').is_visible() and phone.complaints == []
            phone.click('#menu')
            assert phone.locator('#pages').is_visible()


@pytest.mark.skipif(not shutil.which('quarto'), reason='Quarto is not on the PATH; the pages are checked up to its call')
def test_quarto_renders(site, tmp_path):
    subprocess.run(['quarto', 'render', str(site), '--no-execute', '--output-dir', str(tmp_path)], check=True)
    assert (tmp_path/'index.html').exists()
    with browser() as b: assert 'babyvlm' in opened(b, tmp_path/'index.html').title()
