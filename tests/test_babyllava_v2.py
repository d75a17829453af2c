"""BabyLLaVA-V2: faults of checkpoints and records, padding and batching, resume after a kill, and the command line."""
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import babyvlm  # noqa: F401
import pytest
import torch
from PIL import Image

from babyvlm.data.conversations import IMAGE, Record, RecordError, Turn, save_records
from babyvlm.items import Item
from babyvlm.models.babyllava import BabyLlavaConfig, BabyLlavaForConditionalGeneration, llama_text
from babyvlm.models.babyllava_v2 import BabyLlavaV2, RecordProcessor, fold_layer_scale, load_released_v2, rounds_of
from babyvlm.models.tokenizers import bpe_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens, vit
from babyvlm.models.weights import seeded
from babyvlm.training.instructions import V2_PHASE2, V2_PHASE3, BucketBatches, Faults, Pictures, RecordData, train_records

COLOURS = dict(red=(220, 40, 40), blue=(50, 60, 220))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp('world')
    for c, rgb in COLOURS.items(): Image.new('RGB', (32, 32), rgb).save(root/f'{c}.png')
    rows = [Record(f'{c}-{i}', (Turn('human', f'{IMAGE} What colour?'), Turn('gpt', c)), (f'{c}.png',), form='image[]')
            for i in range(6) for c in COLOURS]
    save_records(rows, root/'world.json')
    return root, rows


def bundle(rows, seed=0):
    words = bpe_tokenizer([t.text for r in rows for t in r.turns], 300)
    config = BabyLlavaConfig(vit(16, 1, 2, 16, 32), llama_text(len(words), 1, 16, 2, 2, 32, 128, 0, 2, 3))
    model = seeded(lambda: BabyLlavaForConditionalGeneration(config), seed)
    return BabyLlavaV2(model, RecordProcessor(image_processor(32, pad_to_square=True), words,
                                              num_image_tokens(config.vision_config), max_length=96), max_new_tokens=3)


def test_a_killed_run_goes_on_to_the_same_weights(world, tmp_path):
    root, rows = world
    phase, quick = replace(V2_PHASE3, epochs=4, batch=4, lr=3e-3, vision_lr=1e-3), dict(threads=1, pictures=dict(keep=True))
    whole, cut = bundle(rows), bundle(rows)
    train_records(whole, rows, phase, root, tmp_path/'whole', **quick)
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kw):
            if state.global_step == 6: raise KeyboardInterrupt
    from babyvlm.training import instructions as module
    start = module.RecordTrainer._start
    def with_kill(self, *a):
        a[-1]['callbacks'] = [Kill()]
        return start(self, *a)
    module.RecordTrainer._start = with_kill
    try:
        with pytest.raises(KeyboardInterrupt): train_records(cut, rows, phase, root, tmp_path/'cut', save_every=3, **quick)
    finally: module.RecordTrainer._start = start
    cut = bundle(rows)
    history = train_records(cut, rows, phase, root, tmp_path/'cut', save_every=3, **quick)
    assert history.resumed_from == 6 or history.resumed_from == 3
    for (k, a), (_, b) in zip(whole.model.state_dict().items(), cut.model.state_dict().items()):
        assert torch.equal(a, b), k


def test_frozen_parts_stay(world, tmp_path):
    root, rows = world
    b = bundle(rows)
    before = {k: v.clone() for k, v in b.model.vision_tower.state_dict().items()}
    train_records(b, rows, replace(V2_PHASE2, epochs=1, batch=4), root, tmp_path, threads=1)
    assert all(torch.equal(v, before[k]) for k, v in b.model.vision_tower.state_dict().items())


def test_a_record_without_a_target_is_named(world):
    root, rows = world
    b = bundle(rows)
    look = Pictures(root, b.processor)
    short = RecordProcessor(b.processor.image_processor, b.processor.tokenizer, 5, max_length=8)
    with pytest.raises(RecordError, match="id 'red-0'"): RecordData(rows, short, look, cut=True)
    assert len(RecordData(rows, short, look, faults=Faults(silent_records=True), cut=True).dropped) == len(rows)
    missing = replace(rows[0], images=('gone.png',))
    with pytest.raises(FileNotFoundError, match='gone.png'): RecordData([missing], b.processor, look)[0]


