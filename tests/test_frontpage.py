"""The front page keeps its promises: its links lead somewhere, its commands exist, its code runs as it stands."""
import importlib.util
import re
import shlex
from pathlib import Path

import nbformat
import pytest
import typer

from babyvlm.config import profile
from babyvlm.reporting.tables import STATUS
from babyvlm.run.cli import app

ROOT = Path(__file__).parent.parent
NBS = ROOT/'nbs'
CELLS = nbformat.read(NBS/'index.ipynb', 4).cells
TEXT = '\n\n'.join(c.source for c in CELLS if c.cell_type == 'markdown')
MISUSE = typer.BadParameter.__mro__[1]   # of click, or of typer's own copy of it
FENCE = re.compile(r'^```.*?\n(.*?)^```$', re.M | re.S)
LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)[^)]*\)')


def relative(text):
    "(is a picture, label, target) of every link of a page that stays inside the repository."
    found = LINK.findall(FENCE.sub('', text))
    return [(bool(bang), label, t.split('#')[0]) for bang, label, t in found if not re.match(r'[a-z]+:|#', t)]


def commands(text):
    "Lines of shell blocks and inline code that start with make or babyvlm, without their comments."
    lines = [l for block in FENCE.findall(text) for l in block.splitlines()]
    lines += re.findall(r'`([^`\n]+)`', FENCE.sub('', text))
    return [words for words in (shlex.split(l, comments=True) for l in lines) if words[:1] in (['make'], ['babyvlm']) and len(words) > 1]


def make_problem(words, makefile):
    "What is wrong with a make command, or ''."
    targets = set(re.findall(r'^([a-z]\w*):(?!=)', makefile, re.M))
    variables = set(re.findall(r'^([A-Z]\w*) \?=', makefile, re.M))
    for w in words[1:]:
        name = w.partition('=')[0]
        if name not in (variables if '=' in w else targets): return f"the Makefile has no '{name}'"
    return ''


def babyvlm_problem(words):
    "What is wrong with a babyvlm command, or ''."
    command, rest = typer.main.get_command(app), words[1:]
    while hasattr(command, 'commands'):
        if not rest or rest[0] not in command.commands: return f"babyvlm has no command '{' '.join(rest[:1])}'"
        command, rest = command.commands[rest[0]], rest[1:]
    try: command.make_context(command.name, rest)
    except MISUSE as e: return e.format_message()
    return ''


@pytest.mark.parametrize('target', sorted({t for _, _, t in relative(TEXT)}))
def test_link_leads_somewhere(target):
    file = (NBS/target).resolve()
    assert file.is_file(), f'nbs/index.ipynb refers to {target}, which does not exist'
    assert file.is_relative_to(ROOT.resolve()), f'{target} lies outside the repository'


def test_pictures_can_be_read_aloud():
    pictures = [(label, t) for bang, label, t in relative(TEXT) if bang]
    assert pictures, 'the front page shows a result'
    for label, t in pictures: assert len(label) > 20, f'{t} has no description'
    for c in CELLS:
        drawn = any(k.startswith('image/') for o in c.get('outputs', []) for k in o.get('data', {}))
        assert not drawn or '#| fig-alt:' in c.source, f'a picture without fig-alt: {c.source}'


def test_first_screen():
    "For whom it is, a picture of the nursery, both commands and a picture of a result come before anything else; then three doors."
    first = next(c.source for c in CELLS if 'make reproduce' in c.source)
    assert [' '.join(c) for c in commands(first)][:2] == ['make reproduce', 'make test']
    assert any(bang for bang, _, _ in relative(first))
    headings = re.findall(r'^## (.+)$', TEXT, re.M)
    assert headings[:3] == ['Score my checkpoint', 'Compare with people', 'Rerun a paper']
    assert TEXT.index('make reproduce') < TEXT.index('## ' + headings[0])


@pytest.mark.parametrize('words', commands(TEXT), ids=' '.join)
def test_command_exists(words):
    problem = make_problem(words, (ROOT/'Makefile').read_text()) if words[0] == 'make' else babyvlm_problem(words)
    assert not problem, f"{' '.join(words)}: {problem}"


