"Items, replies, the journal under a real kill, and pictures that do not open."
import ast
import io
import json
import random
import re
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import babyvlm
from forked import Script
from babyvlm.benchmarks.protocols import evaluate, parsed, protocol_of
from babyvlm.items import Item, Journal, Reply, Status, item_key, score_shape, scored
from babyvlm.pictures import FORMATS, ImageError, open_image

# A model whose float32 digits depend on the company an image keeps in its batch, as on real hardware, and that is slow.
CHILD = '''
import sys, time
import numpy as np, torch
from babyvlm.benchmarks.protocols import evaluate
from babyvlm.items import Item
class Model:
    name = 'noisy'
    def encode_images(self, images):
        time.sleep(float(sys.argv[3]))
        x = torch.stack([torch.tensor(np.asarray(i, np.float32).mean((0, 1))) for i in images])
        return torch.nn.functional.normalize(x + 1e-3 * x.sum())
    def encode_texts(self, texts):
        x = torch.stack([torch.tensor([float(len(t)), float(t.count('a')), 1.]) for t in texts])
        return torch.nn.functional.normalize(x)
folder = sys.argv[1]
items = [Item(f'i{k}', 'vtwt', (f'{folder}/{k % 29}.png',), options=(f'a b{k}', f'longer text {k}'), gold=0) for k in range(60)]
evaluate(Model(), items, sys.argv[2], batch_size=4)
'''


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    d = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for k in range(29): Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(d/f'{k}.png')
    (d/'7.png').write_bytes(b'<html>not here</html>')
    return d


def child(pictures, journal, pause): return Script(CHILD, pictures, journal, pause)


def test_killed_and_resumed_is_byte_identical(pictures, tmp_path):
    assert child(pictures, tmp_path/'whole.jsonl', 0).wait() == 0
    whole = (tmp_path/'whole.jsonl').read_bytes()
    assert whole.count(b'\n') == 59 and b'web page' not in whole, 'what could not be asked is asked again, so it is not kept'
    kills, journal = 0, tmp_path/'killed.jsonl'
    for seen in (2, 12, 30):
        p = child(pictures, journal, .05)
        while p.poll() is None and (not journal.exists() or journal.read_bytes().count(b'\n') < seen): time.sleep(.005)
        p.kill(); kills += p.wait() == -signal.SIGKILL
        data = journal.read_bytes()
        journal.write_bytes(data[:len(data) - 9])    # and the disk lost the end of the last line
    assert kills == 3
    assert child(pictures, journal, 0).wait() == 0
    assert journal.read_bytes() == whole


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000))
def test_any_cut_resumes(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp('cut')/'j.jsonl'
    items = [Item(f'é{k}', 'b', (), options=('x', 'ÿ' * k + 'y')) for k in range(9)]
    class Model:
        def loglik(self, items):
            company = sum(len(i.options[1]) for i in items)/99   # digits depend on who is asked along
            return [np.array([1 / (3 + len(i.options[1])), company]) for i in items]
    replies = evaluate(Model(), items, path, batch_size=4)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut % (len(whole) + 1)])
    assert evaluate(Model(), items, path, batch_size=4) == replies
    assert path.read_bytes() == whole


def test_a_longer_list_continues_the_same_journal(tmp_path):
    calls = []
    class Model:
        def loglik(self, items): calls.extend(i.uid for i in items); return [np.array([1., 0.]) for _ in items]
    items = [Item(str(k), 'b', (), options=('x', 'y')) for k in range(8)]
    evaluate(Model(), items[:4], tmp_path/'j', batch_size=2)
    evaluate(Model(), items, tmp_path/'j', batch_size=2)
    assert calls == [str(k) for k in range(8)]


