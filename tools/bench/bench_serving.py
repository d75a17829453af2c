"""Models behind servers and models in shards: requests under way together against one after another, two processes and `merge` against one.

The server is a local one that takes a fixed time for every request, however many are under way, as a server that batches does;
what is timed is this package's client, its journal and its pictures. Shards are real processes of the command line on two cores,
with a tiny hub model of a real class; they count from start to merged files, so the start of Python counts twice as well.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from babyvlm.data.taxonomy import build_questions, random_taxonomy, save_annotations
from babyvlm.models.chat import Question
from babyvlm.models.servers import RemoteVLM
from babyvlm.models.tiny import tiny_vlm

BABYVLM = sys.executable, '-c', 'from babyvlm.run.cli import app; app()'
WAIT, TOGETHER = .1, 8        # seconds of a request; requests under way at once


class Slow(BaseHTTPRequestHandler):
    "Answers with the letter that the question's number names, after a while."
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['content-length'])))
        time.sleep(WAIT)
        words = json.dumps(body['messages'])
        letter = 'ABCD'[int(words.split('number ')[1].split(':')[0]) % 4]
        data = json.dumps(dict(id='x', object='chat.completion', created=0, model='m', usage=dict(prompt_tokens=9, completion_tokens=1, total_tokens=10),
                               choices=[dict(index=0, finish_reason='stop', message=dict(role='assistant', content=letter))])).encode()
        self.send_response(200)
        for k, v in (('content-type', 'application/json'), ('content-length', str(len(data)))): self.send_header(k, v)
        self.end_headers(); self.wfile.write(data)

    def log_message(self, *a): pass


def endpoint(n):
    "Questions with a picture through a server."
    server = ThreadingHTTPServer(('127.0.0.1', 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as d:
        d, rng = Path(d), np.random.default_rng(0)
        for i in range(-(-n // 6)): Image.fromarray(rng.integers(0, 255, (336, 336, 3), dtype=np.uint8)).save(d/f'{i}.png')
        asked = [Question(f'number {i}: which is it?\nA. cup\nB. dog\nC. hat\nD. cat', (str(d/f'{i // 6}.png'),)) for i in range(n)]
        took, said = {}, {}
        for k in (TOGETHER, 1):
            m = RemoteVLM('m', d/f'cache{k}', base_url=f'http://127.0.0.1:{server.server_port}/v1', api_key='none', parallel=k)
            m.say(asked[:1])      # a connection is open before the clock runs
            began = time.perf_counter(); said[k] = m.say(asked[1:]); took[k] = time.perf_counter() - began
    server.shutdown(); server.server_close()
    same = sum(a == b for a, b in zip(said[1], said[TOGETHER]))
    floor = WAIT * (n - 1) / TOGETHER
    return dict(part='serving', size=f'{n - 1} questions, six a picture of 336 pixels, a server that takes {WAIT:g} s a request',
                peer=f'one request after another: {took[1]:.1f} s', ours=f'{TOGETHER} under way: {took[TOGETHER]:.1f} s, {took[TOGETHER] / floor:.2f} times the waiting alone',
                ratio=round(took[1] / took[TOGETHER], 2), memory_ratio=None, exactness=f'{same} of {n - 1} answers equal')


def shards(n):
    "An evaluation in one process, and in two with `merge`."
    with tempfile.TemporaryDirectory() as d:
        d, tree = Path(d), random_taxonomy((3, 3, 3), root='')
        save_annotations(build_questions(tree, [f'/x/{i}.png' for i in range(n)], (list(tree) * n)[:n]), d/'birds.jsonl')
        for i in range(n): Image.new('RGB', (64, 64), (i % 250, 90, 90)).save(d/f'{i}.png')
        tiny_vlm(d/'vlm', image=56, width=128, layers=4)
        words = [*BABYVLM, 'evaluate', '--model', d/'vlm', '--benchmark', 'hierarchy/cub200', '--labels', d/'birds.jsonl', '--images', d]
        env = dict(os.environ, OMP_NUM_THREADS='1')

        def started(out, *more): return subprocess.Popen([*map(str, words), '--out', str(d/out), *more], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began = time.perf_counter(); status = started('one').wait(); one = time.perf_counter() - began
        began = time.perf_counter()
        status += sum(p.wait() for p in [started('two', '--shard', f'{k}/2') for k in (1, 2)])
        status += subprocess.call([*BABYVLM, 'merge', str(d/'two')], env=env, stdout=subprocess.DEVNULL)
        two = time.perf_counter() - began
        if status: raise RuntimeError('an evaluation stopped')
        same = [(d/'two'/p.relative_to(d/'one')).read_bytes() == p.read_bytes() for p in (d/'one').rglob('*.jsonl')]
        lines = sum(len(p.read_text().splitlines()) - 1 for p in (d/'one').rglob('*.jsonl'))
    return dict(part='serving', size=f'{lines:,} questions to a tiny Qwen2.5-VL, a thread a process', peer=f'one process: {one:.1f} s',
                ours=f'two shards and merge: {two:.1f} s', ratio=round(one / two, 2), memory_ratio=None,
                exactness=f'{sum(same)} of {len(same)} journals equal byte for byte')


def rows(quick=True):
    yield endpoint(97 if quick else 385)
    yield shards(60 if quick else 400)


if __name__ == '__main__':
    for row in rows(): print(row)
