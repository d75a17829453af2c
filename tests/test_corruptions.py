"""Damaged journals: repaired to the bytes of an undamaged run, or refused with file, line and what to do; never other answers.

With BABYVLM_RELIABILITY=1 what was seen goes to tests/reliability/corruptions.json."""
import json
import os
from pathlib import Path

import kills
import pytest

from babyvlm.benchmarks.protocols import evaluate
from babyvlm.items import Journal


def line(n, change):
    "Changes line n, counted from 1."
    def damage(raw):
        lines = raw.split(b'\n')
        lines[n - 1] = change(lines[n - 1])
        return b'\n'.join(lines)
    return damage


def field(name, value): return lambda raw: json.dumps(json.loads(raw) | {name: value}).encode()


DAMAGES = {
    'torn last line': lambda raw: raw[:-20], 'no last line end': lambda raw: raw[:-1], 'emptied': lambda raw: b'', 'cut in the header': lambda raw: raw[:10],
    'half a line in the middle': line(9, lambda l: l[:len(l)//2]), 'a line twice': line(9, lambda l: l + b'\n' + l), 'a line lost': lambda raw: raw.replace(raw.split(b'\n')[8] + b'\n', b''),
    'a list': line(9, lambda l: b'[1, 2]'), 'a number': line(9, lambda l: b'7'), 'null': line(9, lambda l: b'null'), 'an empty line': line(9, lambda l: b''),
    'a foreign field': line(9, field('extra', 1)), 'no uid': line(9, lambda l: b'{}'), 'a uid that is a number': line(9, field('uid', 7)),
    'an unknown status': line(9, field('status', 'lost')), 'scores that are words': line(9, field('scores', ['a', 'b'])), 'not UTF-8': line(9, lambda l: l[:5] + b'\xff\xfe' + l[5:]),
    'a NUL': line(9, lambda l: b'\0' + l), 'nested deeply': line(9, lambda l: b'['*100_000), 'digits without end': line(9, lambda l: b'{"uid": ' + b'9'*5000 + b'}'),
    'a field twice': line(9, lambda l: l[:-1] + b', "scores": [0.0, 1.0]}'), 'another item': line(9, field('item', '0'*16)), 'Windows line ends': lambda raw: raw.replace(b'\n', b'\r\n'),
    'two journals': lambda raw: raw + raw, 'a mark in front': lambda raw: b'\xef\xbb\xbf' + raw, 'no header': lambda raw: raw.split(b'\n', 1)[1],
    'another model': line(1, field('model', 'other')), 'scores that are no numbers': line(9, field('scores', [float('nan'), 1.])), 'one score too many': line(9, field('scores', [0., 1., 2.]))}


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp('sound')/'j.jsonl'
    evaluate(kills.Model(), kills.ITEMS, path, batch_size=4)
    return path.read_bytes()


def outcome(path, raw, sound):
    "'repaired', or the message that refuses it."
    path.write_bytes(raw)
    try: evaluate(kills.Model(), kills.ITEMS, path, batch_size=4)
    except ValueError as e: return str(e)
    now, right = Journal(path).done, Journal(path.with_name('right.jsonl')).done
    return 'repaired' if now == right else f'other answers: {[u for u in right if now.get(u) != right[u]]}'


@pytest.mark.parametrize('name', DAMAGES)
def test_a_damaged_journal_is_repaired_or_refused_by_name(sound, tmp_path, name):
    (tmp_path/'right.jsonl').write_bytes(sound)
    said = outcome(tmp_path/'j.jsonl', DAMAGES[name](sound), sound)
    assert said == 'repaired' or 'j.jsonl' in said, said
    path = Path(__file__).parent/'reliability'/'corruptions.json'
    known = json.loads(path.read_text()) if path.is_file() else {}
    if os.environ.get('BABYVLM_RELIABILITY'): path.write_text(json.dumps(known | {name: 'repaired' if said == 'repaired' else 'refused'}, indent=1, sort_keys=True) + '\n')


def test_the_committed_result_is_about_these_damages():
    assert set(json.loads((Path(__file__).parent/'reliability'/'corruptions.json').read_text())) == set(DAMAGES)
