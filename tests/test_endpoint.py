"""Letters of a model behind a server: a tiny real model that lists its likeliest tokens, servers that do not, and servers with faults."""
import contextlib
import gzip
import json
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from servers import answering
from typer.testing import CliRunner

from babyvlm.data.rewriters import Endpoint, EndpointError
from babyvlm.data.taxonomy import build_questions, random_taxonomy, save_annotations
from babyvlm.models.chat import Question
from babyvlm.models.hub_models import load_vlm
from babyvlm.models.servers import RemoteVLM, letters_of
from babyvlm.models.shared_reading import letter_ids
from babyvlm.models.tiny import tiny_llm
from babyvlm.nursery.world import Nursery
from babyvlm.run.cli import app

TEXTS = ['What is the creature in this picture? A. cup B. dog C. hat D. cat Answer with a letter.'] * 9
ASKED = [Question(f'Which is number {n}?\nA. cup\nB. dog\nC. hat') for n in range(5)]


def completion(text='B. dog', top=None):
    listed = None if top is None else dict(content=[dict(token='x', logprob=-1., bytes=None, top_logprobs=[dict(token=t, logprob=p, bytes=None) for t, p in top])])
    return dict(id='x', object='chat.completion', created=0, model='m', usage=dict(prompt_tokens=9, completion_tokens=1, total_tokens=10),
                choices=[dict(index=0, finish_reason='stop', message=dict(role='assistant', content=text), logprobs=listed)])


def refuse(what, status=400): return status, dict(error=dict(message=f'{what} is not supported', type='x', param=what, code=None)), {}


@contextlib.contextmanager
def serve(answer):
    "A server whose `answer(body)` is (status, body, headers); how many were under way at once is kept."
    seen, under, lock = [], [0, 0], threading.Lock()

    def play(_, body):
        with lock: seen.append(body); under[0] += 1; under[1] = max(under)
        status, said, headers = answer(body)
        with lock: under[0] -= 1
        return status, json.dumps(said), headers

    with answering(play) as url: yield url, seen, under


def remote(url, cache, **kw): return RemoteVLM('m', cache, base_url=url, api_key='x', pause=.01, **kw)


def lists(top, most=20):
    "A server that lists tokens when it is asked to."
    def answer(body):
        if body.get('top_logprobs', 0) > most: return refuse('top_logprobs')
        return 200, completion(top=top[:body['top_logprobs']] if body.get('logprobs') else None), {}
    return answer


TOP = [['A', np.log(.5)], ['B', np.log(.3)], [' cup', np.log(.1)]] + [[f'w{i}', -9. - i] for i in range(17)]


def test_a_real_model_scores_alike_here_and_behind_a_server(tmp_path):
    model, lock = load_vlm(tiny_llm(tmp_path/'m', TEXTS, chat=True), device='cpu'), threading.Lock()
    for p in model.model.parameters(): p.data *= 2
    def tokens(body):
        text = model.tokenizer.apply_chat_template([dict(role='user', content=body['messages'][0]['content'][0]['text'])], tokenize=False, add_generation_prompt=True)
        with lock, torch.inference_mode(): logp = model.model(**model._padded([model._ids(text)])).logits[0, -1].float().log_softmax(-1)
        best = logp.topk(body['top_logprobs'])
        return [[model.tokenizer.decode([i]), float(p)] for i, p in zip(best.indices.tolist(), best.values)], logp
    full = {}
    def answer(body):
        top, full[body['messages'][0]['content'][0]['text']] = tokens(body)
        return 200, completion(top=top), {}
    own = letter_ids(model.tokenizer, 'ABC')
    with serve(answer) as (url, seen, _):
        r = remote(url, tmp_path/'cache')
        there = r.score_letters(ASKED, [3] * 5)
    for q, x, y in zip(ASKED, there, model.score_letters(ASKED, [3] * 5)):
        logp, last = full[q.text], float(full[q.text].topk(20).values[-1])
        for l in range(3):
            spelled = logp[own[l]]
            if (spelled >= last).all(): assert abs(x[l] - y[l]) < 1e-5        # the same number
            elif (spelled < last).all(): assert (x[l] >= spelled.numpy() - 1e-6).all() and x[l] < last   # a bound of each spelling, behind what is listed
    assert len(seen) == 6 and seen[0]['max_tokens'] == 1 and seen[0]['temperature'] == 0


