"""Contrastive training: kill and resume, two processes, validation slices, spoiled data."""
import json
import signal
import socket
import time

import numpy as np
import pytest
import torch
from PIL import Image

from forked import Script
from babyvlm.models.cvcl import CVCLModel, new_cvcl, text_ids
from babyvlm.models.dual_encoders import OpenClip, new_clip
from babyvlm.models.tokenizers import build_vocab
from babyvlm.training import contrastive
from babyvlm.training.contrastive import (Augment, PairLoss, blur_matrix, crop_matrix, load_pixels, pair_columns, train_clip,
                                          train_contrastive, train_cvcl)
from babyvlm.training.trainer import BadBatch, last_checkpoint

COLOURS = dict(red=(220, 40, 40), green=(40, 180, 60), blue=(50, 70, 220), yellow=(235, 215, 60))
SHAPES = 'ball', 'block'


def draw(folder, n=96, seed=0, start=0, size=32):
    "Pictures of one coloured shape on noise, with an utterance that names both."
    rng = np.random.default_rng(seed)
    table = dict(uid=[], image=[], utterance=[])
    yy, xx = np.mgrid[:size, :size]
    for i in range(start, start + n):
        colour, shape = list(COLOURS)[rng.integers(4)], SHAPES[rng.integers(2)]
        cy, cx, r = rng.integers(10, size - 10, 2).tolist() + [int(rng.integers(6, 10))]
        inside = (yy - cy)**2 + (xx - cx)**2 < r*r if shape == 'ball' else np.maximum(abs(yy - cy), abs(xx - cx)) < r
        pixels = rng.integers(90, 160, (size, size, 3)).astype(np.uint8)
        pixels[inside] = COLOURS[colour]
        Image.fromarray(pixels).save(folder/f'{i:03d}.png')
        table['uid'].append(f'p{i:03d}')
        table['image'].append(f'{i:03d}.png')
        table['utterance'].append(f'look at the {colour} {shape} .')
    return table


VOCAB = build_vocab([f'look at the {c} {s} .' for c in COLOURS for s in SHAPES], min_freq=1)


def fresh(**kwargs): return new_cvcl(VOCAB, seed=0, device='cpu', **{**dict(image_size=32, width=4), **kwargs})


@pytest.fixture
def world(tmp_path):
    train, val = draw(tmp_path), draw(tmp_path, 40, seed=1, start=500)
    return tmp_path, train, val


def test_the_training_loss_falls_far(world):
    root, _, val = world
    history = train_cvcl(fresh(width=8), draw(root, 240), root/'run', root, val, epochs=12, lr=1e-2, batch=16, schedule='cosine',
                         augment=None, threads=1, patience=50)
    assert history.losses().iloc[-10:].mean() < history.losses().iloc[0]/2   # a third, whichever kernels ran
    assert history.best_step == history.losses('val').idxmin()


SCRIPT = '''
import json, sys, torch
from pathlib import Path
from babyvlm.models.cvcl import new_cvcl
from babyvlm.training.contrastive import Augment, train_cvcl
root, out, job = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
data = json.loads((root/'data.json').read_text())
cvcl = new_cvcl(data['vocab'], seed=0, device='cpu', image_size=32, width=4, freeze_cnn=job.pop('freeze'))
job['augment'] = Augment() if job.pop('augment') else None
history = train_cvcl(cvcl, data['train'], out, root, data['val'], lr=3e-3, schedule='cosine', threads=1, **job)
if int(__import__('os').environ.get('RANK', 0)) == 0:
    weights = [p.flatten().tolist() for p in cvcl.model.state_dict().values()]
    rows = history.frame.values.tolist()
    Path(str(out) + '.json').write_text(json.dumps(dict(rows=rows, resumed=history.resumed_from, weights=weights)))
'''


def job(root, out, env=None, **settings):
    return Script(SCRIPT, root, root/out, json.dumps(settings), **(env or {}))


def result(root, out): return json.loads((root/f'{out}.json').read_text())


def losses(run, split='train'): return [(r[0], r[4]) for r in run['rows'] if r[2] == split and r[3] == 'loss']


def test_killed_run_resumes_to_the_same_losses(world):
    root, train, val = world
    (root/'data.json').write_text(json.dumps(dict(train=train, val=val, vocab=VOCAB)))
    settings = dict(freeze=False, augment=True, epochs=16, batch=16, save_every=10, evaluate=10, patience=99)
    killed = job(root, 'killed', **settings)
    deadline = time.time() + 200
    while not ((last := last_checkpoint(root/'killed')) and int(last.name.split('-')[1]) >= 20):   # whole, not only begun
        assert killed.poll() is None and time.time() < deadline
        time.sleep(.002)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert job(root, 'killed', **settings).wait(240) == 0
    assert job(root, 'whole', **settings).wait(240) == 0
    whole, again = result(root, 'whole'), result(root, 'killed')
    assert whole['resumed'] == 0 and again['resumed'] >= 20
    after = [x for x in losses(again) if x[0] > again['resumed']]
    assert len(after) >= 20 and after == [x for x in losses(whole) if x[0] > again['resumed']]
    assert again['weights'] == whole['weights'] and losses(again, 'val') == losses(whole, 'val')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])