def test_pictures_that_stay_have_a_bound(world, monkeypatch):
    root, rows = world
    prepare, names = bundle(rows).processor, [f'{c}.png' for c in COLOURS]
    monkeypatch.setattr('babyvlm.training.instructions.ROOM', 3*prepare.image_processor.size**2)
    look = Pictures(root, prepare, keep=True)
    assert all(torch.equal(look(names), Pictures(root, prepare)(names)) for _ in range(2))
    assert len(look.row) == len(names) > len(look.kept) == 1 and Pictures(root, prepare).kept.nbytes == 0
    one = look.kept[0].nbytes   # the others lie in a file, decoded once
    monkeypatch.setattr('babyvlm.training.instructions.open_rgb', lambda path: pytest.fail('decoded again'))
    assert look(names).shape[0] == len(names) and os.fstat(look.more.fileno()).st_size == (len(names) - 1)*one


def test_blind_pictures_hold_nothing(world):
    root, rows = world
    look = Pictures(root, bundle(rows).processor, blind=True)
    assert look(['red.png', 'blue.png']).abs().sum() == 0


def test_answers_do_not_depend_on_company(world):
    root, rows = world
    b = bundle(rows, 3)
    red, blue = str(root/'red.png'), str(root/'blue.png')
    items = [Item('a', 'x', (red,), f'{IMAGE} What colour?', choice='open'),
             Item('b', 'x', (blue, red, blue), f'{IMAGE}{IMAGE} and {IMAGE}? which of these many things is it', choice='open'),
             Item('c', 'x', (), 'say something', choice='open'),
             Item('d', 'x', (red, blue), rounds=({'prompt': f'{IMAGE} one'}, {'prompt': f'{IMAGE} two'}), choice='open')]
    together = {r.uid: r.text for r in b.reply(items)}
    for i in items: assert b.reply([i])[0].text == together[i.uid]
    assert len(json.loads(together['d'])) == 2
    with pytest.raises(ValueError, match="item 'z'"): rounds_of(Item('z', 'x', (red,), f'{IMAGE}{IMAGE}', choice='open'))


def test_pictures_of_a_conversation_are_read_once_and_never_stale(world, tmp_path, monkeypatch):
    from babyvlm.models import babyllava_v2 as module
    bundle_, read = bundle(world[1]), []
    opened = module.open_image
    monkeypatch.setattr(module, 'open_image', lambda p: (isinstance(p, str) and read.append(p)) or opened(p))
    names = [str(tmp_path/f'{i}.png') for i in range(3)]
    for n in names: Image.new('RGB', (32, 32), COLOURS['red']).save(n)
    rounds = [Item(f'r{k}', 'x', tuple(names[:k]), prompt=f'{IMAGE} What colour? '*k, choice='open') for k in (1, 2, 3)]
    def tokens(): return [bundle_._open([i])[0][i.uid] for i in rounds]
    first = tokens()
    assert read == names and torch.equal(first[2][0], first[0][0])
    Image.new('RGB', (32, 32), COLOURS['blue']).save(names[0])        # written again
    os.utime(names[0], ns=(1, 1))
    second = tokens()
    assert read[3:] == names[:1] and not torch.equal(second[0], first[0]) and torch.equal(second[2][1:], first[2][1:])
    with torch.no_grad(): bundle_.model.mm_projector[2].weight.add_(.1)   # another model
    assert not torch.equal(tokens()[2], second[2]) and read[4:] == names
    bundle_.blind = True
    assert not torch.equal(tokens()[0], second[0]) and len(read) == 10
    monkeypatch.setattr(module, 'KEPT', 1)                            # room for one picture
    tokens()
    assert len(bundle_.known) == 1
    Path(names[1]).unlink()
    assert 'no such file' in bundle_._open(rounds)[1]['r2']


def talk(root, k, name, answers=('red', 'blue', 'red', 'red')):
    "Round k of a conversation with a picture a round, as Memory is asked."
    shown = [str(root/f'{c}.png') for c in ('red', 'blue', 'blue', 'red')]
    before = tuple(dict(prompt=f'{IMAGE} What colour?', answer=a) for a in answers[:k])
    return Item(f'{name}/{k}', 'x', tuple(shown[:k + 1]), f'{IMAGE} What colour?', ('red', 'blue', 'red blue'), 0, rounds=before)