@pytest.mark.parametrize('line', ['make dance', 'make reproduce COLOUR=red', 'babyvlm dance', 'babyvlm data', 'babyvlm data dance',
                                  'babyvlm audit --labels my_labels', 'babyvlm verify --dance'])
def test_wrong_commands_are_found(line):
    words = line.split()
    assert make_problem(words, (ROOT/'Makefile').read_text()) if words[0] == 'make' else babyvlm_problem(words)


def test_statuses_are_those_of_the_tables():
    assert set(re.findall(r'^\| `([^`]+)` \|', TEXT, re.M)) == set(STATUS)


def test_the_python_of_the_readme_runs_as_it_stands():
    "Block after block, copied from README.md into an empty session; nothing is imported behind the reader's back."
    blocks = re.findall(r'^```python\n(.*?)^```$', (ROOT/'README.md').read_text(encoding='utf-8'), re.M | re.S)
    session = {}
    for block in blocks: exec(compile(block, 'README.md', 'exec'), session)
    model = next(b for b in blocks if 'class AverageSight' in b)
    assert len(model.splitlines()) <= 10 and max(map(len, '\n'.join(blocks).splitlines())) <= 110
    assert str(session['mine']) in (ROOT/'README.md').read_text(encoding='utf-8')


def test_every_paper_page_is_on_the_map():
    "Each paper has a page that lists all its notebooks, and the front page leads to it."
    from babyvlm.reporting.coverage import page_list
    from babyvlm.reporting.published import PAPERS
    here = {t for _, _, t in relative(TEXT)}
    for paper in PAPERS:
        guide, = (NBS/'guides').glob(f'[0-9][0-9]_{paper}.ipynb')
        assert f'guides/{guide.name}' in here and 'page_list' in guide.read_text()
        here |= {t.removeprefix('../') for _, _, t in relative(page_list(paper).data)}
    pages = {str(p.relative_to(NBS)) for p in (NBS/'papers').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts}
    assert pages <= here, 'a page of results that the front page does not lead to'


GUIDES = {p.stem: '\n\n'.join(c.source for c in nbformat.read(p, 4).cells if c.cell_type == 'markdown') for p in sorted((NBS/'guides').glob('*.ipynb'))}


def accelerate_problem(words):
    "What is wrong with an accelerate command, or ''."
    if words[:2] != ['accelerate', 'launch']: return 'only `accelerate launch` is used here'
    config = words[words.index('--config_file') + 1] if '--config_file' in words else ''
    return '' if (ROOT/config).is_file() else f'no file {config}'


def lines(text):
    "Commands in the fences of a page; one that goes on in the next line is one."
    return {l for block in FENCE.findall(text) for l in block.replace('\\\n', ' ').splitlines() if l.strip()}


SERVERS = {'vllm': 'of a server that this package does not install', 'export': 'of the shell'}   # words of others


@pytest.mark.parametrize('line', sorted(set().union(*map(lines, [TEXT, *GUIDES.values()]))))
def test_every_shell_line_parses(line):
    words = shlex.split(line, comments=True)
    if not words: return
    if words[0] == 'make': problem = make_problem(words, (ROOT/'Makefile').read_text())
    elif words[0] == 'babyvlm': problem = babyvlm_problem(words)
    elif words[0] == 'accelerate': problem = accelerate_problem(words)
    elif words[:2] == ['pip', 'install']: problem = '' if words[2] == '.' or words[2] in SERVERS or words[2] in (ROOT/'settings.ini').read_text() else f'no {words[2]}'
    else: problem = '' if words[0] in SERVERS else f'nobody checks {words[0]}'
    assert not problem, f'{line}: {problem}'
    for w in words:
        if w.startswith(('tools/clusters/', 'tools/accelerate/')): assert (ROOT/w).exists(), w


def numbers(text):
    "Numbers of a text that say how large something is; names, sections, points, years, versions and links do not."
    text = re.sub(r'^(?:#+ [\d.]+|\d+\.) ', ' ', text, flags=re.M)   # of a heading or a list
    text = re.sub(r'```.*?```|`[^`]*`|\]\([^)]*\)|\$[^$]+\$|https?://\S+', ' ', text, flags=re.S)
    text = re.sub(r'arXiv [\d.]+|(?:ICCV|CVPR|NeurIPS) \d+|Python [\d.]+|V[12]\b|\b20\d\d\b|(?:section|equation|table|figure)s? [\d.]+|95 %|\b[A-Za-z]+-?\d[\w.]*', ' ', text, flags=re.I)
    return {n.rstrip('.,').replace(',', '') for n in re.findall(r'(?<![\w.])\d[\d,.]*(?!\w)', text)} - set('0123456789') - {'10', '11', '12'}


