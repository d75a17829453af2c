"Every 'V1, section 8, point 5' of a page is a heading and a point of the notes on that paper."
import re
from pathlib import Path

import nbformat
import pytest

NBS = Path(__file__).parent.parent/'nbs'
NOTES = {'v1': '14_notes_v1', 'v2': '15_notes_v2', 'hierarchy': '16_notes_hierarchy'}
PAPER = {'V1': 'v1', 'V2': 'v2', 'hierarchy paper': 'hierarchy', 'hierarchical recognition': 'hierarchy'}
LIST = r'{0}(?:(?:, | and |, and | or | to ){0}\b(?!,\d))*'
SECTIONS = LIST.format(r'\d+(?:\.\d+)?')
POINTS = rf'(?:points?|steps?|items?|pitfalls?)\s(?P<{{0}}>{LIST.format("[0-9]+")})'
CITATION = re.compile(rf'\b(?P<paper>{"|".join(PAPER)})\b|\bsections?\s(?P<sections>{SECTIONS})(?:,\s{POINTS.format("points")})?'
                      rf'|\b(?P<pitfall>pitfalls?)\s(?P<of8>{LIST.format("[0-9]+")})|\(step\s(?P<step>\d+)\)', re.I)


def read(page): return nbformat.read(NBS/f'{page}.ipynb', 4).cells


def headings(cells):
    "Section -> its numbered points, of a page of notes."
    found, here = {}, None
    for line in '\n'.join(c.source for c in cells if c.cell_type == 'markdown').splitlines():
        if m := re.match(r'##+ (\d+(?:\.\d+)?)\.? \S', line): here = found.setdefault(m[1], set())
        elif m := re.match(r'(\d+)\. ', line): here.add(m[1])
    return found


def spread(words):
    "Numbers of '1, 2 and 5', '3 to 5' or '6.3 to 6.5'."
    def fill(m): return ', '.join(f'{m[1]}{n}' for n in range(int(m[2]), int(m[3]) + 1))
    return re.findall(r'\d+(?:\.\d+)?', re.sub(r'\b(\d+\.|)(\d+) to \1(\d+)\b', fill, words))


def citations(text, paper=None, fixed=False):
    "(paper, section, point or None) of a text; a section without a paper belongs to the one that was named last."
    section = None
    for m in CITATION.finditer(' '.join(text.split())):
        if m['paper']:
            if not fixed: paper = next(v for k, v in PAPER.items() if k.lower() == m['paper'].lower())
        elif m['sections']:
            for section in spread(m['sections']): yield paper, section, None
            for n in spread(m['points'] or ''): yield paper, section, n
        elif m['of8']:
            for n in spread(m['of8']): yield paper, '8', n
        else: yield paper, section, m['step']


KNOWN = {paper: headings(read(f'guides/{page}')) for paper, page in NOTES.items()}


def dead(text, paper=None, fixed=False):
    "Citations of a text that lead nowhere."
    found = citations(text, paper, fixed)
    return [c for c in found if c[1] not in KNOWN.get(c[0], ()) or c[2] and c[2] not in KNOWN[c[0]][c[1]]]


PAGES = sorted(str(p.relative_to(NBS).with_suffix('')) for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


@pytest.mark.parametrize('page', PAGES)
def test_every_cited_section_is_in_the_notes(page):
    "In markdown, comments and docstrings; a page of one paper need not name it."
    own = next((k for k, v in NOTES.items() if page == f'guides/{v}'), None)
    folder = page.split('/')[1] if page.startswith('papers/') else None
    assert not dead('\n'.join(c.source for c in read(page)), own or folder, fixed=bool(own)), 'sections or points that no page of notes has'


@pytest.mark.parametrize('text, bad', [
    ('as published (V1, section 9)', [('v1', '9', None)]), ('(BabyVLM-V2, sections 4.1 and 6.6)', [('v2', '6.6', None)]),
    ('V1, sections 3.1, 4.1 and 8, pitfall 70', [('v1', '8', '70')]), ('(V1, pitfalls 1 and 50)', [('v1', '8', '50')]),
    ('V2, section 2.1, steps 7 to 9', [('v2', '2.1', '9')]), ('V2, section 2.1 says so (step 12)', [('v2', '2.1', '12')]),
    ('The hierarchy paper probes (section 5.9 of the notes)', [('hierarchy', '5.9', None)]),
    ('V1 has it, V2 too (section\n6.5)', [('v2', '6.5', None)]), ('nobody knows whose section 5 this is', [(None, '5', None)])])
def test_dead_citations_are_found(text, bad): assert dead(text) == bad


@pytest.mark.parametrize('text, n', [('V1, section 8, points 1, 2 and 5', 4), ('V1, sections 3 to 5', 3), ('V1, sections 6.3 to 6.5', 3), ('V1 section 6.4: 87 to 100 %', 1),
                                     ('V1, section 5, 37,486 utterances', 1), ('*BabyVLM V1* (section 7, items 2 and 3)', 3), ('step 5 of 12 items', 0)])
def test_living_citations_are_read_and_pass(text, n): assert len(list(citations(text))) == n and not dead(text)


def test_the_search_finds_the_pages_that_cite():
    found = [c for p in PAGES for c in citations('\n'.join(c.source for c in read(p)), p)]
    assert len(found) > 100 and any(point for *_, point in found)
