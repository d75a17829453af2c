"""Ten minutes of broken texts for every parser and reader: nothing but an error that names its fault may come out. FUZZ_SECONDS sets another time."""
import json
import os
import random
import time

import pytest

from babyvlm.benchmarks.parsing import parse_item
from babyvlm.config import read_yaml
from babyvlm.data.conversations import load_records
from babyvlm.data.rewriters import parse_answer
from babyvlm.data.saycam import read_transcript, seconds
from babyvlm.items import Item, Journal
from babyvlm.store import csv_rows, parse_json

SECONDS = float(os.environ.get('FUZZ_SECONDS', 600))
ITEM = Item('u', 'b', (), 'Which?', ('the red cup', 'a ball', 'up', 'yes'), 0)
ASKED = [{'from': 'human', 'value': '<image>\nWhat is it?'}, {'from': 'gpt', 'value': 'A cup.'}]
SEEDS = ['The answer is (B).', '<think>A or B</think> B', 'yes, then no', '٣ cups', '1:02.5', '00:00:01,500 --> 00:00:03,000', 'a: [1, {b: 2}]\nc: 2026-01-01', 'x,y\n"a,b",=1\n',
         'Time,Speaker,Utterance,Video Name\n0:01,M,look,v\n', json.dumps([dict(id='1', image='a.jpg', conversations=ASKED)]),
         '{"babyvlm": "replies", "version": 1, "model": "m", "protocol": ""}\n{"uid": "u", "text": "x"}\n', '{"utterance": "a dog", "daily_life": true}']
PIECES = ['\0', '\ufeff', '\u202e', '\ud800', '9'*5000, '['*3000, '{"a":'*500, '"', "'", '\r', '\n', '\t', ',', ': ', '- ', '&a *a', '<think>', '٣', '１', '²', '½', 'null', 'NaN', '-', 'é', '😀', '']


def broken(r):
    "A seed with a few pieces put in, taken out or doubled."
    text = r.choice(SEEDS)
    for _ in range(r.randint(1, 6)):
        a, b = sorted(r.randint(0, len(text)) for _ in range(2))
        text = text[:a] + r.choice([r.choice(PIECES), text[a:b]*2, '']) + text[b if r.random() < .5 else a:]
    return text


@pytest.mark.slow
def test_nothing_but_named_errors(tmp_path):
    paths = {n: tmp_path/n for n in ('S_20140420_1803_01.csv', 'records.json', 'journal.jsonl')}
    def file(name, text): paths[name].write_bytes(text.encode('utf-8', 'surrogatepass')); return paths[name]
    readers = [lambda t: parse_item(ITEM, t), seconds, lambda t: read_yaml(t, 'f'), lambda t: parse_json(t, 'f'),
               lambda t: csv_rows(t, 'f'), lambda t: parse_answer('u', t), lambda t: read_transcript(file('S_20140420_1803_01.csv', t)),
               lambda t: load_records(file('records.json', t)), lambda t: Journal(file('journal.jsonl', t))]
    r, end, tried = random.Random(0), time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        text = broken(r)
        for i, read in enumerate(readers):
            began = time.monotonic()
            try: read(text)
            except ValueError: pass
            except BaseException as e: raise AssertionError(f'reader {i}: {type(e).__name__}: {e} for {text!r:.300}') from e
            assert time.monotonic() - began < 10, f'reader {i} takes long for {text!r:.300}'
            tried += 1
    assert tried > 9
