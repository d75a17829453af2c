"""BabyLLaVA: both language models and encoders, caches, padding, faults, the released names at the real size."""
import json

import numpy as np
import pytest
import torch

import babyvlm.models.babyllava as B
from babyvlm.models.released import load_released, released_config, released_state
from babyvlm.models.tokenizers import build_vocab, word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens
from babyvlm.models.weights import compare_state, count_parameters, on_meta, read_folder, seeded

from PIL import Image
from torchvision.models import resnext50_32x4d, vit_l_16
from transformers import GPT2LMHeadModel, LlamaForCausalLM

UTTERANCES = ['look at the red ball', 'the cup', 'where is the little blue ball ?', 'look', "it 's a cup ."]
KINDS = [('gpt2', 'resnext'), ('gpt2', 'vit'), ('llama', 'resnext'), ('llama', 'vit')]


def frames(n, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(n)]


def make(language='gpt2', vision='resnext', seed=0, **kw):
    tokenizer = word_tokenizer(build_vocab(UTTERANCES, 1))
    config = B.babyllava_toy(len(tokenizer), language, vision, **kw)
    model = seeded(lambda: B.BabyLlavaForConditionalGeneration(config), seed).eval()
    with torch.no_grad():  # an untrained model always says the same word; louder weights make it talkative
        for name, p in model.language_model.named_parameters():
            if p.dim() > 1 and 'wte' not in name: p.mul_(15)
    return B.BabyLlava(model, B.BabyLlavaProcessor(image_processor(64), tokenizer, num_image_tokens(config.vision_config)))


@pytest.fixture(scope='module', params=KINDS, ids='-'.join)
def bundle(request): return make(*request.param)


def test_section_12_sizes():
    m = on_meta(lambda: B.BabyLlavaForConditionalGeneration(B.babyllava_gpt2()))
    assert count_parameters(m.language_model) == 7_182_336
    assert count_parameters(m.mm_projector) == 590_336
    assert count_parameters(m.vision_tower) == 22_979_904
    assert num_image_tokens(m.config.vision_config) == 49
    t = m.config.text_config
    assert (t.n_layer, t.n_embd, t.n_head, t.n_inner, t.n_positions, t.vocab_size) == (8, 256, 32, 1024, 1024, 2350)
    assert t.resid_pdrop == t.embd_pdrop == t.attn_pdrop == .15 and t.tie_word_embeddings


def test_llama_by_config():
    m = on_meta(lambda: B.BabyLlavaForConditionalGeneration(B.babyllava_llama()))
    assert num_image_tokens(m.config.vision_config) == 197
    assert 1.40e9 < count_parameters(m) < 1.42e9
    assert not m.config.tie_word_embeddings


