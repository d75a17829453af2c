"Files and answers of other programs: nulls, late and damaged videos, stamps with fractions, folders of other names, servers that differ."
import json
import struct
import warnings
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace as N

import av
import numpy as np
import pytest
from PIL import Image

from babyvlm.benchmarks.devcv.read import find_tasks, load_items
from babyvlm.benchmarks.leaderboard import collate
from babyvlm.benchmarks.trials import load_trials
from babyvlm.benchmarks.v1 import load_vtwt
from babyvlm.data.annotations import load_bank
from babyvlm.data.conversations import load_records, pairs_from_records
from babyvlm.data.rewriters import Endpoint, EndpointError, _content, _Garbled, _kept, _taken, _unpack
from babyvlm.data.saycam import PAIR_FEATURES, load_pairs, read_transcript, seconds
from babyvlm.data.segments import Clip, segment, segment_all, write_frames
from babyvlm.data.video import VideoError, frames_at, video_seconds, write_video
from babyvlm.items import Item, Journal, Reply, item_key
from babyvlm.pictures import ImageError, open_image


@pytest.mark.parametrize('stamp, right', [('0:01.5', 1.5), ('0:05,25', 5.25), ('1:02:03.250', 3723.25), ('0:01.500', 1.5), ('1.05', 65), ('0:3', 30), ('0:3.5', 3.5),
                                          ('0:65', None), ('1:30;5', None), ('1::30', None), (':30', 30), ('0:05.', None), ('1:61:00', None), ('5', 300), ('1:05-1:20', 65), ('', None), ('1.02:03', None),
                                          ('0:01.5–0:05', 1.5), ('00:00:01,500 --> 00:00:03,000', 1.5), ('0;01.5', 1.5), ('9'*5000, None), ('1:' + '9'*5000, None)])
def test_after_a_colon_a_dot_is_a_fraction(stamp, right): assert seconds(stamp) == right


def test_label_files_written_on_windows_find_their_pictures(tmp_path):
    (tmp_path/'k1').mkdir()
    for n in 'ab': Image.new('RGB', (32, 32)).save(tmp_path/'k1'/f'{n}.png')
    a, b = r'k1\a.png', r'k1\b.png'
    asked = [{'from': 'human', 'value': '<image> Which side? (A) <image>'}, {'from': 'gpt', 'value': 'A'}]
    (tmp_path/'r.json').write_text(json.dumps([dict(id='1', image=[a, b], conversations=asked)]))
    record, = load_records(tmp_path/'r.json')
    frame = dict(image=a, recording='S_20140420_1803_01', width=32, height=32)
    clip = dict(id='c', recording='S_20140420_1803_01', frames=[a, b], category='cup', leaves='left')
    (tmp_path/'frames.json').write_text(json.dumps(dict(frames=[frame], clips=[clip])))
    bank = load_bank(tmp_path)
    (tmp_path/'t.csv').write_text(f'images,options,answer\n{a}|{b},a cup,{b}\n')
    trial, = load_trials(tmp_path/'t.csv', tmp_path)
    (tmp_path/'v.csv').write_text(f'image,positive_phrase,negative_phrase\n{a},see cup,see ball\n')
    item, = load_vtwt(tmp_path/'v.csv', tmp_path)
    assert item.uid == 'vtwt/k1/a' and Path(item.images[0]).is_file()
    read = (*record.images, *(x for f in bank.frames for x in [f.image]), *bank.clips[0].frames)
    assert read == ('k1/a.png', 'k1/b.png', 'k1/a.png', 'k1/a.png', 'k1/b.png')
    assert all(Path(p).is_file() for p in trial.images) and trial.gold == 1


def test_null_and_absent_are_the_same_in_conversations(tmp_path):
    turns = [{'from': 'human', 'value': 'hi'}, {'from': 'gpt', 'value': 'ho'}]
    rows = [dict(id='1', image='a.jpg', images=None, video=None, conversations=[{'from': 'human', 'value': '<image>\nhi'}, turns[1]]),
            dict(id='2', image=None, conversations=turns), dict(id='3', conversations=turns)]
    (tmp_path/'m.json').write_text(json.dumps(rows))
    assert [r.images for r in load_records(tmp_path/'m.json')] == [('a.jpg',), (), ()]


def test_null_and_absent_are_the_same_in_speech(tmp_path):
    said = [dict(start=0, end=900, text='look'), dict(start=1000, end=1900, text=None), dict(start=2000, end=2900), dict(start=3000, end=3900, text=' '),
            dict(start=None, end=900, text='x')]
    file = tmp_path/'S_20140420_1803_01.json'
    file.write_text(json.dumps(dict(utterances=said)))
    assert segment(file).ledger.skipped == {'nothing recognised': 3, 'no time': 1}
    ticks = dict(offsetInTicks=0, durationInTicks=9e6)
    file.write_text(json.dumps(dict(recognizedPhrases=[dict(ticks, nBest=x) for x in (None, [], [None], [dict(lexical=None)], [dict(lexical='look')])])))
    assert segment(file).ledger.skipped == {'nothing recognised': 4}
    (tmp_path/'._S_20140420_1803_01.json').write_bytes(b'\0\5\x16\7')    # macOS leaves these
    file.rename(tmp_path/'S_20140420_1803_01.JSON')
    assert len(segment_all(tmp_path).clips) == 1
    (tmp_path/'S_20140420_1803_01.JSON').write_text('{"utterances": [null]}')
    with pytest.raises(ValueError, match='row 1: expected an object'): segment_all(tmp_path)


NAME = 'S_20140420_1803_01'
HEAD = 'Time,Speaker,Utterance,Video Name\n'


def transcript(folder, text, name=f'{NAME}.csv'):
    folder.mkdir(parents=True, exist_ok=True)
    (folder/name).write_text(text)
    return folder/name


def speech(folder, **top):
    path = folder/f'{NAME}.json'; path.write_text(json.dumps(top))
    return segment(path)


def test_fractions_of_a_second_are_kept(tmp_path):
    rows = f'0:01.5,M,look at it. yes,{NAME}.mp4\n0:05.25,M,yes,{NAME}.mp4\n'
    said, _ = read_transcript(transcript(tmp_path, HEAD + rows))
    assert [(u.utterance, u.start, u.num_frames) for u in said] == [('look at it .', 1.5, 5), ('yes', 2.5, 13), ('yes', 5.25, 1)]


@pytest.mark.parametrize('text, said', [(HEAD.replace('Time', 'Time,Time') + f'0:01,9:09,M,look,{NAME}.mp4', "two columns are called 'Time'"),
                                        (HEAD + f'0:01,M,"{"a"*200_000},{NAME}.mp4', 'line 2: field larger than .* never closed')])
def test_a_table_that_cannot_be_read_is_named(tmp_path, text, said):
    with pytest.raises(ValueError, match=f'{NAME}.csv.*{said}'): read_transcript(transcript(tmp_path, text))


