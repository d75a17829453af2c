"""What the conversations page cannot show: every refusal, round trips, byte-pair tokenizers."""
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babyvlm.data.conversations import (IGNORED, TEMPLATES, Record, RecordError, Turn, encode, load_records, pairs_from_records, pieces,
                                        records_from_pairs, render, save_records)
from babyvlm.models.tokenizers import bpe_tokenizer, build_vocab, word_tokenizer

Q, A = {'from': 'human', 'value': '<image>'}, {'from': 'gpt', 'value': 'look at the ball .'}


def entry(**kw): return {'id': '1', 'image': 'a.jpg', 'conversations': [Q, A], **kw}


def write(folder, data, name='train.json'):
    (folder/name).write_text(json.dumps(data) if not isinstance(data, str) else data)
    return folder/name


BAD = {
    'an empty conversation': (entry(conversations=[]), "field 'conversations': the conversation is empty"),
    'an unknown role': (entry(conversations=[Q, {'from': 'assistant', 'value': 'x'}]), r"conversations\[1\].from': unknown role 'assistant'.*'gpt'"),
    'a system turn': (entry(conversations=[{'from': 'system', 'value': 'x'}, Q, A]), 'unknown role'),
    'two questions': (entry(conversations=[Q, Q]), 'speaks out of turn'),
    'an answer first': (entry(conversations=[A, Q]), 'speaks out of turn'),
    'no answer': (entry(conversations=[Q]), 'the last turn is a question'),
    'a picture in an answer': (entry(conversations=[Q, {'from': 'gpt', 'value': '<image>'}]), 'an answer holds a picture token'),
    'no <image>': (entry(conversations=[{'from': 'human', 'value': 'hi'}, A]), 'no <image> in a human turn'),
    'no picture': ({'id': '1', 'conversations': [Q, A]}, '1 <image> tokens for 0 files'),
    'too few pictures': (entry(conversations=[{'from': 'human', 'value': '<image><image>'}, A]), '2 <image> tokens for 1 files'),
    'too many pictures': (entry(image=['a.jpg', 'b.jpg']), '1 <image> tokens for 2 files'),
    'a way out': (entry(image='x/../../a.jpg'), 'leaves the image root'),
    'an absolute path': (entry(image='/a.jpg'), 'leaves the image root'),
    'a drive letter': (entry(image='C:\\a.jpg'), 'leaves the image root'),
    'a way out with backslashes': (entry(image='..\\a.jpg'), 'leaves the image root'),
    'an empty path among others': (entry(image=['a.jpg', ''], conversations=[Q | dict(value='<image>' + Q['value']), A]), 'empty path'),
    'a path that is no text': (entry(image=7), "field 'image': expected a path"),
    'both spellings': (entry(images=['a.jpg']), "both 'image' and 'images'"),
    'no id': ({k: v for k, v in entry().items() if k != 'id'}, "field 'id': missing"),
    'no conversations': ({'id': '1', 'image': 'a.jpg'}, "field 'conversations': missing"),
    'a turn without value': (entry(conversations=[Q, {'from': 'gpt'}]), r"conversations\[1\]': expected 'from' and 'value'"),
    'a turn with more': (entry(conversations=[Q, {**A, 'weight': 0}]), r"conversations\[1\]': expected"),
    'a number for text': (entry(conversations=[Q, {'from': 'gpt', 'value': 3}]), r"conversations\[1\]': expected"),
    'a clip without its token': (entry(video='a.mp4'), 'no <video> in a human turn'),
    'a list': ([], 'expected an object'),
}


@pytest.mark.parametrize('name', BAD)
def test_every_refusal_names_file_index_id_and_field(tmp_path, name):
    bad, message = BAD[name]
    with pytest.raises(RecordError, match=message) as e: load_records(write(tmp_path, [entry(id='0'), bad]))
    assert str(e.value).startswith('train.json, record 1 (id ')


@pytest.mark.parametrize('text', ['', '[{', '{"a": 1}', '3', 'null'])
def test_a_file_that_is_no_list(tmp_path, text):
    with pytest.raises(ValueError, match='train.json: '): load_records(write(tmp_path, text))


