"Features of real architectures: packed pictures, our own model, a kill in the middle."
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from babyvlm.analysis.features import Tap, extract, open_features, pool_tokens, read_batch, taps_of
from babyvlm.models.babyllava import BabyLlavaForConditionalGeneration, babyllava_toy
from babyvlm.models.weights import seeded

IMAGE = 60


def qwen():
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    text = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                num_key_value_heads=1, rope_parameters=dict(rope_type='default', rope_theta=1e4, mrope_section=[2, 3, 3]))
    vision = dict(depth=2, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=32, patch_size=4,
                  window_size=16, fullatt_block_indexes=[1])
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=61,
                              vision_start_token_id=62, vision_end_token_id=63)
    return seeded(lambda: Qwen2_5_VLForConditionalGeneration(config), 0).eval()


def qwen_inputs(grids, pad=0):
    "Pictures of different sizes: patches in one list, image tokens padded on the right."
    g = torch.Generator().manual_seed(0)
    grid = torch.tensor(grids)
    patches = [torch.randn(int(t*h*w), 3*2*4*4, generator=g) for t, h, w in grids]
    rows = [[62] + [IMAGE]*(len(p)//4) + [63, 5, 6] for p in patches]
    longest = max(map(len, rows))
    ids = torch.tensor([r + [pad]*(longest - len(r)) for r in rows])
    mask = torch.tensor([[1]*len(r) + [0]*(longest - len(r)) for r in rows])
    return dict(input_ids=ids, attention_mask=mask, pixel_values=torch.cat(patches), image_grid_thw=grid,
                mm_token_type_ids=(ids == IMAGE).long())


def test_packed_pictures_of_a_batch_are_cut_where_they_belong():
    model = qwen()
    taps = taps_of(model)
    assert [t.name for t in taps] == ['encoder', 'projector', 'language.0', 'language.1', 'language.2']
    both = read_batch(model, qwen_inputs([[1, 4, 4], [1, 8, 4]]), taps, 2)
    one = qwen_inputs([[1, 4, 4]])
    alone = read_batch(model, one, taps, 1)
    for k in alone: torch.testing.assert_close(both[k][0], alone[k][0], atol=2e-5, rtol=1e-4)
    with torch.no_grad(): hidden = model(**one, output_hidden_states=True).hidden_states
    keep = one['input_ids'][0] == IMAGE
    for i, h in enumerate(hidden): torch.testing.assert_close(alone[f'language.{i}'][0], h[0][keep].mean(0))


def test_babyllava_layers():
    model = seeded(lambda: BabyLlavaForConditionalGeneration(babyllava_toy(50)), 0).eval()
    taps = taps_of(model)
    assert taps[0].name == 'encoder' and taps[-1].name == f'language.{model.config.text_config.num_hidden_layers}'
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = model.vision_tower(x).last_hidden_state
        feats = read_batch(model, dict(pixel_values=x, input_ids=_with_image_tokens(model, 2)), taps, 2, _image_id(model))
    torch.testing.assert_close(feats['encoder'], tokens.mean(1))
    torch.testing.assert_close(feats['projector'], model.mm_projector(tokens).mean(1))


def _image_id(model): return getattr(model.config, 'image_token_id', None) or model.config.text_config.vocab_size
def _with_image_tokens(model, n):
    from babyvlm.models.vision import num_image_tokens
    k = num_image_tokens(model.config.vision_config)
    return torch.tensor([[_image_id(model)]*k + [7, 8]]*n)


def test_cut_of_a_packed_list_must_be_whole():
    with pytest.raises(ValueError, match='do not divide'): pool_tokens(torch.ones(7, 2), 2, grid=torch.tensor([[1, 2, 2], [1, 2, 4]]))


def test_training_mode_is_refused():
    model = qwen().train()
    with pytest.raises(ValueError, match='eval'): read_batch(model, qwen_inputs([[1, 4, 4]]), taps_of(model), 1)


SCRIPT = '''
import sys, time, torch
from torch import nn
import babyvlm
from babyvlm.analysis.features import Tap, extract
class Model(nn.Module):
    def __init__(self):
        super().__init__(); self.layer = nn.Identity(); self.w = nn.Parameter(torch.ones(1))
    def forward(self, x): time.sleep(float(sys.argv[2])); print('pass', flush=True); return self.layer(x)
def opening(i):
    if i % 7 == 3: raise OSError('broken')
    return torch.full((2, 3), float(i))
extract(Model().eval(), [(f'u{i}', i) for i in range(60)], lambda p: dict(x=torch.stack(p)), [Tap('f', 'layer')],
        sys.argv[1], batch=4, shard=12, opening=opening)
'''


def test_killed_extraction_goes_on_and_no_row_slips(tmp_path):
    run = lambda pause: subprocess.Popen([sys.executable, '-c', SCRIPT, str(tmp_path/'f'), str(pause)], stdout=subprocess.PIPE, text=True)
    killed, n = run(.05), 0
    while n < 8: n += bool(killed.stdout.readline())
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = len(open_features(tmp_path/'f').uids)
    assert 0 < before < 50
    again = run(0)
    passes = again.communicate(timeout=120)[0].count('pass')
    assert again.returncode == 0 and passes < 15
    found = open_features(tmp_path/'f')
    assert sorted(found.failed) == sorted(f'u{i}' for i in range(60) if i % 7 == 3) and set(found.failed.values()) == {'OSError'}
    assert [float(v) for v in found.load('f')[:, 0]] == [int(u[1:]) for u in found.uids]
    assert found.load('f', ['u40', 'u2'])[:, 0].tolist() == [40., 2.]