def test_letters_that_are_not_listed_rank_last_tie_and_are_named(tmp_path, recwarn):
    with serve(lists(TOP)) as (url, *_): got = remote(url, tmp_path).score_letters(ASKED[:1], [4])[0]
    assert np.allclose(np.exp(got[:2]), [.5, .3]) and got[2] == got[3] < TOP[-1][1]
    assert any('C, D of' in str(w.message) and 'in 0 no letter is' in str(w.message) for w in recwarn)


def test_a_bound_is_never_above_what_is_left_or_listed():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = np.sort(rng.dirichlet(np.full(30, .3)))[::-1]
        k = rng.integers(1, 20)
        names = ['A', 'B', ' A', *(f'w{i}' for i in range(27))]
        rng.shuffle(names)
        got, absent = letters_of([[n, float(np.log(max(x, 1e-30)))] for n, x in zip(names[:k], p)], 'AB')
        assert np.isfinite(got).all()
        for j, l in enumerate('AB'):
            if l in absent: assert np.log(max(p[[i for i, n in enumerate(names) if n.strip() == l]].max(), 1e-30)) <= max(got[j], np.log(2.**-24)) + 1e-6
            else: assert abs(np.exp(got[j]) - sum(x for n, x in zip(names[:k], p) if n.strip() == l)) < 1e-9


@pytest.mark.parametrize('status', [400, 422, 501])
def test_a_server_without_log_probabilities_is_asked_in_words_and_says_so(tmp_path, recwarn, status):
    def answer(body): return refuse('logprobs', status) if 'logprobs' in body else (200, completion(), {})
    with serve(answer) as (url, seen, _):
        r = remote(url, tmp_path, tries=1)
        assert not r.gives_letters and not r.gives_letters and r.say(ASKED[:1]) == ['B. dog']
        with pytest.raises(EndpointError, match='ask for words'): r.score_letters(ASKED, [3] * 5)
    assert len([b for b in seen if 'logprobs' in b]) <= 2 and any('its words are read instead' in str(w.message) for w in recwarn)


def test_a_server_that_lists_five_is_taken_at_five(tmp_path):
    with serve(lists(TOP, most=5)) as (url, seen, _):
        r = remote(url, tmp_path)
        assert np.isfinite(r.score_letters(ASKED, [3] * 5)).all() and r.listed == 5
    assert {b['top_logprobs'] for b in seen[1:]} == {5}


def test_an_ignored_request_for_log_probabilities_counts_as_none(tmp_path):
    with serve(lambda body: (200, completion(), {})) as (url, *_): assert not remote(url, tmp_path).gives_letters


def test_faults_are_tried_again_and_waits_are_the_servers(tmp_path):
    script = [(429, {}, {'retry-after': '7'}), (503, {}, {}), (200, completion(top=[['A', float('nan')]]), {}), (200, completion(top=[['A', .7]]), {})]
    good, waits = lists(TOP), []
    with serve(lambda body: script.pop(0) if script else good(body)) as (url, seen, _):
        r = remote(url, tmp_path, sleep=waits.append, parallel=1)
        assert r.gives_letters and len(r.score_letters(ASKED, [2] * 5)) == 5
    assert waits[0] == 7 and len(waits) == 4 and r.bill.retries == 4 and r.bill.requests == len(seen) == 4 + 6
    assert len((tmp_path/'requests.jsonl').read_text().splitlines()) == r.bill.asked == 6
    again = remote(url, tmp_path, tries=1)   # it is gone; its answers are here
    assert np.allclose(again.score_letters(ASKED, [2] * 5), r.score_letters(ASKED, [2] * 5)) and again.bill.requests == 0


def test_a_budget_of_requests_stops_and_goes_on(tmp_path):
    with serve(lists(TOP)) as (url, seen, _):
        with pytest.raises(EndpointError, match='max_requests 3 is reached'): remote(url, tmp_path, max_requests=3).score_letters(ASKED, [2] * 5)
        assert len(seen) == 3
        assert len(remote(url, tmp_path, max_requests=3).score_letters(ASKED, [2] * 5)) == 5 and len(seen) == 6