def test_two_processes_equal_one(world):
    root, train, val = world
    (root/'data.json').write_text(json.dumps(dict(train=train, val=val, vocab=VOCAB)))
    settings = dict(freeze=True, augment=False, epochs=3, batch=16, patience=99)
    assert job(root, 'one', **settings).wait(240) == 0
    port = free_port()
    pair = [job(root, 'two', dict(RANK=str(r), LOCAL_RANK=str(r), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', MASTER_PORT=port,
                                  MASTER_ADDR='127.0.0.1'), **settings) for r in (0, 1)]
    assert [p.wait(240) for p in pair] == [0, 0]
    one, two = result(root, 'one'), result(root, 'two')
    assert [s for s, _ in losses(one)] == [s for s, _ in losses(two)]
    np.testing.assert_allclose([v for _, v in losses(one)], [v for _, v in losses(two)], atol=2e-4)
    for a, b in zip(one['weights'], two['weights']): np.testing.assert_allclose(a, b, atol=1e-3)
    # had each process only seen its own 8 pairs, the first loss would be near log 8 and not near log 16
    assert losses(two)[0][1] > 2.4


def test_validation_sees_every_pair_and_the_reference_32(world, monkeypatch):
    root, train, val = world
    seen = []
    class Counting(PairLoss):
        def __call__(self, model, batch):
            if not model.training: seen.append(len(batch['input_ids']))
            return super().__call__(model, batch)
    cvcl = fresh()
    ids = lambda t: text_ids(cvcl.tokenizer, t)
    data, held = (pair_columns(d, root, cvcl.image_processor, ids) for d in (train, val))
    p = cvcl.image_processor
    for kind, expected in (('whole', [16, 16, 8]), ('reference', [16, 16])):
        seen.clear()
        train_contrastive(cvcl.model, data, held, root/kind, Counting(p.mean, p.std), batch=16, epochs=1, lr=1e-3,
                          validation=kind, device='cpu', threads=1)
        assert seen == expected
    with pytest.raises(ValueError, match="not 'two'"):
        train_contrastive(cvcl.model, data, held, root/'x', None, validation='two', batch=16)


def test_plateau_lowers_the_rate(world):
    root, train, val = world
    same = {k: v[:16] for k, v in train.items()}
    history = train_cvcl(fresh(), same, root/'run', root, val, epochs=8, lr=1e-2, batch=16, plateau=0, patience=99, threads=1,
                         augment=None, weight_decay=0.)
    rates = history.frame[history.frame.metric == 'learning_rate'].value
    assert rates.iloc[0] == pytest.approx(1e-2) and rates.iloc[-1] < 2e-3


def test_early_stopping_keeps_the_best(world):
    root, train, val = world
    same = {k: v[:16] for k, v in train.items()}
    cvcl = fresh()
    history = train_cvcl(cvcl, same, root/'run', root, val, epochs=60, lr=2e-2, batch=16, schedule='constant', augment=None,
                         patience=3, threads=1)
    assert history.stopped_early and history.best_step == history.losses('val').idxmin() < history.steps
    assert not cvcl.model.training


def test_a_broken_weight_names_the_samples(world):
    root, train, _ = world
    cvcl = fresh()
    with torch.no_grad(): cvcl.model.projection.weight[0, 0] = float('nan')
    with pytest.raises(BadBatch, match='loss is not finite') as caught:
        train_cvcl(cvcl, train, root/'run', root, batch=8, epochs=1, threads=1)
    assert len(caught.value.uids) == 8 and set(caught.value.uids) <= set(train['uid'])
    assert not cvcl.model.training


def test_training_pairs_in_validation_are_refused(world):
    root, train, _ = world
    with pytest.raises(ValueError, match='96 samples are in the training and the validation data'):
        train_cvcl(fresh(), train, root/'run', root, train, epochs=1)


def test_missing_and_broken_pictures(world):
    root, train, _ = world
    (root/train['image'][3]).unlink()
    with pytest.raises(FileNotFoundError, match='1 of 96 pictures are missing'): train_cvcl(fresh(), train, root/'run', root)
    (root/train['image'][3]).write_bytes(b'no picture')
    with pytest.raises(OSError): train_cvcl(fresh(), train, root/'run', root)
    with pytest.raises(ValueError, match='no pairs'): train_cvcl(fresh(), dict(uid=[], image=[], utterance=[]), root/'run', root)
    with pytest.raises(ValueError, match='empty text at position 1'):
        train_cvcl(fresh(), dict(uid=['a', 'b'], image=train['image'][:2], utterance=['ball', '']), root/'run', root)


