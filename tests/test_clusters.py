"""Clusters: each notebook asks for what it needs, the plan travels, two processes through accelerate equal one, trackers write."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from babyvlm.run.batch import paper_notebooks, plan, resources_of, snakemake_command

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT/'tools'/'accelerate').glob('*.yaml'))
PAGES = [p.relative_to('nbs/papers').with_suffix('').as_posix() for p in paper_notebooks()]


@pytest.mark.parametrize('page', PAGES)
def test_every_notebook_declares_what_it_needs(page):
    toy, paper = resources_of(page, 'toy'), resources_of(page, 'paper')
    assert toy['gpu'] == 0 and toy['mem_mb'] <= 4000
    assert paper['gpu'] in range(9) and paper['cpus'] >= 1 and 1000 <= paper['mem_mb'] and 10 <= paper['minutes'] <= 7 * 24 * 60


def test_an_unknown_profile_has_no_resources():
    with pytest.raises(ValueError, match='resources.csv'): resources_of('v1/63_main_results', 'tiny')


@pytest.mark.parametrize('where', [None, 'tools/clusters/slurm', 'tools/clusters/local'])
def test_dry_run(where, tmp_path):
    if where == 'tools/clusters/slurm': pytest.importorskip('snakemake_executor_plugin_slurm', reason='the SLURM plugin is not installed')
    steps = plan('paper', 'v1', '63')
    (tmp_path/'plan.json').write_text(json.dumps(steps))
    words = snakemake_command('paper', 'v1', '63', 8, ['--dry-run'], where)
    env = os.environ | dict(BABYVLM_PLAN=str(tmp_path/'plan.json'))
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)
    said = done.stdout + done.stderr
    need = resources_of('v1/63_main_results', 'paper')
    assert done.returncode == 0, said[-2000:]
    assert f"gpu={need['gpu']}" in said and f"mem_mb={need['mem_mb']}" in said and 'v1/63_main_results' in said


def test_jobs_elsewhere_are_not_tied_to_this_process():
    assert '--profile' in snakemake_command(cluster='tools/clusters/slurm') and '--cores' not in snakemake_command(cluster='tools/clusters/slurm')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_accelerate_reads_its_configurations(path):
    from accelerate.commands.config.config_args import load_config_from_file
    config = load_config_from_file(str(path))   # refuses keys it does not know
    assert config.num_processes == yaml.safe_load(path.read_text())['num_processes']


TRAIN = '''
import json, os, sys
import torch
from torch import nn
from babyvlm.training.samples import Columns
from babyvlm.training.trainer import BabyTrainer, training_arguments
torch.manual_seed(0)
class Line(nn.Module):
    def __init__(self): super().__init__(); self.f = nn.Linear(4, 1)
    def forward(self, x, y): return dict(loss=((self.f(x) - y) ** 2).mean())
x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
data = Columns([f'r{i}' for i in range(32)], x=x, y=x.sum(1, keepdim=True))
args = training_arguments(sys.argv[1] + '/checkpoints', epochs=2, batch=8, lr=1e-2, device='cpu')
model = Line()
h = BabyTrainer(model, args, data).fit()
if int(os.environ.get('RANK', 0)) == 0:
    json.dump(dict(processes=args.world_size, losses=h.losses().tolist(), w=model.f.weight.tolist()), open(sys.argv[1] + '/out.json', 'w'))
'''


def test_two_processes_through_accelerate_equal_one(tmp_path):
    (tmp_path/'train.py').write_text(TRAIN)
    env = {k: v for k, v in os.environ.items() if k not in ('RANK', 'WORLD_SIZE')} | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), ACCELERATE_USE_CPU='true')
    launch = [sys.executable, '-m', 'accelerate.commands.launch', '--config_file', str(ROOT/'tools'/'accelerate'/'cpu.yaml'), '--main_process_port', '0']
    out = []
    for name, words in (('one', [sys.executable]), ('two', launch)):
        (tmp_path/name).mkdir()
        r = subprocess.run([*words, str(tmp_path/'train.py'), str(tmp_path/name)], env=env, capture_output=True, text=True, timeout=240)
        assert r.returncode == 0, r.stderr[-3000:]
        out.append(json.loads((tmp_path/name/'out.json').read_text()))
    assert [o['processes'] for o in out] == [1, 2]
    assert torch.allclose(torch.tensor(out[0]['losses']), torch.tensor(out[1]['losses']), rtol=1e-4, atol=1e-6)
    assert torch.allclose(torch.tensor(out[0]['w']), torch.tensor(out[1]['w']), rtol=1e-4)


PHASES = """
from babyvlm.config import profile
from babyvlm.experiments.v2 import Tuned, V2
run = V2(profile(profile_name))
made = [run.pretrained(), run.checkpoint(Tuned())]
[m.path.relative_to(run.store.root).as_posix() for m in made]
"""
SMALL = dict(v2_data=dict(recordings=2, utterances=12, video=-.5, image=-.5, train=24, test=16), nursery=dict(utterances=400, web=300),
             clip=dict(epochs=1), v2=dict(vocab_size=400, vision=dict(epochs=1), **{f'phase{k}': dict(epochs=1) for k in range(4)}))


def _through_the_snakefile(folder, processes, store):
    "A page that wants a tuned BabyLLaVA-V2; its manifests and weights."
    import nbformat
    from safetensors.torch import load_file
    pages = folder/'nbs'/'papers'/'v2'
    pages.mkdir(parents=True)
    shutil.copy(ROOT/'Snakefile', folder)
    (folder/'small.yaml').write_text(yaml.safe_dump(SMALL))
    cells = [nbformat.v4.new_code_cell("profile_name = ''", metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell(PHASES)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), pages/'74_page.ipynb')
    page = dict(notebook='nbs/papers/v2/74_page.ipynb', done=f'_runs/toy/v2/74_page.{1:016x}.done', before=[], resources=resources_of('v2/74_page', 'toy'), first=0)
    (folder/'plan.json').write_text(json.dumps({'v2/74_page': page}))
    env = {k: v for k, v in os.environ.items() if k not in ('RANK', 'WORLD_SIZE')}
    env |= dict(BABYVLM_PLAN=str(folder/'plan.json'), BABYVLM_OVERRIDES=str(folder/'small.yaml'), BABYVLM_STORE=str(store), PYTHONPATH=str(ROOT),
                BABYVLM_PROCESSES=str(processes), BABYVLM_DEVICE='cpu', OMP_NUM_THREADS='1')
    done = subprocess.run(snakemake_command('toy', jobs=1), cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    made = [next(store.glob(f'{stage}/*/manifest.json')) for stage in ('v2-pretrained', 'v2-tuned')]
    return [json.loads(m.read_text()) for m in made], [load_file(m.with_name('model.safetensors')) for m in made]


def test_a_stage_in_two_processes_through_the_snakefile_equals_one(tmp_path, monkeypatch):
    from babyvlm.config import profile
    from babyvlm.experiments.v2 import V2
    from babyvlm.store import Store
    monkeypatch.setenv('BABYVLM_DEVICE', 'cpu')
    run = V2(profile('toy', SMALL), Store(tmp_path/'one'))   # what the phases rest on, once for both
    run.eyes(), run.language(0), run.pictures(), run.toolbox()
    shutil.copytree(tmp_path/'one', tmp_path/'two')
    (one, weights), (two, others) = (_through_the_snakefile(tmp_path/f'page{n}', n, tmp_path/name) for n, name in ((1, 'one'), (2, 'two')))
    assert [m['extra'].get('processes', 1) for m in one + two] == [1, 1, 2, 2]
    assert [m['key'] for m in one] == [m['key'] for m in two] and [sorted(m['files']) for m in one] == [sorted(m['files']) for m in two]
    for a, b in zip(weights, others):
        far = torch.cat([(a[k].float() - b[k].float()).abs().flatten() for k in a])
        assert far.max() < 2e-3 and far.mean() < 1e-5, (far.max(), far.mean())   # one step is up to 4e-3


def test_processes_that_fail_say_why_in_one_line(tmp_path, monkeypatch):
    from babyvlm.config import profile
    from babyvlm.experiments.v2 import V2
    from babyvlm.store import Store
    from babyvlm.training.launch import _call, _launch
    monkeypatch.setenv('BABYVLM_DEVICE', 'cpu')
    run = V2(profile('toy', SMALL), Store(tmp_path))
    with pytest.raises(RuntimeError, match='^2 processes for nursery-recordings: babyvlm.store.StoreError: .* came to .* other settings$'):
        _launch(_call(run, 'recordings', []), run.store.root/'nursery-recordings'/'abc.part', 2)


def test_one_variable_makes_a_training_write_to_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip('tensorboard', reason='TensorBoard is not installed')
    from torch import nn
    from babyvlm.training.samples import Columns
    from babyvlm.training.trainer import BabyTrainer, training_arguments
    class Line(nn.Module):
        def __init__(self): super().__init__(); self.f = nn.Linear(2, 1)
        def forward(self, x): return dict(loss=self.f(x).square().mean())
    def train(folder):
        data = Columns([str(i) for i in range(8)], x=torch.randn(8, 2))
        BabyTrainer(Line(), training_arguments(folder, epochs=1, batch=4, lr=1e-2, device='cpu'), data).fit()
    train(tmp_path/'plain')
    assert not list((tmp_path/'plain').rglob('events.*'))
    monkeypatch.setenv('BABYVLM_TRACKER', 'tensorboard')
    train(tmp_path/'watched')
    events = list((tmp_path/'watched').rglob('events.*'))
    assert events and b'loss' in events[0].read_bytes()
    monkeypatch.setenv('BABYVLM_TRACKER', 'pencil')
    with pytest.raises(ValueError, match='unknown tracker'): train(tmp_path/'never')


ASKS = '''import os, time
from pathlib import Path
mine, here = os.environ['CUDA_VISIBLE_DEVICES'], Path('../../out')
(here/profile_name).mkdir(exist_ok=True, parents=True)
(here/f'{mine}.{os.getpid()}').write_text('')
while len([*here.glob('*.*')]) < 4: time.sleep(.1)   # all four are at work at once
'''


@pytest.mark.slow
def test_four_pages_run_at_once_each_on_a_device_of_its_own(tmp_path, monkeypatch):
    import nbformat
    shutil.copy(ROOT/'Snakefile', tmp_path)
    pages, steps = tmp_path/'nbs'/'papers'/'v1', {}
    pages.mkdir(parents=True)
    cells = [nbformat.v4.new_code_cell("profile_name = ''", metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell(ASKS)]
    need = resources_of('v1/63_main_results', 'paper') | dict(cpus=1, mem_mb=100)
    for k in range(4):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), pages/f'6{k}_page.ipynb')
        page = f'v1/6{k}_page'
        steps[page] = dict(notebook=f'nbs/papers/{page}.ipynb', done=f'_runs/paper/{page}.{k:016x}.done', before=[], resources=need, first=0)
    (tmp_path/'plan.json').write_text(json.dumps(steps))
    (tmp_path/'nbs'/'out').mkdir()
    monkeypatch.setenv('BABYVLM_DEVICES', '3,5,7,11')
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    words = snakemake_command('paper', jobs=4)
    env = os.environ | dict(BABYVLM_PLAN=str(tmp_path/'plan.json'), PYTHONPATH=str(ROOT))
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert sorted(int(f.name.split('.')[0]) for f in (tmp_path/'nbs'/'out').glob('*.*')) == [3, 5, 7, 11]
    assert len([*tmp_path.rglob('*.done')]) == 4