def test_no_more_than_the_limit_is_under_way(tmp_path):
    good = lists(TOP)
    def slow(body): time.sleep(.05); return good(body)
    asked = [Question(f'Which {n}?\nA. cup\nB. dog') for n in range(12)]
    with serve(slow) as (url, _, under): remote(url, tmp_path, parallel=3).score_letters(asked, [2] * 12)
    assert 1 < under[1] <= 3


@pytest.mark.parametrize('listed', [True, False])
def test_benchmarks_of_two_papers_through_the_command_line(tmp_path, monkeypatch, listed):
    tree = random_taxonomy((2, 2, 2), root='')
    rows = build_questions(tree, [f'/x/{i}.png' for i in range(8)], list(tree))
    save_annotations(rows, tmp_path/'birds.jsonl'); (tmp_path/'birds').mkdir()
    for i in range(8): Image.new('RGB', (32, 32), (30 * i, 90, 90)).save(tmp_path/'birds'/f'{i}.png')
    Nursery(0, 32).write_benchmarks(tmp_path/'labels', labeled_s=1, vtwt=4, winoground=4, captions=1)
    def run(*words):
        got = CliRunner().invoke(app, ['evaluate', '--model', 'endpoint:m', '--out', str(tmp_path/'out'), '--parallel', '1', *map(str, words)])
        return got.exit_code, got.output
    birds = ['--benchmark', 'hierarchy/cub200', '--labels', tmp_path/'birds.jsonl', '--images', tmp_path/'birds']
    with serve(lists(TOP) if listed else lambda body: refuse('logprobs') if 'logprobs' in body else (200, completion(), {})) as (url, seen, _):
        monkeypatch.setenv('OPENAI_BASE_URL', url); monkeypatch.setenv('OPENAI_API_KEY', 'none')
        status, said = run(*birds)
        assert status == 0 and ('loglik' if listed else 'chat') in said, said
        pictures = [b['messages'][-1]['content'][0]['image_url']['url'] for b in seen if b['messages'][-1]['content'][0]['type'] == 'image_url']
        assert sum(a != b for a, b in zip(pictures, pictures[1:])) == 7                 # side by side: eight pictures, seven changes
        journal = next((tmp_path/'out').rglob('*cub200/*.jsonl'))
        whole, n = journal.read_bytes(), len(seen)
        journal.write_bytes(b''.join(whole.splitlines(True)[:5]))
        assert run(*birds)[0] == 0 and journal.read_bytes() == whole and len(seen) <= n + 2    # answered from disk
        if not listed: return
        for task in ('vtwt', 'baby_winoground', 'labeled_s'):
            status, said = run('--benchmark', f'v1/{task}', '--labels', tmp_path/'labels')
            assert status == 0 and 'chance' in said, said


def test_two_servers_that_call_their_models_alike_are_two_models(tmp_path):
    with serve(lambda body: (200, completion('A. cup'), {})) as (one, *_), serve(lambda body: (200, completion('B. dog'), {})) as (two, *_):
        asked = [remote(url, tmp_path) for url in (one, two, one)]
        assert [r.say(ASKED[:1]) for r in asked] == [['A. cup'], ['B. dog'], ['A. cup']]
    assert [r.bill.asked for r in asked] == [1, 1, 0] and asked[0].name == asked[2].name != asked[1].name
    assert RemoteVLM('m', tmp_path, base_url='https://api.openai.com/v1', api_key='x').name == 'm'


def with_choice(**what): return completion() | dict(choices=[completion()['choices'][0] | what])


@pytest.mark.parametrize('odd', [with_choice(message='B'), with_choice(message=['B']), with_choice(message=5), with_choice(message=dict(content=[dict(type=['text'], text='B')]))])
def test_a_message_of_another_kind_is_asked_again_and_named(tmp_path, odd):
    with serve(lambda body: (200, odd, {})) as (url, seen, _):
        with pytest.raises(EndpointError, match='no answer after 2 tries .(the reply is no chat completion|it answers in)'): remote(url, tmp_path, tries=2).say(ASKED[:1])
    assert len(seen) == 2 and not [*tmp_path.rglob('*/*.json')]


