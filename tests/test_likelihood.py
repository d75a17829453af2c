"Shared-prefix scores against the plain ones: any items, any order, any batch; what is shared; what happens when it cannot be."
import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from babyvlm.benchmarks import likelihood
from babyvlm.benchmarks.likelihood import cannot_pack, loglik, loglik_plain, plan, requests
from babyvlm.items import Item
from babyvlm.models.babyllava import BabyLlava, BabyLlavaForConditionalGeneration, BabyLlavaProcessor, babyllava_toy
from babyvlm.models.tokenizers import word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens
from babyvlm.models.weights import seeded
from babyvlm.pictures import open_image

WORDS = 'look at the ball cup dog cat red blue big wash throw read see a what is this ?'.split()
VOCAB = {w: i for i, w in enumerate(['<pad>', '<unk>', '<sos>', '<eos>', *WORDS])}


def bundle(language='gpt2', vision='resnext'):
    config = babyllava_toy(len(VOCAB), language, vision)
    net = seeded(lambda: BabyLlavaForConditionalGeneration(config), 0).eval()
    with torch.no_grad():  # attention that matters: fresh weights hardly look at anything
        for name, p in net.language_model.named_parameters():
            if 'attn' in name and p.ndim == 2: p.mul_(8)
    return BabyLlava(net, BabyLlavaProcessor(image_processor(64), word_tokenizer(VOCAB), num_image_tokens(config.vision_config)))


@pytest.fixture(scope='module', params=[('gpt2', 'resnext'), ('llama', 'vit')], ids='-'.join)
def model(request): return bundle(*request.param)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    d, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
    for i in range(5): Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(d/f'{i}.png')
    (d/'copy.png').write_bytes((d/'0.png').read_bytes())
    return [str(p) for p in sorted(d.iterdir())]


def made(rng, pictures, n):
    "Items of every kind that share pictures, prompts and options."
    def say(a, b): return ' '.join(rng.choice(WORDS) for _ in range(rng.randint(a, b)))
    prompts = ['', say(1, 3), say(4, 9)]
    out = []
    for i in range(n):
        kind = rng.choice(['options', 'images', 'both', 'blind', 'two'])
        options = tuple(say(1, 4) for _ in range(rng.randint(1, 4)))
        some = tuple(rng.sample(pictures, rng.randint(1, 3)))
        if kind == 'options': out.append(Item(str(i), 't', some[:1], rng.choice(prompts), options))
        if kind == 'two': out.append(Item(str(i), 't', some, rng.choice(prompts), options))
        if kind == 'images': out.append(Item(str(i), 't', some, rng.choice(prompts), options[:1], choice='images'))
        if kind == 'both': out.append(Item(str(i), 't', some, rng.choice(prompts), options, choice='both'))
        if kind == 'blind': out.append(Item(str(i), 't', (), prompts[1], options))
    return out


def same(a, b, atol=1e-5):
    for x, y in zip(a, b, strict=True): np.testing.assert_allclose(x, y, rtol=1e-6, atol=atol)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 400), image_batch=st.integers(1, 5), window=st.integers(1, 6), max_row=st.integers(1, 80))
def test_equals_the_plain_scorer(model, pictures, seed, tokens, image_batch, window, max_row):
    "Whatever the items, their order, the batch, the window and the length of a row."
    rng = random.Random(seed)
    items = made(rng, pictures, 6)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = loglik(model, items, tokens=tokens, image_batch=image_batch, window=window, max_row=max_row)
    same(found, loglik_plain(model, items))
    order = rng.sample(range(6), 6)
    back = loglik(model, [items[i] for i in order], tokens=10**6)
    same([found[i] for i in order], back)


def test_each_distinct_picture_is_encoded_once_per_run(pictures, monkeypatch):
    "Also when windows are small, pictures come again in another company, and a file has a copy."
    model, seen = bundle(), []
    items = made(random.Random(3), pictures, 40)
    encode = model.image_tokens
    monkeypatch.setattr(model, 'image_tokens', lambda images: seen.extend(np.asarray(i).tobytes() for i in images) or encode(images), raising=False)
    loglik(model, items, window=1, image_batch=2, max_row=8)
    used = {p for r in requests(items) for p in r.images}
    assert len(seen) == len(set(seen)) == len({np.asarray(open_image(p)).tobytes() for p in used}) < len(used)


