"DINO: the batch augmentations against slow ones, resume, collapse."
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from babyvlm.models.vision import load_teacher, resnext_toy, vision_encoder
from babyvlm.models.weights import seeded
from babyvlm.nursery.world import Nursery
from babyvlm.training.dino import (TOY, Dino, _colour_matrix, _normalise, blur, jitter, pooled, pretrain, random_crops,
                                   save_teacher, solarize, views)


def gen(seed=0): return torch.Generator().manual_seed(seed)
def pictures(n=16, size=32): return torch.randint(0, 256, (n, 3, size, size), generator=gen(), dtype=torch.uint8)
def small(): return seeded(lambda: vision_encoder(resnext_toy(width=8)), 0)


def test_crops_have_the_area_and_shape_they_should():
    "A picture whose channels are its coordinates tells where each crop lies."
    at = torch.linspace(-1, 1, 65)
    at = (at[1:] + at[:-1])/2
    image = torch.stack([at.expand(64, 64), at[:, None].expand(64, 64), torch.zeros(64, 64)])[None].repeat(400, 1, 1, 1)
    x = random_crops(image, 16, (.2, .6), gen())
    width = (x[:, 0, 0, -1] - x[:, 0, 0, 0]).abs()/2*16/15
    height = (x[:, 1, -1, 0] - x[:, 1, 0, 0])/2*16/15
    area, ratio = width*height, width/height
    assert (height > 0).all()
    assert area.min() > .15 and area.max() < .66 and .5 < ratio.min() and ratio.max() < 1.6
    mirrored = (x[:, 0, 0, -1] < x[:, 0, 0, 0]).float().mean()
    assert .4 < mirrored < .6
    assert abs(area.mean() - .4) < .03


def test_every_picture_gets_its_own_draw():
    x = pictures(1).repeat(6, 1, 1, 1)/255
    for y in (random_crops(x, 32, (.3, .9), gen()), jitter(x, 1., gen())):
        assert all(not torch.equal(y[0], y[i]) for i in range(1, 6))


def test_colour_matrix_keeps_grey_grey_and_full_turn_is_identity():
    one, zero = torch.ones(1), torch.zeros(1)
    grey = torch.full((3,), .4)
    for hue in (.1, -.3, .5): assert torch.allclose(_colour_matrix(one, one, torch.tensor([hue]))[0] @ grey, grey, atol=2e-3)
    assert torch.allclose(_colour_matrix(one, one, one)[0], torch.eye(3), atol=1e-3)
    flat = _colour_matrix(one, zero, zero)[0] @ torch.tensor([.9, .1, .3])
    assert (flat - flat.mean()).abs().max() < 3e-3


def test_blur_equals_a_picture_at_a_time():
    x = pictures(3, 56)/255
    fast = blur(x, 1., gen(4))
    g = gen(4)
    sigma = (torch.rand(3, generator=g)*1.9 + .1)*56/224
    reach = max(1, math.ceil(4*56/224))
    at = torch.arange(-reach, reach + 1)
    for i in range(3):
        k = torch.exp(-at**2/(2*sigma[i]**2))
        k = (k/k.sum()).outer(k/k.sum())
        slow = F.conv2d(F.pad(x[i:i + 1], [reach]*4, mode='replicate'), k.expand(3, 1, -1, -1), groups=3)
        assert torch.allclose(fast[i], slow[0], atol=1e-5)


def test_solarize_changes_the_bright_half_only():
    x = pictures(40)/255
    y = solarize(x, .5, gen())
    assert torch.equal(y[x < .5], x[x < .5])
    changed = (y != x).flatten(1).any(1).float().mean()
    assert .2 < changed < .8


def test_resumed_run_is_the_same_run(tmp_path):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 9: raise KeyboardInterrupt

    import babyvlm.training.dino as module
    r = replace(TOY, out_dim=32, epochs=4, batch=8)
    frames = pictures(32, 64)
    whole, a = pretrain(small(), frames, tmp_path/'a', r, threads=1, device='cpu')
    follow = module._Follow

    class Killed(follow, Stop):
        def on_step_end(self, *args, **kwargs):
            follow.on_step_end(self, *args, **kwargs)
            Stop.on_step_end(self, *args, **kwargs)

    module._Follow = Killed
    try:
        with pytest.raises(KeyboardInterrupt): pretrain(small(), frames, tmp_path/'b', r, threads=1, device='cpu', save_every=4)
    finally: module._Follow = follow
    again, b = pretrain(small(), frames, tmp_path/'b', r, threads=1, device='cpu', save_every=4)
    assert b.resumed_from == 8 and a.losses().tolist() == b.losses().tolist()
    for x, y in zip(whole.state_dict().values(), again.state_dict().values()): assert torch.equal(x, y)


def test_teacher_is_an_average_and_not_the_student(tmp_path):
    dino, _ = pretrain(small(), pictures(16, 64), tmp_path, replace(TOY, out_dim=32, epochs=2, batch=8), device='cpu')
    s, t = dino.student['backbone'].state_dict(), dino.teacher['backbone'].state_dict()
    start = small().state_dict()
    k = 'body.layer4.0.conv1.weight'
    assert not torch.equal(s[k], t[k]) and (t[k] - start[k]).norm() < (s[k] - start[k]).norm()
    assert not any(p.requires_grad for p in dino.teacher.parameters())


def test_foreign_teacher_is_refused(tmp_path):
    dino = seeded(lambda: Dino(small(), replace(TOY, out_dim=16)), 0)
    save_teacher(dino, tmp_path/'t.safetensors')
    with pytest.raises(ValueError, match='does not fit'): load_teacher(vision_encoder(resnext_toy(width=16)), tmp_path/'t.safetensors')


def test_views_share_nothing_with_the_batch_order():
    "The draw depends on the generator alone, so that a resumed run repeats it."
    x = pictures(4, 64)
    a, b = views(x, TOY, gen(7))[0], views(x, TOY, gen(7))[0]
    assert torch.equal(a, b)


def test_toy_recipe_does_not_collapse(tmp_path):
    "A collapsed teacher gives every frame the same unit vector; what the recipe teaches is for probes over seeds to say."
    world = Nursery()
    frames = np.stack([np.asarray(world.picture(u)) for s in world.sessions(3) for u in world.recording(s, 70)])
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    dino, _ = pretrain(seeded(lambda: vision_encoder(resnext_toy()), 0), x, tmp_path, TOY, threads=1, device='cpu')
    with torch.no_grad(): seen = pooled(dino.teacher['backbone'].eval(), _normalise(x[:100]/255))
    assert seen.std(0).mean() > .05
