"""Adapters: batches, families and faults."""
import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from babyvlm.models.hub_models import HubLLM, Question, RemoteVLM, load_vlm
from babyvlm.models.tiny import FAMILIES, tiny_llm, tiny_vlm

TEXTS = ['What is the creature in this picture? A. cup B. dog C. hat D. cat'] * 5


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    d = tmp_path_factory.mktemp('vlms')
    for k in FAMILIES: tiny_vlm(d/k, k, TEXTS)
    for i in range(3): Image.effect_noise((60 + 40 * i, 70), 90).convert('RGB').save(d/f'{i}.png')
    return d


@pytest.mark.parametrize('kind', FAMILIES)
def test_order_and_company_do_not_matter(here, kind):
    v = load_vlm(here/kind, device='cpu', batch_size=4)
    qs = [Question(f'Which one, number {j}?\nA. cup\nB. dog', (str(here/f'{i}.png'),)) for i in range(3) for j in range(3)]
    qs += [Question('No picture at all?\nA. cup\nB. dog'), Question('Two?\nA. cup\nB. dog', (str(here/'0.png'), str(here/'2.png')))]
    a = np.array(v.score_letters(qs, [2] * len(qs)))
    order = np.random.default_rng(0).permutation(len(qs))
    b = np.array(v.score_letters([qs[i] for i in order], [2] * len(qs)))
    assert np.abs(a[order] - b).max() < 2e-4
    assert v.encoded == 5          # three pictures alone and one pair


def test_cache_is_bounded(here):
    v = load_vlm(here/'internvl', device='cpu', keep=1)
    qs = [Question('Which?\nA. cup\nB. dog', (str(here/f'{i}.png'),)) for i in (0, 1, 0)]
    v.score_letters(qs, [2] * 3)
    assert v.encoded == 3 and len(v.seen) == 1


def test_pictures_matter(here):
    v = load_vlm(here/'qwen2_5_vl', device='cpu')
    a, b = v.score_letters([Question('Which?\nA. cup\nB. dog', (str(here/f'{i}.png'),)) for i in (0, 2)], [2, 2])
    assert np.abs(a - b).max() > 1e-5


def test_a_placeholder_in_a_question_is_refused(here):
    with pytest.raises(ValueError, match='must not hold'):
        load_vlm(here/'qwen2_5_vl', device='cpu').say([Question('Is <|image_pad|> a word?')])


def test_missing_weights_are_refused(here, tmp_path):
    from safetensors.torch import load_file, save_file
    tiny_llm(tmp_path/'m', TEXTS)
    w = load_file(tmp_path/'m'/'model.safetensors')
    w.pop(next(k for k in w if 'q_proj' in k))
    save_file(w, tmp_path/'m'/'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(ValueError, match='lacks weights'): load_vlm(tmp_path/'m', device='cpu')


def test_broken_weights_are_refused(tmp_path):
    m = load_vlm(tiny_llm(tmp_path/'m', TEXTS), device='cpu')
    assert isinstance(m, HubLLM)
    with torch.no_grad(): m.model.lm_head.weight.fill_(float('nan'))
    with pytest.raises(ValueError, match='not finite'): m.score_letters([Question('A?')], [2])


def test_server_is_asked_once_and_retried(here, tmp_path):
    asked = []
    def answer(request):
        asked.append(request)
        if len(asked) == 1: return httpx.Response(500, json=dict(error=dict(message='busy')))
        body = dict(id='1', object='chat.completion', created=0, model='m', usage=dict(prompt_tokens=7, completion_tokens=1, total_tokens=8),
                    choices=[dict(index=0, finish_reason='length', message=dict(role='assistant', content='C. hat'))])
        return httpx.Response(200, json=body)
    r = RemoteVLM('m', tmp_path, base_url='http://server.test/v1', api_key='x', sleep=lambda s: None, parallel=1)
    r.client = r.client.with_options(http_client=httpx.Client(transport=httpx.MockTransport(answer)))
    q = Question('Which?\nA. cup', (str(here/'0.png'),), system='Reply with a letter.')
    assert r.say([q, q]) == ['C. hat'] * 2 and len(asked) == 2
    again = RemoteVLM('m', tmp_path, base_url='http://server.test/v1', api_key='x')
    assert again.say([q]) == ['C. hat'] and again.bill.cached == 1
    assert b'"detail":"low"' in asked[-1].content.replace(b' ', b'')


def test_equal_file_names_in_two_folders_are_two_pictures(here, tmp_path):
    for k, d in enumerate('ab'): (tmp_path/d).mkdir(); (tmp_path/d/'1.png').write_bytes((here/f'{2*k}.png').read_bytes())
    qs = [Question('Which?\nA. cup\nB. dog', (str(tmp_path/d/'1.png'),)) for d in 'ab']
    v = load_vlm(here/'qwen2_5_vl', device='cpu')
    a, b = v.score_letters(qs, [2, 2])
    assert v.encoded == 2 and np.abs(np.array(a) - b).max() > 1e-5


def test_learned_positions_do_not_count_padding():
    from transformers import GPT2Config, GPT2LMHeadModel

    from babyvlm.models.tiny import tiny_tokenizer
    from babyvlm.models.weights import seeded
    tokenizer = tiny_tokenizer(TEXTS, 300)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=2, n_head=2)
    model = seeded(lambda: GPT2LMHeadModel(config), 0)
    with torch.no_grad(): model.transformer.wpe.weight.mul_(50)
    m = HubLLM(model, tokenizer, device='cpu', batch_size=4, base=True)
    qs = [Question('Which?\nA. cup'), Question('Which of these many, many things is in this picture of mine?\nA. cup\nB. dog')]
    together = m.score_letters(qs, [2, 2])
    alone = [m.score_letters([q], [2])[0] for q in qs]
    assert np.abs(np.array(together) - np.array(alone)).max() < 2e-4


def test_a_batch_with_pictures_leaves_nothing_for_the_next(here):
    q, words = Question('Which?\nA. cup\nB. dog', (str(here/'0.png'),)), [Question('No picture?\nA. cup\nB. dog')]
    used, fresh = (load_vlm(here/'qwen2_5_vl', device='cpu') for _ in range(2))
    used.score_letters([q], [2])
    used.model.model.rope_deltas = torch.full((1, 1), 7)   # newer transformers overlook it; older ones do not
    used._inputs(words)
    assert used.model.model.rope_deltas is None
    assert np.abs(np.array(used.score_letters(words, [2])) - fresh.score_letters(words, [2])).max() < 1e-6
