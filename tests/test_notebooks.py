"""The notebook guide and the site's sources, checked on every notebook."""
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import yaml

from notebook_lint import lint

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
PAPERS = [p for p in NOTEBOOKS if 'papers' in p.parts]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_guide(path): assert not lint(path), '\n'.join(lint(path))


def test_lint_finds_what_it_should(tmp_path):
    "The lint itself is tested on a notebook that breaks every rule."
    new = nbformat.v4
    bad = new.new_notebook(cells=[new.new_markdown_cell('no title'),
        new.new_code_cell('#| export\ndef f(x):\n    return x'), new.new_code_cell('import os\nx = 1'),
        new.new_code_cell('try: x = 1\nexcept Exception: x = 2'), new.new_code_cell('y = 1\n' * 13), new.new_code_cell('print(1)'),
        new.new_code_cell('x', outputs=[new.new_output('stream', text='saved to /home/me/x at 12:30:01')]),
        new.new_code_cell('x', outputs=[new.new_output('display_data', {'text/html': '<td>0.527 [0.495, 0.558], n = 967, chance ...</td>'})])])
    nbformat.write(bad, tmp_path/'bad.ipynb')
    found = '\n'.join(lint(tmp_path/'bad.ipynb'))
    for word in ('no title', 'no docment', 'no docstring', 'imports and other', 'broad except', '13 lines', 'ends in print',
                 'absolute path', 'time of day', 'a cell that is cut'):
        assert word in found, word


def test_page_names_are_unique():
    names = Counter(str(p.parent/p.stem.split('_', 1)[-1]) for p in NOTEBOOKS)
    assert not [n for n, k in names.items() if k > 1]


def test_sidebar_lists_every_notebook():
    site = yaml.safe_load((ROOT/'_quarto.yml').read_text())
    def targets(contents):
        for c in contents:
            if isinstance(c, str): yield c
            elif isinstance(c.get('contents'), list): yield from targets(c['contents'])
            else: yield c['contents']
    listed = list(targets(site['website']['sidebar']['contents']))
    for t in listed: assert list((ROOT/'nbs').glob(t)), f'sidebar target {t} does not exist'
    missing = {str(p.relative_to(ROOT/'nbs')) for p in NOTEBOOKS} - set(listed)
    assert not missing, f'not in the sidebar: {sorted(missing)}'


@pytest.mark.parametrize('path', PAPERS, ids=lambda p: p.stem)
def test_paper_notebooks_have_parameters_and_outputs(path):
    nb = nbformat.read(path, 4)
    code = [c for c in nb.cells if c.cell_type == 'code']
    assert 'parameters' in code[0].metadata.get('tags', []), 'the first code cell must be tagged parameters'
    assert any(c.get('outputs') for c in code), 'committed without outputs'
    assert not any('#| export' in c.source for c in code), 'a paper notebook exports nothing'
