"""Dual encoders: open_clip's own numbers, activations, weight files, offline errors."""
import json

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from babyvlm.models.cvcl import CVCL, new_cvcl
from babyvlm.models.dual_encoders import HubClip, OpenClip, load_dual_encoder, new_clip, toy_clip_config
from babyvlm.models.tokenizers import build_vocab, word_tokenizer

VOCAB = build_vocab(['a red ball', 'a cup and a cat'], min_freq=1)
PICTURES = [Image.effect_noise((50, 40), 60 + 20*i).convert('RGB') for i in range(3)]


@pytest.fixture
def architecture(tmp_path):
    "A tiny architecture that open_clip knows by name and that uses its own tokenizer."
    config = toy_clip_config(49408)['model_cfg']
    config['text_cfg'] = dict(context_length=77, vocab_size=49408, width=8, heads=2, layers=1)
    config['vision_cfg']['width'] = 4
    (tmp_path/'configs').mkdir()
    (tmp_path/'configs'/'babyvlm-test.json').write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path/'configs')
    yield 'babyvlm-test'
    open_clip.factory._MODEL_CONFIG_PATHS.remove(tmp_path/'configs')
    open_clip.factory._rescan_model_configs()


def test_rows_are_open_clips(tmp_path):
    clip = new_clip(VOCAB, device='cpu')
    clip.save_pretrained(tmp_path)
    model, _, prepare = open_clip.create_model_and_transforms(f'local-dir:{tmp_path}')
    tokenizer = open_clip.get_tokenizer(f'local-dir:{tmp_path}')
    with torch.no_grad():
        images = model.eval().encode_image(torch.stack([prepare(p) for p in PICTURES]), normalize=True)
        texts = model.encode_text(tokenizer(['a red ball']), normalize=True)
    torch.testing.assert_close(clip.encode_images(PICTURES), images, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clip.encode_texts(['a red ball']), texts, atol=1e-5, rtol=1e-4)
    clip.model.train()
    torch.testing.assert_close(clip.encode_images(PICTURES), images, atol=1e-5, rtol=1e-4)


def test_named_architecture_with_a_weight_file(architecture, tmp_path):
    one = OpenClip(architecture, device='cpu', seed=1)
    save_file(one.model.state_dict(), tmp_path/'w.safetensors')
    two = OpenClip(architecture, pretrained=tmp_path/'w.safetensors', device='cpu', seed=2)
    assert torch.equal(one.encode_images(PICTURES), two.encode_images(PICTURES))
    again = load_dual_encoder(f"{architecture}:{tmp_path/'w.safetensors'}", device='cpu')
    assert torch.equal(one.encode_texts(['a cat']), again.encode_texts(['a cat']))
    assert not torch.equal(OpenClip(architecture, device='cpu', seed=2).encode_texts(['a cat']), one.encode_texts(['a cat']))
    with pytest.raises(ValueError, match='published architecture'): one.save_pretrained(tmp_path/'copy')


def test_seed_leaves_the_global_state_alone(architecture):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    OpenClip(architecture, device='cpu', seed=2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_openai_weights_get_their_activation(monkeypatch):
    asked = {}
    def factory(name, **kwargs):
        asked.update(kwargs, name=name)
        raise RuntimeError('stop here')
    monkeypatch.setattr('open_clip.create_model_and_transforms', factory)
    for name, tag, given, expected in (('ViT-L-14', 'openai', None, True), ('ViT-B-32', 'laion2b_s34b_b79k', None, False),
                                       ('ViT-L-14', 'openai', False, False), ('ViT-L-14', 'w.pt', True, True)):
        with pytest.raises(RuntimeError, match='stop here'): OpenClip(name, tag, quick_gelu=given, device='cpu')
        assert asked['force_quick_gelu'] is expected, (name, tag)


def test_unknown_weights_say_what_to_do():
    with pytest.raises(RuntimeError, match='Without network, pass the path'): OpenClip('RN50', 'no-such-tag', device='cpu')


def test_weights_that_do_not_fit(architecture, tmp_path):
    state = OpenClip(architecture, device='cpu').model.state_dict()
    state.pop('text_projection')
    save_file(state, tmp_path/'w.safetensors')
    with pytest.raises(RuntimeError, match='text_projection'): OpenClip(architecture, tmp_path/'w.safetensors', device='cpu')


def test_captions_that_are_too_long_keep_their_end():
    clip = new_clip(VOCAB, device='cpu', context_length=8)
    ids = clip.text_ids(['ball '*30])[0].tolist()
    assert ids == [2] + [VOCAB['ball']]*6 + [3]


def test_bad_pictures_are_named(tmp_path):
    clip = new_clip(VOCAB, device='cpu')
    for i, p in enumerate(PICTURES): p.save(tmp_path/f'{i}.png')
    paths = [tmp_path/f'{i}.png' for i in range(3)]
    inner = clip.model.encode_image
    def poison(x):
        rows = inner(x)
        return rows.index_fill(0, torch.tensor([1]), float('nan')) if len(x) > 1 else rows
    clip.model.encode_image = poison
    with pytest.raises(ValueError, match=r'1 of 3 .*1\.png'): clip.encode_images(paths)


def test_folders_are_told_apart(tmp_path):
    new_cvcl(VOCAB, device='cpu').save_pretrained(tmp_path/'cvcl')
    new_clip(VOCAB, device='cpu').save_pretrained(tmp_path/'clip')
    assert isinstance(load_dual_encoder(tmp_path/'cvcl', 'cpu'), CVCL)
    assert isinstance(load_dual_encoder(tmp_path/'clip', 'cpu'), OpenClip)


@pytest.mark.parametrize('kind', ['siglip', 'clip'])
def test_hub_models_in_batches_and_from_disk(tmp_path, kind):
    import transformers as t
    text = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(VOCAB),
                max_position_embeddings=12, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    words, side = word_tokenizer(VOCAB, sos_eos=True), dict(height=32, width=32)
    if kind == 'siglip':
        model = t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision))
        processor = t.SiglipProcessor(t.SiglipImageProcessor(size=side), words)
    else:
        model = t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision))
        processor = t.CLIPProcessor(t.CLIPImageProcessor(size=dict(shortest_edge=32), crop_size=side), words)
    hub = HubClip(model, processor, device='cpu')
    hub.batch_size = 2
    texts = ['a ball', 'a cup and a red ball', 'cat']
    whole = hub.encode_texts(texts)
    torch.testing.assert_close(torch.cat([hub.encode_texts([x]) for x in texts]), whole, atol=1e-5, rtol=1e-4)
    for part in (model, processor): part.save_pretrained(tmp_path)
    again = load_dual_encoder(tmp_path, 'cpu')
    torch.testing.assert_close(again.encode_texts(texts), whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(again.encode_images(PICTURES), hub.encode_images(PICTURES), atol=1e-6, rtol=1e-5)