def test_greedy_cache_equals_rescoring(bundle):
    model, ims = bundle.model, frames(3)
    pixels = bundle.processor.image_processor(ims)
    ids = torch.full((3, bundle.processor.num_image_tokens), bundle.processor.image_token_id)
    model.generation_config.eos_token_id = None
    fast = model.generate(ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    slow = ids
    with torch.no_grad():
        for _ in range(8): slow = torch.cat([slow, model(slow, pixels).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(fast, slow)
    assert len(set(fast[:, ids.shape[1]:].flatten().tolist())) > 2  # the test would be empty for a constant model


def test_left_padded_prompts_generate_as_alone(bundle):
    p, ims = bundle.processor, frames(2)
    pixels = p.image_processor(ims)
    rows = [[p.image_token_id]*p.num_image_tokens + p.ids(t) for t in ('look at the', '')]
    longest = max(map(len, rows))
    ids = torch.tensor([[0]*(longest - len(r)) + r for r in rows])
    mask = torch.tensor([[0]*(longest - len(r)) + [1]*len(r) for r in rows])
    go = dict(max_new_tokens=6, do_sample=False, eos_token_id=None)
    bundle.model.generation_config.eos_token_id = None
    both = bundle.model.generate(ids, pixel_values=pixels, attention_mask=mask, **go)[:, longest:]
    for i, r in enumerate(rows):
        one = torch.tensor([r])
        alone = bundle.model.generate(one, pixel_values=pixels[i:i + 1], attention_mask=torch.ones_like(one), **go)
        assert torch.equal(both[i], alone[0, len(r):])


def test_precomputed_features_give_the_same_loss(bundle):
    batch = bundle.processor(frames(4), UTTERANCES[:4])
    with torch.no_grad():
        whole = bundle.model(**batch).loss
        seen = bundle.model.vision_features(batch.pop('pixel_values'))
        torch.testing.assert_close(bundle.model(**batch, image_features=seen).loss, whole, atol=1e-6, rtol=0)


def test_save_load_everything(bundle, tmp_path):
    bundle.save_pretrained(tmp_path/'m', data='d', seed=3, run='abc', scores={'vtwt': .5})
    again = B.BabyLlava.from_pretrained(tmp_path/'m')
    batch = bundle.processor(frames(2), UTTERANCES[:2])
    with torch.no_grad(): assert torch.equal(again.model(**batch).loss, bundle.model(**batch).loss)
    assert again.processor.encode('the dog') == bundle.processor.encode('the dog')
    assert not list((tmp_path/'m').glob('*.bin')) and not list((tmp_path/'m').glob('*.p*kl*'))
    card = (tmp_path/'m'/'README.md').read_text()
    for part in ('| Data | d |', '| Seed | 3 |', '| Run | abc |', '| vtwt | 0.5 |'): assert part in card


def test_a_damaged_bundle_is_refused(tmp_path):
    import safetensors.torch
    make().save_pretrained(tmp_path)
    state = read_folder(tmp_path)
    del state['mm_projector.0.bias']
    safetensors.torch.save_file(state, tmp_path/'model.safetensors', dict(format='pt'))
    with pytest.raises(ValueError, match='1 missing: mm_projector.0.bias'): B.BabyLlava.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError): B.BabyLlava.from_pretrained(tmp_path/'nowhere')


def test_accumulated_loss_is_the_batch_loss():
    b = make()
    batch = b.processor(frames(3), UTTERANCES[:3])
    n = (batch['labels'] != -100).sum()
    with torch.no_grad():
        whole = b.model(**batch).loss
        parts = sum(b.model(**b.processor([im], [u]), num_items_in_batch=n).loss for im, u in zip(frames(3), UTTERANCES))
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_changes_nothing():
    b = make(dropout=0.)
    batch = b.processor(frames(2), UTTERANCES[:2])
    grads = []
    for on in (False, True):
        if on: b.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=False))
        b.model.train().zero_grad()
        b.model(**batch).loss.backward()
        grads.append([p.grad.clone() for p in b.model.language_model.parameters()])
    for x, y in zip(*grads): torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-4)


def test_no_gradient_reaches_a_frozen_encoder_and_its_statistics_stay():
    b = make()
    b.model.vision_tower.requires_grad_(False)
    batch = b.processor(frames(4), UTTERANCES[:4])
    before = {k: v.clone() for k, v in b.model.vision_tower.state_dict().items()}
    b.model.train()(**batch).loss.backward()
    assert all(p.grad is None for p in b.model.vision_tower.parameters())
    assert all(torch.equal(v, before[k]) for k, v in b.model.vision_tower.state_dict().items())
    b.model.config.frozen_batchnorm = 'reference'
    b.model.train()(**batch)
    assert not torch.equal(b.model.vision_tower.body.bn1.running_mean, before['body.bn1.running_mean'])


def test_wrong_inputs_say_what_is_wrong():
    b = make()
    batch = b.processor(frames(2), UTTERANCES[:2])
    pixels = batch.pop('pixel_values')
    with pytest.raises(ValueError, match='32 image placeholders in input_ids, but 16 image tokens'):
        b.model(**batch, pixel_values=pixels[:1])
    with pytest.raises(ValueError, match='32 image placeholders in input_ids, but 0'): b.model(**batch)
    with pytest.raises(ValueError, match='either'): b.model.image_tokens(pixels, b.model.vision_features(pixels))
    batch['labels'][:] = -100
    with pytest.raises(ValueError, match='no supervised token'): b.model(**batch, pixel_values=pixels)


