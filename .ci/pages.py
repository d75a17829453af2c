"""Run the library pages and the guides, and compare what they print with what is stored: `python .ci/pages.py [--write] [PAGE or folder ..]`.

A page that stops fails everywhere. Other words or numbers than the stored ones fail where the numerics promise the same bits as on the machine that
stored them, and are only shown elsewhere. `--write` stores what changed."""
import html
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from nbdev.process import NBProcessor

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT/'.ci'/'pages.json'              # numerics of the machine that stored the outputs
SKIPPED = {'notest', 'slow', 'cuda', 'hub'}   # as tst_flags of settings.ini
NAMES = re.compile(r'\b(?:tmp[a-z0-9_]{8}|[0-9a-f]{12})\b')   # folders and artifacts of this run
OBJECT = re.compile(r'^<[^<>]*>$')            # an object that shows itself as a picture or a table only


def said(outputs):
    "What a reader reads of a cell's outputs: tables as their cells, no pictures."
    texts = []
    for o in outputs:
        if o.get('name') == 'stderr': continue   # warnings and progress
        data = o.get('data') or {'text/plain': o.get('text', '')}
        if any(k.startswith(('image/', 'application/')) for k in data): continue
        text = ''.join(data.get('text/markdown') or data.get('text/html') or data.get('text/plain') or '')
        if 'text/html' in data: text = html.unescape(re.sub(r'<style.*?</style>|<[^>]*>', ' ', text, flags=re.S))
        if not OBJECT.match(text.strip()): texts += NAMES.sub('..', text).split()
    return ' '.join(texts)


def skipped(cell):
    "Cells that tests leave out."
    flags = getattr(cell, 'directives_', None) or {}
    return cell.cell_type != 'code' or flags.get('eval:', [''])[0].lower() == 'false' or bool(SKIPPED & flags.keys())


def run(path):
    "What stopped the page, or None; and its cells with another output: number, stored, fresh, outputs."
    here = sys.modules['__main__']   # a shell puts itself there, and the next page is found here
    try: return executed(path)
    finally: sys.modules['__main__'] = here


def executed(path):
    "The page in a shell of its own."
    sys.path.insert(0, str(ROOT))
    os.environ['IN_TEST'] = '1'
    nb, stored = NBProcessor(path, process=True).nb, nbformat.read(path, 4)
    shell, apart = CaptureShell(path), []
    for i, (cell, old) in enumerate(zip(nb.cells, stored.cells, strict=True)):
        if skipped(cell): continue
        with working_directory(path.parent): shell.cell(cell)
        if shell.exc:
            why = ' '.join(str(shell.exc).split())[:300]
            return f'cell {i}: {type(shell.exc).__name__}: {why}\n{shell.prettytb(fname=path)}', apart
        now = json.loads(json.dumps(cell.get('outputs') or []))
        if said(now) != said(old.get('outputs', ())): apart.append((i, said(old.get('outputs', ())), said(now), now))
    return None, apart


def near(a, b, width=90):
    "Two texts from where they begin to differ."
    k = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    k = max(0, k - 20)
    return f"'{a[k:k + width]}' became '{b[k:k + width]}'"


def store(path, apart):
    "Give the cells that print something else their new outputs."
    nb = nbformat.read(path, 4)
    for i, _, _, now in apart:
        nb.cells[i].outputs = [nbformat.from_dict(o) for o in now if o.get('name') != 'stderr']
    nbformat.write(nb, path)
    subprocess.run(['nbdev_clean', '--fname', str(path)], check=True)


def pages(named):
    "Notebooks below some files and folders, but those of the papers, which the batch runs."
    found = {p for d in named for p in ([d] if d.is_file() else d.rglob('*.ipynb'))}
    return sorted(p for p in found if not any(x.startswith(('_', '.')) or x == 'papers' for x in p.relative_to(ROOT).parts))


def numbers():
    "The numerics of this machine, and whether the stored outputs promise the same bits here."
    code = ('import json, sys; from babyvlm.numerics import numerics, same_bits; here = numerics(); '
            'print(json.dumps([here, same_bits(json.loads(sys.argv[1]), here)]))')
    old = RECORD.read_text(encoding='utf-8') if RECORD.exists() else '{}'
    return json.loads(subprocess.run([sys.executable, '-c', code, old], check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def workers():
    "Two processes at a time, a new one for each page, forked from one that has imported what is slow."
    context = get_context('forkserver')
    context.set_forkserver_preload(['babyvlm', 'torch', 'pandas', 'scipy.stats', 'matplotlib.pyplot', 'IPython', 'peft', 'great_tables'])
    return ProcessPoolExecutor(2, context, max_tasks_per_child=1)


def main(words):
    "Exit status."
    write, named = '--write' in words, [Path(w).resolve() for w in words if w != '--write'] or [ROOT/'nbs']
    found = pages(named)
    if not found: sys.exit(f"no page at {', '.join(words)}: name a notebook below nbs/, or a folder of them")
    (here, same), bad, other = numbers(), [], 0
    with workers() as pool:
        for path, (stopped, apart) in zip(found, pool.map(run, found)):
            page = path.relative_to(ROOT/'nbs')
            if stopped: print(f'FAILED {page}, {stopped}', flush=True)
            for i, a, b, _ in apart: print(f'{"differs" if same else "other numerics"}: {page}, cell {i}: {near(a, b)}', flush=True)
            if stopped or (apart and same and not write): bad.append(str(page))
            if write and not stopped: store(path, apart)
            other += len(apart)
    if write: RECORD.write_text(json.dumps(here, indent=1, sort_keys=True) + '\n', encoding='utf-8')
    print(f'{len(found)} pages, {len(bad)} failed; {other} outputs differ from the stored ones'
          + ('' if same else ', which were made under other numerics') + ''.join(f'\n  FAILED {p}' for p in bad))
    return int(bool(bad))


if __name__ == '__main__':
    os.chdir(ROOT)
    os.environ |= dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false')   # as .ci/test
    os.environ.pop('MPLBACKEND', None)
    sys.exit(main(sys.argv[1:]))
