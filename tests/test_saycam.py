"""What the SAYCam page cannot show: faults, laws, the real vocabulary, the nursery's truth."""
import csv
import json
import sys
import types
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from babyvlm.data.saycam import (COLUMNS, FrameName, Ledger, assign_splits, clean, frame_times, image_fault, load_pairs, n_frames, parse_name,
                                 read_metadata, read_transcript, segment_row, sentences, split_pairs, tokenize, write_metadata)
from babyvlm.nursery.world import Nursery

def transcript(folder, rows, name='S_20140420_1803_01', header=COLUMNS, video=None):
    folder.mkdir(parents=True, exist_ok=True)
    p = folder/f'{name}.csv'
    with p.open('w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([header, *([*r, video if video is not None else f'{name}.mp4'][:len(header)] for r in rows)])
    return p


def frames(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for n in names: Image.new('RGB', (32, 32), 'red').save(folder/n)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp('world')
    Nursery(seed=3).write_saycam(root, n=200, per_session=10, max_frames=9)
    return root


@given(st.dates(min_value=pd.Timestamp('2010-01-01').date()), st.integers(0, 99), st.integers(0, 31), st.integers(0, 99),
       st.integers(1, 5000), st.integers(0, 120), st.sampled_from('SAY'))
def test_names_survive_a_round_trip(day, months, days, part, utterance, frame, child):
    n = FrameName(child, day, months, days, part, utterance, frame)
    assert parse_name(f'some/folder/{n}.jpg') == n


@pytest.mark.parametrize('bad', ['', 'S_20140420', 'S_20140431_1803_01_001_00', 'S_20140420_1832_01', 'S_20140420_1803_01_82_00', 'x.jpg'])
def test_a_bad_name_is_refused(bad):
    with pytest.raises(ValueError): parse_name(bad)


@settings(max_examples=200)
@given(st.text(alphabet="abcdeT .,!?'-\"(…n't", max_size=60))
def test_tokens_lose_no_character(text):
    assert ''.join(tokenize(text)) == ''.join(text.split())


@settings(max_examples=100)
@given(st.lists(st.sampled_from(['look', 'it', "'s", 'a', 'ball', '.', '!', '?', '"', '...', 'Yes']), max_size=20))
def test_sentences_keep_every_token(words):
    assert ' '.join(sentences(' '.join(words))).split() == [w.lower() for w in tokenize(' '.join(words))]


@given(st.integers(0, 500), st.integers(0, 120), st.integers(1, 6))
def test_a_row_is_cut_into_whole_seconds_in_order(start, length, n):
    said = segment_row(' '.join(['Look!']*n), start, start + length)
    assert len(said) == n
    starts = [t[0] for _, t in said]
    assert starts == sorted(starts) and starts[0] == start and all(t == int(t) for t in starts)
    assert all(1 <= len(t) <= 32 and t == frame_times(t[0], t[0] + len(t)/5) for _, t in said)


def test_frame_rule_at_its_corners():
    assert [n_frames(d) for d in (0, .19, .2, .4, 6.2, 6.4, 6.6, 1e6)] == [1, 1, 1, 2, 31, 32, 32, 32]
    with pytest.raises(ValueError): n_frames(float('nan'))


def test_clitics_are_those_of_the_released_vocabulary(real_data):
    vocab = json.loads((real_data/'multimodal-baby'/'vocab.json').read_text())
    said = "Don't you know it's mommy's? We're here, they've gone, I'm ok, he'd go, you'll see... c'mon, I'm gonna, I can't, won't!"
    assert [t for s in sentences(said) for t in s.split() if t not in vocab] == []
    assert {"n't", "'s", "'re", "'ve", "'m", "'d", "'ll", '...', "c'm", 'gon', 'na', 'ca', 'wo'} <= set(' '.join(sentences(said)).split())


def test_released_captions_are_already_tokenised(real_data):
    text = pd.read_csv(real_data/'babylmms-eval'/'SAYCam_caption.csv')['text']
    same = [' '.join(tokenize(t)) == ' '.join(t.split()) for t in text]
    assert sum(same)/len(same) > .95                      # the rest hold joins that spaCy splits as well


def test_an_unknown_engine_and_a_missing_spacy(monkeypatch):
    from babyvlm.data import saycam
    monkeypatch.setattr(saycam, '_loaded', {})
    monkeypatch.setitem(sys.modules, 'spacy', None)
    with pytest.raises(ModuleNotFoundError, match='en_core_web_sm'): sentences('hi', 'spacy')


def test_spacy_is_used_when_it_is_there(monkeypatch):
    from babyvlm.data import saycam
    def nlp(text): return types.SimpleNamespace(sents=[[types.SimpleNamespace(text=w) for w in part.split()] for part in text.split('|')])
    monkeypatch.setattr(saycam, '_loaded', {})
    monkeypatch.setitem(sys.modules, 'spacy', types.SimpleNamespace(load=lambda name: nlp))
    assert sentences('Look there|A ball', 'spacy') == ['look there', 'a ball']


def test_words_after_an_unquoted_comma_are_not_dropped_in_silence(tmp_path):
    file = transcript(tmp_path, [('0:10', 'M', 'See the ball.'), ('0:20', 'M', 'Bye.')])
    lines = file.read_text().splitlines()
    file.write_text('\n'.join([lines[0], lines[1] + ', and more', lines[2] + ',,']))
    said, ledger = read_transcript(file)
    assert [u.utterance for u in said] == ['bye .'] and ledger.skipped == {'more cells than columns': 1}


def test_published_habits(tmp_path):
    rows = [('0:10', 'M', '[a] see the ball [b]'), ('', 'M', 'hm'), ('0:20', 'M', 'One. Two.'), ('0:24', 'child', 'ba')]
    ours, l1 = read_transcript(transcript(tmp_path, rows))
    theirs, l2 = read_transcript(transcript(tmp_path, rows), published=True)
    assert [u.utterance for u in ours] == ['see the ball', 'one .', 'two .'] and [u.utterance for u in theirs] == ['one .', 'two .']
    assert l2.skipped['the next row has no time stamp'] == 1 and l1.seen == l2.seen == 4
    assert clean('*x*') == '' and clean('a * b') == 'a b'


@pytest.mark.parametrize('column', COLUMNS)
def test_a_missing_column_is_named(tmp_path, column):
    header = [c if c != column else 'Other' for c in COLUMNS]
    with pytest.raises(ValueError, match=f"S_20140420_1803_01.csv: column '{column}' is missing; the columns are .*Other"):
        read_transcript(transcript(tmp_path, [('0:01', 'M', 'hi')], header=header))


def test_empty_and_foreign_transcripts(tmp_path):
    p = transcript(tmp_path, [])
    assert read_transcript(p)[0] == []
    p.write_bytes(b'')
    with pytest.raises(ValueError, match='the columns are none'): read_transcript(p)
    p.write_bytes('Time,Speaker,Utterance,Video Name\n0:01,M,caf\xe9,x'.encode('latin-1'))
    with pytest.raises(ValueError, match='not UTF-8'): read_transcript(p)
    with pytest.raises(ValueError, match='the names must agree'): read_transcript(transcript(tmp_path, [('0:01', 'M', 'hi')], video='S_20140420_1803_02.mp4'))
    with pytest.raises(ValueError, match='not a SAYCam name'): read_transcript(transcript(tmp_path, [('0:01', 'M', 'hi')], name='notes'))


def test_ledger_counts_every_row(tmp_path):
    rows = [('0:10', 'M', 'Look!'), ('0:12', 'Dad', 'hi'), ('', 'M', 'x'), ('soon', 'M', 'y'), ('0:30', 'M', '(sings)'), ('0:50', 'M', 'z'), ('0:40', 'papa', 'End.')]
    said, ledger = read_transcript(transcript(tmp_path, rows))
    assert [u.utterance for u in said] == ['look !', 'end .']
    assert ledger.skipped == {'speaker is not in the list': 1, 'no time stamp': 1, 'time stamp cannot be read': 1,
                              'nothing left after cleaning': 1, 'the next row starts earlier': 1}
    assert ledger.seen == 7 == ledger.kept + sum(ledger.skipped.values())


def test_every_kind_of_bad_frame(tmp_path):
    p = transcript(tmp_path/'transcripts', [('0:00', 'M', 'Look!'), ('0:01', 'M', 'Go!')])
    said, _ = read_transcript(p)
    names = [f for u in said for f in u.frame_filenames]
    frames(tmp_path/'frames', [*names[2:], 'S_20140420_1803_01_009_00.jpg'])
    whole = (tmp_path/'frames'/names[2]).read_bytes()
    (tmp_path/'frames'/names[0]).write_text('<html></html>'); (tmp_path/'frames'/names[1]).write_bytes(b'')
    (tmp_path/'frames'/names[2]).write_bytes(whole[:-30]); (tmp_path/'frames'/names[3]).unlink()
    for check in ('quick', 'decode'):
        pairs, ledger = load_pairs(tmp_path, check=check)
        assert ledger.skipped == {'file is not an image': 2, 'image is cut short': 1, 'no frame on disk': 1, 'no utterance asks for it': 1}
        assert ledger.seen == 7 and pairs['uid'] == [n[:-4] for n in names[4:]] and ledger.before.seen == 2
    assert ledger.examples['no frame on disk'] == [names[3][:-4]]


def test_padding_after_the_end_mark_is_no_fault(tmp_path):
    frames(tmp_path, ['a.jpg'])
    (tmp_path/'a.jpg').write_bytes((tmp_path/'a.jpg').read_bytes() + b'\0'*500)
    assert image_fault(tmp_path/'a.jpg') == ''


def test_duplicates_and_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder 'frames'"): load_pairs(tmp_path)
    (tmp_path/'frames').mkdir()
    with pytest.raises(FileNotFoundError, match='no transcript'): load_pairs(tmp_path)
    for sub in 'ab': transcript(tmp_path/'transcripts'/sub, [('0:00', 'M', 'Look!')])
    with pytest.raises(ValueError, match="'S_20140420_1803_01_001' comes twice"): load_pairs(tmp_path)


def test_metadata_round_trip_and_loading(tmp_path, world):
    first = sorted((world/'transcripts').glob('*.csv'))[0]
    said, _ = read_transcript(first)
    write_metadata(said, tmp_path/'train.json')
    assert read_metadata(tmp_path/'train.json') == said
    (tmp_path/'frames').symlink_to(world/'frames')
    pairs, ledger = load_pairs(tmp_path, metadata='train.json', every=5)
    whole = load_pairs(world, every=5).pairs
    same = whole.filter(lambda r: parse_name(r['uid']).recording == first.stem)
    assert pairs.to_list() == same.to_list() and ledger.before is None


@pytest.mark.parametrize('change, message', [
    (lambda d: d['data'][0].pop('utterance'), "train.json, entry 0: field 'utterance' is missing"),
    (lambda d: d['data'][0]['timestamps'].append(3), 'num_frames is'),
    (lambda d: d['data'][0].update(frame_filenames=['S_20140420_1803_01_999_00.jpg']), 'belongs to another utterance'),
    (lambda d: d['data'].append(7), 'entry 1: expected an object'),
    (lambda d: d.update(data={}), 'expected {"data"')])
def test_a_damaged_released_file_is_refused(tmp_path, change, message):
    said, _ = read_transcript(transcript(tmp_path, [('0:01', 'M', 'hi')]))
    f = write_metadata(said, tmp_path/'train.json')
    d = json.loads(f.read_text()); change(d); f.write_text(json.dumps(d))
    with pytest.raises(ValueError, match=message.replace('{', r'\{')): read_metadata(f)
    f.write_text('{"data": [')
    with pytest.raises(ValueError, match='train.json: not JSON'): read_metadata(f)


def test_pairs_match_the_planted_truth(world):
    pairs, ledger = load_pairs(world, every=5)
    planted = pd.read_csv(world/'planted.csv', keep_default_na=False)
    truth = dict(zip(planted['frame'].str[:-4], planted['utterance']))
    assert set(pairs['uid']) == set(truth) and not ledger.skipped
    assert {u: t for u, t in zip(pairs['uid'], pairs['utterance'])} == truth


def test_a_pair_is_the_same_whatever_else_is_there(world):
    a, b = load_pairs(world, every=5).pairs, load_pairs(world, every=5).pairs
    assert a.to_list() == b.to_list() and len(set(a['uid'])) == len(a)


def test_split_shares(world):
    pairs = load_pairs(world, every=5).pairs
    for by in ('session', 'utterance'):
        parts = split_pairs(pairs, by, seed=1)
        assert sum(map(len, parts.values())) == len(pairs)
        uids = [set(p['uid']) for p in parts.values()]
        assert not (uids[0] & uids[1] or uids[0] & uids[2] or uids[1] & uids[2])
        assert split_pairs(pairs, by, seed=1)['test']['uid'] == parts['test']['uid'] != split_pairs(pairs, by, seed=2)['test']['uid']
    utterances = {s: {u[:-3] for u in p['uid']} for s, p in split_pairs(pairs, 'utterance').items()}
    n = sum(map(len, utterances.values()))
    assert [len(utterances[s]) for s in ('train', 'val', 'test')] == [int(.9*n), int(.05*n), n - int(.9*n) - int(.05*n)]


@given(st.lists(st.sampled_from('abcdefgh'), min_size=1, max_size=60), st.integers(0, 5))
def test_no_group_is_parted_and_no_split_is_empty(groups, seed):
    deal = assign_splits(groups, (.8, .1, .1), seed)
    assert set(deal) == set(groups)
    assert len(set(deal.values())) == min(3, len(set(groups)))


@given(st.integers(0, 9), st.lists(st.tuples(st.sampled_from('xyz'), st.text('abc', max_size=3)), max_size=9))
def test_ledgers_add_up(kept, left):
    ledger = Ledger.count(kept, left)
    assert ledger.seen == kept + len(left) and Ledger.from_dict(json.loads(json.dumps(ledger.to_dict()))) == ledger
    assert Ledger.total([ledger, ledger]).seen == 2*ledger.seen


def test_no_session_is_parted(world):
    parts = split_pairs(load_pairs(world, every=1).pairs, 'session').values()
    sessions = [set(p['session']) for p in parts]
    assert sum(map(len, sessions)) == len(set().union(*sessions)) > 1


def test_shares_of_splits_are_checked_and_whole():
    groups = [c for c in 'abcdefghij' for _ in range(10)]
    for bad in ((.5, .5), (.9, .2, -.1), (.5, .5, .5), (.4, .3, .2), (1., 0., 0., 0.)):
        with pytest.raises(ValueError, match='three shares that sum to 1'): assign_splits(groups, bad)
    assert Counter(assign_splits(groups, (.5, .3, .2)).values()) == dict(train=5, val=3, test=2) and set(assign_splits(groups, (.6, .4, 0.)).values()) == {'train', 'val'}
    assert assign_splits(groups) == assign_splits(groups, (.9, .05, .05), 0) != assign_splits(groups, seed=1) and set(assign_splits('aabbb', (1., 0., 0.)).values()) == {'train'}
    uneven = assign_splits(['a']*60 + ['b']*20 + ['c']*20, (.6, .2, .2))
    assert sorted(uneven.values()) == ['test', 'train', 'val']
    large = assign_splits(['x']*10 + list('abcdefghij'), (.5, .5, 0.), seed=5)   # the large group is dealt first and counts as the ten it holds
    assert [g for g in large if large[g] == large['x']] == ['x']


def test_pairs_are_split_as_published_when_asked(world):
    pairs = load_pairs(world, every=5).pairs
    for by in ('session', 'utterance'): assert split_pairs(pairs, by)['val']['uid'] == split_pairs(pairs, by, (.9, .05, .05), 0)['val']['uid']
    assert split_pairs(pairs)['test']['uid'] == split_pairs(pairs, 'session')['test']['uid']
    parts = split_pairs(pairs, 'utterance', (.5, .3, .2), seed=3)
    names = sorted({u.rpartition('_')[0] for u in pairs['uid']})
    order = [names[i] for i in np.random.default_rng(3).permutation(len(names))]
    a, b = int(.5*len(names)), int(.5*len(names)) + int(.3*len(names))
    for part, want in zip(('train', 'val', 'test'), (order[:a], order[a:b], order[b:])): assert {u.rpartition('_')[0] for u in parts[part]['uid']} == set(want), part
    where = assign_splits(pairs['session'][:], (.5, .3, .2), 3)
    for part, rows in split_pairs(pairs, 'session', (.5, .3, .2), 3).items(): assert {where[s] for s in rows['session']} == {part}
    with pytest.raises(ValueError, match="unknown split 'row'"): split_pairs(pairs, 'row')
