"""Adapters: batches, families and faults."""
import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from babyvlm.benchmarks.devcv.score import converse
from babyvlm.benchmarks.hierarchy.questions import Letters
from babyvlm.benchmarks.likelihood import HubRanked
from babyvlm.benchmarks.protocols import evaluate
from babyvlm.items import Item
from babyvlm.models.chat import Question
from babyvlm.models.hub_models import HubVLM, load_vlm
from babyvlm.models.servers import RemoteVLM
from babyvlm.models.shared_reading import HubLLM
from babyvlm.models.tiny import FAMILIES, tiny_llm, tiny_vlm
from babyvlm.run.evaluate import Spoken, load_model

TEXTS = ['What is the creature in this picture? A. cup B. dog C. hat D. cat'] * 5


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    d = tmp_path_factory.mktemp('vlms')
    for k in FAMILIES: tiny_vlm(d/k, k, TEXTS)
    for i in range(3): Image.effect_noise((60 + 40 * i, 70), 90).convert('RGB').save(d/f'{i}.png')
    return d


def firm(model):
    "Random weights large enough for answers that differ and that depend on each token."
    for p in (model.model.base_model.language_model if isinstance(model, HubVLM) else model.model.base_model).layers.parameters(): p.data *= 6
    return model


@pytest.mark.parametrize('share', (True, False))
@pytest.mark.parametrize('kind', FAMILIES)
def test_order_and_company_do_not_matter(here, kind, share):
    v = firm(load_vlm(here/kind, device='cpu', batch_size=4, share=share))
    qs = [Question(f'Which one, number {j}{" or so" * 4 * j}?\nA. cup\nB. dog', (str(here/f'{i}.png'),)) for i in range(3) for j in range(3)]
    qs += [Question('No picture at all?\nA. cup\nB. dog'), Question('Two?\nA. cup\nB. dog', (str(here/'0.png'), str(here/'2.png')))]
    a = np.array(v.score_letters(qs, [2] * len(qs)))
    order = np.random.default_rng(0).permutation(len(qs))
    b = np.array(v.score_letters([qs[i] for i in order], [2] * len(qs)))
    assert np.abs(a[order] - b).max() < 2e-4
    assert v.encoded == 5          # three pictures alone and one pair


def both(load):
    "A model that reads a shared start once, and one that reads each question whole."
    return [firm(load(share)) for share in (True, False)]


def levels(here, n=6, pictures=('0', '1')):
    ask = [Question(f'Which one, number {j} {"or so " * j}?\nA. cup\nB. dog', (str(here/f'{i}.png'),)) for j in range(n) for i in pictures]
    return ask + [Question(f'Two? {j}\nA. cup\nB. dog', (str(here/'0.png'), str(here/'2.png'))) for j in range(3)]


def apart(a, b): return max(float(np.abs(np.subtract(x, y)).max()) for x, y in zip(a, b, strict=True))


def same_answers(shared, whole, qs, recwarn):
    "Letters, texts that are scored, and replies of two models are equal, without a message."
    n, said = [2] * len(qs), [('yes', 'no no', 'a dog', 'cat cup hat')[i % 4] for i in range(len(qs))]
    letters = [m.score_letters(qs, n) for m in (shared, whole)]
    assert apart(*letters) < 1e-4 and np.ptp(letters[0]) > .01
    assert apart(*(m.score_answers(qs, said) for m in (shared, whole))) < 1e-4
    assert shared.say(qs, 6) == whole.say(qs, 6)
    assert not [w for w in recwarn if 'whole' in str(w.message)]


@pytest.mark.parametrize('kind', FAMILIES)
def test_questions_go_on_from_the_picture_they_share(here, kind, recwarn):
    shared, whole = both(lambda share: load_vlm(here/kind, device='cpu', share=share, batch_size=4))
    qs = levels(here)
    same_answers(shared, whole, qs, recwarn)
    shared.read = whole.read = 0
    small = load_vlm(here/kind, device='cpu', tokens=1)     # one question a pass
    for p in small.model.base_model.language_model.layers.parameters(): p.data *= 6
    assert apart(*(m.score_letters(qs, [2] * len(qs)) for m in (shared, small))) < 1e-4
    whole.score_letters(qs, [2] * len(qs))
    one, pair = (sum(map(len, whole._look(q.images).runs)) for q in (qs[0], qs[-1]))
    assert whole.read >= 4 * shared.read                      # 6, 6 and 3 questions a picture
    assert one * 2 + pair >= shared.read > pair


