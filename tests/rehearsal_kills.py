"""Kill the rehearsal at random moments, run it again, and compare tables and store with those of a run that was left alone.

    python tests/rehearsal_kills.py --kills 20 --only 62 --write   # pages whose name holds 62; without --only: all
    python tests/rehearsal_kills.py --kills 20 --again --write     # one run of all pages, killed whenever it went on

With --write what was seen so far is in tests/reliability/rehearsal.json after each kill, and kills already on record are not done again.
"""
import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT/'tests'/'reliability'/'rehearsal.json'
RUN = [sys.executable, '-c', 'from babyvlm.run.cli import app; app()', 'reproduce', '--profile', 'rehearsal']


def copied(place):
    "A checkout of its own with an empty store; git's folder stays out."
    names = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True).stdout.decode().split('\0')
    for name in filter(None, names):
        (place/name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT/name).exists(): shutil.copy2(ROOT/name, place/name, follow_symlinks=False)
    return place


def started(place, only, log):
    env = dict(os.environ, PYTHONPATH=str(place), BABYVLM_STORE=str(place/'_store'), OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    for name in ('BABYVLM_FIGURES', 'BABYVLM_DATA', 'BABYVLM_PROFILE', 'BABYVLM_OVERRIDES'): env.pop(name, None)
    words = [*RUN, '--jobs', '1', *(['--only', only] if only else [])]
    return subprocess.Popen(words, cwd=place, env=env, stdout=log, stderr=log, start_new_session=True)


def end(proc):
    "The process and all that it started; first they stop, so that none is born meanwhile."
    family, found = [], [psutil.Process(proc.pid)]
    while found:
        for p in found: signalled(p.suspend)
        family += found
        found = [c for c in psutil.Process(proc.pid).children(recursive=True) if c not in family]
    for p in family: signalled(p.kill)
    psutil.wait_procs(family, 20); proc.wait()


def signalled(send):
    try: send()
    except psutil.NoSuchProcess: pass   # it ended by itself


def left(place):
    "Tables, and what the artifacts of the store hold; keys know when files were written, so they do not count."
    def plain(text): return re.sub(r'\b[0-9a-f]{12,64}\b', 'key', text)
    tables = {p.relative_to(place).as_posix(): plain(p.read_text()) for p in (place/'figures'/'rehearsal').rglob('*.csv')}
    found = [json.loads(p.read_text()) for p in (place/'_store').glob('*/*/manifest.json')]
    return tables, sorted((m['stage'], sorted((f, d['sha256'] if isinstance(d, dict) else d) for f, d in m['files'].items())) for m in found)


def whole(place, only):
    with open(place.parent/f'{place.name}.log', 'a') as log: return started(place, only, log).wait()


def measure(folder, kills, only=None, kept=None, note=lambda found: None):
    "How many killed runs end as the one that was left alone; `kept` is what an earlier measurement found."
    first, began = copied(folder/'whole'), time.monotonic()
    assert whole(first, only) == 0, (folder/'whole.log').read_text()[-2000:]
    took, right, found = time.monotonic() - began, left(first), kept or dict(kills=0, same=0, missed=0)
    found |= dict(tables=len(right[0]), artifacts=len(right[1]))
    for k in range(found['kills'] + found['missed'], kills):
        place, moment = copied(folder/f'killed{k}'), random.Random(f'{only}/{k}').uniform(.02, .98)*took
        with open(folder/f'killed{k}.log', 'a') as log: proc = started(place, only, log)
        try: proc.wait(moment); found['missed'] += 1; continue   # it was quicker than the first
        except subprocess.TimeoutExpired: end(proc)
        half = len(list((place/'_store').glob('*/*/manifest.json')))
        same = whole(place, only) == 0 and left(place) == right
        found['kills'] += 1; found['same'] += same
        print(f'kill {k + 1} after {moment:.0f} of {took:.0f} s, {half} artifacts: {"equal" if same else "NOT EQUAL"}', file=sys.stderr, flush=True)
        note(found)
        if same: shutil.rmtree(place)
    return found


def again(folder, kills, only=None):
    "One run that is killed whenever it went on for a while, in the end as the one that was left alone."
    first, began = copied(folder/'whole'), time.monotonic()
    assert whole(first, only) == 0, (folder/'whole.log').read_text()[-2000:]
    took, right, place, rng = time.monotonic() - began, left(first), copied(folder/'killed'), random.Random(only)
    found = dict(kills=0, same=0, missed=0, tables=len(right[0]), artifacts=len(right[1]))
    for _ in range(kills):
        moment = 15 + rng.expovariate(1.5*kills/took)   # it takes some seconds to find out what is done
        with open(folder/'killed.log', 'a') as log: proc = started(place, only, log)
        try: proc.wait(moment); found['missed'] += 1; break
        except subprocess.TimeoutExpired: end(proc)
        found['kills'] += 1
        print(f'kill {found["kills"]} after {moment:.0f} s, {len(left(place)[1])} of {len(right[1])} artifacts', file=sys.stderr, flush=True)
    same = whole(place, only) == 0 and left(place) == right
    return found | dict(same=found['kills']*same)


def main(kills, only, write, folder, one):
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    name = (only or 'all') + (', one run' if one else '')
    def note(found):
        if write: RESULTS.write_text(json.dumps(kept | {name: found}, indent=1, sort_keys=True) + '\n')
    found = again(folder, kills, only) if one else measure(folder, kills, only, kept.get(name) if write else None, note)
    note(found); print(json.dumps(found))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=3)
    parser.add_argument('--only')
    parser.add_argument('--write', action='store_true')
    parser.add_argument('--again', action='store_true', help='one run is killed again and again')
    parser.add_argument('--folder', type=Path, help='where the copies are made; those that end otherwise stay')
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder: main(given.kills, given.only, given.write, given.folder or Path(folder), given.again)