def test_ids_and_files(tmp_path):
    f = write(tmp_path, [entry(), entry(image='b/./a.jpg'), entry(image='b/../a.jpg')])
    with pytest.raises(RecordError, match='also the id of record 0'): load_records(f)
    records = load_records(f, allow_duplicate_ids=True)
    with pytest.raises(RecordError, match='also the id'): save_records(records, tmp_path/'out.json')
    save_records(records, tmp_path/'out.json', allow_duplicate_ids=True)
    with pytest.raises(RecordError, match="record 0 .*'a.jpg' is not below"): load_records(f, tmp_path, allow_duplicate_ids=True)
    (tmp_path/'a.jpg').touch(); (tmp_path/'b').mkdir(); (tmp_path/'b'/'a.jpg').touch()
    assert len(load_records(f, tmp_path, allow_duplicate_ids=True)) == 3


def test_a_failed_save_leaves_the_old_file(tmp_path):
    f = write(tmp_path, [entry()])
    with pytest.raises(RecordError): save_records([Record('1', ())], f)
    assert len(load_records(f)) == 1 and sorted(p.name for p in tmp_path.iterdir()) == ['train.json']


words = st.text(alphabet='abc <>/.,é\n"', max_size=12).filter(lambda t: '<image>' not in t and '<video>' not in t)
@st.composite
def records(draw):
    turns, n = [], 0
    for _ in range(draw(st.integers(1, 4))):
        k = draw(st.integers(0, 2)); n += k
        turns += [{'from': 'human', 'value': draw(words) + '<image>'*k + draw(words)}, {'from': 'gpt', 'value': draw(words)}]
    d = {'id': draw(st.one_of(st.text('ab1', min_size=1, max_size=3), st.integers(0, 9))), 'conversations': turns}
    images = [f'i/{k}.jpg' for k in range(n)]
    key = draw(st.sampled_from(['image', 'images']))
    if n == 1 and draw(st.booleans()): d[key] = images[0]
    elif n or draw(st.booleans()): d[key] = images
    return {**d, **draw(st.dictionaries(st.sampled_from(['bb', 'notes', 'labels', 'gif']), st.one_of(st.none(), st.lists(st.integers()), st.text(max_size=3))))}


