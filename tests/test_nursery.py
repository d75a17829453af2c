"The nursery: same seed, same bytes; the real loaders read it; its truth holds at size."
import csv
import hashlib
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from babyvlm.data.saycam import read_transcript
from babyvlm.nursery.drawing import STYLES
from babyvlm.nursery.scenes import LABELED_S, NOUNS, Subject, draw_scene, phrase_book, says, stage
from babyvlm.nursery.world import Nursery, blind_observer, ideal_observer, ideal_scores, load_truth

def rows(path):
    with open(path, newline='', encoding='utf-8') as f: return list(csv.DictReader(f))

def digest(folder):
    files = sorted(p for p in Path(folder).rglob('*') if p.is_file())
    return hashlib.sha256(b''.join(p.relative_to(folder).as_posix().encode() + p.read_bytes() for p in files)).hexdigest()

@pytest.fixture(scope='module')
def bench(tmp_path_factory):
    return Nursery(seed=5).write_benchmarks(tmp_path_factory.mktemp('bench'), labeled_s=4, vtwt=240, winoground=100, captions=40)

def items(bench):
    vtwt = [SimpleNamespace(choice='options', images=(r['image'],), options=(r['positive_phrase'], r['negative_phrase']))
            for r in rows(bench/'vtwt.csv')]
    table = rows(bench/'labeled_s.csv')
    labeled = [SimpleNamespace(choice='images', images=tuple(r['image'] for r in table[i:i + 4]), options=(table[i]['target_category'],))
               for i in range(0, len(table), 4)]
    table = rows(bench/'baby_winoground.csv')
    wino = [SimpleNamespace(choice='both', images=(a['image'], b['image']), options=(a['positive_phrase'], a['negative_phrase']))
            for a,b in zip(table[::2], table[1::2])]
    return vtwt, labeled, wino

@pytest.mark.parametrize('write', ['write_saycam', 'write_web', 'write_benchmarks'])
def test_same_seed_same_bytes(tmp_path, write):
    kw = dict(labeled_s=1, vtwt=6, winoground=2, captions=2) if write == 'write_benchmarks' else dict(n=12)
    a,b,c = (digest(getattr(Nursery(seed), write)(tmp_path/name, **kw)) for seed,name in ((1, 'a'), (1, 'b'), (2, 'c')))
    assert a == b != c

def test_loader_reads_what_was_planted(tmp_path):
    root = Nursery(seed=7).write_saycam(tmp_path/'s', n=210)
    planted = {(r['session'], int(r['utterance_num'])): (r["utterance"], int(r["start"])) for r in rows(root/'planted.csv')}
    read = {}
    for path in sorted((root/'transcripts').iterdir()):
        for u in read_transcript(path)[0]: read[path.stem, u.utterance_num] = (u.utterance, u.start)
    assert read.keys() == planted.keys()
    assert read == planted

def test_rotated_frames_are_upside_down(tmp_path):
    a,b = (Nursery(seed=3).write_saycam(tmp_path/str(r), n=2, rotate=r) for r in (False, True))
    for path in (a/'frames').iterdir():
        up,down = (np.asarray(Image.open(p).convert('RGB'), float) for p in (path, b/'frames'/path.name))
        assert abs(up - down[::-1, ::-1]).mean() < 4 < abs(up - down).mean()

def test_frames_are_numbered_at_five_a_second(tmp_path):
    root = Nursery(seed=3).write_saycam(tmp_path, n=20, fps=1, max_frames=9)
    table = rows(root/'planted.csv'); frames = [int(r['frame'].split('_')[-1][:2]) for r in table]
    assert set(frames) <= {0, 5, 10, 15, 20, 25, 30}
    per = Counter((r['session'], r['utterance_num']) for r in table)
    assert all(per[r['session'], r['utterance_num']] == int(r['end']) - int(r['start']) for r in table)

def test_ideal_is_right_and_blind_is_at_chance(bench):
    truth = load_truth(bench); vtwt,labeled,wino = items(bench)
    assert set(ideal_observer(vtwt, truth)) == {(1., 0.)}
    assert set(ideal_observer(labeled, truth)) == {(1., 0., 0., 0.)}
    assert set(ideal_observer(wino, truth)) == {((1., 0.), (0., 1.))}
    # each pair occurs both ways round, so every rule on the text alone is right exactly half of the time
    assert all(np.mean([a > b for a,b in blind_observer(vtwt, seed)]) == .5 for seed in range(50))
    assert all(len(set(s)) == 1 for s in blind_observer(labeled))
    truths = [truth[r['image']]['utterance'] for r in rows(bench/'SAYCam_caption.csv')]
    assert truths == [r['text'] for r in rows(bench/'SAYCam_caption.csv')]