def test_prefixes_once_and_logits_only_where_an_option_has_tokens(pictures):
    model = bundle()
    items = [Item(str(i), 't', (pictures[i % 2],), 'what is this ?', ('a cat', 'a big dog', 'cup')) for i in range(4)]
    cannot_pack(model)
    read, scored = [], []
    head, body = model.language_model.get_output_embeddings(), model.language_model.base_model
    hooks = [head.register_forward_pre_hook(lambda m, a: scored.append(a[0].reshape(-1, a[0].shape[-1]).shape[0])),
             body.register_forward_pre_hook(lambda m, a, k: read.append(k['inputs_embeds'].shape[:2]), with_kwargs=True)]
    loglik(model, items)
    for h in hooks: h.remove()
    t = model.processor.num_image_tokens
    assert sum(scored) == 2 * (2 + 3 + 1)            # equal questions about a picture are one
    assert [r for r in read] == [(2, t + 4 + 1 + 2)] # picture, prompt, options without their last token


def test_a_picture_with_more_text_than_a_row_is_read_once(model, pictures):
    "Both kinds of language model go on from its kept keys and values, to the same digits."
    asked = ('what is this ?', 'look at the ball', 'see a red cup', 'read the big dog')
    items = [Item(p, 't', pictures[:1], p, ('a cat', 'the dog')) for p in asked]
    assert cannot_pack(model) == '' and likelihood._keeps(model) and len(plan(model, items, max_row=8)) == 4
    read, body = [], model.language_model.base_model
    hook = body.register_forward_pre_hook(lambda m, a, k: read.append(k['inputs_embeds'].shape[:2]), with_kwargs=True)
    try: found = loglik(model, items, max_row=8)
    finally: hook.remove()
    t = model.processor.num_image_tokens
    assert read[0] == (1, t) and sum(n * length for n, length in read[1:]) == 4 * (4 + 1 + 1)
    same(found, loglik_plain(model, items))


def test_many_options_of_one_prompt_are_split(pictures):
    model = bundle()
    options = tuple(f'{a} {b} {c}' for a in WORDS[:5] for b in WORDS[5:10] for c in WORDS[10:14])
    items = [Item('many', 't', pictures[:1], 'what is', options)]
    rows = plan(model, items, max_row=64)
    assert len(rows) > 2 and max(len(r.ids) for r in rows) <= 64
    same(loglik(model, items, max_row=64), loglik_plain(model, items))


@pytest.mark.parametrize('deaf', ['mask', 'positions', 'refuses'])
def test_a_model_whose_attention_cannot_be_masked_is_scored_plainly_and_says_so(pictures, deaf, monkeypatch):
    model = bundle()
    body = model.language_model.base_model
    forward = body.forward
    def hard(*args, **kwargs):
        mask = kwargs.get('attention_mask')
        if deaf == 'refuses' and mask is not None and mask.ndim == 4: raise ValueError('no custom masks here')
        if deaf == 'mask': kwargs['attention_mask'] = None
        if deaf == 'positions': kwargs['position_ids'] = None
        return forward(*args, **kwargs)
    monkeypatch.setattr(body, 'forward', hard)
    items = [Item('a', 't', pictures[:1], 'what is', ('a cat', 'the dog'))]
    reason = 'no custom masks here' if deaf == 'refuses' else 'differ by'
    with pytest.warns(RuntimeWarning, match=f'one option at a time: .*{reason}'): found = loglik(model, items)
    same(found, loglik_plain(model, items))


