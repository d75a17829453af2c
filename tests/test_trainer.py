"Kill and resume, spoiled batches, several processes: what the trainer's page cannot show."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from forked import Script
from babyvlm.models.weights import seeded
from babyvlm.training.samples import Collate, Columns, EpochSampler
from babyvlm.training.trainer import (BabyTrainer, BadBatch, LossHistory, fingerprint, last_checkpoint,
                                      training_arguments)

HERE = Path(__file__).parent
SCRIPT = '''
import sys, json, time, torch
from babyvlm.models.weights import seeded
from babyvlm.training.samples import Columns
from babyvlm.training.trainer import BabyTrainer, training_arguments
from torch import nn
from transformers import TrainerCallback

class Slow(TrainerCallback):
    "Tells the parent where it is, and leaves it time to kill."
    def on_step_end(self, args, state, control, **kwargs):
        print(state.global_step, flush=True); time.sleep(float(sys.argv[2]))

def noise(batch, generator):
    return batch | {'x': batch['x'] + .01*torch.randn(batch['x'].shape, generator=generator)}

g = torch.Generator().manual_seed(1)
x = torch.randn(75, 6, generator=g)
train = Columns([f'u{i}' for i in range(60)], x=x[:60], y=x[:60].sum(1, keepdim=True))
val = Columns([f'v{i}' for i in range(15)], x=x[60:], y=x[60:].sum(1, keepdim=True))
model = seeded(lambda: nn.Sequential(nn.Linear(6, 16), nn.Dropout(.3), nn.BatchNorm1d(16), nn.Linear(16, 1)), 0)
args = training_arguments(sys.argv[1], lr=1e-2, epochs=8, batch=8, schedule=sys.argv[3], save_every=6, evaluate=6,
                          device='cpu', seed=3)
loss = lambda m, b: (m(b['x']) - b['y']).square().mean()
trainer = BabyTrainer(model, args, train, val, loss=loss, augment=noise, threads=1, patience=50, callbacks=[Slow()])
history = trainer.fit()
json.dump(dict(rows=history.frame.values.tolist(), resumed=history.resumed_from, best=history.best_step,
               weights=[p.flatten().tolist() for p in model.parameters()]), open(sys.argv[1] + '.json', 'w'))
'''


@pytest.mark.parametrize('schedule', ['cosine', 'plateau'])
def test_killed_run_resumes_to_the_same_numbers(tmp_path, schedule):
    whole = Script(SCRIPT, tmp_path/'whole', 0, schedule)
    assert whole.communicate(timeout=240) and whole.returncode == 0
    killed = Script(SCRIPT, tmp_path/'killed', .05, schedule)
    while int(killed.stdout.readline()) < 27: pass
    killed.kill()
    killed.wait()
    assert killed.returncode == -signal.SIGKILL
    again = Script(SCRIPT, tmp_path/'killed', 0, schedule)
    assert again.communicate(timeout=240) and again.returncode == 0
    a, b = (json.loads((tmp_path/f'{k}.json').read_text()) for k in ('whole', 'killed'))
    assert b['resumed'] in (24, 30) and a['resumed'] == 0
    after = [r for r in b['rows'] if r[0] > b['resumed'] and r[3] == 'loss' and r[2] == 'train']
    assert len(after) >= 20
    assert a['rows'] == b['rows'] and a['weights'] == b['weights'] and a['best'] == b['best']


def mse(model, batch): return (model(batch['x']) - batch['y']).square().mean()
def rows(n=32): return Columns([f's{i}' for i in range(n)], x=torch.randn(n, 2), y=torch.randn(n, 1))
def make(tmp_path, data, model=None, **kwargs):
    args = {k: kwargs.pop(k) for k in ('clip', 'epochs', 'save_every', 'evaluate', 'accumulate') if k in kwargs}
    return BabyTrainer(model or nn.Linear(2, 1), training_arguments(tmp_path, batch=8, device='cpu', **args), data,
                       loss=kwargs.pop('loss', mse), threads=1, **kwargs)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_spoiled_sample_is_named_before_a_weight_moves(tmp_path, value):
    data = rows()
    data.columns['y'][13] = value
    t = make(tmp_path, data, epochs=1)
    with pytest.raises(BadBatch) as e: t.fit()
    assert 's13' in e.value.uids and len(e.value.uids) == 8
    assert all(p.isfinite().all() for p in t.model.parameters())


def test_gradient_that_is_no_number_is_named(tmp_path):
    "The square root at 0 has a finite value and an infinite slope."
    def root(model, batch): return (model(batch['x']) * (batch['y'] != 9)).abs().sqrt().mean()
    data = rows()
    data.columns['y'][5] = 9.
    with pytest.raises(BadBatch, match='gradient') as e: make(tmp_path, data, loss=root).fit()
    assert 's5' in e.value.uids