@settings(max_examples=100, deadline=None)
@given(data=st.lists(records(), max_size=5))
def test_what_is_read_is_written(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp('r')
    got = load_records(write(folder, data), allow_duplicate_ids=True)
    save_records(got, folder/'out.json', allow_duplicate_ids=True)
    assert json.loads((folder/'out.json').read_text()) == data
    assert load_records(folder/'out.json', allow_duplicate_ids=True) == got


def test_clips_survive(tmp_path):
    clip = [{'id': '1', 'video': 'a.mp4', 'conversations': [{'from': 'human', 'value': '<video>'}, A]},
            {'id': '2', 'video': ['a.mp4'], 'conversations': [{'from': 'human', 'value': '<video>'}, A]}]
    got = load_records(write(tmp_path, clip))
    assert json.loads(save_records(got, tmp_path/'o.json').read_text()) == clip and got[0].video == ('a.mp4',)
    with pytest.raises(RecordError, match='list the frames'): pieces(got[0], 'baby_v1')


@pytest.fixture(scope='module')
def bpe(): return bpe_tokenizer(['look at the ball . do you want the hat ? user: assistant: what is this']*20, 300)


@pytest.fixture(scope='module')
def word(): return word_tokenizer(build_vocab(['look at the ball . do you want the hat ?']*3))


def learned(e, tokenizer): return tokenizer.decode([l for l in e['labels'] if l != IGNORED])


def test_plain_is_pictures_then_words(word):
    r = Record('1', (Turn('human', 'Describe it.\n<image>'), Turn('gpt', 'look at the ball .')), ('a.jpg',))
    e = encode(r, word)
    ids = word('look at the ball .')['input_ids']
    assert e['input_ids'] == [len(word)]*49 + ids and e['labels'] == [IGNORED]*49 + ids and e['image_positions'] == [0]
    assert set(e) == {'input_ids', 'labels', 'image_positions'}
    assert encode(r, word, image_tokens=4, image_id=-200)['input_ids'][:4] == [-200]*4


def test_llavas_newline_is_supervised(bpe):
    r = Record('1', (Turn('human', '<image>'), Turn('gpt', 'the ball')), ('a.jpg',))
    a, b = encode(r, bpe, 'plain'), encode(r, bpe, 'plain', sep='\n')
    assert len(b['labels']) == len(a['labels']) + 1 and b['labels'][-1] != IGNORED


@pytest.mark.parametrize('template', TEMPLATES)
def test_exactly_the_answers_are_learned_with_byte_pairs(bpe, template):
    r = Record('1', (Turn('human', '<image>'), Turn('gpt', 'look at the ball')), ('a.jpg',))
    e = encode(r, bpe, template, image_tokens=5)
    end = bpe.eos_token if TEMPLATES[template].end else ''
    assert learned(e, bpe).replace(' ', '') == 'lookattheball' + end
    assert e['input_ids'][e['image_positions'][0]:][:5] == [len(bpe)]*5
    assert all(l in (i, IGNORED) for i, l in zip(e['input_ids'], e['labels']))


@given(st.lists(st.tuples(st.sampled_from(['<image> what is this', 'do you want <image> <image>', 'hat ?']),
                          st.sampled_from(['the ball', 'do you want the hat ?', 'look'])), min_size=1, max_size=6))
def test_every_turn_of_a_dialogue_is_learned(bpe, turns):
    n = sum(q.count('<image>') for q, _ in turns)
    r = Record('1', tuple(t for q, a in turns for t in (Turn('human', q), Turn('gpt', a))), tuple(f'{k}.jpg' for k in range(n)))
    e = encode(r, bpe, 'baby_v1', image_tokens=3)
    assert learned(e, bpe).replace(' ', '') == ''.join(a.replace(' ', '') + bpe.eos_token for _, a in turns)
    assert e['input_ids'].count(len(bpe)) == 3*n and len(e['image_positions']) == n
    assert render(r, 'baby_v1') == ' ' + ''.join(f'USER: {q} ASSISTANT: {a}<eos>' for q, a in turns)


def test_sos_comes_first_only_when_the_tokenizer_says_so(bpe, word):
    r = Record('1', (Turn('human', '<image>'), Turn('gpt', 'the ball')), ('a.jpg',))
    starts = bpe('')['input_ids'][:1] == [bpe.bos_token_id]
    assert (encode(r, bpe, 'baby_v1')['input_ids'][0] == bpe.bos_token_id) == starts
    assert encode(r, word)['input_ids'][0] == len(word)


def test_unknown_words(word):
    r = Record('1', (Turn('human', '<image>'), Turn('gpt', 'the zyzzyva')), ('a.jpg',))
    got = {u: encode(r, word, image_tokens=0, unk=u) for u in ('keep', 'ignore', 'reference')}
    the, unk = word('the')['input_ids'][0], word.unk_token_id
    assert {u: (e['input_ids'], e['labels']) for u, e in got.items()} == {
        'keep': ([the, unk], [the, unk]), 'ignore': ([the, unk], [the, IGNORED]), 'reference': ([the], [the])}
    with pytest.raises(ValueError, match="unk='drop'"): encode(r, word, unk='drop')


@pytest.mark.parametrize('answer, kw', [('', {}), ('zyzzyva', dict(unk='ignore')), ('zyzzyva', dict(unk='reference'))])
def test_a_record_with_nothing_to_learn_is_named(word, answer, kw):
    r = Record('000017', (Turn('human', '<image>'), Turn('gpt', answer)), ('a.jpg',))
    with pytest.raises(RecordError, match=r"\(id '000017'\).*no token is supervised"): encode(r, word, **kw)


def test_templates_are_checked(word):
    r = Record('1', (Turn('human', '<image>'), Turn('gpt', 'the ball')), ('a.jpg',))
    with pytest.raises(ValueError, match="did you mean 'baby_plain'"): encode(r, word, 'baby_plane')
    two = Record('1', r.turns*2, ('a.jpg', 'b.jpg'))
    for t in ('plain', 'baby_plain'):
        with pytest.raises(RecordError, match='4 turns'): encode(two, word, t)
        with pytest.raises(RecordError, match='no <image>'): encode(Record('1', (Turn('human', 'hi'), Turn('gpt', 'the ball'))), word, t)


def test_markup_in_speech_is_shown_as_text(word):
    r = Record('1', (Turn('human', '<image>'), Turn('gpt', '<b> the ball')), ('a.jpg',))
    assert '<b>' not in encode(r, word)._repr_html_() and 'background' in encode(r, word)._repr_html_()


def test_pairs_and_records():
    records = [Record(str(k), (Turn('human', '<image>'), Turn('gpt', f'ball {k}')), (f'{k}.jpg',)) for k in range(3)]
    pairs = pairs_from_records(records, 'web')
    assert records_from_pairs(pairs) == records and set(pairs['source']) == {'web'}
    with pytest.raises(RecordError, match='one picture and one answer'): pairs_from_records([Record('1', records[0].turns*2, ('a', 'b'))], 'web')
