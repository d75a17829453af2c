"""Kill work at a random point, do it again, and compare what is on disk with an uninterrupted run, byte for byte.

`python tests/kills.py [--n 50]` writes the figures to tests/reliability/kills.json; pytest takes a few points of each stage (test_kills.py).
"""
import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from babyvlm.estimate import Estimate
from babyvlm.items import Item, evaluate
from babyvlm.run.evaluate import Evaluation
from babyvlm.run.scorecard import Scores, write_scores
from babyvlm.store import Store

RESULTS = Path(__file__).resolve().parent/'reliability'/'kills.json'


class Model:
    name = 'm'
    def loglik(self, items):
        company = sum(len(i.options[1]) for i in items)/99   # digits depend on who is asked along
        return [np.array([1/(3 + len(i.options[1])), company]) for i in items]


ITEMS = [Item(f'é{k}', 'b', (), options=('x', 'ÿ'*k + 'y')) for k in range(24)]


def evaluation(folder): evaluate(Model(), ITEMS, folder/'j.jsonl', batch_size=4)


def aggregation(folder):
    done = [Evaluation(m, 'v1/vtwt', 'fair', {'acc': Estimate(v, v - .1, v + .1, 100, .5)}, []) for m, v in (('a', .6), ('b', .7))]
    write_scores(Scores(done=done), folder)


def artifact(folder):
    def build(path):
        for k in range(4): (path/f'{k}.txt').write_text(f'{k}\n'*2000)
    Store(folder).get('toy', dict(n=4), build)


STAGES = dict(evaluation=evaluation, aggregation=aggregation, artifact=artifact)


def on_disk(folder):
    "Every file that is a result; locks and the manifest's dates are none."
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*'))
            if p.is_file() and p.suffix != '.lock' and 'manifest' not in p.name and 'log' not in p.name}


def forked(work, folder, before=lambda: None):
    "The exit status of work in a process of its own; negative: the signal that ended it."
    pid = os.fork()
    if not pid:
        try: before(); work(folder); status = 0
        except (OSError, ValueError) as e: status = 3 if str(e) else 4
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def calls(work, folder):
    "How many calls the work makes: the points at which it can be killed."
    read, write = os.pipe()
    def count():
        n = [0]
        def seen(frame, event, arg): n[0] += event in ('call', 'c_call')
        real = os._exit
        os._exit = lambda status: (sys.setprofile(None), os.write(write, str(n[0]).encode()), real(status))
        sys.setprofile(seen)
    assert forked(work, folder, count) == 0
    return int(os.read(read, 99))


def killer(point):
    "Ends the process at its call number `point`, as `kill -9` does."
    def arm():
        left = [point]
        def seen(frame, event, arg):
            left[0] -= event in ('call', 'c_call')
            if left[0] <= 0: os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(seen)
    return arm


def killed(stage, n, seed=0):
    "Kills that landed, and how many of them were resumed to the bytes of an uninterrupted run."
    work, rng, same, landed = STAGES[stage], random.Random(f'{stage}/{seed}'), 0, 0
    with tempfile.TemporaryDirectory() as d:
        plain = Path(d)/'plain'; plain.mkdir()
        points, right = calls(work, plain), on_disk(plain)
        for k in range(n):
            folder = Path(d)/str(k); folder.mkdir()
            for _ in range(rng.randint(1, 3)):   # killed again while it resumes
                landed += forked(work, folder, killer(rng.randint(1, points))) == -signal.SIGKILL
            same += forked(work, folder) == 0 and on_disk(folder) == right
    return dict(rounds=n, kills=landed, same=same, points=points)


def full_disk(): signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))


def jumping_clock():
    real, k = time.time, [0]
    def now(): k[0] += 1; return real() + (-1)**k[0]*10**6
    time.time = now


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--n', type=int, default=50, help='rounds of each stage')
    p.add_argument('--stage', nargs='*', default=list(STAGES), choices=list(STAGES), help='default: all')
    a = p.parse_args(argv)
    found = {stage: killed(stage, a.n) for stage in a.stage}
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps({k: v for k, v in (known | found).items() if k in STAGES}, indent=1, sort_keys=True) + '\n')
    print(json.dumps(found, indent=1))
    return int(any(f['same'] < f['rounds'] for f in found.values()))


if __name__ == '__main__': sys.exit(main())
