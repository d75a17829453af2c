"""Gated pixels and words enter nothing that leaves this machine: planted canaries, and the real sentences where they are here."""
import base64
import csv
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from babyvlm.analysis.explorer import Explorer
from babyvlm.benchmarks.v1 import load_saycam_caption
from babyvlm.estimate import Estimate
from babyvlm.items import Journal, Reply
from babyvlm.reporting.cards import check_card
from babyvlm.reporting.page import write_report
from babyvlm.reporting.tables import row, save_table
from babyvlm.store import Store

ROOT = Path(__file__).parent.parent
SENTENCE = 'the canary of apricot street counts its ' + 'seventeen feathers'   # in two parts, so that this file does not hold it


def leaving():
    "Everything that git tracks or that a site or a batch writes to be shown."
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    tracked = [ROOT/f for f in listed.stdout.split('\0') if f] if listed.returncode == 0 else [p for p in ROOT.rglob('*') if p.is_file()]
    made = [p for d in ('figures', '_site', '_docs', '_proc') for p in (ROOT/d).rglob('*') if p.is_file()]
    return [p for p in {*tracked, *made} if p.is_file()]


@pytest.fixture
def gated(tmp_path, monkeypatch):
    "A folder of gated data with a canary picture and a canary sentence."
    root = tmp_path/'data'
    (root/'saycam'/'frames').mkdir(parents=True); (root/'babylmms-eval').mkdir()
    pixels = np.random.default_rng(17).integers(0, 255, (32, 32, 3), np.uint8)
    name = 'S_20130811_0925_03_306_03.jpg'
    Image.fromarray(pixels).save(root/'saycam'/'frames'/name, quality=90)
    (root/'babylmms-eval'/'SAYCam_caption.csv').write_text(f'image,text\n{name},{SENTENCE}\n')
    monkeypatch.setenv('BABYVLM_DATA', str(root)); monkeypatch.setenv('BABYVLM_FIGURES', str(tmp_path/'figures'))
    return root, (root/'saycam'/'frames'/name)


def test_planted_canaries_reach_no_page(gated, tmp_path):
    root, picture = gated
    item, = load_saycam_caption(root/'babylmms-eval'/'SAYCam_caption.csv', root/'saycam'/'frames')
    reply = Reply(item.uid, text=f'i see {SENTENCE}')
    def build(path): Journal(path/'saycam_caption.jsonl', 'm').write([reply])
    made = Store(tmp_path/'store').get('replies', dict(spec=dict(model='m')), build)
    save_table(__import__('pandas').DataFrame([row('m', 'SAYCam Caption', 'METEOR', Estimate(.1, n=1), run=made)]), 'v1/63_x', 'x', 'toy')
    write_report(tmp_path/'figures'/'toy', Store(tmp_path/'store'))
    with pytest.raises(ValueError, match='gated'): Explorer([item], {'m': [reply]}).export(tmp_path/'figures'/'toy'/'explorer.html')
    shown = [str(f) for f in check_card('saycam_caption', root)]
    raw = picture.read_bytes()
    for f in (tmp_path/'figures').rglob('*'):
        if not f.is_file(): continue
        b = f.read_bytes()
        assert SENTENCE.encode() not in b and raw[:200] not in b and base64.b64encode(raw)[:200] not in b, f.name
    assert SENTENCE not in json.dumps(shown)


def test_search_finds_a_canary(tmp_path):
    (tmp_path/'x.html').write_text(f'<p>{SENTENCE}</p>')
    assert words(tmp_path/'x.html').count(plain(SENTENCE)) == 1


def plain(text): return ' '.join(re.findall(r"[a-z']+", text.lower().replace('\u2019', "'")))
def words(path):
    try: return plain(re.sub(r'[A-Za-z0-9+/=]{300,}', ' ', path.read_text(encoding='utf-8')))   # pictures as text
    except UnicodeDecodeError: return ''


def test_no_planted_sentence_leaves():
    for p in leaving(): assert plain(SENTENCE) not in words(p), p.name


def test_no_sentence_of_the_children_leaves(real_data):
    "Transcribed sentences of five words and more, in anything that git tracks or the site shows."
    file = real_data/'babylmms-eval'/'SAYCam_caption.csv'
    if not file.exists(): pytest.skip('the released captions are not here')
    with open(file, encoding='utf-8', newline='') as f: said = {plain(r['text'].replace(" '", "'").replace(" n't", "n't")) for r in csv.DictReader(f)}
    said = {' '.join(s.split()[:6]) for s in said if len(s.split()) >= 6} - {'zero one two three four five'}   # counting aloud names nobody
    assert len(said) > 100
    found = {}
    for p in leaving():
        if p.suffix not in ('.ipynb', '.md', '.html', '.py', '.csv', '.json', '.tex', '.js'): continue
        tokens = words(p).split()
        hits = {' '.join(tokens[i:i + 6]) for i in range(len(tokens) - 5)} & said
        if hits: found[p.name] = len(hits)
    assert not found, f'transcribed speech in {found}'