def test_spoiled_validation_sample_is_named(tmp_path):
    val = Columns([f'v{i}' for i in range(8)], x=torch.randn(8, 2), y=torch.full((8, 1), float('nan')))
    with pytest.raises(BadBatch, match='validation') as e: make(tmp_path, rows(), val=val, evaluate=2).fit()
    assert 'v3' in e.value.uids


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    a = make(tmp_path/'a', rows(), model=seeded(lambda: nn.Linear(2, 1), 0), epochs=2)
    b = make(tmp_path/'b', a.train_dataset, model=seeded(lambda: nn.Linear(2, 1), 0), epochs=2, accumulate=2)
    torch.testing.assert_close(torch.tensor(a.fit().losses().values), torch.tensor(b.fit().losses().values), rtol=1e-4, atol=1e-6)


def test_frozen_batchnorm_rests_unless_asked(tmp_path):
    def net(): return seeded(lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), 0)
    for mode, drifts in (('eval', False), ('train', True)):
        t = make(tmp_path/mode, rows(), model=net(), frozen=['0', '1'], frozen_mode=mode)
        before = fingerprint(t.model)
        h = t.fit()
        assert (fingerprint(t.model)['1.running_mean'] != before['1.running_mean']) == drifts
        assert h.frozen == ('0.bias', '0.weight', '1.bias', '1.weight') and h.trained == ('2.bias', '2.weight')


def test_a_frozen_weight_that_moves_is_an_error(tmp_path):
    def cheat(model, batch):
        with torch.no_grad(): model.weight.add_(1.)
        return mse(model, batch)
    with pytest.raises(RuntimeError, match='frozen, but changed'): make(tmp_path, rows(), loss=cheat, frozen=['weight']).fit()


def test_the_caller_keeps_its_random_state_and_threads(tmp_path):
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    data, model = Columns([f's{i}' for i in range(8)], x=torch.zeros(8, 2), y=torch.zeros(8, 1)), seeded(lambda: nn.Linear(2, 1), 0)
    make(tmp_path, data, model=model).fit()
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads


def test_finished_run_leaves_no_pickle(tmp_path):
    make(tmp_path, rows(), save_every=1).fit()
    assert not [p for p in tmp_path.rglob('*') if p.suffix in ('.bin', '.pt', '.pth', '.pkl')]


def test_half_written_checkpoint_is_not_used(tmp_path):
    for step in (2, 4):
        (tmp_path/f'checkpoint-{step}').mkdir()
        (tmp_path/f'checkpoint-{step}'/'rng_state.pth').touch()
        (tmp_path/f'checkpoint-{step}'/'trainer_state.json').write_text('{"global_step": 2}' if step == 2 else '{"glo')
    assert last_checkpoint(tmp_path).name == 'checkpoint-2'


@pytest.mark.parametrize('n,batch', [(7, 2), (300, 4), (1, 3)])
def test_every_epoch_is_a_permutation(n, batch):
    lengths = torch.randint(1, 30, (n,)).numpy()
    for s in (EpochSampler(n, 3), EpochSampler(n, 3, lengths, batch)):
        orders = []
        for epoch in range(3):
            s.set_epoch(epoch)
            assert sorted(s) == list(range(n))
            orders.append(list(s))
        assert n < 9 or orders[0] != orders[1] != orders[2] != orders[0], 'each epoch has an order of its own'


LAUNCHED = '''
import os, sys, json, torch
from babyvlm.training.samples import Columns
from babyvlm.training.trainer import BabyTrainer, training_arguments
from torch import nn
x = torch.arange(48, dtype=torch.float32).view(24, 2)/24
data = Columns([f'u{i}' for i in range(24)], x=x, y=x.sum(1, keepdim=True))
torch.manual_seed(0); model = nn.Linear(2, 1)
seen = []
def loss(m, b): return (m(b['x']) - b['y']).square().mean()
def watch(b, g): seen.append(b['x'][:, 0].tolist()); return b
t = BabyTrainer(model, training_arguments(sys.argv[1], lr=.1, epochs=2, batch=8, device='cpu'), data, loss=loss, augment=watch, threads=1)
h = t.fit()
rank = int(os.environ.get('RANK', 0))
json.dump(dict(losses=h.losses().tolist(), seen=seen, w=model.weight.tolist()), open(f'{sys.argv[1]}.{rank}.json', 'w'))
'''


def test_two_processes_train_like_one(tmp_path):
    (tmp_path/'train.py').write_text(LAUNCHED)
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(HERE.parent)}
    one = subprocess.run([sys.executable, tmp_path/'train.py', tmp_path/'one'], env=env, capture_output=True, text=True, timeout=240)
    assert one.returncode == 0, one.stderr[-2000:]
    two = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
                          tmp_path/'train.py', tmp_path/'two'], env=env, capture_output=True, text=True, timeout=240)
    assert two.returncode == 0, two.stderr[-3000:]
    a, b, c = (json.loads((tmp_path/f).read_text()) for f in ('one.0.json', 'two.0.json', 'two.1.json'))
    for whole, left, right in zip(a['seen'], b['seen'], c['seen']): assert sorted(whole) == sorted(left + right)
    assert torch.allclose(torch.tensor(a['losses']), torch.tensor(b['losses']), rtol=1e-4, atol=1e-7)
    assert torch.allclose(torch.tensor(a['w']), torch.tensor(b['w']), rtol=1e-4)
