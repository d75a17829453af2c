"""Training BabyLLaVA: resume, frozen parts, cached features, faults with names."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from babyvlm.models.babyllava import BabyLlava, BabyLlavaForConditionalGeneration, BabyLlavaProcessor, babyllava_toy
from babyvlm.models.tokenizers import build_vocab, word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens
from babyvlm.models.weights import seeded
from babyvlm.training.generative import (PHASE1, PHASE2, FrozenFeatures, ImageTexts, encode_once, phase_data, set_trainable,
                                         train_phase)
from babyvlm.training.trainer import BadBatch

from datasets import Dataset
from PIL import Image
from transformers import TrainerCallback

WORDS = ['look', 'at', 'the', 'red', 'ball', 'a', 'cup', 'here', 'you', 'go', '!']
TOY1, TOY2 = replace(PHASE1, epochs=2, batch=8), replace(PHASE2, epochs=2, batch=8, lr=1e-3)
HERE = dict(device='cpu', threads=1)


def world(n=48, square=True, seed=0):
    rng = np.random.default_rng(seed)
    size = lambda: (32, 32) if square else (32, 48)
    frames = {f'{i}.png': Image.fromarray(rng.integers(0, 255, (*size(), 3), dtype=np.uint8)) for i in range(n//2)}
    said = lambda: ' '.join(rng.choice(WORDS, rng.integers(1, 8)))
    return [dict(uid=f'u{i}', image=f'{i%(n//2)}.png', utterance=said()) for i in range(n)], frames


def bundle(seed=0, language='gpt2', vision='resnext', dropout=.1):
    tokenizer = word_tokenizer(build_vocab([' '.join(WORDS)], 1))
    c = babyllava_toy(len(tokenizer), language, vision, width=32, image_size=32, dropout=dropout)
    model = seeded(lambda: BabyLlavaForConditionalGeneration(c), seed)
    return BabyLlava(model, BabyLlavaProcessor(image_processor(32, pad_to_square=True), tokenizer, num_image_tokens(c.vision_config)))


class Stop(TrainerCallback):
    def __init__(self, step): self.step = step
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step: raise KeyboardInterrupt


def test_published_settings():
    assert (PHASE1.lr, PHASE1.batch, PHASE1.epochs, PHASE1.weight_decay, PHASE1.warmup, PHASE1.clip) == (3e-3, 160, 5, 0, .03, 1)
    assert (PHASE2.lr, PHASE2.batch, PHASE2.epochs, PHASE2.weight_decay) == (2e-4, 128, 5, 0)
    assert (PHASE1.pad_to_square, PHASE1.group_by_length) == (False, False)
    assert (PHASE2.pad_to_square, PHASE2.group_by_length) == (True, True)
    assert PHASE1.trains == ('mm_projector',) and set(PHASE2.trains) == {'mm_projector', 'language_model'}


def test_resume_gives_the_same_next_twenty_losses(tmp_path):
    pairs, frames = world()
    long = replace(TOY2, epochs=6)  # 36 steps
    whole = train_phase(bundle(), pairs, long, frames, tmp_path/'whole', **HERE).losses()
    with pytest.raises(KeyboardInterrupt):
        train_phase(bundle(), pairs, long, frames, tmp_path/'cut', save_every=5, trainer=dict(callbacks=[Stop(13)]), **HERE)
    again = bundle()
    for part in (again.model.mm_projector, again.language_model):  # what trains must come from the checkpoint
        for p in part.parameters(): torch.nn.init.zeros_(p)
    resumed = train_phase(again, pairs, long, frames, tmp_path/'cut', save_every=5, **HERE)
    assert resumed.resumed_from == 10
    assert resumed.losses().loc[11:30].tolist() == whole.loc[11:30].tolist()
    assert len(whole.loc[11:30]) == 20


def test_resuming_with_another_frozen_encoder_is_refused(tmp_path):
    pairs, frames = world(16)
    with pytest.raises(KeyboardInterrupt):
        train_phase(bundle(), pairs, TOY2, frames, tmp_path, save_every=1, trainer=dict(callbacks=[Stop(3)]), **HERE)
    with pytest.raises(RuntimeError, match='frozen, but changed'):
        train_phase(bundle(seed=9), pairs, TOY2, frames, tmp_path, save_every=1, **HERE)


@pytest.mark.parametrize('language,vision', [('gpt2', 'resnext'), ('llama', 'vit')])
def test_each_phase_moves_its_parts_and_nothing_else(tmp_path, language, vision):
    pairs, frames = world(16)
    b = bundle(language=language, vision=vision)
    before = {k: v.clone() for k, v in b.model.state_dict().items()}
    one = train_phase(b, pairs, TOY1, frames, tmp_path/'1', **HERE)
    moved = {k.split('.')[0] for k, v in b.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {'mm_projector'} == {k.split('.')[0] for k in one.trained}
    two = train_phase(b, pairs, TOY2, frames, tmp_path/'2', **HERE)
    moved = {k.split('.')[0] for k, v in b.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {'mm_projector', 'language_model'} and not two.untouched


def test_reference_batchnorm_drifts_and_the_fair_one_does_not(tmp_path):
    pairs, frames = world(16)
    drift = {}
    for rule in ('eval', 'reference'):
        b = bundle()
        b.model.config.frozen_batchnorm = rule
        before = b.model.vision_tower.body.bn1.running_mean.clone()
        train_phase(b, pairs, TOY1, frames, tmp_path/rule, data=dict(precompute_features=False), **HERE)
        drift[rule] = not torch.equal(before, b.model.vision_tower.body.bn1.running_mean)
    assert drift == dict(eval=False, reference=True)
    with pytest.raises(ValueError, match='BatchNorm adapt'): train_phase(b, pairs, TOY1, frames, tmp_path/'x', **HERE)


@pytest.mark.parametrize('phase', [TOY1, TOY2], ids=['phase1', 'phase2'])
@pytest.mark.parametrize('square', [True, False], ids=['square', 'oblong'])
def test_cached_features_train_the_same_losses(tmp_path, phase, square):
    pairs, frames = world(32, square)
    runs = [train_phase(bundle(), pairs, phase, frames, tmp_path/str(once), data=dict(precompute_features=once), **HERE)
            for once in (True, False)]
    a, b = (r.losses().to_numpy() for r in runs)
    assert len(a) == 8 and np.abs(a - b).max() < 1e-5


def test_features_pass_from_phase_to_phase_only_when_pictures_are_square(tmp_path):
    for square in (True, False):
        pairs, frames = world(16, square)
        b = bundle()
        set_trainable(b.model, TOY1)
        seen = encode_once(b, [p['image'] for p in pairs], frames, pad_to_square=False, path=tmp_path/f'{square}.npy')
        assert len(seen) == 8 and seen.all_square is square
        if square: train_phase(b, pairs, TOY2, frames, tmp_path/'run', data=dict(features=seen), **HERE)
        else:
            with pytest.raises(ValueError, match='pad_to_square=False, not True'):
                train_phase(b, pairs, TOY2, frames, tmp_path/'run2', data=dict(features=seen), **HERE)


def test_a_broken_feature_stops_the_run_and_names_the_pairs(tmp_path):
    pairs, frames = world(16)
    b = bundle()
    seen = encode_once(b, list(frames), frames)
    seen.values[seen.row['3.png']] = float('nan')
    with pytest.raises(BadBatch) as e: train_phase(b, pairs, TOY1, frames, tmp_path, data=dict(features=seen), **HERE)
    assert {'u3', 'u11'} & set(e.value.uids)


def test_a_missing_picture_is_named(tmp_path):
    pairs, frames = world(16)
    del frames['5.png']
    with pytest.raises(KeyError, match='5.png'): train_phase(bundle(), pairs, TOY1, frames, tmp_path/'a', **HERE)
    with pytest.raises(FileNotFoundError, match='0.png'): train_phase(bundle(), pairs, TOY1, tmp_path, tmp_path/'b', **HERE)


def test_reference_unk_removes_words_and_names_empty_batches(tmp_path):
    pairs, frames = world(16)
    odd = [dict(p, utterance='zebra ' + p['utterance']) for p in pairs]
    p = bundle().processor
    keep, cut = (ImageTexts(odd, p, frames, unk=u) for u in ('keep', 'reference'))
    assert (keep.lengths - cut.lengths).tolist() == [1]*16
    assert [r['labels'][4] for r in keep.rows] == [1]*16
    mixed = [dict(p, utterance='zebra') if i < 4 else p for i, p in enumerate(pairs)]
    run = train_phase(bundle(), mixed, replace(TOY1, batch=16), frames, tmp_path/'mixed', data=dict(unk='reference'), **HERE)
    assert run.unsupervised == ('u0', 'u1', 'u2', 'u3')
    with pytest.raises(BadBatch) as e:
        train_phase(bundle(), [dict(p, utterance='zebra') for p in pairs], TOY1, frames, tmp_path/'e', data=dict(unk='reference'), **HERE)
    assert len(e.value.uids) == 8


def test_accumulated_batches_train_as_whole_ones(tmp_path):
    pairs, frames = world(32)
    runs = [train_phase(bundle(dropout=0.), pairs, TOY2, frames, tmp_path/str(k), accumulate=k, **HERE) for k in (1, 4)]
    a, b = (r.losses().to_numpy() for r in runs)
    np.testing.assert_allclose(a, b, atol=2e-5)


def test_gradient_checkpointing_changes_no_loss(tmp_path):
    pairs, frames = world(16)
    runs = [train_phase(bundle(), pairs, TOY2, frames, tmp_path/str(on), gradient_checkpointing=on, **HERE) for on in (False, True)]
    np.testing.assert_allclose(*(r.losses().to_numpy() for r in runs), atol=1e-5)


def test_augmentation_reaches_training_pairs_only():
    pairs, frames = world(8)
    b = bundle()
    set_trainable(b.model, TOY1)
    black = lambda im: Image.new('RGB', im.size)
    train, val = phase_data(b, TOY1, [pairs, pairs], frames, precompute_features=False, augment=black)
    a, c = (d.__getitems__([0])['pixel_values'] for d in (train, val))
    assert a.std((0, 2, 3)).max() == 0 and c.std() > .1


def test_pairs_may_be_a_datasets_dataset_and_frames_a_folder(tmp_path):
    pairs, frames = world(16)
    for name, im in frames.items(): im.save(tmp_path/name)
    run = train_phase(bundle(), Dataset.from_list(pairs), TOY1, tmp_path, tmp_path/'out', val=Dataset.from_list(
        [dict(p, uid='v' + p['uid']) for p in pairs[:4]]), evaluate='epoch', **HERE)
    assert run.steps == 4 and len(run.losses('val')) == 2


def test_grouping_by_length_saves_padding(tmp_path):
    pairs, frames = world(400)
    b = bundle()
    data = ImageTexts(pairs, b.processor, frames, features=FrozenFeatures({n: 0 for n in frames}, torch.zeros(1, 4, 256), True, True))
    from babyvlm.training.samples import EpochSampler
    def padding(order):
        groups = [data.lengths[order[i:i + 8]] for i in range(0, 400, 8)]
        return sum((g.max() - g).sum() for g in groups)
    grouped, free = (list(EpochSampler(400, 0, lengths, 8)) for lengths in (data.lengths, None))
    assert sorted(grouped) == sorted(free) and padding(grouped) < .2*padding(free)


def test_end_of_text_teaches_the_model_to_stop(tmp_path):
    pairs, frames = world(24)
    pairs = [dict(p, utterance='a cup') for p in pairs]
    lengths = {}
    for stop in (False, True):
        b = bundle(dropout=0.)
        b.processor.end_of_text = stop
        train_phase(b, pairs, replace(TOY2, epochs=25, lr=1e-2), frames, tmp_path/str(stop), **HERE)
        lengths[stop] = len(b.caption([frames['0.png']], max_new_tokens=8)[0].split())
    assert lengths[True] == 2 and lengths[False] > 2


def test_a_trained_bundle_survives_saving(tmp_path):
    pairs, frames = world(16)
    b = bundle()
    run = train_phase(b, pairs, TOY2, frames, tmp_path/'run', **HERE)
    b.save_pretrained(tmp_path/'m', data='made-up', seed=0, run='test', scores=dict(loss=round(run.losses().iloc[-1], 3)))
    again = BabyLlava.from_pretrained(tmp_path/'m')
    ims = list(frames.values())[:3]
    assert again.caption(ims, 5) == b.caption(ims, 5)
    assert '| loss |' in (tmp_path/'m'/'README.md').read_text()
