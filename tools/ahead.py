"""What the pages of a profile rest on, made by many processes at once: one a training seed, on a machine with many cores or a GPU.

    python tools/ahead.py study [--papers v1,v2,hierarchy] [--cpu v1,hierarchy] [--minutes 24]

Each process runs the code of a paper's pages with one seed, tables and figures thrown away; what it made stays in the store, and
`babyvlm reproduce --profile study` then only reads. Processes wait for each other's artifacts at the store's locks. One line an
artifact; exit status 1 if a page stopped or time ran out, with the logs that say where.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDS = dict(v1=lambda p: None, v2=lambda p: p.v2.seeds, hierarchy=lambda p: p.creatures.seeds)
FIRST = dict(v2=('', '75', '78_captions'))   # several processes a seed: each begins at another page
SECTION = dict(v2='v2', hierarchy='creatures')   # V1 shares its work between processes by itself


def child(profile, paper, first):
    "Run a paper's pages here, one after another whatever stops; how many stopped."
    import matplotlib
    from IPython.core.interactiveshell import InteractiveShell
    matplotlib.use('Agg')
    pages, shell, stopped = sorted((ROOT/'nbs'/'papers'/paper).glob('*.ipynb')), InteractiveShell.instance(), 0
    pages.sort(key=lambda p: p.stem < first)   # the other processes of a seed begin elsewhere
    for page in pages:
        began, told = time.time(), ''
        shell.reset(new_session=False)
        for i, c in enumerate(json.loads(page.read_text(encoding='utf-8'))['cells']):
            if c['cell_type'] != 'code': continue
            source = ''.join(c['source']).replace("profile_name = 'toy'", f'profile_name = {profile!r}')
            if not shell.run_cell(source).success: told = f', STOPPED at cell {i}'; break
        stopped += bool(told)
        print(f'page {page.stem}: {time.time() - began:.0f} s{told}', flush=True)
    return stopped


def main(a):
    from babyvlm.config import profile
    p, running, scratch = profile(a.profile), [], Path(tempfile.mkdtemp())
    for paper in a.papers.split(','):
        seeds = SEEDS[paper](p)
        for s in seeds or range(a.share):
            for first in FIRST.get(paper, ('',)):
                name = f'{paper}-{s}-{first}'
                env = dict(os.environ, OMP_NUM_THREADS='1', BABYVLM_FIGURES=str(scratch/name))
                if paper in a.cpu.split(','): env['BABYVLM_DEVICE'] = 'cpu'
                if seeds:
                    given = scratch/f'{name}.yml'
                    base = p.model_dump(mode='json')
                    base[SECTION[paper]]['seeds'] = [s]
                    given.write_text(json.dumps(base))
                    env['BABYVLM_OVERRIDES'] = str(given)
                words = [sys.executable, __file__, a.profile, '--child', paper, '--first', first]
                log = open(a.logs/f'{name}.log', 'w')
                running.append((name, subprocess.Popen(words, env=env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)))
    began, seen = time.time(), set()
    from babyvlm.config import store_root
    while any(r.poll() is None for _, r in running) and time.time() - began < 60*a.minutes:
        time.sleep(2)
        for m in sorted(store_root().glob('*/*/manifest.json')):
            if m in seen or m.parent.suffix: continue
            seen.add(m)
            d = json.loads(m.read_text())
            print(f"{time.time() - began:6.0f} s  {d['stage']:<18} {d['seconds']:7.1f} s  {d['record']['device']}", flush=True)
    late = [n for n, r in running if r.poll() is None]
    for _, r in running: r.kill()
    stopped = [n for n, r in running if n not in late and r.returncode]
    print(f'{(time.time() - began)/60:.1f} minutes, {len(seen)} artifacts; not finished: {late}; with a page that stopped: {stopped}; '
          f'logs in {a.logs}', flush=True)
    return int(bool(late or stopped))


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('profile')
    a.add_argument('--papers', default='v1,v2,hierarchy')
    a.add_argument('--cpu', default='', help='papers whose processes leave the GPU alone')
    a.add_argument('--share', type=int, default=4, help='processes for V1')
    a.add_argument('--minutes', type=float, default=120)
    a.add_argument('--logs', type=Path, default=Path(tempfile.gettempdir()))
    a.add_argument('--child')
    a.add_argument('--first', default='')
    a = a.parse_args()
    sys.path.insert(0, str(ROOT))
    import babyvlm  # noqa: F401  before transformers
    sys.exit(min(1, child(a.profile, a.child, a.first)) if a.child else main(a))