def test_rows_beyond_a_sliding_window_are_scored_plainly_and_say_so():
    "A layer that looks back over a window sees a packed row whole only up to its length."
    from transformers import MistralConfig, MistralForCausalLM
    class Talker:
        device = torch.device('cpu')
        language_model = seeded(lambda: MistralForCausalLM(MistralConfig(
            vocab_size=len(VOCAB), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=12, max_position_embeddings=64)), 0).eval()
        def image_tokens(self, images): raise AssertionError('no pictures here')
        def prompt_ids(self, prompt): return [VOCAB[w] for w in prompt.split()]
        def option_ids(self, prompt, option): return [VOCAB[w] for w in option.split()]
    model = Talker()
    with torch.no_grad():
        for name, p in model.language_model.named_parameters():
            if p.ndim == 2: p.mul_(20)
    options = ('ball cup', 'dog', 'red blue big')
    short, long = (Item(k, 't', (), ' '.join(WORDS[:n]), options) for k, n in (('short', 5), ('long', 15)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        same(loglik(model, [short]), loglik_plain(model, [short]))
    with pytest.warns(RuntimeWarning, match='MistralForCausalLM looks back over 12 tokens: options of 1 longer rows'):
        found = loglik(model, [long, short])
    same(found, loglik_plain(model, [long, short]))
    model.language_model.config.sliding_window = None  # what a packed row would have said
    with pytest.raises(AssertionError): same(loglik(model, [long]), found[:1])


@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory'), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")])
def test_out_of_memory_halves_the_batch_and_says_so(pictures, error, monkeypatch):
    model, items, sizes = bundle(), made(random.Random(1), pictures, 20), []
    want, work = loglik_plain(model, items), likelihood._score_batch
    def small(model, batch, *more):
        sizes.append(len(batch))
        if len(batch) > 3: raise error
        return work(model, batch, *more)
    monkeypatch.setattr(likelihood, '_score_batch', small)
    with pytest.warns(RuntimeWarning, match='out of memory with .* now'): found = loglik(model, items)
    same(found, want)
    assert max(sizes) > 3
    monkeypatch.setattr(likelihood, '_score_batch', lambda *a: (_ for _ in ()).throw(error))
    with pytest.raises(RuntimeError): loglik(model, items[:1])


def test_other_errors_are_not_taken_for_memory(pictures, monkeypatch):
    model = bundle()
    cannot_pack(model)
    def broken(*a): raise RuntimeError('shapes do not fit')
    monkeypatch.setattr(likelihood, '_score_batch', broken)
    with pytest.raises(RuntimeError, match='do not fit'): loglik(model, made(random.Random(0), pictures, 6))


def test_broken_weights_and_training_mode_are_named(pictures):
    model, items = bundle(), [Item('the item', 't', pictures[:1], 'what is', ('a cat',))]
    model.model.train()
    with pytest.raises(ValueError, match='training mode'): loglik(model, items)
    model.model.eval()
    cannot_pack(model)
    with torch.no_grad(): model.language_model.get_input_embeddings().weight[VOCAB['cat']] = float('nan')
    with pytest.raises(ValueError, match="item 'the item'.*not finite"): loglik(model, items)


def test_a_global_precision_switch_is_overruled_and_restored(pictures):
    model, items = bundle(), made(random.Random(2), pictures, 5)
    want = loglik_plain(model, items)
    torch.set_float32_matmul_precision('medium')
    try:
        same(loglik(model, items), want)
        assert torch.get_float32_matmul_precision() == 'medium'
    finally: torch.set_float32_matmul_precision('highest')


def test_mean_is_the_sum_over_the_number_of_tokens(pictures):
    model, items = bundle(), [Item('a', 't', pictures[:1], 'what is', ('a cat', 'the big dog'))]
    total, mean = loglik(model, items)[0], loglik(model, items, reduce='mean')[0]
    np.testing.assert_allclose(mean, total / [2, 3], rtol=1e-9)


def test_what_cannot_be_scored_is_named(model, pictures):
    for choice, options in (('options', ()), ('images', ()), ('both', ())):
        with pytest.raises(ValueError, match="'u' has no options"): loglik(model, [Item('u', 't', pictures[:1], 'look', options, choice=choice)])
    with pytest.raises(ValueError, match="the model has [0-9]+: shorten the prompt 'ball ball"):
        loglik(model, [Item('u', 't', pictures[:1], 'ball '*5000, ('cup', 'dog'))])
