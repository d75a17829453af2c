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


def test_wheel_holds_every_module_and_table(tmp_path):
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(tmp_path), str(ROOT)], check=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob('*.whl'))).namelist())
    for f in (ROOT/'babyvlm').rglob('*'):
        if f.suffix in ('.py', '.csv') and '__pycache__' not in f.parts: assert str(f.relative_to(ROOT)) in names, f.name
    for card in (ROOT/'data_cards').glob('*/README.md'): assert f'babyvlm/assets/data_cards/{card.parent.name}/README.md' in names, card.parent.name


def test_torchvision_loads_beside_this_torch():
    import babyvlm  # noqa: F401  the guard must be installed before torchvision is imported
    from torchvision.models import resnet18
    assert resnet18(weights=None).fc.in_features == 512


def test_import_touches_neither_network_nor_gpu():
    "Importing the package does not initialise CUDA and opens no socket."
    code = ('import socket, sys; socket.socket.connect = lambda *a: sys.exit("network at import");'
            'import babyvlm.report, babyvlm.data.nursery, babyvlm.benchmarks.v1, torch; assert not torch.cuda.is_initialized()')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


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
    for name, status in dict(python=1, babyvlm=1, nbdev_test=0, chromium=0).items():
        (tmp_path/name).write_text(f'#!/bin/sh\necho "called {name} $1"\n[ "$1" = .ci/generated.py ] || exit {status}\n')
        (tmp_path/name).chmod(0o755)
    env = dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}')
    run = subprocess.run(['bash', '.ci/test'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert re.findall('called (.*)', run.stdout) == ['python .ci/generated.py', 'babyvlm reproduce', 'nbdev_test --n_workers', 'python -m']
    assert re.findall(r'FAILED step (\d), .*: exit status (\d)', run.stdout) == [('2', '1'), ('4', '1')]
    assert run.returncode == 1 and '2 of 4 steps failed' in run.stdout