def test_rounds_go_on_from_what_was_read(world, monkeypatch):
    root, rows = world
    on, whole = bundle(rows), bundle(rows)
    read, embed = [], BabyLlavaForConditionalGeneration.embed
    monkeypatch.setattr(BabyLlavaForConditionalGeneration, 'embed', lambda self, ids, *a: read.append(ids.shape) or embed(self, ids, *a))
    for k in range(4):
        others = talk(root, k, 'a'), talk(root, k, 'b', ('blue',)*4), talk(root, max(k - 1, 0), 'c')   # one lags behind
        read.clear()
        said, scores = on.reply(others), on.loglik(others)
        most, whole.left = max(n for _, n in read), {}
        read.clear()
        alone = [whole.reply([i])[0].text for i in others if not whole.left.clear()]
        assert [r.text for r in said] == alone
        for got, i in zip(scores, others):
            whole.left.clear()
            assert torch.allclose(torch.tensor(got), torch.tensor(whole.loglik([i])[0]), atol=1e-4)
        longest = max(n for _, n in read)
        if k == 3: assert most < longest/2
    with torch.no_grad(): on.model.mm_projector[2].weight.add_(1.)
    changed = on.loglik([talk(root, 3, 'a')])[0]
    whole.model.load_state_dict(on.model.state_dict()); whole.left.clear()
    assert torch.allclose(torch.tensor(changed), torch.tensor(whole.loglik([talk(root, 3, 'a')])[0]), atol=1e-4)


def test_what_was_read_makes_room(world, monkeypatch):
    from babyvlm.models import babyllava_v2 as module
    root, rows = world
    b = bundle(rows)
    b.reply([talk(root, 2, 'a')])
    ((ids, _, layers),), = b.left.values()
    assert all(x.shape[1] == len(ids) for layer in layers for x in layer)
    size = sum(x.numel()*x.element_size() for layer in layers for x in layer)
    monkeypatch.setattr(module, '_MOST', int(2.5*size))
    words = [Item(f'{w}/1', 'x', (str(root/'red.png'),), f'{w} {IMAGE} What colour?', ('red', 'blue'), 0,
                  rounds=(dict(prompt='What?', answer=w),)) for w in ('red', 'blue', 'What', 'colour')]
    b.reply(words)
    kept = [i for talks in b.left.values() for i, *_ in talks]
    assert 1 <= len(kept) <= 4 and sum(map(len, kept))*size//len(ids) <= 2.5*size
    b.left.clear(), b.reply([talk(root, 0, 'x')])
    assert not b.left                        # of one round: nothing is kept for it


def test_checkpoints_that_do_not_fit_are_refused(tmp_path, world):
    b = bundle(world[1])
    lm = {k.removeprefix('language_model.'): v for k, v in b.model.state_dict().items() if k.startswith('language_model.')}
    torch.save(lm, tmp_path/'pytorch_model.bin')
    with pytest.raises(ValueError, match='missing'): load_released_v2(tmp_path, b.model.config)
    with pytest.raises(ValueError, match="'blocks.0.ls2.gamma'"):
        fold_layer_scale({'blocks.0.ls2.gamma': torch.ones(2), 'blocks.0.mlp.fc2.weight': torch.ones(2, 2)})
    assert fold_layer_scale({'mask_token': 1, 'a.reg_token': 2, 'x': 3}) == {'x': 3}


def test_buckets_hold_every_record_once():
    for n, batch in ((1, 4), (7, 3), (64, 16)):
        lengths = [10 + 90*(i % 5 == 0) for i in range(n)]
        s = BucketBatches(lengths, batch, seed=1)
        orders = []
        for epoch in (0, 1, 0):
            s.set_epoch(epoch)
            orders.append(list(s))
        assert all(sorted(o) == list(range(n)) for o in orders) and orders[0] == orders[2]


def test_the_command_trains_under_accelerate(world, tmp_path):
    root, rows = world
    bundle(rows).save_pretrained(tmp_path/'model')
    env = dict(os.environ, BABYVLM_DEVICE='cpu', OMP_NUM_THREADS='1', ACCELERATE_USE_CPU='true', PYTHONPATH=str(Path(__file__).parent.parent))
    launch = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1',
              '--main_process_port', '0', '--mixed_precision', 'no', '--dynamo_backend', 'no']
    if (os.cpu_count() or 1) < 2: launch = [sys.executable]
    done = subprocess.run([*launch, '-m', 'babyvlm.training.instructions', str(tmp_path/'model'), str(root/'world.json'), str(root),
                           str(tmp_path/'out'), '--batch', '4', '--max_steps', '2', '--lr', '1e-3'],
                          env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '2 steps' in done.stdout
    assert isinstance(BabyLlavaV2.from_pretrained(tmp_path/'out'), BabyLlavaV2)
