"""The vision encoders against other people's implementations, and hostile or broken weight files."""
import argparse
import os

import numpy as np
import pytest
import torch

import babyvlm.models.vision as V
from babyvlm.models.weights import compare_state, on_meta, read_checkpoint, read_folder, seeded, strict_load

import timm
from PIL import Image
from torchvision import transforms as T
from torchvision.models.vision_transformer import VisionTransformer


def pictures(n=2, size=64, seed=0): return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_vit_equals_timm_through_the_dino_names():
    theirs = seeded(lambda: timm.models.vision_transformer.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=64, depth=2, num_heads=4, num_classes=0, global_pool='', fc_norm=False), 0).eval()
    for p in theirs.parameters(): torch.nn.init.normal_(p, std=.05)
    state = {f'backbone.{k}': v for k, v in theirs.state_dict().items()} | {'head.mlp.0.weight': torch.zeros(2)}
    ours = V.load_teacher(V.vision_encoder(V.vit()), dict(teacher=state, epoch=1)).eval()
    with torch.no_grad(): a, b = ours(pictures()).last_hidden_state, theirs.forward_features(pictures())
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_vit_equals_torchvision():
    theirs = seeded(lambda: VisionTransformer(64, 16, 2, 4, 64, 256), 0).eval()
    theirs.heads = torch.nn.Identity()
    for p in theirs.parameters(): torch.nn.init.normal_(p, std=.05)
    ours = strict_load(V.vision_encoder(V.vit()), V.vit_state(theirs.state_dict())).eval()
    x = pictures()
    with torch.no_grad():
        tokens = theirs.encoder(torch.cat([theirs.class_token.expand(2, -1, -1), theirs._process_input(x)], 1))
        torch.testing.assert_close(ours(x).last_hidden_state, tokens, atol=1e-5, rtol=1e-4)


def test_real_vit_names_on_meta():
    config = V.vit_large()
    for theirs in (on_meta(lambda: VisionTransformer(224, 16, 24, 16, 1024, 4096)),
                   on_meta(lambda: timm.create_model('vit_large_patch16_224', num_classes=0))):
        state = {k: v for k, v in theirs.state_dict().items() if not k.startswith('heads.')}
        assert str(compare_state(on_meta(lambda: V.vision_encoder(config)), V.vit_state(state))) == 'no difference'


def test_dinov2_layer_scale_is_refused_by_name():
    theirs = timm.models.vision_transformer.VisionTransformer(img_size=64, patch_size=16, embed_dim=64, depth=2,
                                                              num_heads=4, num_classes=0, init_values=1e-5)
    with pytest.raises(ValueError, match=r'4 unexpected: .*ls1\.gamma'):
        V.load_teacher(V.vision_encoder(V.vit()), dict(teacher=theirs.state_dict()))


@pytest.mark.parametrize('fault', ['missing', 'unexpected', 'misshaped'])
def test_faulty_resnext_checkpoint_changes_nothing(fault):
    model = seeded(lambda: V.ResNeXtModel(V.resnext_toy()), 0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = {f'module.backbone.{k}': v + 1 for k, v in model.body.state_dict().items()}
    if fault == 'missing': del state['module.backbone.layer3.0.bn2.running_var']
    if fault == 'unexpected': state['module.backbone.fc.weight'] = torch.zeros(2)
    if fault == 'misshaped': state['module.backbone.conv1.weight'] = torch.zeros(1, 3, 7, 7)
    with pytest.raises(ValueError, match=f'1 {fault}'): V.load_teacher(model, dict(teacher=state))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_student_and_wrong_key():
    model = seeded(lambda: V.ResNeXtModel(V.resnext_toy()), 0)
    held = dict(student={f'module.backbone.{k}': v for k, v in model.body.state_dict().items()}, epoch=3)
    with pytest.raises(KeyError, match="no 'teacher'"): V.load_teacher(model, held)
    V.load_teacher(model, held, key='student')


class Evil:
    def __reduce__(self): return (os.system, ('echo never > evil.txt',))


def test_a_pickle_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(teacher={'w': torch.ones(1)}, extra=Evil()), 'evil.pth')
    with pytest.raises(Exception, match='holds more than weights'): read_checkpoint('evil.pth')
    assert not os.path.exists('evil.txt')
    torch.save(dict(teacher={'w': torch.ones(1)}, args=argparse.Namespace(lr=.1)), 'fine.pth')
    assert read_checkpoint('fine.pth')['args'].lr == .1