def test_every_file_of_a_folder_of_pairs_is_read_or_named(tmp_path):
    transcript(tmp_path/'transcripts', HEAD + f'0:01,M,look,{NAME}.mp4', f'{NAME}.CSV')
    for name in (f'._{NAME}.csv', 'notes.txt'): (tmp_path/'transcripts'/name).write_bytes(b'\0\5\x16\7')
    (tmp_path/'frames').mkdir(); (tmp_path/'frames'/f'._{NAME}_001_00.jpg').write_bytes(b'\0')
    none, ledger = load_pairs(tmp_path)
    assert len(none) == 0 and none.features == PAIR_FEATURES and ledger.skipped == {'no frame on disk': 1, 'no utterance asks for it': 1}
    assert ledger.before.before.skipped == {'a hidden file': 1, 'no .csv': 1}
    Image.new('RGB', (32, 32)).save(tmp_path/'frames'/f'{NAME}_001_00.JPG')
    assert load_pairs(tmp_path).pairs['image'][:] == [f'frames/{NAME}_001_00.JPG']


def test_times_of_speech_are_numbers_and_come_once(tmp_path):
    row = dict(start=0, end=900, text='look at it')
    assert speech(tmp_path, utterances=[row, dict(row, text='look  at it'), dict(row, text='over there')]).ledger.skipped == {'a repeat': 1, 'other words at the same time': 1}
    for bad in (False, '0', None, 10**400, float('nan'), [0]):
        assert speech(tmp_path, utterances=[dict(row, end=bad), row]).ledger.skipped == {'no time': 1}, bad
    heard = dict(offsetInTicks=0, durationInTicks=10**7, nBest=[dict(lexical='look at it')])
    got = speech(tmp_path, recognizedPhrases=[dict(heard, channel=0), dict(heard, channel=1), dict(heard, offsetInTicks=None), dict(heard, nBest='x', offsetInTicks=1)])
    assert len(got.clips) == 1 and got.ledger.skipped == {'a repeat': 1, 'no time': 1, 'nothing recognised': 1}
    (tmp_path/f'{NAME}.json').write_text('['*100_000)
    with pytest.raises(ValueError, match=f'{NAME}.json: nested too deeply'): segment(tmp_path/f'{NAME}.json')


def test_a_confidence_that_is_no_number_is_named(tmp_path):
    row = dict(start=0, end=900, text='a b c')
    got = speech(tmp_path, utterances=[row | dict(confidence='0.1'), row | dict(confidence=float('nan')), row | dict(confidence=None)])
    assert len(got.clips) == 1 and got.ledger.skipped == {'its confidence is no number': 1, 'confidence below 0.3': 1}


def test_a_folder_of_speech_names_what_it_does_not_read(tmp_path):
    speech(tmp_path, utterances=[])
    for name in ('.DS_Store', 'notes.txt'): (tmp_path/name).write_text('')
    assert segment_all(tmp_path).ledger.before.skipped == {'a hidden file': 1, 'no .json': 1}
    (tmp_path/f'{NAME}.JSON').write_text('{}')
    with pytest.raises(ValueError, match=f"'{NAME}' comes twice"): segment_all(tmp_path)


def test_nothing_kept_is_an_empty_set(tmp_path):
    got = write_frames([Clip(NAME, 0, 900, 'a b c')], tmp_path, tmp_path/'out')
    assert len(got.pairs) == 0 and got.ledger.skipped == {'no video': 3}
    write_video(tmp_path/f'{NAME}.MP4', [Image.new('RGB', (32, 32))]*4)
    assert len(write_frames([Clip(NAME, 0, 900, 'a b c')], tmp_path, tmp_path/'out').pairs) == 2
    (tmp_path/f'{NAME}.MP4').write_bytes(b'no video')
    assert write_frames([Clip(NAME, 0, 900, 'a b c')], tmp_path, tmp_path/'out').ledger.skipped == {'video cannot be read': 3}
    assert len(pairs_from_records([], 'web')) == 0


@pytest.mark.parametrize('image', ['', [None], [], None])
def test_no_picture_in_any_spelling(tmp_path, image):
    turns = [{'from': 'human', 'value': 'hi', 'weight': None, 'role': None}, {'from': 'gpt', 'value': 'ho'}]
    (tmp_path/'m.json').write_text(json.dumps([dict(id='1', image=image, conversations=turns)]))
    assert load_records(tmp_path/'m.json')[0].images == ()


def film(path, begin=0., shades=range(0, 200, 10), fps=2, ahead=0):
    "A grey film, one shade a frame, that begins at a time."
    with av.open(str(path), 'w') as box:
        stream = box.add_stream('mpeg4', rate=fps)
        stream.width = stream.height = 64; stream.pix_fmt = 'yuv420p'; stream.codec_context.gop_size, stream.codec_context.max_b_frames = 4, ahead
        for k, shade in enumerate(shades):
            frame = av.VideoFrame.from_image(Image.new('RGB', (64, 64), (shade,)*3))
            frame.pts, frame.time_base = k + round(begin*fps), Fraction(1, fps)
            box.mux(stream.encode(frame))
        box.mux(stream.encode())


@pytest.mark.parametrize('ending', ['.mkv', '.ts'])
def test_times_count_from_the_first_picture(tmp_path, ending):
    film(tmp_path/f'late{ending}', begin=7)
    got = [float(np.asarray(f).mean()) for f in frames_at(tmp_path/f'late{ending}', [0., 1., 5., 9.4])]
    assert np.allclose(got, [0, 20, 100, 180], atol=8), got
    assert video_seconds(tmp_path/f'late{ending}') == pytest.approx(10, abs=1)


@pytest.mark.parametrize('gap', [10., .5])
@pytest.mark.parametrize('ending', ['.mp4', '.ts', '.avi'])
def test_pictures_stored_out_of_order_are_found_at_their_times(tmp_path, ending, gap):
    film(tmp_path/f'b{ending}', shades=range(20, 220, 10), ahead=2)
    got = [float(np.asarray(f).mean()) for f in frames_at(tmp_path/f'b{ending}', [0., .6, 1.1, 5., 7.3, 9.4, 9.9], gap)]
    assert np.allclose(got, [20, 30, 40, 120, 160, 200, 210], atol=8), got


