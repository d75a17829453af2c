"""What an installer sees: settings.ini is the only metadata, and the wheel is whole."""
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
CFG = ConfigParser(delimiters=['='])
CFG.read(ROOT/'settings.ini')
CFG = CFG['DEFAULT']
LINT = ('tests/notebook_lint.py', 'tests/test_notebooks.py')  # they spell what they look for


def test_metadata_comes_from_settings():
    assert importlib.metadata.version('babyvlm') == CFG['version']
    assert f'__version__ = "{CFG["version"]}"' in (ROOT/'babyvlm'/'__init__.py').read_text()
    assert not (ROOT/'pyproject.toml').exists()


def test_site_links():
    assert (ROOT/'nbs'/'_quarto.yml').resolve() == ROOT/'_quarto.yml'
    assert (ROOT/'nbs'/'data_cards').resolve() == ROOT/'data_cards'


def build(folder, what, source=ROOT):
    "A wheel (from a folder or an sdist) or an sdist of the package."
    code = f'from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})'
    command = [sys.executable, '-c', code] if what == 'sdist' else [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation',
                                                                  '-w', str(folder), str(source)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob('*.tar.gz' if what == 'sdist' else '*.whl'))


@pytest.fixture(scope='module')
def wheels(tmp_path_factory):
    "The wheel of the checkout, and the one that the sdist gives."
    one, two, three = (tmp_path_factory.mktemp(n) for n in ('wheel', 'sdist', 'again'))
    return build(one, 'wheel'), build(three, 'wheel', build(two, 'sdist'))


@pytest.fixture(scope='module')
def outside(wheels, tmp_path_factory):
    "Run Python outside the checkout, on the package as it was installed from the sdist's wheel."
    place, work = tmp_path_factory.mktemp('site'), tmp_path_factory.mktemp('outside')
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--target', str(place), str(wheels[1])], check=True)
    def run(code, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith('BABYVLM')} | dict(PYTHONPATH=str(place), PYTHONSAFEPATH='1')
        return subprocess.run([sys.executable, '-c', BEFORE + code, *args], cwd=work, env=env, capture_output=True, text=True)
    run.place = place
    return run


FULL = {re.split('[<>=]', r)[0] for k in ('train', 'match', 'explore', 'endpoint', 'analysis') for r in CFG[f'{k}_requirements'].split()}
BEFORE = f'''
import socket, sys
def refuse(*a, **k): raise SystemExit('network at import')
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
for name in {sorted({'sklearn' if n == 'scikit-learn' else n for n in FULL} - {'timm'})!r}: sys.modules[name] = None    # not installed; open_clip brings timm
'''


def test_wheel_holds_every_module_and_table(wheels):
    names, again = (set(zipfile.ZipFile(w).namelist()) for w in wheels)
    assert names == again, names ^ again
    for f in (ROOT/'babyvlm').rglob('*'):
        if f.suffix in ('.py', '.csv') and '__pycache__' not in f.parts: assert str(f.relative_to(ROOT)) in names, f.name
    for card in (ROOT/'data_cards').glob('*/README.md'): assert f'babyvlm/assets/data_cards/{card.parent.name}/README.md' in names, card.parent.name


def test_the_core_runs_outside_a_checkout_without_extras_and_network(outside, tmp_path):
    code = 'import babyvlm, pathlib, importlib\n' \
           'for m in "reporting.tables reporting.published reporting.cards run.evaluate run.scorecard benchmarks.v1 benchmarks.devcv benchmarks.leaderboard nursery.world analysis.survey models.hub_models".split(): ' \
           'importlib.import_module(f"babyvlm.{m}")\n' \
           'import torch; assert not torch.cuda.is_initialized(); print(pathlib.Path(babyvlm.__file__).parent.parent)'
    done = outside(code)
    assert done.returncode == 0 and done.stdout.strip() == str(outside.place), done.stdout + done.stderr[-2000:]
    push = 'from babyvlm.reporting.cards import push_card\nclass Api:\n def create_repo(self, *a, **k): return "there"\n' \
           ' def upload_file(self, path_or_fileobj, **k): open(path_or_fileobj).close()\nprint(push_card("nursery", "me/x", api=Api()))'
    done = outside(push)
    assert done.stdout.strip() == 'there', done.stderr[-2000:]
    (tmp_path/'s.json').write_text('{"baby_pv": {"acc": 0.5}}')
    for args, says in ((['--help'], 'evaluate'), (['leaderboard', str(tmp_path/'s.json')], 'mean of 11'), (['data', 'list'], 'wordnet'),
                       (['power', '--items', '200'], 'smallest difference'), (['plan', '--only', '62'], '1 page to run'), (['plan', '--paper', 'v1'], 'no checkout here')):
        done = outside('from babyvlm.run.cli import app; app()', *args)
        assert done.returncode == 0 and says in done.stdout, (args, done.stdout[-500:], done.stderr[-2000:])
    done = outside('import os; from babyvlm.run.cli import app\ntry: app()\nfinally: print(os.listdir())', 'reproduce')
    assert 'this works inside a checkout' in done.stderr and done.stdout == '[]\n', done.stdout


