"""The oldest versions that settings.ini allows, and known holes of the versions of the toy run: both need the net, weekly and on request.

`python -m pytest -m slow tests/test_floors.py`"""
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def declared():
    "Requirements of a full installation, those of development left out."
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    return [Requirement(r) for e in ('', 'train_', 'match_', 'endpoint_', 'analysis_') for r in ini['DEFAULT'][f'{e}requirements'].split()]


def floor(requirement):
    "The oldest version that is allowed, or None."
    return next((s.version for s in requirement.specifier if s.operator == '>='), None)


def ran(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_requirement_has_a_floor_that_the_toy_run_keeps():
    "Without a floor the oldest version ever made is allowed."
    locked = dict(l.split('==') for l in (ROOT/'.ci'/'lock.txt').read_text().splitlines() if '==' in l)
    for r in declared():
        assert floor(r), f'{r}: no oldest version'
        assert r.specifier.contains(locked[r.name.replace('_', '-').lower()], prereleases=True), f'{r}: the lock has another version'


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    "A bare Python of its own."
    folder = tmp_path_factory.mktemp('floors')
    ran(sys.executable, '-m', 'venv', folder/'venv')
    return folder/'venv'/'bin'/'python'


@pytest.mark.slow
def test_the_oldest_versions_import_and_count_right(python):
    lowest = python.parents[2]/'lowest.txt'
    lowest.write_text('\n'.join(f'{r.name}=={floor(r)}' for r in declared()))
    ran(python, '-m', 'pip', 'install', '-q', '-c', lowest, f'{ROOT}[train,match,endpoint,analysis]', 'pytest', 'hypothesis')
    ran(python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *(ROOT/'tests'/f'test_{t}.py' for t in ('names', 'items', 'estimate', 'parsing', 'v1', 'devcv', 'hierarchy')))


@pytest.mark.slow
def test_the_locked_versions_have_no_known_hole(python):
    ran(python, '-m', 'pip', 'install', '-q', 'pip-audit')
    ran(python, '-m', 'pip_audit', '--no-deps', '--disable-pip', '-r', ROOT/'.ci'/'lock.txt')