def test_a_film_without_a_length_ends_with_its_last_picture(tmp_path):
    film(tmp_path/'late.mkv', begin=7)
    data = (tmp_path/'late.mkv').read_bytes()
    assert [f is None for f in frames_at(tmp_path/'late.mkv', [9.9, 10.1, 30.])] == [False, True, True]
    (tmp_path/'half.mkv').write_bytes(data[:len(data)//2])
    assert [f is None for f in frames_at(tmp_path/'half.mkv', [0., 9.9])] == [False, True]


@pytest.mark.parametrize('frames, codec', [(1, 'mpeg1video'), (20, 'mpeg1video'), (12, 'mpeg2video'), (50, 'mpeg2video')])
def test_a_short_program_stream_is_as_long_as_its_pictures(tmp_path, frames, codec):
    with av.open(str(tmp_path/'a.mpg'), 'w', format='mpeg') as box:
        stream = box.add_stream(codec, rate=25); stream.width = stream.height = 64; stream.pix_fmt = 'yuv420p'
        stream.codec_context.max_b_frames = 2 * (codec == 'mpeg2video')
        for k in range(frames): box.mux(stream.encode(av.VideoFrame.from_image(Image.new('RGB', (64, 64), (k,)*3))))
        box.mux(stream.encode())
    assert video_seconds(tmp_path/'a.mpg') == pytest.approx(frames/25, abs=.001)


ONE = 2**16   # in a header of QuickTime


@pytest.mark.parametrize('matrix, corner', [((ONE, 0, 0, ONE), (0, 0)), ((0, ONE, -ONE, 0), (0, 1)), ((-ONE, 0, 0, -ONE), (1, 1)), ((0, -ONE, ONE, 0), (1, 0)),
                                            ((-ONE, 0, 0, ONE), (0, 1)), ((ONE, 0, 0, -ONE), (1, 0)), ((0, ONE, ONE, 0), (0, 0)), ((0, -ONE, -ONE, 0), (1, 1))])
@pytest.mark.parametrize('ending', ['.mp4', '.mov'])
def test_films_are_turned_and_mirrored_as_their_header_says(tmp_path, ending, matrix, corner):
    a, b, c, d = matrix
    picture = Image.new('RGB', (64, 48)); picture.paste((255, 255, 255), (0, 0, 16, 12))   # bright at the top left
    data = bytearray(write_video(tmp_path/'a.mp4', [picture]*4).read_bytes())
    at = data.index(b'tkhd') + 4 + 40
    data[at:at + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 2**30)
    (tmp_path/f'b{ending}').write_bytes(data)
    shown = np.asarray(frames_at(tmp_path/f'b{ending}', [1.])[0].convert('L'))
    assert shown.shape == ((48, 64) if a else (64, 48))
    half = [np.array_split(h, 2, 1) for h in np.array_split(shown, 2, 0)]
    assert max(((r, k) for r in (0, 1) for k in (0, 1)), key=lambda rk: half[rk[0]][rk[1]].mean()) == corner


def test_no_container_stays_open(tmp_path, monkeypatch):
    opened, was = [], av.open
    monkeypatch.setattr(av, 'open', lambda *a, **k: opened.append(was(*a, **k)) or opened[-1])
    film(tmp_path/'b.avi', shades=range(20, 220, 10), ahead=2)
    frames_at(tmp_path/'b.avi', [.6, 9.4]); video_seconds(tmp_path/'b.avi')
    with was(str(tmp_path/'mute.mp4'), 'w') as box: box.add_stream('aac', rate=8000)
    for read in (video_seconds, lambda p: frames_at(p, [0.])):
        with pytest.raises(VideoError): read(tmp_path/'mute.mp4')
    def shut(box):
        try: box.dumps_format()
        except AssertionError: return True
    assert len(opened) >= 4 and all(map(shut, opened[1:]))   # the first one is the writer's


def test_a_stream_without_times_says_what_to_do(tmp_path):
    if 'libx264' not in av.codecs_available: pytest.skip('this build of FFmpeg writes no H.264')
    with av.open(str(tmp_path/'raw.h264'), 'w', format='h264') as box:
        stream = box.add_stream('libx264', rate=2); stream.width = stream.height = 64; stream.pix_fmt = 'yuv420p'
        for k in range(4): box.mux(stream.encode(av.VideoFrame.from_image(Image.new('RGB', (64, 64)))))
        box.mux(stream.encode())
    for read in (video_seconds, lambda p: frames_at(p, [0.])):
        with pytest.raises(VideoError, match=r'raw.h264: its pictures have no times .*; put it into a container'): read(tmp_path/'raw.h264')


def test_no_damage_escapes_without_a_name(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path/'a.mp4'
    film(path); data = path.read_bytes()
    for _ in range(60):
        bad, at = bytearray(data), rng.integers(0, len(data) - 60)
        bad[at:at + 60] = rng.bytes(60); path.write_bytes(bad)
        for read in (video_seconds, lambda p: frames_at(p, [0., 1., 5.])):
            try: read(path)
            except VideoError as e: assert 'a.mp4' in str(e)


def test_a_damaged_video_is_named(tmp_path):
    path = tmp_path/'S_20140420_1803_01.mp4'
    write_video(path, [Image.fromarray(np.random.default_rng(k).integers(0, 255, (64, 64, 3), np.uint8)) for k in range(20)])
    data = bytearray(path.read_bytes())
    for cut in (len(data)//3, len(data)//2):
        bad = bytearray(data); bad[cut:cut + 4000] = bytes(4000)
        path.write_bytes(bad)
        try: frames_at(path, [1., 5., 8.])
        except VideoError as e: assert 'S_20140420_1803_01.mp4' in str(e)
    path.write_bytes(data[:len(data)//2])
    try: frames_at(path, [1., 5., 8.])
    except VideoError as e: assert 'S_20140420_1803_01.mp4' in str(e)


def answer(content, usage=None): return N(choices=[N(message=N(content=content, refusal=None), finish_reason='stop')], usage=usage)


def test_an_answer_in_parts_keeps_its_words_only():
    parts = [dict(type='thinking', thinking=[dict(type='text', text='A?')]), dict(type='text', text='B'), N(type='text', text='!')]
    assert _unpack(answer(parts))['text'] == 'B!' and _unpack(answer(None))['text'] == '' and _unpack(answer([]))['text'] == ''
    assert _unpack(answer('x', N(prompt_tokens=None, completion_tokens=3)))['tokens_in'] == 0


@pytest.mark.parametrize('reply', [answer(5), answer([dict(type='image_url', url='x')]), answer([dict(type='text', text=7)]), N(choices=None, usage=None),
                                   N(choices=[N(message=None, finish_reason='stop')], usage=None), N(choices=[], usage=None), 'html'])
def test_what_is_no_answer_is_refused(reply):
    with pytest.raises(_Garbled): _unpack(reply)


@pytest.mark.parametrize('text', ['', '{', '{}', '[1, 2]', '{"text": 5, "reason": "", "tokens_in": 0, "tokens_out": 0}', '['*100_000])
def test_a_bad_cache_entry_is_dropped(tmp_path, text):
    file = tmp_path/'a.json'; file.write_text(text)
    assert _kept(file) is None and not file.exists()


def test_a_lone_surrogate_survives_the_cache(tmp_path):
    e = Endpoint('m', tmp_path, base_url='http://127.0.0.1:9/v1', api_key='none')
    e._keep(tmp_path/'aa'/'a.json', dict(text='\ud800', reason='', tokens_in=0, tokens_out=0))
    assert _kept(tmp_path/'aa'/'a.json')['text'] == '\ud800'


def test_refused_parameters_are_asked_otherwise_and_remembered(tmp_path):
    import openai
    e, asked = Endpoint('m', tmp_path, base_url='http://127.0.0.1:9/v1', api_key='none', sleep=lambda s: None), []
    def create(**body):
        asked.append(body)
        bad = 'max_tokens' if 'max_tokens' in body else 'temperature' if 'temperature' in body else ''
        if bad: raise openai.BadRequestError(f"Unsupported parameter: '{bad}'", response=N(status_code=400, headers={}, request=None), body=dict(param=bad))
        return answer('B')
    e.client = N(chat=N(completions=N(create=create)))
    body = dict(model='m', messages=[], max_tokens=5, temperature=0)
    assert e._ask(body)['text'] == 'B' and len(asked) == 3 and asked[-1] == dict(model='m', messages=[], max_completion_tokens=5)
    assert e._ask(body)['text'] == 'B' and len(asked) == 4
    def never(**body): raise openai.BadRequestError("Unknown model 'm'", response=N(status_code=400, headers={}, request=None), body=None)
    e.client = N(chat=N(completions=N(create=never)))
    with pytest.raises(EndpointError, match='400'): e._ask(body)
    assert _taken(body, set()) == body


def test_every_devcv_file_of_a_folder_is_read_or_named(tmp_path):
    for name in ('whohasmore_synthetic', 'spatial_details', 'juggling', 'count'):
        (tmp_path/name).mkdir(); (tmp_path/name/'data.json').write_text('[]')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert set(find_tasks(tmp_path)) == {'compare_synthetic', 'spatialdetails', 'count'}
    said = ' '.join(str(w.message) for w in said)
    assert "'juggling' is no DevCV task" in said and 'read as compare_synthetic' in said and "'count/" not in said


def drips(parts, pause):
    "A server that answers in these parts, with a pause after each; its address, and how to end it."
    import threading, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    class Drips(BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_POST(self):
            try:
                for part in parts: self.wfile.write(part); self.wfile.flush(); time.sleep(pause)
            except OSError: pass   # cut off
    server = ThreadingHTTPServer(('127.0.0.1', 0), Drips)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f'http://127.0.0.1:{server.server_port}/v1', server


HEAD_OF = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n'


@pytest.mark.parametrize('parts, pause', [((HEAD_OF + b'\r\n', *[b' ']*400), .05), ((HEAD_OF + b'\r\n', *[b' ' * 2**20]*400), 0.),
                                          ((HEAD_OF, *[b'x-%d: 1\r\n' % k for k in range(400)]), .05), ((HEAD_OF + b'x: ', *[b'1']*400), .05)],
                         ids=['slow body', 'huge body', 'slow headers', 'slow header'])
def test_an_answer_without_end_is_cut_off(tmp_path, parts, pause):
    import time
    url, server = drips(parts, pause)
    e = Endpoint('m', tmp_path, base_url=url, api_key='none', timeout=.5, tries=2, sleep=lambda s: None)
    began = time.monotonic()
    with pytest.raises(EndpointError, match='no answer after 2 tries'): e._ask(dict(model='m', messages=[]))
    assert time.monotonic() - began < 6
    server.shutdown(); server.server_close()


def test_a_server_says_when_to_come_back(tmp_path):
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime
    from babyvlm.data.rewriters import _wait
    def wait(said): return _wait(N(response=N(headers={'retry-after': said})), 2, 1.)
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < wait(soon) <= 30 and wait('12') == 12 and wait('1.5') == 1.5 and wait('99999') == 60 == wait('Fri, 31 Dec 2100 23:59:59 GMT')
    assert wait('Thu, 01 Jan 1970 00:00:00 GMT') == 0 and [wait(s) for s in ('', 'soon', '-5', '٣', '9'*400 + 'x', 'Fri, 99 Dec 2100')] == [4.]*6 and wait('9'*400) == 60


BODIES = {'cut': b'{"id": "x", "choices": [{"index": 0, "message": {"role": "assist', 'empty': b'', 'web page': b'<html>busy</html>', 'list': b'[1, 2]', 'null': b'null',
          'no message': b'{"choices": [{"index": 0}]}', 'not UTF-8': b'{"choices": "\xff"}', 'deep': b'['*100_000, 'error': b'{"error": {"message": "no"}}',
          'digits': b'{"choices": ' + b'9'*5000 + b'}', 'usage': b'{"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}], "usage": 5}',
          'usage is words': b'{"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": "many"}}',
          'choices': b'{"choices": {"0": 1}}', 'first is a word': b'{"choices": ["x"]}', 'content is a number': b'{"choices": [{"message": {"content": 5}}]}',
          'tokens are a number': b'{"choices": [{"message": {"content": "C"}, "logprobs": {"content": [{"top_logprobs": 5}]}}]}'}


@pytest.mark.parametrize('body', BODIES.values(), ids=BODIES)
def test_a_wrong_body_is_named_or_read(tmp_path, body):
    url, server = drips([HEAD_OF + b'content-length: %d\r\n\r\n' % len(body) + body], 0)
    e = Endpoint('m', tmp_path, base_url=url, api_key='none', timeout=5., tries=1, sleep=lambda s: None)
    try: assert set(e._ask(dict(model='m', messages=[]))) == {'text', 'reason', 'tokens_in', 'tokens_out'} and b'"B"' in body
    except EndpointError as err: assert 'no answer after 1 tries' in str(err)
    server.shutdown(); server.server_close()


def test_a_snapshot_of_the_hub_is_read_through_its_links(tmp_path):
    snapshot, blobs = tmp_path/'datasets--a--b'/'snapshots'/'0f', tmp_path/'datasets--a--b'/'blobs'
    for d in (snapshot/'count', blobs): d.mkdir(parents=True)
    for name in ('blobs/1', '../out.png'): Image.new('RGB', (32, 32)).save(snapshot.parents[1]/name, 'PNG')
    turns = [{'from': 'human', 'value': '<image>\nHow many cups do you see in the image? Respond with a number.'}, {'from': 'gpt', 'value': '2'}]
    (snapshot/'count'/'data.json').write_text(json.dumps([dict(id=p, image=[p], conversations=turns) for p in ('in.png', 'out.png')]))
    (snapshot/'count'/'in.png').symlink_to('../../../blobs/1'); (snapshot/'count'/'out.png').symlink_to('../../../../out.png')
    found = load_items(snapshot, 'count')
    assert [Path(i.images[0]).name for i in found] == ['in.png'] and found.ledger.skipped == {'link leaves the folder': 1}


def test_half_a_character_survives_the_journal(tmp_path):
    item = Item('u', 'b', (), 'say', ('a', 'b'), 0)
    Journal(tmp_path/'j.jsonl', 'm', 'b').write([Reply('u', text='x\ud800\\')], [item_key(item)])
    assert Journal(tmp_path/'j.jsonl').done['u'].text == 'x\ud800\\'


@pytest.mark.parametrize('out', ['results', 'results/count.jsonl'])
def test_answers_of_an_endpoint_are_kept_beside_the_results(tmp_path, monkeypatch, out):
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from typer.testing import CliRunner

    from babyvlm.run.cli import app
    class Two(BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_POST(self):
            self.rfile.read(int(self.headers['content-length']))
            body = json.dumps(dict(id='x', object='chat.completion', created=1, model='m', choices=[
                dict(index=0, finish_reason='stop', message=dict(role='assistant', content='2'))])).encode()
            self.send_response(200); self.send_header('content-type', 'application/json')
            self.send_header('content-length', str(len(body))); self.end_headers(); self.wfile.write(body)
    server = ThreadingHTTPServer(('127.0.0.1', 0), Two)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    task, here = tmp_path/'labels'/'count', tmp_path/'here'
    task.mkdir(parents=True); here.mkdir(); Image.new('RGB', (32, 32)).save(task/'a.png')
    turns = [{'from': 'human', 'value': '<image>\nHow many cups do you see in the image? Respond with a number.'}, {'from': 'gpt', 'value': '2'}]
    (task/'data.json').write_text(json.dumps([dict(id='1', image=['a.png'], conversations=turns)]))
    monkeypatch.chdir(here)
    monkeypatch.setenv('OPENAI_BASE_URL', f'http://127.0.0.1:{server.server_port}/v1'); monkeypatch.setenv('OPENAI_API_KEY', 'none')
    words = ['evaluate', '--model', 'endpoint:m', '--benchmark', 'devcv/count', '--labels', tmp_path/'labels', '--out', tmp_path/out]
    got = CliRunner().invoke(app, [str(w) for w in words])
    assert got.exit_code == 0, got.output
    assert not list(here.iterdir()) and len(list((tmp_path/'results'/'replies'/'endpoint').rglob('*.json'))) == 1
    server.shutdown(); server.server_close()


@pytest.mark.parametrize('ending', ['.csv', '.CSV', '.json', '.Json', '.JSONL'])
def test_endings_are_read_in_any_case(tmp_path, ending):
    from babyvlm.benchmarks.trials import load_trials
    row = dict(images='a.png', options='cup | dog', answer='cup', prompt='Which?')
    text = {'.csv': ','.join(row) + '\n' + ','.join(row.values()) + '\n', '.json': json.dumps([row]), '.jsonl': json.dumps(row)}[ending.lower()]
    path = tmp_path/f'mine{ending}'; path.write_text(text)
    assert [i.options for i in load_trials(path)] == [('cup', 'dog')]


def test_what_macos_leaves_beside_a_log_is_no_log(tmp_path):
    from babyvlm.run.logs import read_answers
    log = dict(eval=dict(model='m', task='t'), samples=[dict(id=1, input='q', target='a', scores=dict(match=dict(value='C')))])
    (tmp_path/'a.JSON').write_text(json.dumps(log)); (tmp_path/'._a.json').write_bytes(b'\0\5\x16\7\xff')
    found, = read_answers(tmp_path)
    assert (found.model, [u.credit for u in found.units]) == ('m', [1.])


PLAYLISTS = ('ffconcat version 1.0\nfile good.mp4\n', '#EXTM3U\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n', 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n')


@pytest.mark.parametrize('text', PLAYLISTS, ids=['concat', 'hls', 'sdp'])
def test_a_playlist_named_as_a_video_opens_nothing_else(tmp_path, text):
    film(tmp_path/'good.mp4')
    (tmp_path/'list.mp4').write_text(text.format(tmp_path/'good.mp4'))
    with pytest.raises(VideoError, match='list.mp4: not a video'): frames_at(tmp_path/'list.mp4', [0.])


def test_pictures_larger_than_are_read_are_refused_before_a_frame_is_decoded(tmp_path, monkeypatch):
    film(tmp_path/'a.mp4')
    monkeypatch.setattr('babyvlm.data.video.MAX_PIXELS', 100)
    with pytest.raises(VideoError, match='a.mp4: pictures of .* at most 100'): frames_at(tmp_path/'a.mp4', [0.])


def test_a_name_that_no_disk_holds_is_a_picture_that_cannot_be_read():
    with pytest.raises(ImageError, match='cannot be read: File name too long'): open_image('x'*5000)


@pytest.mark.parametrize('rows, said', [(dict(recognizedPhrases=[{}], utterances=[{}]), 'both'), ([1], 'at the top')])
def test_speech_in_two_forms_is_refused(tmp_path, rows, said):
    (tmp_path/f'{NAME}.json').write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=f'{NAME}.json: .*{said}'): segment_all(tmp_path)


def test_an_empty_form_hides_no_other_and_nothing_lasts_for_years(tmp_path):
    said = [dict(start=0, end=1000, text='hi'), dict(start=0, end=10**13, text='hello')]
    (tmp_path/f'{NAME}.json').write_text(json.dumps(dict(recognizedPhrases=[], utterances=said)))
    found = segment_all(tmp_path)
    assert [c.utterance for c in found.clips] == ['hi'] and found.ledger.skipped == {'later than a day': 1}


@pytest.mark.parametrize('how', [dict(image=[], images=['a.jpg']), dict(image='a.jpg', images=[]), dict(image='a.jpg', video=float('nan')), dict(image='a.jpg', images=[None, None])])
def test_an_empty_field_beside_a_full_one_is_no_second(tmp_path, how):
    turns = [{'from': 'human', 'value': '<image>\nhi'}, {'from': 'gpt', 'value': 'ho'}]
    (tmp_path/'m.json').write_text(json.dumps([dict(how, id='1', conversations=turns)]))
    assert load_records(tmp_path/'m.json')[0].images == ('a.jpg',)


@pytest.mark.parametrize('name, why', [('juggling/data.jsonl', 'read from a data.json'), ('a/b/juggling/data.json', 'too deep'), ('train/a/b/data.json', ''), ('.git/data.jsonl', '')])
def test_records_in_another_file_or_too_deep_are_named(tmp_path, name, why):
    for file in (tmp_path/'count'/'data.json', tmp_path/name): file.parent.mkdir(parents=True); file.write_text('[]')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert set(find_tasks(tmp_path)) == {'count'}
    assert [w for w in said if f"not read: '{name}'" in str(w.message) and why in str(w.message)] if why else not said


@pytest.mark.parametrize('said', ["Unsupported parameter: 'max_tokens' is not supported, use 'max_completion_tokens'", 'max_tokens: extra inputs are not permitted'])
@pytest.mark.parametrize('status', [400, 422])
def test_a_server_that_knows_neither_name_of_a_limit_is_asked_without(tmp_path, said, status):
    import openai
    e, asked = Endpoint('m', tmp_path, base_url='http://127.0.0.1:9/v1', api_key='none', sleep=lambda s: None), []
    def create(**body):
        asked.append(set(body) - {'model', 'messages'})
        bad = next((k for k in ('max_tokens', 'max_completion_tokens') if k in body), None)
        told = said if bad == 'max_tokens' else said.replace('max_tokens', bad or '')
        if bad: raise openai.APIStatusError(told, response=N(status_code=status, headers={}, request=None), body=None)
        return answer('B')
    e.client = N(chat=N(completions=N(create=create)))
    assert e._ask(dict(model='m', messages=[], max_tokens=5))['text'] == 'B' and asked == [{'max_tokens'}, {'max_completion_tokens'}, set()]


def test_parts_of_other_servers_are_words_or_thoughts():
    parts = [dict(type='redacted_thinking', data='x'), dict(type='output_text', text='B'), dict(type='reference', reference_ids=[1])]
    assert _unpack(answer(parts))['text'] == 'B'
    cut = answer('The answer is'); cut.choices[0].finish_reason = 'max_tokens'
    assert _unpack(cut)['reason'] == 'answer was cut off'


ENTRY = dict(utterance='hi', transcript_filename=f'{NAME}.csv', video_filename=f'{NAME}.mp4', utterance_num=1, num_frames=1, timestamps=[1.], frame_filenames=[f'{NAME}_001_00.jpg'])


@pytest.mark.parametrize('field, value', [*((f, None) for f in ENTRY), ('utterance', 5), ('timestamps', '1'), ('timestamps', [None]), ('timestamps', [float('nan')]), ('utterance_num', '1'),
                                          ('num_frames', True), ('frame_filenames', [5]), ('frame_filenames', [f'{NAME}_001_/../../x.jpg']), ('frame_filenames', [f'{NAME}_001_x.jpg'])])
def test_every_value_of_a_released_entry_is_checked_at_its_place(tmp_path, field, value):
    from babyvlm.data.saycam import read_metadata
    (tmp_path/'train.json').write_text(json.dumps(dict(data=[ENTRY])))
    assert len(read_metadata(tmp_path/'train.json')) == 1
    (tmp_path/'train.json').write_text(json.dumps(dict(data=[ENTRY | {field: value}])))
    with pytest.raises(ValueError, match='train.json, entry 0: '): read_metadata(tmp_path/'train.json')


FRAME, CLIP = dict(image='a.jpg', recording='r', width=64, height=64), dict(id='1', recording='r', frames=['a', 'b'], category='dog', leaves='left')


def bank_of(folder, **rows):
    from babyvlm.data.annotations import load_bank
    (folder/'frames.json').write_text(json.dumps(rows))
    return load_bank(folder)


@pytest.mark.parametrize('rows', [dict(frames=[FRAME | dict(image=5)]), dict(frames=[FRAME | dict(recording=5)]), dict(frames=[FRAME | dict(boxes=[dict(category=None, xywh=[0, 0, 1, 1])])]),
                                  dict(clips=[CLIP | dict(category=5)]), dict(clips=[CLIP | dict(frames='ab')]), dict(frames=5), dict(clips={'a': 1})])
def test_annotations_of_another_kind_are_named(tmp_path, rows):
    with pytest.raises(ValueError, match=f"{tmp_path.name}, (frame|clip) 0: |frames.json: expected lists"): bank_of(tmp_path, **rows)


def test_null_and_absent_are_the_same_in_annotations(tmp_path):
    from babyvlm.data.taxonomy import load_annotations
    box = dict(category='dog', xywh=[0, 0, 1, 1], score=None, colour=None)
    bank = bank_of(tmp_path, frames=[FRAME | dict(boxes=[box], counts=None)], clips=None, source=None)
    assert bank.source == 'saycam' and bank.frames[0].boxes[0].score == 1 and not bank.clips
    asked = dict(image='a.jpg', label='gull', level1='bird', choices_level1=['bird', 'fish'], level2=None, choices_level2=None, split=None)
    (tmp_path/'a.jsonl').write_text(json.dumps(asked))
    assert load_annotations(tmp_path/'a.jsonl')[0].split == 'test'
    (tmp_path/'a.jsonl').write_text(json.dumps(asked | dict(split=5)))
    with pytest.raises(ValueError, match='a.jsonl line 1: the split 5'): load_annotations(tmp_path/'a.jsonl')


@pytest.mark.parametrize('name', ['x'*5000, 'a\0b', 'folder'])
def test_a_record_names_a_file(tmp_path, name):
    (tmp_path/'folder').mkdir()
    turns = [{'from': 'human', 'value': '<image>\nhi'}, {'from': 'gpt', 'value': 'ho'}]
    (tmp_path/'m.json').write_text(json.dumps([dict(id='1', image=name, conversations=turns)]))
    with pytest.raises(ValueError, match='m.json, record 0 .*is not below the image root'): load_records(tmp_path/'m.json', tmp_path)


def test_a_header_that_says_too_little_or_too_much_moves_no_picture(tmp_path):
    with av.open(str(tmp_path/'a.mpg'), 'w') as box:         # a program stream: its length is guessed from the last key frame
        stream = box.add_stream('mpeg2video', rate=25); stream.width = stream.height = 64; stream.pix_fmt = 'yuv420p'
        for k in range(100): box.mux(stream.encode(av.VideoFrame.from_image(Image.new('RGB', (64, 64), (k, k, k)))))
        box.mux(stream.encode())
    assert [f is None for f in frames_at(tmp_path/'a.mpg', [0., 3.8, 4.2])] == [False, False, True]
    film(tmp_path/'a.avi'); data = (tmp_path/'a.avi').read_bytes()
    (tmp_path/'half.avi').write_bytes(b'00dc'.join(data.split(b'00dc')[:10]))   # its header goes on saying ten seconds
    assert [f is None for f in frames_at(tmp_path/'half.avi', [0., 9.9])] == [False, True]


def test_what_pillow_says_of_a_picture_reaches_nobody(tmp_path):
    Image.new('RGB', (6, 4)).save(tmp_path/'a.jpg', exif=b'Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert open_image(tmp_path/'a.jpg').size == (6, 4)


BAD = b'{"a": "\xff"}\n'


def test_a_byte_fault_names_its_file_once(tmp_path):
    from babyvlm.analysis.survey.answers import _rows as survey_rows
    from babyvlm.benchmarks.abilities import load_abilities
    from babyvlm.benchmarks.hierarchy.metrics import load_rows
    from babyvlm.benchmarks.leaderboard import check_submission
    from babyvlm.config import _read_yaml
    from babyvlm.data.filters import Selection
    from babyvlm.data.saycam import read_metadata
    from babyvlm.data.taxonomy import load_annotations, load_hierarchy
    from babyvlm.models.tokenizers import load_vocab
    from babyvlm.models.weights import reading_model
    from babyvlm.run.logs import read_answers
    from babyvlm.run.results import load_result
    def devcv(p): return load_items(p.parent, 'count')
    def weights(p):
        with reading_model(p.parent): raise AssertionError
    readers = {'count/data.json': devcv, 'm/config.json': weights, 'v.csv': load_vtwt, 't.csv': lambda p: load_trials(p, tmp_path), 't.jsonl': lambda p: load_trials(p, tmp_path),
               'r.json': load_records, 'tree.json': load_hierarchy, 'rows.jsonl': load_annotations, 'train.json': read_metadata, f'{NAME}.csv': read_transcript, f'{NAME}.json': segment,
               'abilities.json': load_abilities, 'rows.json': load_rows, 'j.jsonl': Journal, 'x.fair.json': load_result, 'vocab.json': load_vocab, 'c.yaml': _read_yaml, 'chosen.json': Selection.load,
               'frames.json': load_bank, 'log.json': read_answers, 's.csv': survey_rows, 's.json': survey_rows}
    for name, read in readers.items():
        path = tmp_path/name; path.parent.mkdir(exist_ok=True); path.write_bytes(BAD)
        with pytest.raises(ValueError) as told: read(path)
        said = str(told.value)
        assert said.count(path.name) == 1 and ('UTF-8' in said or 'utf-8' in said) and '\n' not in said, (name, said)
    (tmp_path/'submission.json').write_bytes(BAD)
    (said,), _ = check_submission(tmp_path)
    assert said.count('submission.json') == 1 and 'UTF-8' in said


@pytest.mark.parametrize('words', [['survey', 'build', '--benchmark', 'v1/vtwt', '--labels', 'v.csv', '--consent', 'bad.txt'], ['leaderboard', '--issue', 'bad.txt'],
                                   ['leaderboard', '--submission', 'sub', '--name', 'm', '--checkpoint', 'a/b', '--model-py', 'bad.txt'],
                                   ['leaderboard', '--submission', 'sub', '--name', 'm', '--checkpoint', 'a/b', '--facts', 'bad.txt']])
def test_a_text_of_the_command_line_that_is_not_utf_8_is_named(tmp_path, monkeypatch, words):
    from typer.testing import CliRunner

    from babyvlm.run.cli import app
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (32, 32)).save('a.png'); Path('bad.txt').write_bytes(BAD)
    Path('v.csv').write_text('image,positive_phrase,negative_phrase\na.png,see cup,see ball\n')
    got = CliRunner().invoke(app, words)
    assert got.exit_code == 2 and 'babyvlm: bad.txt: byte 7 is not UTF-8' in got.output and len(got.output.strip().splitlines()) == 1, (got.output, got.exception)


def test_a_word_list_of_another_kind_is_named(tmp_path):
    from babyvlm.models.tokenizers import load_vocab
    for text in ('["a"]', '{"a": null}', '{"a": "0"}', '{"a": true}', '{"a": 0, "a": 1}'):
        (tmp_path/'vocab.json').write_text(text)
        with pytest.raises(ValueError, match='^vocab.json: '): load_vocab(tmp_path/'vocab.json')


@pytest.mark.parametrize('text', ['{}', '[]', 'null', '{"uids": null, "sha256": "a"}', '{"uids": ["a"], "sha256": "b"}'])
def test_a_selection_of_another_kind_is_named(tmp_path, text):
    from babyvlm.data.filters import Selection
    (tmp_path/'s.json').write_text(text)
    with pytest.raises(ValueError, match='^s.json: '): Selection.load(tmp_path/'s.json')


def test_weights_are_read_whatever_the_case_of_their_ending(tmp_path):
    import torch
    from safetensors.torch import save_file

    from babyvlm.models.weights import read_checkpoint, reading_model
    from babyvlm.run.scorecard import find_models
    save_file({'a': torch.ones(2)}, tmp_path/'W.SAFETENSORS')
    assert read_checkpoint(tmp_path/'W.SAFETENSORS')['a'].tolist() == [1, 1]
    torch.save({'a': torch.ones(2)}, tmp_path/'w.PT')
    assert read_checkpoint(tmp_path/'w.PT')['a'].tolist() == [1, 1]
    assert [p.name for p in find_models(tmp_path)] == ['W.SAFETENSORS', 'w.PT']
    for name, data in (('W.SAFETENSORS', b'<html>'), ('CONFIG.JSON', b'{')):
        (tmp_path/'m'/name).parent.mkdir(exist_ok=True); (tmp_path/'m'/name).write_bytes(data)
        with pytest.raises(ValueError, match=f'^m: {name}: '), reading_model(tmp_path/'m'): pass
        (tmp_path/'m'/name).unlink()


def test_cards_look_at_files_whatever_the_case_of_their_ending(tmp_path):
    from babyvlm.reporting.cards import Place, count_rows, look_at
    for name, text in {'a.JSON': '[1, 2]', 'a.CSV': 'x\n1\n2\n', 'a.JsonL': '1\n\n2\n'}.items():
        (tmp_path/name).write_text(text)
        assert count_rows(tmp_path/name) == 2, name
    (tmp_path/'t').mkdir(); (tmp_path/'t'/'B.CSV').write_text('Time\n0:01\n')
    assert look_at(Place('t/<recording>.csv', ('Time',)), tmp_path).found == 1
    assert "no column 'Speaker'" in look_at(Place('t/<recording>.csv', ('Speaker',)), tmp_path).problem
    (tmp_path/'t'/'S.JSON').write_text('{')
    assert 'S.JSON: not JSON' in look_at(Place('t/<recording>.json'), tmp_path).problem


def test_annotations_are_written_whatever_the_case_of_the_ending(tmp_path):
    from babyvlm.data.taxonomy import Annotation, load_annotations, save_annotations
    rows = [Annotation('a.jpg', 'gull', ('bird',), (('bird', 'fish'),))]
    for name in ('a.JSONL', 'a.Parquet'):
        assert save_annotations(rows, tmp_path/name) == 1 and load_annotations(tmp_path/name) == rows


def test_a_row_of_a_journal_that_says_nothing_is_no_reply(tmp_path):
    from babyvlm.benchmarks.protocols import evaluate
    from babyvlm.items import Status
    head = '{"journal": 1, "model": "m", "benchmark": "b"}\n'
    for row in ('{"uid": "u", "text": null}', '{"uid": "u"}', '{"uid": "u", "text": null, "scores": null, "chosen": null, "status": "answered"}'):
        (tmp_path/'j.jsonl').write_text(head + row + '\n')
        with pytest.raises(ValueError, match='j.jsonl line 2 is no reply .neither words, nor scores, nor a choice.; remove it'): Journal(tmp_path/'j.jsonl')
    for row, text in (('{"uid": "u", "text": ""}', ''), ('{"uid": "u", "text": null, "status": "no answer"}', None), ('{"uid": "u", "chosen": 1, "text": null}', None)):
        (tmp_path/'j.jsonl').write_text(head + row + '\n')
        assert Journal(tmp_path/'j.jsonl').done['u'].text == text
    with pytest.raises(ValueError, match="the reply to 'u' says nothing"): Journal(tmp_path/'k.jsonl', 'm', 'b').write([Reply('u')])
    class Mute:
        def reply(self, items): return [Reply(i.uid) for i in items]
    class Quiet:
        def reply(self, items): return [Reply(i.uid, text='') for i in items]
    item = Item('u', 'b', (), 'say', ('a', 'b'), 0)
    with pytest.raises(ValueError, match="Mute.reply gave 'u' no text; silence is ''"): evaluate(Mute(), [item])
    assert evaluate(Quiet(), [item])[0].status == Status.ANSWERED


def test_a_journal_of_any_spelling_is_continued_and_labels_are_read_once(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from babyvlm.models.tiny import tiny_vlm
    from babyvlm.run.cli import app
    from babyvlm.run.results import rescored
    ask = '<image>\nHow many cups do you see in the image? Respond with a number.'
    (tmp_path/'labels'/'count').mkdir(parents=True); Image.new('RGB', (32, 32)).save(tmp_path/'labels'/'count'/'a.png')
    (tmp_path/'labels'/'count'/'data.json').write_text(json.dumps([dict(id='1', image=['a.png'], conversations=[{'from': 'human', 'value': ask}, {'from': 'gpt', 'value': '2'}])]))
    model, read = tiny_vlm(tmp_path/'m', 'qwen2_5_vl', [ask + ' 1 2 3']), []
    words = ['evaluate', '--model', model, '--benchmark', 'devcv/count', '--labels', tmp_path/'labels', '--out', tmp_path/'R.JSONL']
    for _ in range(2):
        got = CliRunner().invoke(app, [str(w) for w in words])
        assert got.exit_code == 0 and f"replies: {tmp_path/'R.JSONL'}" in got.output, got.output
    assert (tmp_path/'R.JSONL').is_file() and not (tmp_path/'replies').exists() and len(Journal(tmp_path/'R.JSONL')) == 1
    (tmp_path/'S.jsonl').write_bytes((tmp_path/'R.JSONL').read_bytes())
    import babyvlm.benchmarks.devcv.read as r
    whole = r.read_text
    monkeypatch.setattr(r, 'read_text', lambda p: read.append(p.name) or whole(p))
    found = rescored('devcv/count', [tmp_path/'R.JSONL', tmp_path/'S.jsonl'], tmp_path/'labels')
    assert read == ['data.json'] and [(e.mode, Path(e.journal).name) for e in found] == [(m, n) for n in ('R.JSONL', 'S.jsonl') for m in ('fair', 'reference')]


SHARDS = {'weight_map': {'a': 'model-1.safetensors'}}


@pytest.mark.parametrize('name, held, why', [
    ('config.json', dict(num_hidden_layers=10**6), 'num_hidden_layers is 1,000,000'), ('config.json', dict(vision_config=dict(depth=10**9)), 'depth is'), ('open_clip_config.json', dict(text_cfg=dict(layers=5000)), 'layers is'),
    *(('model.safetensors.index.json', {'weight_map': w}, 'is not beside it') for w in ({'a': '../a.safetensors'}, {'a': '/a.safetensors'}, {'a': 5}, {}, [1], None)),
    ('tokenizer.json', dict(model=dict(vocab=dict(layers=45_000))), ''), ('config.json', dict(num_hidden_layers=126), ''), ('model.safetensors.index.json', SHARDS, '')])
def test_settings_build_nothing_without_end_and_read_nothing_from_elsewhere(tmp_path, name, held, why):
    from contextlib import nullcontext

    from babyvlm.models.weights import reading_model
    (tmp_path/name).write_text(json.dumps(held))
    with pytest.raises(ValueError, match=f'{name}: .*{why}') if why else nullcontext(), reading_model(tmp_path): pass


@pytest.mark.parametrize('head', [b'[1]', b'null', b'{"a": null}', b'{"a": {"dtype": "F32", "shape": [1]}}', b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": "xy"}}', None])
def test_a_header_of_weights_that_is_none_is_named_and_never_read_whole(tmp_path, head):
    from babyvlm.models.weights import reading_model
    with open(tmp_path/'model.safetensors', 'wb') as f:
        f.write((len(head) if head else 2**32).to_bytes(8, 'little') + (head or b''))
        if head is None: f.truncate(2**32 + 8)   # a hole, no bytes
    with pytest.raises(ValueError, match='model.safetensors: cut short, or no safetensors file'), reading_model(tmp_path): pass


def test_a_clip_that_lacks_weights_is_refused_and_one_that_has_more_is_told(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModel, CLIPConfig, CLIPModel

    from babyvlm.models.weights import load_whole
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = CLIPModel(CLIPConfig(text_config=dict(sizes, vocab_size=50), vision_config=dict(sizes, image_size=32, patch_size=16), projection_dim=8))
    model.save_pretrained(tmp_path/'m'); file = tmp_path/'m'/'model.safetensors'; whole = load_file(file)
    def holding(**k): save_file({a: b for a, b in {**whole, **k}.items() if b is not None}, file, dict(format='pt'))
    assert isinstance(load_whole(AutoModel, tmp_path/'m'), CLIPModel)
    holding(extra=torch.zeros(3))
    with pytest.warns(UserWarning, match='1 weights have no place in the model'): load_whole(AutoModel, tmp_path/'m')
    holding(logit_scale=None)
    with pytest.raises(ValueError, match="'m' lacks weights: logit_scale"): load_whole(AutoModel, tmp_path/'m')
    holding()
    settings = json.loads((tmp_path/'m'/'config.json').read_text()); settings['text_config']['vocab_size'] = 10**9
    (tmp_path/'m'/'config.json').write_text(json.dumps(settings))
    with pytest.raises(ValueError, match='config.json asks for 16,000,.* numbers, the weights have'): load_whole(AutoModel, tmp_path/'m')


def test_an_audit_that_lacks_a_task_says_so_in_its_status(tmp_path):
    from typer.testing import CliRunner
    from babyvlm.run.cli import app
    ask = '<image>\nHow many cups do you see in the image? Respond with a number.'
    rows = [dict(id=str(k), image=[f'{k}.png'], conversations=[{'from': 'human', 'value': ask}, {'from': 'gpt', 'value': str(k)}]) for k in range(1, 5)]
    status = []
    for task, text in dict(count=json.dumps(rows), subitize='[').items():
        folder = tmp_path/'test'/task; folder.mkdir(parents=True); (folder/'data.json').write_text(text)
        for k in range(1, 5): Image.new('RGB', (8, 8)).save(folder/f'{k}.png')
        status.append(CliRunner().invoke(app, ['audit', '--benchmark', 'devcv', '--labels', str(tmp_path)]))
    assert [r.exit_code for r in status] == [0, 1] and 'NOT READ: ' in status[1].output, [r.output for r in status]


@pytest.mark.parametrize('parts', [['B'], [dict(text='B')], [dict(type='reasoning_text', text='A'), dict(type='output_text', text='B')],
                                   [dict(type='summary_text', text='A'), dict(type='text', text=None), dict(type='text', text='B')]])
def test_parts_of_an_answer_are_read_and_thoughts_of_any_name_left_out(parts): assert _content(parts) == 'B'


def test_an_answer_cut_off_is_said_so_in_any_case():
    cut = N(choices=[N(message=N(content='', refusal=None), finish_reason='MAX_TOKENS')], usage=None)
    assert _unpack(cut)['reason'] == 'answer was cut off'


@pytest.mark.parametrize('args, other', [('pretrained=a,peft=b', 'pretrained=a'), ('pretrained=a,revision=1', 'pretrained=a')])
def test_an_adapter_or_a_revision_is_another_model_than_none(tmp_path, args, other):
    for name, key, said in (('1', 'baby_pv', args), ('2', 'baby_count', other)):
        (tmp_path/f'{name}_results.json').write_text(json.dumps(dict(results={key: {'acc,none': .5}}, config=dict(model_args=said))))
    with pytest.raises(ValueError, match='2 models'): collate(tmp_path)


def test_the_main_revision_and_a_slash_behind_a_name_are_no_other_model(tmp_path):
    for name, key, said in (('1', 'baby_pv', 'pretrained=a/,revision=main'), ('2', 'baby_count', 'pretrained=a')):
        (tmp_path/f'{name}_results.json').write_text(json.dumps(dict(results={key: {'acc,none': .5}}, config=dict(model_args=said))))
    assert set(collate(tmp_path)[0]) == {'baby_pv', 'baby_count'}


def test_whole_samples_that_are_written_as_fractions_are_counted(tmp_path):
    f = tmp_path/'1_results.json'
    f.write_text(json.dumps({'results': {'baby_pv': {'acc,none': .5}}, 'n-samples': {'baby_pv': dict(original=100., effective=10.)}}))
    with pytest.raises(ValueError, match='10 of 100'): collate(f)


@pytest.mark.parametrize('extra', [dict(image=['']), dict(image=[float('nan'), None]), dict(images=[''], video=[None])])
def test_lists_of_nothing_are_nothing(tmp_path, extra):
    turns = [{'from': 'human', 'value': 'What?', 'weight': float('nan')}, {'from': 'gpt', 'value': 'A cup.', 'weight': None}]
    (tmp_path/'a.json').write_text(json.dumps([dict(id='1', conversations=turns, **extra)]))
    assert load_records(tmp_path/'a.json')[0].images == ()


def test_a_date_is_no_time_of_a_recording(): assert seconds('2014-04-20 00:01:05') is None