def test_phrase_bias_is_a_text_prior(tmp_path):
    root = Nursery(seed=5).write_benchmarks(tmp_path, labeled_s=1, vtwt=200, winoground=0, captions=0, phrase_bias=.5)
    first = np.mean([r['positive_phrase'] < r['negative_phrase'] for r in rows(root/'vtwt.csv')])
    assert .65 < first < .85          # half of the pairs balanced, half always the first in the alphabet: 0.75

def test_benchmark_frames_are_held_out_and_distinct(bench):
    train = {s.name for s in Nursery(seed=5).sessions(200, 'S')}
    frames = [r['image'] for name in ('vtwt', 'SAYCam_caption') for r in rows(bench/f'{name}.csv')]
    assert len(set(frames)) == len(frames) and not {f.rsplit('_', 2)[0] for f in frames} & train
    triples = {tuple(r.values()) for r in rows(bench/'vtwt.csv')}
    pos = [r for r in rows(bench/'baby_winoground.csv') if r['image_tag'] == 'positive']
    assert all((r['image'], r['positive_phrase'], r['negative_phrase']) in triples for r in pos)
    assert all((bench/'frames'/r['image']).exists() for r in rows(bench/'baby_winoground.csv'))

def test_every_labeled_s_word_is_a_target_equally_often(bench):
    table = rows(bench/'labeled_s.csv')[::4]
    assert Counter(r['target_category'] for r in table) == {c: 4 for c in LABELED_S}
    assert all(r['target_category'] == r['real_category'] == r['image'].split('/')[0] for r in table)

def test_every_subject_can_be_staged_in_every_style():
    for i,s in enumerate(phrase_book() + [Subject(n) for n in NOUNS]):
        c = stage(s, random.Random(i)); assert says(c.graph(), s.phrase), s
        for style in STYLES.values(): assert draw_scene(c, 32, style, i).size == (32, 32)

def test_camera_never_sees_the_edge_of_the_paper():
    # beyond the paper the picture would be pure black, which no style paints
    for seed in range(300):
        c = stage(Subject('floor'), random.Random(seed), clutter=0.)
        pixels = np.asarray(draw_scene(c, 32)); corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.max(axis=1).min() > 40, seed

def test_boxes_are_where_the_pixels_change():
    for seed in range(20):
        c = stage(Subject('ball'), random.Random(seed), clutter=0.)
        c = replace(c, camera=replace(c.camera, blur=0.), place='studio')
        diff = abs(np.asarray(draw_scene(c, 128), float) - np.asarray(draw_scene(replace(c, things=()), 128), float)).max(2) > 60
        y,x = np.where(diff); x0,y0,x1,y1 = (128*v for v in c.graph()['things'][0]['box'])
        assert x.min() >= x0 - 12 and x.max() <= x1 + 12 and y.min() >= y0 - 12 and y.max() <= y1 + 12
        assert x.max() - x.min() > .5*(x1 - x0)

def test_a_thousand_scenes_a_second():
    scenes = [stage(s, random.Random(i)) for i,s in enumerate(phrase_book())]
    for c in scenes: draw_scene(c, 64)
    start = time.process_time()
    for i,c in enumerate(scenes): draw_scene(c, 64, decor=i)
    assert len(scenes)/(time.process_time() - start) > 400   # measured 1,400 on a quiet core; this is a shared one

def test_faults_name_the_cure(tmp_path):
    with pytest.raises(ValueError, match='choose S, A or Y'): Nursery().write_saycam(tmp_path, n=1, child='Z')
    with pytest.raises(ValueError, match='raise vtwt'): Nursery().write_benchmarks(tmp_path, vtwt=1, winoground=2)
    with pytest.raises(KeyError, match='write_benchmarks'): ideal_scores({}, ['x.jpg'], ['ball'])
    with pytest.raises(KeyError, match='register it'): draw_scene(stage(Subject('unicorn'), Nursery().rng('u')))
