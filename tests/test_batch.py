"""The batch in a throw-away checkout: what reruns, what fails, kills, Ctrl-C, two at once."""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

ROOT = Path(__file__).parent.parent
SLOW = 'import time\nfor i in range(100): time.sleep(.3)'


def write(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    new = nbformat.v4
    code = [new.new_code_cell("profile_name = 'toy'", metadata={'tags': ['parameters']}), *map(new.new_code_cell, cells)]
    kernel = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    nbformat.write(new.new_notebook(cells=[new.new_markdown_cell(f'# {path.stem}'), *code], metadata=kernel), path)


def heed(): signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background jobs are deaf to it, and so are their children


class Checkout:
    "A small copy of this checkout; its path holds spaces."
    def __init__(self, root):
        self.root, self.papers = root, root/'nbs'/'papers'
        shutil.copytree(ROOT/'babyvlm', root/'babyvlm', ignore=shutil.ignore_patterns('__pycache__'))
        for f in ('Snakefile', 'settings.ini'): shutil.copy(ROOT/f, root/f)
        shutil.copytree(ROOT/'data_cards', root/'data_cards')
        self.env = {k: v for k, v in os.environ.items() if not k.startswith('BABYVLM_')} | dict(
            PYTHONPATH=str(root), OMP_NUM_THREADS='1')

    def call(self, *words, **env):
        code = [sys.executable, '-c', 'from babyvlm.run.cli import app; app()', 'reproduce', *words]
        return subprocess.Popen(code, cwd=self.root, env=self.env | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                start_new_session=True, preexec_fn=heed)

    def __call__(self, *words, **env):
        proc = self.call(*words, **env)
        out, _ = proc.communicate(timeout=240)
        return proc.returncode, out

    def ran(self, out): return re.findall(r'^\[.*\] (\w+) +done in', out, re.M)
    def copies(self): return {p.name: p.stat().st_mtime_ns for p in (self.root/'_runs').rglob('*.ipynb')}


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    c = Checkout(tmp_path_factory.mktemp('a checkout')/'with spaces')
    write(c.papers/'v1/60_first.ipynb', 'import babyvlm.estimate', '1 + 1')
    write(c.papers/'v1/61_broken.ipynb', 'deepest = None', "raise ValueError('the cup is empty')")
    write(c.papers/'v1/62_last.ipynb', 'profile_name')
    write(c.papers/'90_report.ipynb', 'from pathlib import Path', "sorted(p.name for p in Path('../../_runs/toy/v1').glob('*.ipynb'))")
    c.first = c()
    return c


def wait_for(condition, what, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'no {what} within {seconds} s'
        time.sleep(.1)


def leftovers(checkout):
    "Processes that work in the checkout."
    found = []
    for p in psutil.process_iter():
        try:
            if p.status() != psutil.STATUS_ZOMBIE and str(checkout.root) in p.cwd(): found.append(p)
        except psutil.Error: continue
    return found


def test_a_failure_is_named_and_stops_nobody(checkout):
    status, out = checkout.first
    assert status == 1, out
    assert {'60_first', '62_last', '90_report'} <= set(checkout.ran(out)), out
    assert '61_broken FAILED in cell' in out and 'ValueError: the cup is empty' in out
    line = "raise ValueError('the cup is empty'): ValueError: the cup is empty; see _runs/toy/v1/61_broken.failed.ipynb"
    assert f'FAILED v1/61_broken: cell 3, {line}' in out, out
    assert re.search(r'3 of 4 notebooks done, 3 of them now: [\d.]+ minutes, peak memory [\d.]+ GiB', out)
    assert (checkout.root/'_runs/toy/v1/61_broken.failed.ipynb').exists()
    assert 'Select jobs' not in out and 'rule notebook' not in out, 'noise of Snakemake'


def test_only_what_changed_runs_again(checkout):
    write(checkout.papers/'v1/61_broken.ipynb', 'deepest = None', '1')
    status, out = checkout()
    assert (status, sorted(checkout.ran(out))) == (0, ['61_broken', '90_report']), out
    assert not (checkout.root/'_runs/toy/v1/61_broken.failed.ipynb').exists()


def test_nothing_changed_nothing_runs_whatever_the_clock_says(checkout):
    before = checkout.copies()
    for p in checkout.root.rglob('*'):
        if '_runs' not in p.parts: os.utime(p)          # as after a fresh clone or a switch of branches
    nb = nbformat.read(checkout.papers/'v1/62_last.ipynb', 4)
    nb.cells[-1].outputs = [nbformat.v4.new_output('stream', text='an output')]
    nbformat.write(nb, checkout.papers/'v1/62_last.ipynb')
    status, out = checkout()
    assert status == 0 and '0 of 4 notebooks to run, 4 up to date' in out, out
    assert checkout.copies() == before


def stale(checkout, **env):
    code = 'from babyvlm.run.batch import plan; print(*[g for g, d in plan().items() if not d["fresh"]])'
    out = subprocess.run([sys.executable, '-c', code], cwd=checkout.root, env=checkout.env | env, text=True, capture_output=True, check=True)
    return out.stdout.split()


def test_what_counts_as_a_change(checkout, tmp_path):
    every = ['v1/60_first', 'v1/61_broken', 'v1/62_last', '90_report']
    assert stale(checkout) == []
    module = checkout.root/'babyvlm'/'estimate.py'
    text = module.read_text()
    module.write_text(text + '\n# a change\n')
    assert stale(checkout) == ['v1/60_first', '90_report'], 'only the notebook that imports it'
    module.write_text(text)
    (tmp_path/'saycam'/'frames').mkdir(parents=True)
    assert stale(checkout, BABYVLM_DATA=str(tmp_path)) == every, 'gated data arrived'
    (tmp_path/'more.yaml').write_text('evaluation: {n_boot: 500}')
    assert stale(checkout, BABYVLM_OVERRIDES=str(tmp_path/'more.yaml')) == every
    (tmp_path/'same.yaml').write_text('{}')
    assert stale(checkout, BABYVLM_OVERRIDES=str(tmp_path/'same.yaml')) == [], 'overrides that change nothing'
    shutil.rmtree(checkout.root/'.snakemake', ignore_errors=True)
    assert stale(checkout) == [], 'no database is needed'


def test_wrong_choices_are_one_line(checkout):
    for words in (['--only', 'no such table'], ['--profile', 'tiny']):
        status, out = checkout(*words)
        assert status == 2 and len(out.strip().splitlines()) == 1, out


PAGES = {'each starts by itself': 1, 'forked from a warm process': 3}   # as many pages to run


@pytest.fixture(params=PAGES)
def slow(checkout, request):
    folder = checkout.papers/'v2'
    write(folder/'70_slow.ipynb', SLOW)
    for i in range(1, PAGES[request.param]): write(folder/f'7{i}_quick.ipynb', f'{i}')
    yield folder/'70_slow.ipynb'
    shutil.rmtree(folder)


def started(checkout): return lambda: (checkout.root/'_runs/toy/v2/70_slow.running.ipynb').exists()


def test_kill_then_run_again_and_two_at_once(checkout, slow):
    shutil.rmtree(checkout.root/'_runs'/'toy'/'v2', ignore_errors=True)
    proc = checkout.call('--only', '7')
    wait_for(started(checkout), 'running notebook')
    status, out = checkout('--only', '7')
    assert status == 2 and 'another reproduce' in out, out
    os.kill(proc.pid, signal.SIGKILL)                    # the runner alone: its notebooks must end too
    proc.wait()
    wait_for(lambda: not leftovers(checkout), 'end of the orphans', 40)
    write(slow, '1')
    status, out = checkout('--paper', 'v2')
    assert status == 0 and {'70_slow', '90_report'} <= set(checkout.ran(out)), out


def test_interrupt_is_clean(checkout, slow):
    shutil.rmtree(checkout.root/'_runs'/'toy'/'v2', ignore_errors=True)
    proc = checkout.call('--only', '7')
    wait_for(started(checkout), 'running notebook')
    proc.send_signal(signal.SIGINT)
    out, _ = proc.communicate(timeout=60)
    assert proc.returncode == 130 and 'the same command continues' in out and 'Traceback' not in out, out
    wait_for(lambda: not leftovers(checkout), 'end of the kernels', 20)


def test_pages_of_a_batch_find_everything_imported(checkout):
    write(checkout.papers/'v2/71_warm.ipynb', "import sys\n'babyvlm.experiments.v2' in sys.modules")
    for i in (2, 3): write(checkout.papers/f'v2/7{i}_dies.ipynb', 'import os, signal', 'os.kill(os.getpid(), signal.SIGKILL)')
    status, out = checkout('--only', '7')
    page = nbformat.read(checkout.root/'_runs/toy/v2/71_warm.ipynb', 4)
    assert status == 1 and page.cells[-1].outputs[0]['data']['text/plain'] == 'True', out
    assert all(f'7{i}_dies FAILED: its kernel died' in out for i in (2, 3)), out
    shutil.rmtree(checkout.papers/'v2')


def test_making_ahead_runs_on_after_a_page_that_stops_and_says_so(tmp_path):
    (tmp_path/'tools').mkdir(); papers = tmp_path/'nbs'/'papers'/'v1'; papers.mkdir(parents=True)
    shutil.copy(ROOT/'tools'/'ahead.py', tmp_path/'tools')
    for name, source in (('61_a', "open('a', 'w').write(profile_name)"), ('62_b', '1/0'), ('63_c', "open('c', 'w').write('x')")):
        cells = [nbformat.v4.new_code_cell("profile_name = 'toy'"), nbformat.v4.new_code_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), papers/f'{name}.ipynb')
    words = [sys.executable, str(tmp_path/'tools'/'ahead.py'), 'study', '--child', 'v1', '--first', '62']
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert done.returncode == 1 and re.search('page 62_b: .*STOPPED at cell 1', done.stdout) and 'ZeroDivisionError' in done.stdout + done.stderr
    assert (tmp_path/'a').read_text() == 'study' and (tmp_path/'c').exists()


def test_an_old_time_counts_while_the_store_holds_what_the_page_rests_on(tmp_path, monkeypatch):
    from babyvlm.run import batch
    page, store = 'v1/60_overview', tmp_path/'store'
    copy, out = tmp_path/'_runs'/'toy'/f'{page}.ipynb', tmp_path/'figures'/'toy'/f'{page}.json'
    for f in (copy, out): f.parent.mkdir(parents=True)
    copy.write_text('{"metadata": {"papermill": {"duration": 3}}}'); out.write_text('{"runs": ["0123456789ab", "0123456789ab ba9876543210"]}')
    monkeypatch.setattr(batch, 'repo_root', lambda: tmp_path)
    monkeypatch.setenv('BABYVLM_STORE', str(store)); monkeypatch.setenv('BABYVLM_FIGURES', str(tmp_path/'figures'))
    (store/'saycam'/('0123456789ab' + 8*'0')).mkdir(parents=True)
    lost = batch.minutes_of(page, 'toy')
    (store/'web'/('ba9876543210' + 8*'0')).mkdir(parents=True)
    assert batch.minutes_of(page, 'toy') == (.05, 'measured') and lost[1] == 'scaled' and lost[0] > .05
    out.unlink()
    assert batch.minutes_of(page, 'toy') == lost, 'without its tables a page is made again'