@pytest.mark.parametrize('paid', ['9', [9], {}, float('nan'), -9, 1e999, 10**400, None])
def test_token_counts_that_are_no_counts_cost_nothing(tmp_path, paid):
    with serve(lambda body: (200, completion() | dict(usage=dict(prompt_tokens=paid, completion_tokens=1)), {})) as (url, *_):
        r = remote(url, tmp_path, price_in=1., price_out=1.)
        assert r.say(ASKED[:1]) == ['B. dog'] and r.bill.tokens_in == 0 and r.bill.cost == 1e-6


@pytest.mark.parametrize('top', ['A', 5, [['A']], [['A', '-1']], [5]])
def test_a_kept_answer_with_odd_log_probabilities_is_asked_again(tmp_path, top):
    with serve(lists(TOP)) as (url, seen, _):
        want = remote(url, tmp_path).score_letters(ASKED[:1], [2])[0]
        for f in tmp_path.rglob('*/*.json'): f.write_text(json.dumps(json.loads(f.read_text()) | dict(top=top)))
        assert (remote(url, tmp_path).score_letters(ASKED[:1], [2])[0] == want).all() and len(seen) == 4


def test_a_missing_key_is_one_line(tmp_path, monkeypatch):
    for name in ('OPENAI_API_KEY', 'OPENAI_ADMIN_KEY'): monkeypatch.delenv(name, raising=False)
    with pytest.raises(EndpointError, match='endpoint:m needs a key: set OPENAI_API_KEY'): load_vlm('endpoint:m', cache=tmp_path)


def asked(tmp_path, answer, **kw):
    "What an endpoint says when it is answered so."
    with answering(answer) as url:
        return Endpoint('m', tmp_path, base_url=url, api_key='SECRET', timeout=5., sleep=lambda s: None, **kw)._ask(dict(model='m', messages=[], max_tokens=5))


@pytest.mark.parametrize('status', [301, 302, 303, 307, 308])
def test_neither_key_nor_pictures_follow_to_another_address(tmp_path, status):
    reached = []
    with answering(lambda request, body: (reached.append(request), (200, json.dumps(completion()), {}))[1]) as other:
        with pytest.raises(EndpointError, match=f'status {status}: it sends on to {other}/chat; .* set OPENAI_BASE_URL'):
            asked(tmp_path, lambda *a: (status, '', {'location': f'{other}/chat'}))
    assert not reached


@pytest.mark.parametrize('times', [1, 2])
def test_a_packed_answer_is_never_unpacked(tmp_path, times):
    bomb = b' ' * 2**26
    for _ in range(times): bomb = gzip.compress(bomb)
    def answer(request, body):
        request.send_response(200)
        for k, v in {'content-encoding': ', '.join(['gzip']*times), 'content-length': len(bomb)}.items(): request.send_header(k, v)
        request.end_headers()
        with contextlib.suppress(OSError): request.wfile.write(bomb)   # nobody takes it
    with pytest.raises(EndpointError, match=r'2 tries \(the answer is packed \(gzip'): asked(tmp_path, answer, tries=2)


@pytest.mark.parametrize('body, said', [('{"error": "model \'m\' not found"}', "model 'm' not found"), ('{"detail": "no such model"}', 'no such model'), ('<html>\x1b[31mgone</html>', r'<html> \[31mgone'),
                                        ('{"error": {"message": "no key"}}', 'no key'), ('null', 'Error code: 404')])
def test_what_a_server_says_of_a_fault_is_told_whatever_its_form(tmp_path, body, said):
    with pytest.raises(EndpointError, match=f'status 404: {said}'): asked(tmp_path, lambda *a: (404, body, {}))


def test_a_parameter_is_refused_in_the_form_of_any_server(tmp_path):
    def answer(request, body):
        if 'max_tokens' in body: return 422, '{"detail": [{"loc": ["body", "max_tokens"], "msg": "extra fields not permitted"}]}', {}
        return 200, json.dumps(completion('B')), {}
    assert asked(tmp_path, answer)['text'] == 'B'


def test_nobody_listens(tmp_path):
    e = Endpoint('m', tmp_path, base_url='http://127.0.0.1:9/v1', api_key='x', tries=1)
    with pytest.raises(EndpointError, match=r'no answer after 1 tries \(.*refused'): e._ask(dict(model='m', messages=[]))
