"""Copy the outputs of the last batch into the paper notebooks, and its tables into figures/toy.json, with which `make verify` compares:
`python .ci/outputs.py [v1 ...]`, after `make reproduce`."""
import base64
import subprocess
import sys
from pathlib import Path

import nbformat

from babyvlm.reporting.tables import lighter
from babyvlm.run.verify import keep_tables

root = Path(__file__).resolve().parent.parent
WIDGET = 'application/vnd.jupyter.widget-view+json'  # a finished progress bar teaches nothing


def shown(outputs):
    "Outputs a reader should see."
    kept = [o for o in outputs if o.output_type != 'stream' and WIDGET not in o.get('data', {})]
    if errors := [o for o in outputs if o.output_type == 'error']: raise ValueError(f'{errors[0].ename}: {errors[0].evalue}')
    for data in (o.data for o in kept if 'image/png' in o.get('data', {})):
        data['image/png'] = base64.b64encode(lighter(base64.b64decode(data['image/png']))).decode() + '\n'
    return kept


def refresh(page, run):
    "Give a page the outputs of its run; the sources must be the same."
    mine, theirs = nbformat.read(page, 4), nbformat.read(run, 4)
    done = [c for c in theirs.cells if 'injected-parameters' not in c.metadata.get('tags', [])]
    if [c.source for c in mine.cells] != [c.source for c in done]: raise ValueError('has changed since it was run')
    for a, b in zip(mine.cells, done):
        if a.cell_type == 'code': a.outputs = shown(b.outputs)
    mine.metadata.pop('widgets', None)   # their state, of no use without them
    nbformat.write(mine, page)
    subprocess.run(['nbdev_clean', '--fname', str(page)], check=True)


if __name__ == '__main__':
    papers = sys.argv[1:] or ['.']
    for page in sorted({p for d in papers for p in (root/'nbs'/'papers'/d).rglob('[0-9]*.ipynb')}):
        name = page.relative_to(root/'nbs'/'papers')
        run = root/'_runs'/'toy'/name
        if '.ipynb_checkpoints' in name.parts: continue
        if not run.exists(): sys.exit(f'{name} was not run: `make reproduce` first')
        try: refresh(page, run)
        except ValueError as e: sys.exit(f'{name} {e}: `make reproduce` first')
        print(f'{name}: outputs of the last run')
    print(keep_tables(root/'figures'/'toy').relative_to(root))
