"""Write the list of pages at the end of _quarto.yml: every notebook and data card, in reading order."""
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
MARK = '      # everything below is written by .ci/sidebar.py'
SECTIONS = {'Start': ['index.ipynb', 'guides/*.ipynb'], 'Foundations': ['[0-9]*.ipynb'], 'Data': ['data/*.ipynb'],
            'Matching': ['matching/*.ipynb'], 'The nursery': ['nursery/*.ipynb'], 'Models': ['models/*.ipynb'], 'Training': ['training/*.ipynb'],
            'Benchmarks': ['benchmarks/*.ipynb'], 'DevCV Toolbox': ['benchmarks/devcv/*.ipynb'],
            'Hierarchical recognition': ['benchmarks/hierarchy/*.ipynb'], 'Reporting': ['reporting/*.ipynb'], 'Analysis': ['analysis/*.ipynb'],
            'A survey of people': ['analysis/survey/*.ipynb'], 'Experiments': ['experiments/*.ipynb'], 'Programs': ['run/*.ipynb'],
            'Papers: BabyVLM V1': ['papers/v1/*.ipynb'], 'Papers: BabyVLM-V2': ['papers/v2/*.ipynb'],
            'Papers: hierarchical recognition': ['papers/hierarchy/*.ipynb'], 'Reproduction report': ['papers/*.ipynb'],
            'Data cards': ['data_cards/*/README.md']}


def pages(patterns):
    "Files below nbs/, sorted within a pattern; each once."
    found = [p for pattern in patterns for p in sorted((root/'nbs').glob(pattern))]
    return list(dict.fromkeys(p.relative_to(root/'nbs').as_posix() for p in found))


def listing():
    "The YAML of the sidebar's contents."
    lines, listed = [], set()
    for section, patterns in SECTIONS.items():
        here = [p for p in pages(patterns) if p not in listed]
        listed.update(here)
        if not here: continue
        lines += [f'      - section: "{section}"', '        contents:', *(f'          - {p}' for p in here)]
    every = {p.relative_to(root/'nbs').as_posix() for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts}
    if every - listed: sys.exit(f'in no section of .ci/sidebar.py: {sorted(every - listed)}')
    return '\n'.join(lines) + '\n'


def write():
    "Bring _quarto.yml up to date; whether it changed."
    path = root/'_quarto.yml'
    text = path.read_text(encoding='utf-8')
    head, mark, _ = text.partition(MARK)
    if not mark: sys.exit(f'_quarto.yml has lost the line "{MARK.strip()}"')
    new = f'{head}{MARK}\n{listing()}'
    if new != text: path.write_text(new, encoding='utf-8')
    return new != text


if __name__ == '__main__': print('_quarto.yml', 'written' if write() else 'is up to date')