def llava(kind, **more):
    "LLaVA around a language model of another family."
    from transformers import AutoConfig, AutoModelForImageTextToText, CLIPImageProcessor, LlavaProcessor

    from babyvlm.models.tiny import tiny_tokenizer
    from babyvlm.models.weights import seeded
    tokenizer = tiny_tokenizer(TEXTS, 600, 'llava_onevision')
    text = dict(model_type=kind, vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, head_dim=16, max_position_embeddings=512, pad_token_id=0, eos_token_id=2, bos_token_id=0, **more)
    eye = dict(model_type='clip_vision_model', hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=48, patch_size=8)
    config = AutoConfig.for_model('llava', text_config=text, vision_config=eye, image_token_index=tokenizer.convert_tokens_to_ids('<image>'), vision_feature_layer=-1)
    processor = LlavaProcessor(CLIPImageProcessor(size=dict(height=48, width=48), crop_size=dict(height=48, width=48)), tokenizer, patch_size=8,
                               vision_feature_select_strategy='default', num_additional_image_tokens=1, chat_template=tokenizer.chat_template)
    return lambda share: HubVLM(seeded(lambda: AutoModelForImageTextToText.from_config(config), 0), processor, device='cpu', share=share)


@pytest.mark.parametrize('kind, more', [('llama', {}), ('qwen2', {}), ('mistral', {}), ('mistral', dict(sliding_window=16)), ('mistral', dict(sliding_window=47))])
def test_llava_with_any_language_model(here, kind, more, recwarn):
    shared, whole = both(llava(kind, **more))
    same_answers(shared, whole, levels(here), recwarn)
    assert whole.read >= (3 if "sliding_window" not in more else 1.8) * shared.read


def test_layers_of_two_kinds_are_read_whole_beyond_their_window(here):
    layers = dict(use_sliding_window=True, sliding_window=24, layer_types=['full_attention', 'sliding_attention', 'full_attention'])
    shared, whole = both(llava('qwen2', **layers))
    qs = levels(here)
    with pytest.warns(RuntimeWarning, match='reads each question whole: a layer looks back over 24 tokens'): a = shared.score_letters(qs, [2] * len(qs))
    assert apart(a, whole.score_letters(qs, [2] * len(qs))) < 1e-4 and shared.read == whole.read


@pytest.mark.parametrize('kind', ['qwen2', 'qwen3', 'llama', 'mistral', 'gemma2'])
def test_examples_in_front_of_questions_are_read_once(tmp_path, kind, recwarn):
    tiny_llm(tmp_path/'m', TEXTS, kind=kind)
    shared, whole = both(lambda share: load_vlm(tmp_path/'m', device='cpu', share=share))
    shots = 'What is the creature in this picture? A. cup B. dog C. hat D. cat B ' * 6
    same_answers(shared, whole, [Question(f'{shots}{j} which?{" or" * j}') for j in range(6)], recwarn)


def test_a_family_that_cannot_share_says_so(tmp_path):
    from transformers import AutoModelForCausalLM, MambaConfig

    from babyvlm.models.tiny import tiny_tokenizer
    from babyvlm.models.weights import seeded
    tokenizer = tiny_tokenizer(TEXTS, 600)
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=32, state_size=4, num_hidden_layers=2, pad_token_id=0)
    def load(share): return HubLLM(seeded(lambda: AutoModelForCausalLM.from_config(config), 0), tokenizer, device='cpu', share=share, batch_size=1)
    shared, whole = load(True), load(False)
    qs = [Question(f'What is the creature in this picture, as seen before? {j}\nA. cup\nB. dog') for j in range(4)]
    with pytest.warns(RuntimeWarning, match="'mamba' reads each question whole: "): a = shared.score_letters(qs, [2] * 4)
    assert apart(a, whole.score_letters(qs, [2] * 4)) < 1e-6


def test_half_precision_keeps_to_its_own_spread(here):
    shared, whole = (load_vlm(here/'qwen2_5_vl', device='cpu', dtype=torch.bfloat16, share=share) for share in (True, False))
    exact, qs = load_vlm(here/'qwen2_5_vl', device='cpu'), levels(here)
    a, b, c = (m.score_letters(qs, [2] * len(qs)) for m in (shared, whole, exact))
    assert apart(a, c) < 2 * apart(b, c) + 1e-3 and shared.read < whole.read


def creatures(here, forms=4):
    "Six levels a picture in four orders of their options, as CUB-200 is asked when order is averaged out."
    return [Item(f'{i}/{level}/{f}', 'cub', (str(here/f'{i}.png'),), f'What is its {level}, order {f}?\nA. cup\nB. dog', ('cup', 'dog'))
            for i in range(3) for level in ('order', 'family', 'genus', 'species', 'colour', 'home') for f in range(forms)]


