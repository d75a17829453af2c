"Files and answers of other programs: nulls, late and damaged videos, stamps with fractions, folders of other names, servers that differ."
import json
import warnings
from fractions import Fraction
from types import SimpleNamespace as N

import av
import numpy as np
import pytest
from PIL import Image

from babyvlm.benchmarks.devcv.read import find_tasks
from babyvlm.data.child_directed import Endpoint, EndpointError, _Garbled, _kept, _taken, _unpack
from babyvlm.data.conversations import load_records
from babyvlm.data.pretraining import segment, segment_all
from babyvlm.data.saycam import seconds
from babyvlm.data.video import VideoError, frames_at, video_seconds, write_video


@pytest.mark.parametrize('stamp, right', [('0:01.5', 1), ('0:05,25', 5), ('1:02:03.250', 3723), ('0:01.500', 1), ('1.05', 65), ('0:3', 30), ('0:3.5', 3),
                                          ('0:65', None), ('0:05.', None), ('1:61:00', None), ('5', 300), ('1:05-1:20', 65), ('', None)])
def test_after_a_colon_a_dot_is_a_fraction(stamp, right): assert seconds(stamp) == right


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


def film(path, begin=0., shades=range(0, 200, 10), fps=2):
    "A grey film, one shade a frame, that begins at a time."
    with av.open(str(path), 'w') as box:
        stream = box.add_stream('mpeg4', rate=fps)
        stream.width = stream.height = 64; stream.pix_fmt = 'yuv420p'; stream.codec_context.gop_size = 4
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


@pytest.mark.parametrize('reply', [answer(5), answer([dict(type='image_url', url='x')]), answer([dict(type='text', text=None)]), N(choices=None, usage=None),
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
