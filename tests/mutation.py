"""Change one thing in a copy of the package, run the tests that should notice, and say which one did.

`python tests/mutation.py [--module NAME] [--jobs N]` draws mutants of the modules below and writes the share killed to tests/reliability.
"""
import argparse
import ast
import copy
import json
import multiprocessing.connection
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT/'tests'/'reliability'
SECONDS = 180   # of one trial; a mutant that hangs counts as noticed


@dataclass(frozen=True)
class Trial:
    "A change and the tests that should notice it."
    name: str
    file: str = ''       # below babyvlm; '' changes nothing
    text: str = ''       # what the file says then
    tests: tuple = ()    # arguments of pytest


class Failure:
    "The first test that failed."
    name = ''
    def pytest_runtest_logreport(self, report):
        if report.failed and not self.name: self.name = report.nodeid.removeprefix('tests/')
    def pytest_collectreport(self, report):
        if report.failed and not self.name: self.name = f'{report.nodeid} does not import'


def try_one(trial: Trial) -> dict:
    "Run a trial; to be called in a process of its own."
    import pytest
    place = Path(tempfile.mkdtemp(prefix='babyvlm-trial-'))
    try:
        for part in ('babyvlm', 'tests'): shutil.copytree(ROOT/part, place/part, ignore=shutil.ignore_patterns('*.pyc'))
        if trial.file: (place/'babyvlm'/trial.file).write_text(trial.text)
        for k in ('BABYVLM_DATA', 'PYTEST_ADDOPTS'): os.environ.pop(k, None)
        os.environ |= dict(PYTHONPATH=str(place), HOME=str(place), BABYVLM_STORE=str(place/'store'), OMP_NUM_THREADS='1')
        os.chdir(place)
        sys.path.insert(0, str(place)); sys.dont_write_bytecode = True
        log, found = os.open(place/'log', os.O_CREAT | os.O_WRONLY), Failure()
        os.dup2(log, 1); os.dup2(log, 2)
        code = pytest.main([*trial.tests, '-x', '-q', '-p', 'no:cacheprovider', '-m', ''], plugins=[found])
        known = {0: 'missed', 1: 'caught', 2: 'caught' if trial.file else 'broken'}
        end = dict(name=trial.name, status=known.get(int(code), 'broken'), by=found.name)
        return end if end['status'] != 'broken' else end | dict(log=(place/'log').read_text()[-2000:])
    finally: shutil.rmtree(place, ignore_errors=True)


def _serve(trial, pipe):
    os.setsid()
    pipe.send(try_one(trial)); pipe.close()
    os._exit(0)


def run(trials: Sequence[Trial], jobs: int = 1) -> Iterator[dict]:
    "Results in the order they come; each trial in a process that is forked after the slow imports."
    import numpy, pandas, pytest, scipy.stats, torch, transformers  # noqa: E401,F401  inherited by every fork
    fork, left, going = multiprocessing.get_context('fork'), list(trials), {}
    while left or going:
        while left and len(going) < jobs:
            trial = left.pop(0); here, there = fork.Pipe(False)
            proc = fork.Process(target=_serve, args=(trial, there)); proc.start(); there.close()
            going[proc] = trial, here
        multiprocessing.connection.wait([here for _, here in going.values()], 1)
        for proc, (trial, here) in list(going.items()):
            if here.poll():
                try: end = here.recv()
                except EOFError: end = dict(name=trial.name, status='caught', by='the process ended')
            elif proc.exitcode is not None: end = dict(name=trial.name, status='caught', by='the process ended')
            elif _age(proc) < SECONDS: continue
            else: end = dict(name=trial.name, status='caught', by=f'no end within {SECONDS} seconds')
            _end(proc); del going[proc]
            yield end


def _age(proc):
    "CPU seconds that a process has had, its children left out."
    fields = Path(f'/proc/{proc.pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _end(proc):
    "End a trial and whatever it started."
    try: os.killpg(proc.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    proc.join()


def write(name: str, found: dict) -> Path:
    "A result, one line an entry, so that changes can be read."
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS/f'{name}.json'
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + '\n')
    return path
