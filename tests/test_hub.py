"""A push through the real client to a stub of the hub's HTTP interface: what arrives, and that a dry run sends nothing."""
import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from babyvlm.benchmarks.leaderboard import write_submission


class Hub(BaseHTTPRequestHandler):
    "Creates repositories and takes commits of small files."
    def log_message(self, *args): pass

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.asked.append(('GET', self.path))
        self.answer(dict(id='me/baby', siblings=[], sha='0' * 40, private=True, tags=[]))

    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length'] or 0))
        self.server.asked.append(('POST', self.path))
        assert self.headers['Authorization'] == 'Bearer hf_test'
        if self.path == '/api/repos/create':
            self.server.made.append(json.loads(body))
            return self.answer(dict(url=f'{self.server.address}/me/baby', name='me/baby', id='me/baby'))
        if '/preupload/' in self.path:
            return self.answer(dict(files=[dict(path=f['path'], uploadMode='regular', shouldIgnore=False) for f in json.loads(body)['files']]))
        if '/commit/' in self.path:
            for line in map(json.loads, body.splitlines()):
                if line['key'] == 'file': self.server.files[line['value']['path']] = base64.b64decode(line['value']['content'])
            return self.answer(dict(commitUrl=f'{self.server.address}/me/baby/commit/1', commitOid='1' * 40, success=True, hookOutput=''))
        self.answer(dict(errors=[], warnings=[]))       # validation of the card


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    server.address = f'http://127.0.0.1:{server.server_port}'
    server.asked, server.made, server.files = [], [], {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def client(hub, tmp_path, code):
    "Run the library's push with the real client of the hub, pointed at the stub."
    env = dict(os.environ, HF_ENDPOINT=hub.address, HF_HUB_OFFLINE='0', HF_TOKEN='hf_test', HF_HOME=str(tmp_path/'hf'), HF_HUB_DISABLE_TELEMETRY='1')
    env.pop('HTTP_PROXY', None), env.pop('http_proxy', None)
    head = f'from pathlib import Path; from babyvlm.reporting.hub import *; folder = Path({str(tmp_path)!r})\n'
    done = subprocess.run([sys.executable, '-c', head + code], env=env | dict(NO_PROXY='127.0.0.1'), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def model(tmp_path):
    folder = tmp_path/'model'
    (folder/'checkpoints').mkdir(parents=True)
    for name in ('config.json', 'model.safetensors', 'checkpoints/last.pt', 'vtwt.jsonl', 'x.lock', 'README.md'): (folder/name).write_text('{"model_type": "babyllava"}')
    return folder


PUSH = "card = hub_card(folder/'model', 'Baby', ['nursery']); print(push_model(folder/'model', 'me/baby', card%s))"


def test_a_model_arrives_with_its_card_and_without_what_stays_here(hub, model, tmp_path):
    assert f'{hub.address}/me/baby' in client(hub, tmp_path, PUSH % '')
    assert sorted(hub.files) == ['README.md', 'config.json', 'model.safetensors'] and 'private' in str(hub.made[0]), hub.made
    assert hub.files['README.md'].startswith(b'---\nlicense: other') and b'# Baby' in hub.files['README.md']


def test_a_dry_run_opens_no_connection(hub, model, tmp_path):
    said = client(hub, tmp_path, PUSH % ', dry_run=True')
    assert "['me/baby/README.md', 'me/baby/config.json', 'me/baby/model.safetensors']" in said and hub.asked == []


def test_a_submission_goes_beside_its_weights(hub, tmp_path):
    write_submission(tmp_path/'entry', 'my baby', 'me/baby')
    said = client(hub, tmp_path, "print(push_submission(folder/'entry'))")
    assert sorted(hub.files) == ['babyvlm-2026/model.py', 'babyvlm-2026/submission.json'] and 'me/baby/babyvlm-2026/model.py' in said
    assert json.loads(hub.files['babyvlm-2026/submission.json'])['checkpoint'] == 'me/baby'


def test_a_data_card_arrives(hub, tmp_path):
    client(hub, tmp_path, "from babyvlm.reporting.cards import push_card\nfrom huggingface_hub import HfApi\nprint(push_card('nursery', 'me/baby', api=HfApi()))")
    assert {'README.md', 'croissant.json'} <= set(hub.files)
