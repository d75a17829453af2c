"Features of real architectures: packed pictures, our own model, a kill in the middle."
from pathlib import Path

import pytest
import torch

from forked import Script
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


def llava():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8)
    text = LlamaConfig(vocab_size=64, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, vision_feature_layer=-2)
    return seeded(lambda: LlavaForConditionalGeneration(config), 0).eval()


def test_llava_layers_with_padding_on_either_side():
    "The encoder is what the projector reads (the layer before the last, no class token); padding counts nowhere."
    model, x = llava(), torch.randn(2, 3, 32, 32)
    ids = torch.tensor([[IMAGE]*16 + [5, 6, 7], [0, 0] + [IMAGE]*16 + [5]])
    mask = (ids != 0).long()
    taps = taps_of(model, vision=True)
    feats = read_batch(model, dict(input_ids=ids, attention_mask=mask, pixel_values=x), taps, 2)
    with torch.no_grad():
        tower = model.model.vision_tower(x, output_hidden_states=True).hidden_states
        hidden = model(input_ids=ids, attention_mask=mask, pixel_values=x, output_hidden_states=True).hidden_states
    torch.testing.assert_close(feats['encoder'], tower[-2][:, 1:].mean(1))
    for i, h in enumerate(tower): torch.testing.assert_close(feats[f'vision.{i}'], h.mean(1))
    for i, h in enumerate(hidden):
        for row in (0, 1): torch.testing.assert_close(feats[f'language.{i}'][row], h[row][ids[row] == IMAGE].mean(0))
    words = read_batch(model, dict(input_ids=ids, attention_mask=mask, pixel_values=x), taps_of(model, 'last', 'text'), 2)
    for row, last in ((0, 18), (1, 18)): torch.testing.assert_close(words['language.2'][row], hidden[2][row, last])


@pytest.mark.parametrize('kind', ['clip', 'siglip'])
def test_dual_encoders(kind):
    import transformers as t
    size = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    vision, text = dict(**size, image_size=32, patch_size=8, projection_dim=16), dict(**size, vocab_size=40, max_position_embeddings=8, projection_dim=16)
    config, make = (t.CLIPConfig, t.CLIPModel) if kind == 'clip' else (t.SiglipConfig, t.SiglipModel)
    model = seeded(lambda: make(config(text_config=text, vision_config=vision)), 0).eval()
    taps, x = taps_of(model), torch.randn(3, 3, 32, 32)
    assert [p.name for p in taps] == ['vision.0', 'vision.1', 'vision.2', 'projector']
    feats = read_batch(model, dict(pixel_values=x), taps, 3)
    with torch.no_grad(): out = model.vision_model(pixel_values=x, output_hidden_states=True)
    for i, h in enumerate(out.hidden_states): torch.testing.assert_close(feats[f'vision.{i}'], h.mean(1))
    pooled = model.visual_projection(out.pooler_output) if kind == 'clip' else out.pooler_output
    torch.testing.assert_close(feats['projector'], pooled.detach())
    ids = torch.tensor([[5, 6, 7, 39], [8, 39, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    words = read_batch(model, dict(input_ids=ids, attention_mask=mask), taps_of(model, tokens='text'), 2)
    with torch.no_grad(): hidden = model.text_model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    torch.testing.assert_close(words['text.1'], torch.stack([hidden[1][0].mean(0), hidden[1][1, :2].mean(0)]))


def test_only_a_batch_of_pictures_is_open_and_another_model_is_refused(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self, value):
            super().__init__(); self.layer, self.w = torch.nn.Identity(), torch.nn.Parameter(torch.full((1,), value))
        def forward(self, x): held.append(len(alive)); alive.clear(); return self.layer(x)*self.w
    alive, held = [], []
    def opening(i):
        alive.append(i)
        return torch.full((2, 3), float(i))
    args = [(f'u{i}', i) for i in range(30)], lambda p: dict(x=torch.stack(p)), [Tap('f', 'layer')], tmp_path/'f'
    found = extract(Model(1.).eval(), *args, batch=4, shard=12, opening=opening, dtype=torch.float16)
    assert max(held) == 4 and found.load('f').dtype == torch.float32 and found.load('f', ['u29'])[0, 0] == 29
    with pytest.raises(ValueError, match='another model'): extract(Model(2.).eval(), *args, batch=4, shard=12, opening=opening, dtype=torch.float16)


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
    run = lambda pause: Script(SCRIPT, tmp_path/'f', pause)
    killed, n = run(.05), 0
    while n < 8: n += bool(killed.stdout.readline())
    killed.kill()
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
