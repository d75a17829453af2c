"""The documentation builds offline: everything up to the call of Quarto."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
    import nbformat
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


@pytest.mark.skipif(not shutil.which('quarto'), reason='Quarto is not on the PATH; the pages are checked up to its call')
def test_quarto_renders(site, tmp_path):
    subprocess.run(['quarto', 'render', str(site), '--no-execute', '--output-dir', str(tmp_path)], check=True)
    assert (tmp_path/'index.html').exists()