def printed(output):
    "Text of a stored output as a reader sees it: no pictures, tags or styles."
    data = output.get('data', {})
    text = ' '.join([output.get('text', ''), *(v for k, v in data.items() if k.startswith('text/') or k == 'image/svg+xml')])
    return re.sub(r'<style.*?</style>|<[^>]*>', ' ', text, flags=re.S)


def said_by_cells(cells):
    "Numbers in a page's code and in its printed outputs."
    text = ' '.join(t for c in cells if c.cell_type == 'code' for t in (c.source, *map(printed, c.get('outputs', ()))))
    return {re.sub('[,_]', '', n).rstrip('.') for n in re.findall(r'\d[\d,._]*', text)}


def said_by_papers():
    "Published values, as their source spells them and as a person would."
    from babyvlm.reporting.published import PAPERS, published
    values = [(t, v) for p in PAPERS for t, v in zip(published(p).text, published(p).value)]
    return {t for t, _ in values} | {f'{v:{how}}' for _, v in values if v == v for how in ('g', '.0f', '.1f')}


def said_by_settings(table):
    "Numbers in the settings of a profile, at any depth."
    if isinstance(table, dict): return set().union(*map(said_by_settings, table.values()))
    if isinstance(table, (list, tuple)): return set().union(*map(said_by_settings, table))
    return {f'{table:g}'} if isinstance(table, (int, float)) else set()


KNOWN = said_by_papers() | said_by_settings([profile(p).model_dump() for p in ('toy', 'paper')])
PROSE = ['index', *(f'guides/{g}' for g in GUIDES), *sorted(str(p.relative_to(NBS).with_suffix('')) for p in (NBS/'papers').rglob('*.ipynb'))]


@pytest.mark.parametrize('page', [p for p in PROSE if '.ipynb_checkpoints' not in p])
def test_numbers_come_from_a_cell_a_setting_or_a_publication(page):
    "Counts up to twelve, sections, tables, equations, years, versions and names are free; every other number needs a source."
    cells = nbformat.read(NBS/f'{page}.ipynb', 4).cells
    text = '\n\n'.join(c.source for c in cells if c.cell_type == 'markdown')
    assert not numbers(text) - said_by_cells(cells) - KNOWN, 'numbers in the prose that nothing produced'


def test_pictures_and_tags_are_no_source():
    "Digits inside an encoded picture or a style sheet would let any number pass."
    cell = nbformat.v4.new_code_cell('total = 1_067', outputs=[nbformat.v4.new_output('display_data', {
        'image/png': 'iVBOR731', 'text/html': '<style>td { width: 642px }</style><td id="853">0.527</td>', 'text/plain': '4,711'})])
    assert said_by_cells([cell]) == {'1067', '0.527', '4711'}


def test_the_search_for_numbers_finds_some():
    assert numbers('## 6.4 Sizes\n\n14. It scored 0.731 on 4,711 items (section 4.2, 95 %, CVPR 2026, arXiv 2504.09426).') == {'0.731', '4711'}


def test_readme_links_from_the_top():
    "README.md is this page seen from the top of the repository, where a symbolic link to a folder is not followed."
    spec = importlib.util.spec_from_file_location('readme', ROOT/'.ci'/'readme.py')
    readme = importlib.util.module_from_spec(spec); spec.loader.exec_module(readme)
    text, pictures = readme.readme()
    for _, _, target in relative(text):
        assert target in pictures or (ROOT/target).is_file(), f'README.md refers to {target}, which does not exist'
        above = [ROOT/p for p in Path(target).parents]
        assert not any(p.is_symlink() for p in above), f'{target} goes through a symbolic link, which GitHub does not follow'


def test_the_front_page_names_the_licence():
    first = (ROOT/'LICENSE').read_text(encoding='utf-8').split('\n')[0].strip()
    assert first in TEXT and '`LICENSE`' in TEXT