def test_truncated_files_raise(tmp_path):
    model = seeded(lambda: V.ResNeXtModel(V.resnext_toy()), 0)
    model.save_pretrained(tmp_path)
    f = tmp_path/'model.safetensors'
    f.write_bytes(f.read_bytes()[:-100])
    with pytest.raises(Exception, match='[Ii]ncomplete|[Ii]nvalid|[Mm]etadata'): read_folder(tmp_path)


@pytest.mark.parametrize('resample', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(224, 224), (640, 480), (31, 77)])
def test_preparation_equals_torchvision(size, resample):
    im = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    theirs = T.Compose([T.Resize((64, 64), getattr(T.InterpolationMode, resample.upper())), T.ToTensor(),
                        T.Normalize(V.IMAGENET_MEAN, V.IMAGENET_STD)])(im)
    torch.testing.assert_close(V.image_processor(64, resample=resample)(im)[0], theirs, atol=1e-5, rtol=1e-5)


def test_modes_paths_and_padding(tmp_path):
    rgba = Image.new('RGBA', (10, 30), (255, 0, 0, 128))
    rgba.save(tmp_path/'a.png')
    p = V.image_processor(32, pad_to_square=True)
    assert torch.equal(p([rgba]), p([tmp_path/'a.png']))
    assert p([str(tmp_path/'a.png'), rgba.convert('L')]).shape == (2, 3, 32, 32)
    with pytest.raises(OSError, match='no such file'): p([tmp_path/'none.png'])


def test_seeds_decide_weights_and_leave_global_state_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    a, b = (seeded(lambda: V.ResNeXtModel(V.resnext_toy()), 3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize('size,tokens', [(64, 16), (128, 64), (96, 36)])
def test_token_count_formula(size, tokens):
    c = V.resnext_toy(size)
    assert V.num_image_tokens(c) == tokens
    assert V.ResNeXtModel(c)(torch.zeros(1, 3, size, size)).last_hidden_state.shape == (1, tokens, c.hidden_size)


@pytest.mark.parametrize('config', [V.resnext_toy(64), V.ResNeXtConfig(layers=(2, 1, 2, 1), planes=(8, 8, 16, 16), stem=8, groups=4, width_per_group=16, image_size=64)])
def test_folded_encoder_is_the_same_encoder_and_goes_away(config, monkeypatch):
    "Trained statistics, not fresh ones; nesting, an error inside, training mode and changed weights leave nothing behind."
    model = seeded(lambda: V.ResNeXtModel(config), 0)
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen, forward = [], torch.nn.BatchNorm2d.forward
    monkeypatch.setattr(torch.nn.BatchNorm2d, 'forward', lambda self, x: (seen.append(1), forward(self, x))[1])
    def features(): seen.clear(); return model(x).last_hidden_state
    with torch.no_grad():
        for v in model.modules():
            if isinstance(v, torch.nn.BatchNorm2d): v.weight.uniform_(.5, 2), v.bias.uniform_(-1, 1)
        for _ in range(3): model(2*x + 1)
        with V.folded(model): features()
        assert seen  # in training mode nothing is folded
        want, names = (model.eval(), features())[1], list(model.state_dict())
        with pytest.raises(KeyError), V.folded(model):
            torch.testing.assert_close(features(), want, rtol=1e-4, atol=1e-4)
            assert not seen and list(model.state_dict()) == names
            with V.folded(model): torch.testing.assert_close(features(), want, rtol=1e-4, atol=1e-4)
            model.train(), features(), model.eval()
            assert seen
            raise KeyError
        for k, v in model.state_dict().items():
            if 'running' in k: v.mul_(1.1)
        want = features()
        assert seen
        with V.folded(model): torch.testing.assert_close(features(), want, rtol=1e-4, atol=1e-4)