@pytest.mark.parametrize('kind', FAMILIES)
def test_levels_of_a_picture_read_it_once_and_a_killed_run_goes_on(here, tmp_path, kind):
    items = creatures(here)
    shared, whole = (load_vlm(here/kind, device='cpu', share=share) for share in (True, False))
    got = [evaluate(Letters(m), items, tmp_path/n, batch_size=24) for m, n in ((shared, 'one'), (whole, 'plain'))]
    assert apart(*([r.scores for r in rs] for rs in got)) < 1e-4
    assert whole.read >= 10 * shared.read
    lines = (tmp_path/'one').read_bytes().splitlines(True)
    (tmp_path/'cut').write_bytes(b''.join(lines[:len(lines) // 2]) + lines[-1][:20])
    again = evaluate(Letters(load_vlm(here/kind, device='cpu')), items, tmp_path/'cut', batch_size=24)
    assert (tmp_path/'cut').read_bytes() == (tmp_path/'one').read_bytes() and [r.scores for r in again] == [r.scores for r in got[0]]


def turns(here, shows, ask='', first=0):
    "The rounds of a conversation, each with so many pictures."
    said, out, paths = [], [], [str(here/f'{(i + first) % 3}.png') for i in range(9)]
    for k, n in enumerate(shows):
        words = '<image> '*n + (ask or f'Which one is new, number {k}?\nA. cup\nB. dog')
        out.append(Question(words, tuple(paths[:sum(shows[:k + 1])]), earlier=tuple(said)))
        said.append((words, f'It is number {k}.'))
    return out


@pytest.mark.parametrize('shows', [(1, 2, 2), (2, 1, 0, 2)])
@pytest.mark.parametrize('kind', FAMILIES)
def test_a_conversation_goes_on_from_its_last_round(here, kind, shows, recwarn):
    shared, whole = both(lambda share: load_vlm(here/kind, device='cpu', share=share))
    qs = turns(here, shows)
    assert apart(shared.score_letters(qs, [2]*len(qs)), whole.score_letters(qs, [2]*len(qs))) < 1e-4
    assert [shared.say([q], 5)[0] for q in qs] == [whole.say([q], 5)[0] for q in qs]
    answers = ['dog', 'a cup'], [qs[-1]]*2
    assert apart(shared.score_answers(*answers[::-1]), whole.score_answers(*answers[::-1])) < 1e-4
    alone = {str(w.message) for w in recwarn if 'reads each question whole' in str(w.message)}
    assert not alone or kind == 'llava_onevision', alone    # its single pictures come in tiles


@pytest.mark.parametrize('kind', FAMILIES)
def test_each_picture_of_a_conversation_is_read_once(here, kind):
    shared, whole = both(lambda share: load_vlm(here/kind, device='cpu', share=share))
    qs = turns(here, (2, 2, 2))
    for m in (shared, shared, whole):
        m.heard, m.seen, m.read, m.encoded = {}, {}, 0, 0         # the first time it is tried
        for q in qs: m.score_letters([q], [2])
    shown = [r.count(shared.token_id) for r in shared._grown(qs[-1]).runs]
    assert shared.encoded == 6 + 2 and shared.read == sum(shown) + sum(shown[:2])     # the first round is no conversation yet
    assert 1.4*shared.read < whole.read and list(shared.heard) == qs[-1:]


@pytest.mark.parametrize('kind', ['qwen3_vl', 'internvl'])
def test_a_conversation_that_was_ended_comes_to_the_same_scores(here, kind):
    qs, m = turns(here, (2, 2, 2)), firm(load_vlm(here/kind, device='cpu'))
    once = [m.score_letters([q], [2])[0] for q in qs]
    for room, some in ((m.room, qs[2:]), (0, qs)):
        m = firm(load_vlm(here/kind, device='cpu')); m.room = room
        assert all((a == b).all() for a, b in zip([m.score_letters([q], [2])[0] for q in some], once[-len(some):], strict=True))
    assert not m.heard


def test_conversations_at_once_keep_to_their_own_pictures_and_their_room(here):
    shared, whole = both(lambda share: load_vlm(here/'qwen2_5_vl', device='cpu', share=share))
    talks = [turns(here, (2, 2), 'Which one?'), turns(here, (2, 2), 'What?'), turns(here, (2, 2), 'Which one?', 1)]
    for m in (shared, whole): m.said = [m.score_answers([t[k] for t in talks], ['cup']*3) for k in range(2)]
    assert apart([x for r in shared.said for x in r], [x for r in whole.said for x in r]) < 1e-4
    assert set(shared.heard) == {t[1] for t in talks}
    shared.room = 2*max(x.nbytes() for x in shared.heard.values())
    new = [turns(here, (1, 2), f'{w} now?') for w in ('Which', 'What', 'Whose')]
    for k in (0, 1, 1, 1): shared.score_answers([t[k] for t in new], ['cup']*3)     # those that ended make room
    assert sum(x.nbytes() for x in shared.heard.values()) <= shared.room and set(shared.heard) & {t[1] for t in new}


def test_memory_is_asked_round_by_round_through_a_hub_model(here, tmp_path):
    rounds = [dict(prompt='<image> Look.', images=1, options=('A',), gold='A', answer='A'),
              *[dict(prompt='<image> <image> New?\n(A) first (B) second', images=2, options=('A', 'B'), gold='B', answer='B')]*2]
    items = [Item(f'm{i}', 'devcv/memory', tuple(str(here/f'{(i + k) % 3}.png') for k in range(5)), rounds=tuple(rounds)) for i in range(2)]
    said = []
    for share in (True, False):
        m = firm(load_vlm(here/'qwen2_5_vl', device='cpu', share=share))
        said.append([r.text for r in converse(Spoken(m, 4), items, tmp_path/f'{share}.jsonl', 'chat')])
    assert said[0] == said[1] and (tmp_path/'True.jsonl').read_text() == (tmp_path/'False.jsonl').read_text()


def test_captions_of_a_picture_are_ranked_in_one_pass(here):
    items = [Item(str(i), 'v1', (str(here/f'{i}.png'),), '', ('a cup', 'a dog and a cat', 'a dog and a hat', 'yes')) for i in range(3)]
    items.append(Item('both', 'v1', (str(here/'0.png'), str(here/'1.png')), '', ('a cup', 'a hat'), choice='both'))
    shared, whole = both(lambda share: load_vlm(here/'qwen3_vl', device='cpu', share=share))
    assert apart(*(HubRanked(m).loglik(items) for m in (shared, whole))) < 1e-4
    assert whole.read > 2 * shared.read


def test_too_little_memory_halves_the_questions_of_a_picture(here, monkeypatch):
    m, qs = load_vlm(here/'qwen2_5_vl', device='cpu'), levels(here)
    right, packed = m.score_letters(qs, [2] * len(qs)), HubVLM._packed
    def tight(self, asks, kept):
        if len(asks) > 2: raise torch.OutOfMemoryError('out of memory')
        return packed(self, asks, kept)
    monkeypatch.setattr(HubVLM, '_packed', tight)
    with pytest.warns(RuntimeWarning, match='out of memory with 6 at once: now 3'): again = m.score_letters(qs, [2] * len(qs))
    assert apart(right, again) < 1e-4


def test_cache_is_bounded(here):
    v = load_vlm(here/'internvl', device='cpu', keep=1)
    qs = [Question('Which?\nA. cup\nB. dog', (str(here/f'{i}.png'),)) for i in (0, 1, 0)]
    v.score_letters(qs, [2] * 3)
    assert v.encoded == 2 and len(v.seen) == 1     # asked picture by picture


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
    used._inputs([used._ask(words[0])])
    assert used.model.model.rope_deltas is None
    assert np.abs(np.array(used.score_letters(words, [2])) - fresh.score_letters(words, [2])).max() < 1e-6


@pytest.mark.parametrize('kind', ['qwen2_5_vl', 'llm'])
def test_weights_that_are_spread_answer_as_those_in_one_place(here, tmp_path, kind):
    folder = here/kind if kind != 'llm' else tiny_llm(tmp_path/'llm', TEXTS)
    qs = [Question(f'Which {i}?\nA. cup\nB. dog', (str(here/'0.png'),) if kind != 'llm' else ()) for i in range(3)]
    one = load_vlm(folder, device='cpu').score_letters(qs, [2] * 3)
    for place in ('auto', 'cpu'):
        v = load_model(folder, device_map=place, dtype='float32', batch=2, max_tokens=64)
        assert (v.batch_size, v.tokens, '+' in v.name) == (2, 64, False)
        assert apart(v.score_letters(qs, [2] * 3), one) < 1e-4
    half = load_model(folder, dtype='bfloat16')
    assert half.name.endswith('+bfloat16') and half.model.dtype == torch.bfloat16


@pytest.mark.parametrize('how,said', [(dict(dtype='int3'), 'one of float32, bfloat16, float16'), (dict(device_map='gpu7'), "'gpu7' is not available"),
                                      (dict(batch=0), 'batch_size 0'), (dict(max_tokens=-1), 'tokens -1'), (dict(parallel=2), 'takes no --parallel')])
def test_wrong_ways_to_load_are_named(here, how, said):
    with pytest.raises(ValueError, match=said): load_model(here/'internvl', **how)
