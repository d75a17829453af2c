"""Child-directed rewriting against a real server with faults, real kills, a real tiny model."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from servers import answering
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babyvlm.data.child_directed import Rules, read_caption, say, transfer
from babyvlm.data.rewriters import (MAX_WORDS, SCHEMA, Endpoint, EndpointError, LocalChat, Rewrite,
                                    messages, parse_answer)
from babyvlm.data.saycam import PAIR_FEATURES, tokenize
from babyvlm.nursery.world import Nursery

GOOD = json.dumps(dict(utterance='look at the car!', daily_life=True))


def pairs(*captions):
    return Dataset.from_list([dict(uid=f'u{i}', image=f'{i}.jpg', utterance=c, child='', session='', start=0., end=0., source='web')
                              for i, c in enumerate(captions)], features=PAIR_FEATURES)


def completion(text=GOOD, finish='stop', refusal=None, usage=(150, 20)):
    return json.dumps(dict(id='x', object='chat.completion', created=0, model='m',
                           choices=[dict(index=0, finish_reason=finish, message=dict(role='assistant', content=text, refusal=refusal))],
                           usage=dict(prompt_tokens=usage[0], completion_tokens=usage[1], total_tokens=sum(usage))))


@contextlib.contextmanager
def serve(*script, default=(200, completion(), {})):
    "A chat-completions server that plays (status, body, headers) in order, then the default."
    seen, script, lock = [], list(script), threading.Lock()

    def play(request, body):
        with lock:
            seen.append(SimpleNamespace(path=request.path, body=body, auth=request.headers['authorization']))
            answer = script.pop(0) if script else default
        status, text, headers = answer(body) if callable(answer) else answer
        if status == 'hang': time.sleep(text); return None
        if status == 'drop': request.connection.close(); return None
        return status, text, headers

    with answering(play) as url: yield url, seen


def endpoint(url, cache, **kw):
    waits = []
    e = Endpoint('m', cache, url, 'key-1', **{**dict(price_in=2., price_out=8., parallel=1, tries=4, pause=.5, sleep=waits.append), **kw})
    e.waits = waits
    return e


def error(code, message='no'): return json.dumps(dict(error=dict(message=message, type='x', code=code)))


def test_the_request_is_what_the_protocol_asks_for(tmp_path):
    with serve() as (url, seen):
        got = endpoint(url, tmp_path).rewrite([('a', 'a car')])
    assert got == [Rewrite('a', 'look at the car!', True, 'model')]
    sent = seen[0]
    assert sent.path == '/v1/chat/completions' and sent.auth == 'Bearer key-1'
    assert sent.body['messages'] == messages('a car') and sent.body['temperature'] == 0
    assert sent.body['response_format'] == dict(type='json_schema', json_schema=dict(name='rewrite', strict=True, schema=SCHEMA))


def test_retry_after_is_obeyed_then_the_pause_doubles(tmp_path):
    busy = (429, error('rate_limit'), {'retry-after': '7'})
    with serve(busy, (500, 'oops', {'content-type': 'text/plain'}), (503, error('down'), {})) as (url, seen):
        e = endpoint(url, tmp_path)
        assert e.rewrite([('a', 'a car')])[0].utterance
    assert e.waits == [7., 1., 2.] and len(seen) == 4 and e.bill.retries == 3 and e.bill.asked == 1


@pytest.mark.parametrize('fault', [('drop', '', {}), (200, '{"id": ', {}), (200, '<html>portal</html>', {'content-type': 'text/html'}),
                                   (200, '{}', {}), (408, error('timeout'), {})])
def test_a_broken_reply_is_asked_again_and_never_kept(tmp_path, fault):
    with serve(fault) as (url, seen):
        e = endpoint(url, tmp_path)
        assert e.rewrite([('a', 'a car')])[0].utterance == 'look at the car!' and len(seen) == 2
    assert len(list(tmp_path.rglob('*.json'))) == 1


def test_a_timeout_is_asked_again(tmp_path):
    with serve(('hang', 1.5, {})) as (url, seen):
        assert endpoint(url, tmp_path, timeout=.4).rewrite([('a', 'a car')])[0].utterance
    assert len(seen) == 2


def test_tries_run_out_and_the_next_run_goes_on(tmp_path):
    down = (500, error('down'), {})
    with serve((200, completion(), {}), *[down]*4) as (url, seen):
        with pytest.raises(EndpointError, match='no answer after 4 tries .*run again'): endpoint(url, tmp_path).rewrite([('a', 'one'), ('b', 'two')])
        again = endpoint(url, tmp_path)
        assert [r.uid for r in again.rewrite([('a', 'one'), ('b', 'two')])] == ['a', 'b']
    assert (again.bill.cached, again.bill.asked) == (1, 1)


@pytest.mark.parametrize('status, code, message', [(401, 'invalid_api_key', 'status 401'), (404, 'model_not_found', 'status 404'),
                                                   (400, 'bad_schema', 'status 400: .*no'), (429, 'insufficient_quota', 'status 429')])
def test_what_trying_again_cannot_help_stops_at_once(tmp_path, status, code, message):
    with serve(default=(status, error(code), {})) as (url, seen):
        with pytest.raises(EndpointError, match=message): endpoint(url, tmp_path).rewrite([('a', 'a car')])
    assert len(seen) == 1 and not list(tmp_path.rglob('*.json'))


@pytest.mark.parametrize('answer, reason', [
    ((200, completion(None, refusal='I cannot'), {}), 'refused'), ((200, completion(None, finish='content_filter'), {}), 'refused'),
    ((400, error('content_filter'), {}), 'refused'), ((200, completion('{"utt', finish='length'), {}), 'answer was cut off'),
    ((200, completion('not json'), {}), 'answer is not JSON'), ((200, completion(None), {}), 'answer is not JSON'),
    ((200, completion('{"utterance": "x"}'), {}), 'answer has other keys')])
def test_malformed_answers_go_to_the_ledger_and_are_paid_for_once(tmp_path, answer, reason):
    with serve((200, completion(), {}), answer) as (url, seen):
        got = transfer(pairs('a car', 'a bad one'), endpoint(url, tmp_path))
        assert got.ledger.skipped == {reason: 1} and got.pairs['uid'] == ['u0'] and got.ledger.examples[reason] == ['u1']
        transfer(pairs('a car', 'a bad one'), endpoint(url, tmp_path))
    assert len(seen) == 2


def test_nothing_is_paid_for_twice(tmp_path):
    with serve() as (url, seen):
        e = endpoint(url, tmp_path, parallel=4)
        items = [(f'u{i}', f'caption {i % 10}') for i in range(40)]
        first = e.rewrite(items)
        assert len(seen) == 10 and e.bill.asked == 10
        assert e.bill.cost == pytest.approx(10*(150*2 + 20*8)/1e6) == e.bill.total
        later = endpoint(url, tmp_path)
        assert later.rewrite([*items, ('new', 'another')])[:40] == first
        assert len(seen) == 11 and later.bill.cost == pytest.approx(e.bill.cost/10) and later.bill.total == pytest.approx(e.bill.cost*1.1)
        other = Endpoint('other-model', tmp_path, url, 'key-1')
        other.rewrite(items[:1])
    assert len(seen) == 12                               # another model is another question


def test_max_cost_stops_before_the_next_request(tmp_path):
    with serve() as (url, seen):
        e = endpoint(url, tmp_path, max_cost=.0005)
        with pytest.raises(EndpointError, match='max_cost 0.0005 is reached'): e.rewrite([(str(i), f'caption {i}') for i in range(9)])
    assert len(seen) == 2


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr('babyvlm.data.rewriters.server_mark', lambda url: 'here')   # the same server again
    def slow(body):
        if body['messages'][1]['content'].endswith(' 3'): time.sleep(20)
        return 200, completion(), {}
    with serve(default=slow) as (url, seen):
        code = textwrap.dedent(f'''
            from babyvlm.data import rewriters
            rewriters.server_mark = lambda url: 'here'
            rewriters.Endpoint('m', {str(tmp_path)!r}, {url!r}, 'key-1', parallel=1).rewrite([(str(i), f'caption {{i}}') for i in range(6)])''')
        run = subprocess.Popen([sys.executable, '-c', code])
        deadline = time.time() + 60
        while len(seen) < 4 and time.time() < deadline: time.sleep(.05)
        os.kill(run.pid, signal.SIGKILL); run.wait()
        assert len(list(tmp_path.rglob('*.json'))) == 3
    with serve() as (url, seen):
        assert all(r.utterance for r in endpoint(url, tmp_path).rewrite([(str(i), f'caption {i}') for i in range(6)]))
    assert sorted(s.body['messages'][1]['content'] for s in seen) == [f'Caption: caption {i}' for i in (3, 4, 5)]


def test_two_processes_share_a_cache(tmp_path):
    with serve() as (url, seen):
        engines = [endpoint(url, tmp_path) for _ in range(2)]
        items = [(str(i), f'caption {i}') for i in range(20)]
        out = [None, None]
        threads = [threading.Thread(target=lambda k=k: out.__setitem__(k, engines[k].rewrite(items))) for k in (0, 1)]
        for t in threads: t.start()
        for t in threads: t.join()
    assert out[0] == out[1] and all(out[0]) and not list(tmp_path.rglob('*.new'))


def tiny_llama(template="{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"):
    chars = sorted({c for c in json.dumps(messages('a car, 2018')) + GOOD + '<|>{}": \n'})
    t = Tokenizer(models.WordLevel({c: i for i, c in enumerate(['<unk>', '<s>', '</s>', *chars])}, unk_token='<unk>'))
    t.pre_tokenizer, t.decoder = pre_tokenizers.Split('', 'isolated'), decoders.Fuse()
    tok = PreTrainedTokenizerFast(tokenizer_object=t, unk_token='<unk>', bos_token='<s>', eos_token='</s>')
    tok.chat_template = template
    torch.manual_seed(0)
    cfg = LlamaConfig(vocab_size=len(tok), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                      max_position_embeddings=2048, bos_token_id=1, eos_token_id=2)
    return LlamaForCausalLM(cfg), tok


def test_a_local_model_is_greedy_and_batches_change_nothing():
    model, tok = tiny_llama()
    items = [(str(i), c) for i, c in enumerate(['a car', 'a dog in a park', 'x'])]
    seen = []
    def spy(name, batch):
        e = LocalChat(model, tok, name, batch, max_new_tokens=6)
        decode = tok.batch_decode
        tok.batch_decode = lambda *a, **k: seen.append(decode(*a, **k)) or seen[-1]
        got = e.rewrite(items)
        tok.batch_decode = decode
        return got
    assert spy('one', 1) == spy('three', 3) and all(r.reason == 'answer is not JSON' for r in spy('again', 2))
    assert [x for s in seen[:3] for x in s] == seen[3]   # left padding must not move an answer


def test_a_local_model_that_answers_is_read():
    model, tok = tiny_llama()
    answer = torch.tensor([tok(GOOD, add_special_tokens=False)['input_ids'] + [2]])
    class Parrot(torch.nn.Module):
        device = torch.device('cpu')
        def generate(self, input_ids, attention_mask, **kw):
            assert kw['do_sample'] is False and attention_mask.shape == input_ids.shape
            return torch.cat([input_ids, answer.expand(len(input_ids), -1)], 1)
    got = transfer(pairs('a car', 'the car'), LocalChat(Parrot(), tok, 'parrot'))
    assert got.pairs['utterance'] == ['look at the car !']*2 and got.ledger.kept == 2


def test_a_tokenizer_without_chat_template_is_refused():
    model, tok = tiny_llama(None)
    with pytest.raises(ValueError, match='no chat template'): LocalChat(model, tok)


@pytest.mark.parametrize('text, reason', [
    ('[1]', 'answer has other keys'), ('null', 'answer has other keys'), ('{"utterance": 3, "daily_life": true}', 'utterance is empty or not text'),
    ('{"utterance": "x", "daily_life": 1}', 'daily_life is not true or false'), ('{"utterance": "x", "daily_life": true, "z": 1}', 'answer has other keys'),
    (json.dumps(dict(utterance='a '*(MAX_WORDS + 1), daily_life=True)), 'utterance has more than'), (GOOD + GOOD, 'answer is not JSON'),
    (None, 'answer is not JSON')])
def test_only_the_object_asked_for_is_an_answer(text, reason): assert parse_answer('a', text).reason.startswith(reason)


@given(st.text(max_size=80), st.text(max_size=8))
def test_rules_say_something_short_about_anything(caption, uid):
    r, = Rules().rewrite([(uid, caption)])
    assert r.utterance and len(tokenize(r.utterance)) <= MAX_WORDS and Rules().rewrite([(uid, caption)]) == [r]
    assert not r.daily_life or read_caption(caption).thing


@pytest.mark.parametrize('caption, thing, look, action, daily', [
    ('a silver 2018 ford focus vehicle parked in a lot', 'car', 'shiny', '', True),
    ('A Large Golden Retriever', 'dog', 'big', '', True), ('happy children playing', 'kid', 'happy', '', True),
    ('photo of a young woman reading a magazine', 'lady', '', 'read', True), ('passenger jet of an airline', 'plane', '', '', False),
    ('two tiny kittens in a wicker basket', 'cat', 'little', '', True), ('quarterly revenue growth', '', '', '', False),
    ('strawberry ice cream', 'ice cream', '', '', True), ('man in a business suit', 'man', '', '', False)])
def test_what_the_rules_read(caption, thing, look, action, daily):
    f = read_caption(caption)
    assert (f.thing, f.look, f.action) == (thing, look, action)
    assert Rules().rewrite([('1', caption)])[0].daily_life == daily


def test_plurals_agree_and_articles_fit():
    said = {say(read_caption(c), str(k)) for c in ('three apples', 'an orange', 'large leaves', 'ducklings swimming') for k in range(60)}
    assert not [s for s in said if 'a orange' in s or 'an duck' in s or 'ducks is' in s or "there's the big leaves" in s]
    assert {'look at the big leaves!', 'look, the ducks are swimming!', "that's an orange."} <= said


def test_the_nursery_is_read_as_it_was_planted():
    world = Nursery(seed=5)
    items = [world.web_item(i) for i in range(300)]
    rewrites = Rules().rewrite((str(i), item[2]) for i, item in enumerate(items))
    agree = sum(r.daily_life == item[4] for r, item in zip(rewrites, items))/len(items)
    named = [item[0].noun in r.utterance for r, item in zip(rewrites, items) if item[4]]
    assert agree > .9 and sum(named)/len(named) > .6


def test_transfer_keeps_columns_order_and_counts():
    got = transfer(pairs('a red car', 'quarterly revenue', 'a dog'), Rules())
    assert got.pairs['uid'] == ['u0', 'u2'] and got.pairs.features == PAIR_FEATURES and got.ledger.seen == 3
    assert transfer(pairs('a red car', 'quarterly revenue'), Rules(), daily_only=False).ledger.kept == 2
    assert len(transfer(pairs('quarterly revenue'), Rules()).pairs) == 0
    class Shuffled(Rules):
        def rewrite(self, items): return super().rewrite(items)[::-1]
    with pytest.raises(ValueError, match='do not follow the captions'): transfer(pairs('a', 'b'), Shuffled())