def test_another_model_benchmark_or_protocol_is_refused(tmp_path):
    class One:
        name = 'one'
        def loglik(self, items): return [np.array([1., 0.]) for _ in items]
        def reply(self, items): return [Reply(i.uid, text='x') for i in items]
    class Two(One): name = 'two'
    item = Item('u', 'b', (), options=('x', 'y'))
    evaluate(One(), [item], tmp_path/'j')
    with pytest.raises(ValueError, match="for model 'one', not 'two'"): evaluate(Two(), [item], tmp_path/'j')
    with pytest.raises(ValueError, match="for benchmark 'b', not 'c'"):
        evaluate(One(), [replace(item, benchmark='c')], tmp_path/'j')
    with pytest.raises(ValueError, match="for protocol 'loglik', not 'chat'"): evaluate(One(), [item], tmp_path/'j', protocol='chat')


def test_a_broken_middle_line_is_an_error_with_its_number(tmp_path):
    (tmp_path/'j').write_text('{"journal": 1, "model": "m"}\n{"uid": "a", "st\n{"uid": "b"}\n')
    with pytest.raises(ValueError, match='line 2 is not JSON'): Journal(tmp_path/'j')
    (tmp_path/'k').write_text('{"uid": "a"}\n')
    with pytest.raises(ValueError, match='does not start like a journal'): Journal(tmp_path/'k')


def test_parallel_writers_never_mix(tmp_path):
    a, b = Journal(tmp_path/'j', model='m'), Journal(tmp_path/'j', model='m')
    a.write([Reply('x', text='')])
    with pytest.raises(ValueError, match='changed by another process'): b.write([Reply('y', text='')])
    assert list(Journal(tmp_path/'j').done) == ['x']


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=5))
@settings(max_examples=50, deadline=None)
def test_scores_survive_the_journal_exactly(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp('j')/'j'
    item = Item('u', 'b', (), options=tuple(map(str, range(len(scores)))))
    r = scored(item, scores)
    Journal(path).write([r])
    assert Journal(path).done['u'] == r


def test_each_distinct_input_is_encoded_once(pictures):
    seen = []
    class Model:
        def encode_images(self, images): seen.append(len(images)); return torch.nn.functional.normalize(torch.ones(len(images), 3))
        def encode_texts(self, texts): seen.append(len(texts)); return torch.nn.functional.normalize(torch.ones(len(texts), 3))
    items = [Item(str(k), 'b', (str(pictures/'0.png'), str(pictures/f'{1 + k % 3}.png')), options=('w',), choice='images') for k in range(30)]
    replies = evaluate(Model(), items, batch_size=8)
    assert sum(seen) == 4 + 1 and all(r.chosen is None for r in replies)
    assert all(isinstance(v, float) for v in replies[0].scores)


def test_likelihood_model_that_meets_a_bad_picture(pictures):
    class Model:
        def loglik(self, items):
            for i in items: open_image(i.images[0])
            return [np.array([len(items), 0.]) for _ in items]
    items = [Item(str(k), 'b', (str(pictures/f'{k}.png'),), options=('x', 'y')) for k in (6, 7, 8)]
    replies = evaluate(Model(), items)
    assert [r.status for r in replies] == [Status.ANSWERED, Status.SKIPPED, Status.ANSWERED]
    assert replies[0].scores == (2., 0.)
    assert replies[1].reason.endswith('a web page saved as a picture; download it again')
    with pytest.raises(ValueError, match="item '7' cannot be asked"): evaluate(Model(), items, skip_unreadable=False)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_not_finite_names_the_item(pictures, bad):
    class Dual:
        def encode_images(self, images): return torch.full((len(images), 2), bad)
        def encode_texts(self, texts): return torch.nn.functional.normalize(torch.ones(len(texts), 2))
    class Like:
        def loglik(self, items): return [np.array([0., bad]) for _ in items]
    item = Item('item 5', 'b', (str(pictures/'1.png'),), options=('x', 'y'))
    with pytest.raises(ValueError, match="item 5' *:|item 5|length inf"): evaluate(Dual(), [item])
    with pytest.raises(ValueError, match="item 'item 5': score .* is not finite"): evaluate(Like(), [item])


def test_rows_that_are_not_unit_length_are_refused(pictures):
    class Model:
        def encode_images(self, images): return torch.ones(len(images), 4)
        def encode_texts(self, texts): return torch.ones(len(texts), 4)
    with pytest.raises(ValueError, match='length 2; encoders return unit rows'):
        evaluate(Model(), [Item('u', 'b', (str(pictures/'1.png'),), options=('x', 'y'))])


def test_every_truncation_of_a_jpeg_is_an_image_error(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path/'a.jpg')
    data = (tmp_path/'a.jpg').read_bytes()
    cuts = random.Random(0).sample(range(1, len(data) - 20), 60)
    for n in cuts:
        (tmp_path/'b.jpg').write_bytes(data[:n])
        with pytest.raises(ImageError): open_image(tmp_path/'b.jpg')


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'CMYK', 'I;16', '1', 'LA'])
def test_every_mode_becomes_rgb(tmp_path, mode):
    im = Image.new('L', (5, 4), 200).convert('RGB').convert(mode) if mode != 'I;16' else Image.new('I;16', (5, 4), 200)
    im.save(tmp_path/('a.tif' if mode in ('CMYK', 'I;16', 'LA') else 'a.png'))
    out = open_image(next(tmp_path.glob('a.*')))
    assert (out.mode, out.size) == ('RGB', (5, 4))