def test_extras_are_apart_and_a_full_installation_has_them(wheels):
    with zipfile.ZipFile(wheels[0]) as z: text = z.read(next(n for n in z.namelist() if n.endswith('METADATA'))).decode()
    needs = re.findall(r'^Requires-Dist: ([\w-]+)[^;\n]*(?:; extra == "(\w+)")?', text, re.M)
    core = {n.lower().replace('_', '-') for n, e in needs if not e}
    assert not core & FULL and {'torch', 'transformers', 'pandas'} <= core
    for extra in ('full', 'dev', 'batch', 'cluster'): assert FULL <= {n for n, e in needs if e == extra}, extra


def test_the_lock_satisfies_what_is_declared():
    sys.path.insert(0, str(ROOT/'.ci'))
    import lock
    pins = dict(l.split('==') for l in (ROOT/'.ci'/'lock.txt').read_text().splitlines() if not l.startswith('#'))
    for r in lock.declared():
        assert pins.get(canonicalize_name(r.name)) and r.specifier.contains(pins[canonicalize_name(r.name)], prereleases=True), f'{r}: run .ci/lock.py'


def test_citation_and_conda_say_what_settings_say():
    cited, conda = (yaml.safe_load((ROOT/f).read_text()) for f in ('CITATION.cff', 'environment.yml'))
    assert cited['cff-version'] == '1.2.0' and cited['version'] == CFG['version'] and cited['license'] == 'Apache-2.0' and cited['title'] and cited['authors']
    assert {i['value'] for r in cited['references'] for i in r['identifiers']} == {'arXiv:2504.09426', 'arXiv:2512.10932', 'arXiv:2505.24840'}
    assert '-e .[full]' in conda['dependencies'][-1]['pip'] and 'python=3.12' in conda['dependencies']


def test_torchvision_loads_beside_this_torch():
    import babyvlm  # noqa: F401  the guard must be installed before torchvision is imported
    from torchvision.models import resnet18
    assert resnet18(weights=None).fc.in_features == 512


def test_no_machine_paths_or_hosts():
    "No committed text names a folder of the machine it was made on."
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True).stdout.split()
    bad = re.compile(r'(?<![\w.])/(?:home|root|work)/\w')
    for f in files:
        if f.endswith(('.py', '.ipynb', '.md', '.yml', '.ini', '.json', '.csv', '.svg')) and f not in LINT:
            m = bad.search((ROOT/f).read_text(encoding='utf-8', errors='ignore'))
            assert not m, f'{f}: {m and m.group()}'


def test_every_step_of_the_tests_runs_whatever_fails(tmp_path):
    "`make test` with programs that only say that they were called: the second and the last fail."
    shutil.copytree(ROOT/'.ci', tmp_path/'.ci')
    for name, status in dict(python=1, babyvlm=1, chromium=0).items():
        (tmp_path/name).write_text(f'#!/bin/sh\necho "called {name} $1"\ncase $1 in .ci/*) ;; *) exit {status};; esac\n')
        (tmp_path/name).chmod(0o755)
    env = dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}')
    run = subprocess.run(['bash', '.ci/test'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert re.findall('called (.*)', run.stdout) == ['python .ci/generated.py', 'babyvlm reproduce', 'python .ci/pages.py', 'python -m']
    assert re.findall(r'FAILED step (\d), .*: exit status (\d)', run.stdout) == [('2', '1'), ('4', '1')]
    assert run.returncode == 1 and '2 of 4 steps failed' in run.stdout
