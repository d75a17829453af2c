"""Faults and laws of the V2 pretraining set that a page cannot show."""
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from babyvlm.data.conversations import load_records
from babyvlm.data.pretraining import (Flow, Step, best_frames, clip_records, even, interleave, numbered,
                                      recaption, sequence_records, single_records, write_formats)
from babyvlm.data.saycam import Ledger
from babyvlm.data.segments import Clip, fitting, long_enough, parse_clip, score_clips, segment, write_frames
from babyvlm.data.video import VideoError, frames_at, video_seconds, write_video

NAME = 'S_20140420_1803_01'
clips = st.lists(st.tuples(st.sampled_from(['S_20140420_1803_01', 'A_20140420_1803_02']), st.integers(0, 60), st.integers(1, 9)),
                 min_size=1, max_size=60, unique_by=lambda t: (t[0], t[1]))


def spell(rows): return [Clip(r, 10_000*a, 10_000*a + 1000*d, 'some words here') for r, a, d in rows]


@settings(max_examples=60, deadline=None)
@given(clips, st.integers(1, 4), st.integers(0, 5), st.one_of(st.none(), st.integers(1, 6)), st.floats(0, 40))
def test_sequences_obey_their_limits(rows, low, more, stride, gap):
    made = spell(rows)
    got = interleave(made, low, low + more, stride, gap)
    assert got.ledger.seen == len(made)
    used = {c.uid for s in got.sequences for c in s}
    assert got.ledger.kept == len(used)
    for s in got.sequences:
        assert low <= len(s) <= low + more
        assert len({c.recording for c in s}) == 1
        assert all(b.start > a.start and b.start - a.end <= 1000*gap for a, b in zip(s, s[1:]))
    if stride is None: assert len(used) == sum(map(len, got.sequences))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_frame_names_survive_a_round_trip(start, duration):
    c = Clip(NAME, start, start + duration)
    assert c.n_frames == int(duration/1000) + 3 == len(c.times)
    assert c.times[0] == pytest.approx(start/1000 - 1) and c.times[-1] <= c.end/1000 + 1 + 1e-9
    assert all(parse_clip(c.frame(k)) == (c, k) for k in (1, c.n_frames))


@pytest.mark.parametrize('name', ['S_20140420_1803_01', 'x', 'S_20140420_1803_01_5_a', 'S_20140420_1803_01_9_5',
                                  'S_20140420_1803_01_0_900_frame_4', 'S_20140420_1803_01_0_900_frame_0'])
def test_bad_names_are_refused(name):
    with pytest.raises(ValueError): parse_clip(name)


def test_bad_rows_are_ledger_lines(tmp_path):
    rows = [dict(start=0, end=900, text='all is well'), dict(start=900, end=900, text='no time at all'), dict(text='no time'),
            dict(start=float('nan'), end=1, text='not a number'), dict(start=1000, end=1900, text='  '),
            dict(start=2000, end=2004, text='four milliseconds'), dict(start=-5, end=10, text='before the start')]
    path = tmp_path/f'{NAME}.json'
    path.write_text(json.dumps(dict(utterances=rows)))
    got = segment(path)
    assert (got.ledger.seen, got.ledger.kept) == (7, 1)
    assert sum(got.ledger.skipped.values()) == 6
    path.write_text('[]')
    with pytest.raises(ValueError, match='recognizedPhrases'): segment(path)


def test_unreadable_videos_cost_their_own_clips(tmp_path):
    (tmp_path/f'{NAME}.mp4').write_bytes(b'nothing')
    other = 'A_20140420_1803_02'
    write_video(tmp_path/f'{other}.mp4', [Image.new('RGB', (32, 32), (9*k, 0, 0)) for k in range(12)])
    class Always:
        n_frames = 2
        def similarity(self, clips, texts): return np.full(len(clips), .5)
    three = [Clip(NAME, 0, 900, 'a b c'), Clip(other, 0, 900, 'a b c'), Clip(other, 90_000, 90_900, 'a b c')]
    scores = score_clips(three, tmp_path, Always())
    assert fitting(three, scores).clips == three[1:2]
    frames = write_frames(three, tmp_path, tmp_path/'out')
    assert frames.ledger.seen == 9
    assert frames.ledger.skipped == {'outside the recording': 4, 'video cannot be read': 3}   # one before the start, three after the end
    with pytest.raises(VideoError): video_seconds(tmp_path/f'{NAME}.mp4')
    with pytest.raises(ValueError, match='is nan'): fitting(three[1:2], {three[1].uid: float('nan')})


def test_every_time_of_a_video_is_the_last_frame_before_it(tmp_path):
    path = write_video(tmp_path/'v.mp4', [Image.new('RGB', (16, 16), (0, 0, 12*k)) for k in range(20)], fps=4)
    times = sorted(np.random.default_rng(0).uniform(0, 4.99, 40))
    blue = [np.asarray(im)[8, 8, 2] for im in frames_at(path, times)]
    assert np.abs(np.array(blue) - [12*int(4*t) for t in times]).max() < 8


def test_ids_run_on_and_files_read_back(tmp_path):
    made = [Clip(NAME, 2000*i, 2000*i + 1500, f'word number {i}') for i in range(8)]
    frames = {c.uid: [f'images/{c.frame(k)}' for k in (1, 2, 3)] for c in made}
    rows = dict(image=[f for fs in frames.values() for f in fs], utterance=[c.utterance for c in made for _ in range(3)])
    chains = sequence_records(interleave(made).sequences, {u: f[0] for u, f in frames.items()})
    parts = dict(single_image=single_records(rows), multi_image=clip_records(made, frames, 2), interleaved=chains)
    assert write_formats(parts, tmp_path)['mix_format'] == 24 + 8 + 1
    back = load_records(tmp_path/'mix_format.json')
    assert [r.id for r in back] == [str(i) for i in range(33)]
    assert [r.id for r in load_records(tmp_path/'interleaved.json')] == ['32']
    assert {len(r.images) for r in back[24:32]} == {2}
    assert set(numbered({})) == {'single_image', 'multi_image', 'interleaved', 'mix_format'}


def test_captions_that_are_missing_drop_the_record_and_say_why():
    class Half:
        def describe(self, path): return ('', 'refused') if 'bad' in str(path) else ('a cup', '')
    made = sequence_records([[Clip(NAME, 0, 900, 'x'), Clip(NAME, 1000, 1900, 'y')]]*2,
                            {f'{NAME}_0_900': 'good.jpg', f'{NAME}_1000_1900': 'good.jpg'})
    made[1] = replace(made[1], images=('good.jpg', 'bad.jpg'))
    kept, ledger = recaption(made, Half(), '.')
    assert len(kept) == 1 and ledger.skipped == {'refused': 1}
    assert kept[0].answers == ('a cup', 'a cup')


def test_small_laws():
    assert even('abcdefgh', 1) == ['a'] and even('abc', 8) == list('abc')
    assert best_frames({f'{NAME}_0_900_frame_2': .1, f'{NAME}_0_900_frame_1': .1}) == {f'{NAME}_0_900': f'{NAME}_0_900_frame_1'}
    assert long_enough([Clip(NAME, 0, 500, 'a b c')]).clips == []
    with pytest.raises(ValueError, match='do not add up'):
        Flow((Step('x', Ledger(1, 1, {}, {})),), dict(train=dict(single_image=1, multi_image=1, interleaved=1, mix_format=2))).check()