def test_deep_pictures_keep_their_greys_or_are_refused(tmp_path):
    grey = np.array([[0, 25700, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path/'deep.png')
    assert np.asarray(open_image(tmp_path/'deep.png'))[0, :, 0].tolist() == [0, 100, 255]
    for name, pixels in (('floats.tif', grey / np.float32(65535)), ('long.tif', grey.astype(np.int32))):
        Image.fromarray(pixels).save(tmp_path/name)
        with pytest.raises(ImageError, match='32 bits a channel'): open_image(tmp_path/name)


def submitted():
    "The opener of the file that a submission runs without this package."
    tree = ast.parse((Path(babyvlm.__file__).parent/'assets'/'lmms_tasks'/'model.py').read_text())
    tree.body = [n for n in tree.body if getattr(n, 'name', '') == 'upright' or (isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == 'FORMATS')]
    space = dict(Image=Image, ImageOps=ImageOps, np=np)
    exec(compile(tree, 'model.py', 'exec'), space)
    assert space['FORMATS'] == FORMATS
    return space['upright']


def openers(path):
    "The same picture by every function that opens one."
    from babyvlm.data.annotations import Bank
    from babyvlm.data.filters import open_picture
    from babyvlm.models.chat import open_upright
    from babyvlm.models.vision import open_rgb
    return [open_image(path), open_upright(path), open_rgb(path), open_picture(path)[0], Bank(path.parent).open(path.name),
            open_rgb(Image.open(path)), submitted()(path), submitted()(Image.open(path))]


def test_every_opener_shows_the_same_picture(tmp_path):
    exif = Image.Exif(); exif[274] = 6
    Image.new('RGB', (64, 32), 'red').save(tmp_path/'phone.jpg', exif=exif)
    assert {im.size for im in openers(tmp_path/'phone.jpg')} == {(32, 64)}
    Image.fromarray(np.full((4, 4), 128*257, np.uint16)).save(tmp_path/'deep.png')
    assert {im.getpixel((0, 0)) for im in openers(tmp_path/'deep.png')} == {(128, 128, 128)}
    Image.new('RGBA', (4, 4), (255, 0, 0, 0)).save(tmp_path/'clear.png')
    assert {im.getpixel((0, 0)) for im in openers(tmp_path/'clear.png')} == {(255, 255, 255)}
    Image.new('RGB', (4, 4), 'red').save(tmp_path/'two.gif', save_all=True, append_images=[Image.new('RGB', (4, 4), 'blue')])
    assert {im.getpixel((0, 0)) for im in openers(tmp_path/'two.gif')} == {(255, 0, 0)}
    again = open_image(tmp_path/'phone.jpg')
    assert open_image(again).size == again.size


def test_pictures_are_opened_in_one_place():
    "Elsewhere only headers are read, or the file must run without this package."
    root = Path(babyvlm.__file__).parent
    found = Counter(f.relative_to(root).as_posix() for f in root.rglob('*.py') for n in ast.walk(ast.parse(f.read_text()))
                    if isinstance(n, ast.Call) and re.fullmatch(r'(PIL\.)?Image\.open', ast.unparse(n.func)))
    assert found == {'pictures.py': 1, 'data/saycam.py': 1, 'analysis/survey/page.py': 1, 'assets/lmms_tasks/model.py': 1}


def test_bytes_open_like_their_file(tmp_path):
    path = tmp_path/'a.png'
    Image.new('LA', (4, 3), (9, 0)).save(path)
    assert open_image(path.read_bytes()).tobytes() == open_image(path).tobytes() == b'\xff'*36
    Image.effect_noise((64, 64), 90).save(path)
    for data, why in ((b'', 'the file is empty'), (b'<html>', 'a web page'), (path.read_bytes()[:999], 'damaged or cut short'), (b'%!PS-Adobe', 'PostScript')):
        with pytest.raises(ImageError, match=why): open_image(data)


def test_programs_and_huge_pictures_are_refused_before_decoding(tmp_path):
    (tmp_path/'a.jpg').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n')
    with pytest.raises(ImageError, match='PostScript'): open_image(tmp_path/'a.jpg')
    Image.new('1', (8193, 8192)).save(tmp_path/'huge.png')
    with pytest.raises(ImageError, match='8193 x 8192 pixels'): open_image(tmp_path/'huge.png')


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(['PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'JPEG', 'PPM']), st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=8))
def test_damaged_bytes_are_a_picture_or_a_named_error(tmp_path, kind, changes):
    buffer = io.BytesIO(); Image.new('RGB', (9, 7), 'teal').save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for at, value in changes: data[at % len(data)] = value
    (tmp_path/'fuzz').write_bytes(data)
    try: assert open_image(tmp_path/'fuzz').mode == 'RGB'
    except ImageError as e: assert 'fuzz' in str(e)


def test_shapes_and_choice():
    i = Item('u', 'b', ['a', 'b'], options=['x', 'y', 'z'], choice='both')
    assert i.images == ('a', 'b') and score_shape(i) == (2, 3) and hash(i)
    with pytest.raises(ValueError, match='outside the 2 images'): Item('u', 'b', ('a', 'b'), options=('w',), gold=2, choice='images')
    with pytest.raises(TypeError, match='object cannot answer'): protocol_of(object(), [i])


def test_a_new_parser_rescores_without_the_model(tmp_path):
    from types import SimpleNamespace
    class Model:
        def reply(self, items): return [Reply(i.uid, text='The second.') for i in items]
    item = Item('u', 'b', (), options=('x', 'y'), gold=1)
    raw = evaluate(Model(), [item], tmp_path/'j')
    assert raw[0].chosen is None
    never = parsed(item, raw[0], lambda i, t: SimpleNamespace(answer=None, rule='none'))
    assert (never.status, never.reason) == (Status.NOANSWER, 'no answer found')
    words = parsed(item, Journal(tmp_path/'j').done['u'], lambda i, t: SimpleNamespace(answer=1, rule='ordinal'))
    assert (words.chosen, words.rule, words.status) == (1, 'ordinal', Status.ANSWERED)


def test_item_key_sees_everything():
    i = Item('u', 'b', ('a',), prompt='p', options=('x', 'y'), gold=0, meta={'k': 1}, rounds=({'a': 1},))
    others = [replace(i, **d) for d in (dict(uid='v'), dict(images=('c',)), dict(prompt=''), dict(gold=1), dict(group='g'),
                                        dict(meta={'k': 2}), dict(rounds=()), dict(options=('x', 'z')))]
    assert len({item_key(j) for j in [i, *others]}) == 9
    assert json.loads(json.dumps(item_key(i))) == item_key(replace(i))


def test_a_moved_folder_asks_the_same_and_another_picture_does_not(tmp_path):
    "A store may be copied to another machine; two sources share names and prompts and must not share replies."
    for folder, colour in (('here', 'red'), ('there', 'red'), ('other', 'blue')):
        (tmp_path/folder).mkdir(); Image.new('RGB', (4, 4), colour).save(tmp_path/folder/'pv_0.png')
    asked = [Item('u', 'b', (str(tmp_path/f/'pv_0.png'),), options=('x', 'y'), gold=0) for f in ('here', 'there', 'other')]
    here, there, other = map(item_key, asked)
    assert here == there != other


def two_folders(root):
    "Two pictures of one name."
    for folder, grey in (('a', 40), ('b', 220)):
        (root/folder).mkdir(); Image.new('RGB', (64, 64), (grey, 255 - grey, 90)).save(root/folder/'1.png')
    return [str(root/d/'1.png') for d in 'ab']


def test_equal_file_names_in_two_folders_are_two_pictures(tmp_path):
    class Model:
        def encode_images(self, images): return torch.nn.functional.normalize(torch.stack([torch.tensor(np.asarray(i, np.float32).mean((0, 1))) for i in images]))
        def encode_texts(self, texts): return torch.nn.functional.normalize(torch.eye(3)[:len(texts)])
    items = [Item(str(k), 'b', (p,), options=('x', 'y')) for k, p in enumerate(two_folders(tmp_path))]
    a, b = (r.scores for r in evaluate(Model(), items))
    assert a != b and (a[0] < a[1]) and (b[0] > b[1])


def test_a_uid_twice_is_refused():
    items = [Item('same', 'b', (), options=('x', 'y')), Item('same', 'b', (), options=('u', 'v'))]
    with pytest.raises(ValueError, match="the first is 'same'"): evaluate(object(), items, protocol='loglik')


@pytest.mark.parametrize('line', ['1', '[1, 2]', 'null', '{"text": "x"}', '{"uid": "v", "wrong": 1}', '{"uid": [1]}', '[' * 100_000, '{"uid": ' + '9' * 5000 + '}'])
def test_a_line_of_a_journal_that_is_no_reply_is_named(tmp_path, line):
    Journal(tmp_path/'j', 'm', 'b').write([Reply('u', text='x')], ['k'])
    whole = (tmp_path/'j').read_bytes()
    (tmp_path/'j').write_bytes(whole + line.encode() + b'\n')
    with pytest.raises(ValueError, match='line 3 is n.*remove it'): Journal(tmp_path/'j')
    (tmp_path/'k').write_bytes(b'1\n')
    with pytest.raises(ValueError, match='line 1 is no reply'): Journal(tmp_path/'k')


@pytest.mark.parametrize('field, value', [('text', 3), ('text', ['B']), ('chosen', 'B'), ('reason', 5), ('rule', {})])
def test_a_journal_row_with_a_value_of_another_kind_is_named(tmp_path, field, value):
    j = Journal(tmp_path/'j.jsonl', 'm', 'b'); j.write([Reply('u', text='B')])
    head, row = (tmp_path/'j.jsonl').read_text().splitlines()
    (tmp_path/'j.jsonl').write_text(f'{head}\n{json.dumps(json.loads(row) | {field: value})}\n')
    with pytest.raises(ValueError, match=f'j.jsonl line 2 is no reply .{field} is'): Journal(tmp_path/'j.jsonl')


def test_half_a_character_is_no_question():
    for half in (dict(prompt='a \ud83d?'), dict(options=('a', '\udc00'))):
        with pytest.raises(ValueError, match="item 'u': half a character"): Item('u', 'b', (), **half)


def test_a_16_bit_value_that_is_not_seen_is_white(tmp_path):
    Image.fromarray(np.array([[0, 32768]], np.uint16)).save(tmp_path/'a.png', transparency=0)
    assert {tuple(im.getpixel((x, 0)) for x in (0, 1)) for im in openers(tmp_path/'a.png')} == {((255,) * 3, (127,) * 3)}