def test_a_picture_used_twice_is_decoded_once(world, monkeypatch):
    root, train, _ = world
    cvcl, calls = fresh(), []
    paths = [root/train['image'][i] for i in (0, 1, 0, 2, 1)]
    once = type(cvcl.image_processor).pixels
    monkeypatch.setattr(type(cvcl.image_processor), 'pixels', lambda self, p: calls.append(p) or once(self, p))
    pixels = load_pixels(paths, cvcl.image_processor)
    assert len(calls) == 3 and torch.equal(pixels[0], pixels[2]) and torch.equal(pixels[1], pixels[4])


def test_pictures_on_disk_give_the_same_run(world):
    root, train, val = world
    recipe = dict(epochs=1, lr=1e-3, batch=16, threads=1)
    memory = train_cvcl(fresh(), train, root/'a', root, val, **recipe)
    disk = train_cvcl(fresh(), train, root/'b', root, val, limit=0, **recipe)
    assert memory.losses().tolist() == disk.losses().tolist()


def test_training_sees_the_pictures_evaluation_sees(world):
    root, train, _ = world
    clip = new_clip(VOCAB, device='cpu', image_size=32)
    network, data, _, loss = contrastive._prepared(clip, (train, None), root, 6e9, root)
    pixels = (data.columns['pixel_values'][:4].float() - loss.mean)/loss.std
    shown = torch.stack([clip.prepare(Image.open(root/f)) for f in train['image'][:4]])
    torch.testing.assert_close(pixels, shown, atol=1e-5, rtol=1e-5)


def test_open_clip_keeps_its_best_weights_and_saves(world):
    root, train, val = world
    clip = new_clip(VOCAB, device='cpu', image_size=32)
    history = train_clip(clip, train, root/'run', root, val, epochs=6, lr=5e-3, batch=16, patience=2, threads=1)
    assert history.best_step and not clip.model.training and 'logit_scale' in history.trained
    clip.save_pretrained(root/'saved')
    texts = ['the red ball', 'the blue block']
    assert torch.equal(OpenClip(root/'saved', device='cpu').encode_texts(texts), clip.encode_texts(texts))


def test_temperature_stays_below_100(world):
    root, train, _ = world
    clip = new_clip(VOCAB, device='cpu', image_size=32)
    with torch.no_grad(): clip.model.logit_scale.fill_(9.)  # a scale of 8,103
    _, data, _, loss = contrastive._prepared(clip, (train, None), root, 6e9, root)
    batch = data.__getitems__(range(8))
    value = loss(clip.model, batch)
    value.backward()
    assert value < 200 and clip.model.logit_scale.grad == 0


def test_decay_reaches_every_parameter(world):
    root, train, _ = world
    cvcl = fresh()
    before = cvcl.model.projection.bias.detach().clone()
    data = pair_columns(train, root, cvcl.image_processor, lambda t: text_ids(cvcl.tokenizer, t))
    class Silent(PairLoss):
        def __call__(self, model, batch): return super().__call__(model, batch)*0
    p = cvcl.image_processor
    train_contrastive(cvcl.model, data, None, root/'run', Silent(p.mean, p.std), schedule='constant', batch=16, max_steps=1,
                      lr=.1, weight_decay=.5, device='cpu', augment=None)
    torch.testing.assert_close(cvcl.model.projection.bias.detach(), before*(1 - .1*.5))


@pytest.mark.parametrize('seed', range(5))
def test_crops_are_averages(seed):
    g = torch.Generator().manual_seed(seed)
    for n, out in ((64, 64), (64, 32), (30, 47)):
        length = torch.randint(1, n + 1, (8,), generator=g).float()
        start = (torch.rand(8, generator=g)*(n - length)).floor()
        m = crop_matrix(start, length, n, out)
        assert torch.isfinite(m).all() and (m >= 0).all()
        torch.testing.assert_close(m.sum(-1), torch.ones(8, out))
        for i in range(8):
            used = m[i].sum(0).nonzero().flatten()
            assert used.min() >= start[i] and used.max() < start[i] + length[i]
    torch.testing.assert_close(blur_matrix(torch.rand(4, generator=g)*5, 20).sum(-1), torch.ones(4, 20))


def test_augmentation_depends_on_the_generator_only():
    x = torch.randint(0, 256, (3, 3, 24, 24), dtype=torch.uint8)
    torch.manual_seed(0)
    a = Augment()(dict(pixel_values=x), torch.Generator().manual_seed(4))['pixel_values']
    torch.manual_seed(1)
    b = Augment()(dict(pixel_values=x), torch.Generator().manual_seed(4))['pixel_values']
    c = Augment()(dict(pixel_values=x), torch.Generator().manual_seed(5))['pixel_values']
    assert torch.equal(a, b) and not torch.equal(a, c)
    with pytest.raises(ValueError, match='chances'): Augment(flip=1.5)


def test_model_of_the_run_is_the_model_of_the_bundle(world):
    root, train, _ = world
    cvcl = fresh()
    before = cvcl.encode_texts(['ball'])
    train_cvcl(cvcl, train, root/'run', root, epochs=1, batch=16, threads=1)
    assert isinstance(cvcl.model, CVCLModel) and not torch.equal(cvcl.encode_texts(['ball']), before)
    assert not list((root/'run').glob('checkpoint-*'))
