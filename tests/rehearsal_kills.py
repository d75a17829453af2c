"""Kill the rehearsal at random moments, run it again, and compare tables and store with those of a run that was left alone.

    python tests/rehearsal_kills.py --kills 3 --only 62      # pages whose name holds 62; without --only: all
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
    words = [*RUN, *(['--only', only] if only else [])]
    return subprocess.Popen(words, cwd=place, env=env, stdout=log, stderr=log, start_new_session=True)


def end(proc):
    "The process and all that it started, at once."
    family = [*psutil.Process(proc.pid).children(recursive=True), psutil.Process(proc.pid)]
    for p in family: p.kill()
    psutil.wait_procs(family, 20); proc.wait()


def left(place):
    "Tables, and what the artifacts of the store hold; keys know when files were written, so they do not count."
    def plain(text): return re.sub(r'\b[0-9a-f]{12,64}\b', 'key', text)
    tables = {p.relative_to(place).as_posix(): plain(p.read_text()) for p in (place/'figures'/'rehearsal').rglob('*.csv')}
    found = [json.loads(p.read_text()) for p in (place/'_store').glob('*/*/manifest.json')]
    return tables, sorted((m['stage'], sorted((f, d['sha256'] if isinstance(d, dict) else d) for f, d in m['files'].items())) for m in found)


def whole(place, only):
    with open(place.parent/f'{place.name}.log', 'a') as log: return started(place, only, log).wait()


def measure(folder, kills, only=None, seed=0):
    "How many killed runs end as the one that was left alone."
    rng, first = random.Random(seed), copied(folder/'whole')
    began = time.monotonic()
    assert whole(first, only) == 0, (folder/'whole.log').read_text()[-2000:]
    took, right, done, same, moments = time.monotonic() - began, left(first), 0, 0, []
    for k in range(kills):
        place = copied(folder/f'killed{k}')
        with open(folder/f'killed{k}.log', 'a') as log: proc = started(place, only, log)
        moments.append(round(rng.uniform(.05, .95), 2))
        try: proc.wait(moments[-1]*took)
        except subprocess.TimeoutExpired: end(proc); done += 1
        same += whole(place, only) == 0 and left(place) == right
        print(f'{done} of {k + 1} killed, {same} ended equal', file=sys.stderr, flush=True)
    return dict(kills=done, same=same, moments=moments, tables=len(right[0]), artifacts=len(right[1]), only=only or 'all')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=3)
    parser.add_argument('--only')
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder: print(json.dumps(measure(Path(folder), given.kills, given.only)))