def test_blind_language_model_still_reads_words():
    b = make()
    ids = torch.tensor([b.processor.ids('look at the ball')])
    with torch.no_grad():
        torch.testing.assert_close(b.model(ids).logits, b.language_model(ids).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_loss_is_float32(dtype):
    b = make(dropout=0.)
    with torch.no_grad():
        whole = b.model(**b.processor(frames(2), UTTERANCES[:2])).loss
        half = b.model.to(dtype)(**b.processor(frames(2), UTTERANCES[:2])).loss
    assert half.dtype == torch.float32 and torch.isfinite(half)
    assert abs(half - whole) < .1*whole


def test_released_gpt2_names_at_the_real_size():
    config = B.babyllava_gpt2()
    ours = on_meta(lambda: B.BabyLlavaForConditionalGeneration(config))
    state = dict(on_meta(lambda: GPT2LMHeadModel(config.text_config)).state_dict())
    eyes = on_meta(resnext50_32x4d).state_dict()
    state |= {f'transformer.vision_tower.vision_tower.{k}': v for k, v in eyes.items() if not k.startswith('fc.')}
    for i, wide in ((0, 2048), (2, 256)):
        state |= {f'transformer.mm_projector.{i}.weight': torch.empty(256, wide, device='meta'),
                  f'transformer.mm_projector.{i}.bias': torch.empty(256, device='meta')}
    assert str(compare_state(ours, released_state(state, config))) == 'no difference'
    del state['transformer.h.3.mlp.c_fc.bias']
    assert compare_state(ours, released_state(state, config)).missing == ('language_model.transformer.h.3.mlp.c_fc.bias',)


def test_released_llama_names_at_the_real_size():
    config = B.babyllava_llama()
    ours = on_meta(lambda: B.BabyLlavaForConditionalGeneration(config))
    state = dict(on_meta(lambda: LlamaForCausalLM(config.text_config)).state_dict())
    state['model.layers.0.self_attn.rotary_emb.inv_freq'] = torch.empty(32, device='meta')
    eyes = on_meta(vit_l_16).state_dict()
    state |= {f'model.vision_tower.vision_tower.{k}': v for k, v in eyes.items() if not k.startswith('heads.')}
    for i, wide in ((0, 1024), (2, 2048)):
        state |= {f'model.mm_projector.{i}.weight': torch.empty(2048, wide, device='meta'),
                  f'model.mm_projector.{i}.bias': torch.empty(2048, device='meta')}
    assert str(compare_state(ours, released_state(state, config))) == 'no difference'


def test_released_llama_at_toy_size_gives_the_same_logits():
    b = make('llama', 'vit')
    m = b.model
    eyes = {}
    for k, v in m.vision_tower.state_dict().items():  # spell our ViT as torchvision does
        k = k.replace('embeddings.cls_token', 'class_token').replace('embeddings.position_embeddings', 'encoder.pos_embedding')
        k = k.replace('embeddings.patch_embeddings.projection', 'conv_proj')
        k = k.replace('layers.', 'encoder.layers.encoder_layer_').replace('layernorm_before', 'ln_1').replace('layernorm_after', 'ln_2')
        k = k.replace('mlp.fc1', 'mlp.0').replace('mlp.fc2', 'mlp.3').replace('attention.o_proj', 'self_attention.out_proj')
        eyes[k.replace('layernorm', 'encoder.ln')] = v
    for i in range(2):
        for w, sep in (('weight', '_'), ('bias', '_')):
            qkv = [eyes.pop(f'encoder.layers.encoder_layer_{i}.attention.{p}_proj.{w}') for p in 'qkv']
            eyes[f'encoder.layers.encoder_layer_{i}.self_attention.in_proj{sep}{w}'] = torch.cat(qkv)
    state = dict(m.language_model.state_dict())
    state |= {f'model.vision_tower.vision_tower.{k}': v for k, v in eyes.items()}
    state |= {f'model.mm_projector.{k}': v for k, v in m.mm_projector.state_dict().items()}
    loaded = load_released(m.config, state)
    batch = b.processor(frames(2), UTTERANCES[:2])
    with torch.no_grad(): assert torch.equal(loaded(**batch).loss, m(**batch).loss)


def test_release_folder(tmp_path):
    settings = dict(model_type='llava_llama', vocab_size=40, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, intermediate_size=96, mm_vision_tower='eminorhan/dino_say_vitl16',
                    mm_projector_type='mlp2x_gelu', mm_hidden_size=1024)
    config = released_config(settings)
    assert (config.text_config.num_key_value_heads, config.vision_config.hidden_size) == (2, 1024)
    assert not config.tie_word_embeddings
    (tmp_path/'config.json').write_text(json.dumps(settings))
    torch.save({'model.norm.weight': torch.ones(64)}, tmp_path/'pytorch_model.bin')
    with pytest.raises(ValueError, match='missing: vision_tower'): load_released(config, tmp_path)
    with pytest.raises(ValueError, match="model_type 'llava_mpt'"): released_config(dict(settings, model_type='llava_mpt'))


def test_reference_unk_cuts_words_out_and_may_leave_nothing():
    p = make().processor
    assert p.encode('zebra', unk='reference')['labels'] == [-100]*16
    assert p.encode('the zebra')['labels'][16:] == [*p.ids('the'), 1]
    with pytest.raises(ValueError, match="'keep' or 'reference'"): p.encode('the', unk='drop')
    assert len(p.encode('look at the red ball', max_length=18)['labels']) == 18


def test_captions_do_not_depend_on_batching_or_company():
    b = make()
    ims = frames(5)
    all_at_once = b.caption(ims, max_new_tokens=6)
    assert [b.caption([im], max_new_tokens=6)[0] for im in ims] == all_at_once
    assert b.caption(ims[::-1], max_new_tokens=6, batch=2) == all_at_once[::-1]


def test_positions_do_not_count_padding():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert B.positions_of(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
