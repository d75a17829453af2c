"DevCV: faults of released files, laws of the builders, ideal and blind observers, kill and resume."
import json
import random
import shutil
import warnings
from collections import Counter

import numpy as np
import pytest
import typer

from babyvlm.benchmarks.audit import guess
from babyvlm.benchmarks.devcv.build import LOOKS, corner_crop, likeness
from babyvlm.benchmarks.devcv.crops import Pool
from babyvlm.benchmarks.devcv.files import toy_devcv, truth_file
from babyvlm.benchmarks.devcv.read import Fault, find_file, find_tasks, load_items
from babyvlm.benchmarks.devcv.score import (ask, build_items, by_number, credit, evaluate_devcv, ideal_replies, leaderboard_scores,
                                            overall, round_item, score_items)
from babyvlm.benchmarks.devcv.shortcuts import open_ways, option_table, shortcut_audit
from babyvlm.benchmarks.devcv.tasks import TASKS, build, task_name
from babyvlm.data.annotations import Bank, Box, Frame, load_bank
from babyvlm.estimate import versus_chance
from babyvlm.items import Item, Reply, Status
from babyvlm.nursery.clips import draw_bank
from babyvlm.nursery.world import Nursery
from babyvlm.pictures import open_image
from babyvlm.run.commands import one_line

SIZES = {t: 24 for t in TASKS} | {'memory': 12, 'vdr-binary': 16, 'vdr-open': 16}


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp('toy')
    return root, toy_devcv(root, Nursery(seed=5), train={'vdr-binary': 4, 'count': 6, 'subitize': 4}, val=0, test=SIZES, recordings=9)


@pytest.fixture(scope='module')
def bank(toy): return load_bank(toy[0]/'banks'/'test')


class Says:
    "Answers each item by a function."
    def __init__(self, say, name='says'): self.say, self.name, self.asked = say, name, []
    def reply(self, items):
        self.asked += items
        for i in items: [open_image(p) for p in i.images]
        return [Reply(i.uid, text=self.say(i)) for i in items]


@pytest.mark.parametrize('source', ['home', 'elsewhere', 'hardened'])
def test_ideal_is_always_right(toy, source):
    for task in find_tasks(toy[0]/source):
        items = load_items(toy[0]/source, task, strict=True)
        scores = score_items(items, ideal_replies(items))
        assert {e.value for e in scores.values()} == {1.}, (source, task, scores)
        assert {e.value for e in score_items(items, ideal_replies(items), 'devcv').values()} == {1.}


def test_blind_is_at_chance(toy):
    for task in find_tasks(toy[0]/'home'):
        items = load_items(toy[0]/'home', task)
        table = shortcut_audit(items, names=('most frequent answer', 'text only'))
        assert not open_ways(table), open_ways(table)
        hits = []
        for seed in range(30):
            rng = random.Random(f'{task}{seed}')
            if task == 'memory': replies = [Reply(i.uid, text=json.dumps([rng.choice(r['options']) for r in i.rounds])) for i in items]
            else: replies = guess(items, seed)
            hits.append({m: e.value for m, e in score_items(items, replies).items()})
        chance = {m: e.chance for m, e in score_items(items, replies).items()}
        for m, c in chance.items():
            values = [h[m] for h in hits]
            assert abs(np.mean(values) - c) < 4*np.std(values)/30**.5 + 1e-9, (task, m, np.mean(values), c)


def test_no_recording_is_shared_and_held_out_tasks_are_not_trained_on(toy):
    root, made = toy
    assert not set(made['home', 'train']) & {t for t, x in TASKS.items() if x.held_out} and set(made['home', 'test']) == set(TASKS)
    seen = {s: set(load_bank(root/'banks'/s).recordings()) for s in ('train', 'test')}
    assert not seen['train'] & seen['test']


def test_train_clips_come_twice(toy):
    rows = json.loads(toy[1]['home', 'train']['vdr-binary'].read_text())
    assert [r['id'].rsplit('_', 1)[1] for r in rows] == ['original']*4 + ['augmented']*4


def test_answers_are_even(toy):
    for task in ('picture_vocabulary', 'localize', 'leftright', 'spatialdetails', 'compare_real', 'compare_synthetic', 'count', 'subitize'):
        counts = Counter(i.gold for i in load_items(toy[0]/'home', task))
        assert max(counts.values()) - min(counts.values()) <= 1, (task, counts)
    t = option_table(toy[0]/'home').set_index('task')
    assert (t['items'] == [SIZES[k] for k in t.index]).all() and t.left_out.sum() == 0


def test_hardened_variants_close_the_way(bank, tmp_path):
    loose = {t: build_items(bank, t, tmp_path/'a', n, start='canvas') for t, n in dict(leftright=30, count=120, localize=60).items()}
    tight = {t: build_items(bank, t, tmp_path/'b', n, variant='hardened') for t, n in dict(leftright=30, count=120, localize=40).items()}
    for task, rules in dict(leftright=['pixel matcher', 'odd one out'], count=['object size only'], localize=['busiest corner']).items():
        for rule in rules:
            open_, shut = (shortcut_audit(x[task], names=[rule]).loc[rule, 'acc'] for x in (loose, tight))
            assert versus_chance(open_) == 'above', (rule, open_)
            assert versus_chance(shut) != 'above' and shut.value < open_.value - .15, (rule, open_, shut)


def test_hardened_localization_needs_the_word(toy):
    items = load_items(toy[0]/'hardened', 'localize')
    for a, b in zip(items[::2], items[1::2]):
        assert open_image(a.images[0]) == open_image(b.images[0]) and a.gold != b.gold and a.meta['word'] != b.meta['word']


@pytest.mark.parametrize('box,size,crop', [((158, 6, 197, 155), (640, 480), (158, 6, 640, 480)), ((400, 10, 50, 60), (640, 480), (0, 10, 450, 480)),
                                           ((10, 400, 50, 60), (640, 480), (10, 0, 640, 460)), ((0, 0, 640, 480), (640, 480), (0, 0, 640, 480))])
def test_localization_crop(box, size, crop): assert corner_crop(box, *size) == crop


def test_memory_structure(toy):
    rows = json.loads(toy[1]['home', 'test']['memory'].read_text())
    for r in rows:
        said = [t['value'] for t in r['conversations'] if t['from'] == 'gpt']
        new = [l['AB'.index(a)] for l, a in zip(r['labels'], said)]
        old = [l[1 - 'AB'.index(a)] for l, a in zip(r['labels'][1:], said[1:])]
        assert len(said) == 15 and len(r['image']) == 29 and len(set(new)) == 15
        assert old[:4] == new[:4] and sorted(old[4:9]) == sorted(old[9:]) == sorted(new[:5])


def test_memory_uses_the_models_own_answers(toy):
    items = load_items(toy[0]/'home', 'memory')[:2]
    model = Says(lambda i: 'B')
    replies = ask(model, items)
    assert [i.rounds[-1]['answer'] for i in model.asked if i.rounds] == ['B']*28
    scores = score_items(items, replies)
    new_is_b = np.mean([r['gold'] == 'B' for i in items for r in i.rounds[5:]])
    assert scores['acc_testing_raw'].value == pytest.approx(new_is_b)


def test_memory_pairs_without_labels(toy, tmp_path):
    folder = shutil.copytree(toy[1]['home', 'test']['memory'].parent, tmp_path/'memory')
    rows = json.loads((folder/'data.json').read_text()); labelled = [i.meta['pairs'] for i in load_items(folder, 'memory')]
    for r in rows: del r['labels']
    (folder/'data.json').write_text(json.dumps(rows))
    assert [i.meta['pairs'] for i in load_items(folder, 'memory')] == labelled      # the file comes back
    for k, r in enumerate(rows):                                                     # a copy of the file comes back
        for j, p in enumerate(r['image']): shutil.copy(folder/p, folder/f'images/x_{k}_{j}.jpg'); r['image'][j] = f'images/x_{k}_{j}.jpg'
    (folder/'data.json').write_text(json.dumps(rows))
    assert [i.meta['pairs'] for i in load_items(folder, 'memory')] == labelled
    for p in (folder/'images').glob('x_*'): p.write_bytes(p.read_bytes() + p.name.encode())
    items = load_items(folder, 'memory')
    adjusted = score_items(items, ask(Says(lambda i: i.options[-1]), items))['acc_testing_adjusted']
    assert adjusted.n == 0 and adjusted.skipped == len(items)


FAULTS = {'image count does not match tokens': lambda r: r['image'].append(r['image'][0]),
          'answer outside the options': lambda r: r['conversations'][-1].update(value='F'),
          'path leaves the folder': lambda r: r['image'].__setitem__(0, 'images/../../x.jpg'),
          'missing picture': lambda r: r['image'].__setitem__(0, 'images/gone.jpg'),
          'empty conversation': lambda r: r.update(conversations=[]),
          'bad turn': lambda r: r['conversations'].__setitem__(0, {'from': 'human'}),
          'bad record': lambda r: r['conversations'][0].update({'from': 'user'}),
          'no picture': lambda r: r.update(image=[])}


@pytest.mark.parametrize('reason', FAULTS)
def test_each_fault_is_named_and_counted(toy, tmp_path, reason):
    folder = shutil.copytree(toy[1]['home', 'test']['localize'].parent, tmp_path/'localize')
    rows = json.loads((folder/'data.json').read_text())
    FAULTS[reason](rows[3]); (folder/'data.json').write_text(json.dumps(rows))
    items = load_items(folder, 'localize')
    assert items.ledger.skipped == {reason: 1} and items.ledger.seen == len(rows) and len(items) == len(rows) - 1
    assert items.faults[0].reason == reason and 'record 3' in str(items.faults[0])
    with pytest.raises(Fault, match='record 3'): load_items(folder, 'localize', strict=True)
    scores = score_items(items, ask(Says(lambda i: 'A'), items))
    assert scores['acc'].skipped == 1 and scores['acc'].n == len(rows) - 1


def test_sixteen_rounds_and_an_unreadable_picture(toy, tmp_path):
    folder = shutil.copytree(toy[1]['home', 'test']['memory'].parent, tmp_path/'memory')
    rows = json.loads((folder/'data.json').read_text())
    rows[1]['conversations'] += rows[1]['conversations'][-2:]; rows[1]['image'] += rows[1]['image'][-2:]
    rows[2]['conversations'][2]['value'] = "Let's try more. Touch the new image. (A) <image>"; rows[2]['image'].pop()
    (folder/rows[3]['image'][5]).write_bytes(b'<html>not a picture')
    (folder/'data.json').write_text(json.dumps(rows))
    items = load_items(folder, 'memory')
    assert items.ledger.skipped == {'wrong number of rounds': 1, 'wrong round': 1}
    replies = ask(Says(lambda i: 'A'), items)
    lost = [r for r in replies if r.status == Status.SKIPPED]
    assert len(lost) == 1 and 'a web page' in lost[0].reason
    assert score_items(items, replies)['acc_learning'].skipped == 3


def test_every_kind_of_junk_is_a_fault(tmp_path):
    junk = [None, 3, 'x', [], {}, {'id': 1}, {'conversations': 3, 'image': 'a'}, {'conversations': [{'from': 'human', 'value': '<image> (A) (B)'}], 'image': ['a']},
            {'conversations': [{'from': 'human', 'value': 'a'}, {'from': 'gpt', 'value': 'A'}], 'image': [3]},
            {'conversations': [{'from': 'human', 'value': '<image> (A) (B)'}, {'from': 'gpt', 'value': 'A'}], 'image': ['a\0b'], 'labels': 3},
            {'conversations': [{'from': 'human', 'value': '<image> (A) (B)'}, {'from': 'gpt', 'value': 'A'}], 'image': ['n'*5000]}]
    for task in TASKS:
        (tmp_path/'data.json').write_text(json.dumps(junk))
        items = load_items(tmp_path/'data.json', task)
        assert len(items) == 0 and items.ledger.seen == len(junk) == len(items.faults)
    for text in ('{', '{}', '3'):
        (tmp_path/'data.json').write_text(text)
        with pytest.raises(ValueError, match='data.json'): load_items(tmp_path/'data.json', 'count')


def test_released_wordings(tmp_path):
    "Forms of the pinned samples: other sources, bare paths, missing tokens, singular, notes last."
    from PIL import Image
    for k in range(4): Image.new('RGB', (8, 8), (k*40, 9, 9)).save(tmp_path/f'{k}.png')
    four = [f'{k}.png' for k in range(4)]
    def one(task, question, answer, n, **more):
        row = dict(id='count_1', conversations=[{'from': 'human', 'value': question}, {'from': 'gpt', 'value': answer}], image=four[:n], **more)
        (tmp_path/'data.json').write_text(json.dumps([row, row])); return load_items(tmp_path/'data.json', task, strict=True)[0]
    pv = one('pv', "<image> Touch the image of 'ball' (A) top left image (B) top right image (C) bottom left image (D) bottom right image.", 'C', 1)
    assert pv.options == tuple('ABCD') and pv.gold == 2 and pv.meta['word'] == 'ball'
    assert one('compare_real', 'Which image has more of cup? (A) <image> (B) <image>', 'A', 2, notes='first should have 4').meta['word'] == 'cup'
    count = one('count', 'How many bottle do you see?', '11', 1)
    assert count.prompt.startswith('<image>') and count.options[count.gold] == '11'
    vdr = one('vdr_binary', "<image><image> does the ball leave the frame through the top side of the frame or the bottom side of the frame? "
              "respond ONLY with 'top' or 'bottom'.", 'bottom', 2, gif='x.gif')
    assert vdr.options == ('top', 'bottom') and vdr.gold == 1
    spatial = one('spatialdetails', '<image> Which ...? (A) <image> (B) <image> (C) <image>. Pay attention to details and give a letter A-C.', 'B', 4)
    assert spatial.options == tuple('ABC')
    for item in (pv, count, vdr): assert 'notes' not in str(item) and 'gif' not in str(item) and 'bb' not in item.meta
    row = json.loads((tmp_path/'data.json').read_text())[0]; row['image'] = '0.png'; row['conversations'][0]['value'] = '<image> How many cups do you see?'
    row['conversations'][1]['value'] = '3'; (tmp_path/'data.json').write_text(json.dumps([row]))
    assert len(load_items(tmp_path/'data.json', 'count', strict=True)) == 1


def test_killed_run_resumes(toy, tmp_path):
    class Dies(Says):
        def reply(self, items):
            if len(self.asked) > 30: raise KeyboardInterrupt
            return super().reply(items)
    whole = evaluate_devcv(Says(lambda i: 'A'), toy[0]/'home', ['memory', 'count'], batch_size=4)
    with pytest.raises(KeyboardInterrupt): evaluate_devcv(Dies(lambda i: 'A'), toy[0]/'home', ['memory', 'count'], journals=tmp_path, batch_size=4)
    again = Says(lambda i: 'A')
    done = evaluate_devcv(again, toy[0]/'home', ['memory', 'count'], journals=tmp_path, batch_size=4)
    assert {t: r.scores for t, r in done.items()} == {t: r.scores for t, r in whole.items()}
    assert len(again.asked) < 12*15 + 24


def test_likelihood_ranking_of_memory_and_letters(toy):
    class Ranks:
        "Likes the last option; ties when there is one."
        def loglik(self, items): return [np.arange(len(i.options), dtype=float) for i in items]
    out = evaluate_devcv(Ranks(), toy[0]/'home', ['memory', 'localize'])
    assert out['localize'].scores['acc'].value == np.mean([i.gold == 3 for i in out['localize'].items])
    assert json.loads(out['memory'].replies[0].text)[:3] == ['A', 'B', 'B']
    class Cannot:
        "Has no favourite."
        def loglik(self, items): return [np.zeros(len(i.options)) for i in items]
    assert json.loads(ask(Cannot(), out['memory'].items[:1])[0].text)[:3] == ['A', ['A', 'B'], ['A', 'B']]


def test_number_scores_and_rules():
    items = [Item(f'count/{k}', 'devcv/count', ('a',), options=tuple(map(str, range(1, 13))), gold=k, meta=dict(answer='number')) for k in range(12)]
    said = ['One.', '2', 'three', 'four', '5', 'I see 6 cups', 'seven', '8', 'nine', 'ten', 'eleven', '']
    replies = [Reply(i.uid, text=t) for i, t in zip(items, said)]
    assert score_items(items, replies)['acc'].value == 11/12 and score_items(items, replies)['acc'].no_answer == 1
    assert score_items(items, replies, 'devcv')['acc'].value == 10/12        # the published parser stops at ten
    table = by_number(items, replies)
    assert [e.value for e in table['acc']] == [1.]*11 + [0.]
    with pytest.raises(ValueError, match='stands at'): score_items(items, replies[::-1])


def test_directions():
    options = 'top', 'bottom', 'left', 'right', 'top right', 'top left', 'bottom right', 'bottom left'
    items = [Item(f'v/{k}', 'devcv/vdr-open', ('a',), options=options, gold=2, meta=dict(answer='direction')) for k in range(4)]
    replies = [Reply(i.uid, text=t) for i, t in zip(items, ('left', 'Left.', 'top left', 'right'))]
    fair, published = (score_items(items, replies, r) for r in ('strict', 'devcv'))
    assert (fair['acc_exact'].value, fair['acc_adjacent'].value, fair['acc_adjacent'].chance) == (.5, .75, .375)
    assert (published['acc_exact'].value, published['acc_adjacent'].value) == (.25, .5)


def test_leaderboard(toy):
    board = leaderboard_scores({'results': {'baby_pv': {'acc,none': .5, 'alias': 'x'}, 'baby_memory': {'acc_learning': 1.}, 'mmlu': {'acc': 1.}}})
    assert board['baby_pv'] == .5 and board['baby_memory'] == 0. and board.unknown == ('mmlu',) and len(board) == 11
    assert board.overall == pytest.approx(100*.5/11) and 'baby_memory' in board.missing
    for bad in (True, 1.2, -.1, float('nan'), '0.5'):
        with pytest.raises(ValueError, match='no fraction'): leaderboard_scores({'baby_pv': {'acc': bad}})
    with pytest.raises(ValueError, match='no known score'): leaderboard_scores({'mmlu': {'acc': 1.}})
    assert overall({'count': {'acc': .5}}, 'leaderboard').missing[0] == 'picture_vocabulary'
    assert leaderboard_scores({'Picture Vocabulary': {'acc': .5}, 'vdr_binary': {'acc': 1.}})['baby_pv'] == .5, 'other spellings of a task'


def test_builders_are_deterministic_and_say_when_they_cannot(bank):
    for task in TASKS: assert build(task, bank, 5, seed=1) == build(task, Pool(bank), 5, seed=1) != build(task, bank, 5, seed=2)
    few = Bank(bank.root, bank.frames[:2], (), 'saycam')
    for task in ('memory', 'spatialdetails', 'vdr-open', 'localize'):
        with pytest.raises(ValueError, match=task): build(task, few, 50)


def test_other_corpora_by_the_annotation_format(tmp_path):
    "A bank that the nursery did not draw: plain pictures, real sizes."
    from PIL import Image
    rng, frames = random.Random(0), []
    (tmp_path/'f').mkdir()
    for k in range(24):
        Image.linear_gradient('L').rotate(90).resize((640, 480)).convert('RGB').save(tmp_path/f'f/{k}.jpg')
        boxes = tuple(Box(c, (20 + 300*(j % 2), 20 + 220*(j // 2), 100 + k, 80)) for j, c in enumerate(rng.sample(['cup', 'toy cup', 'shoe', 'book', 'dog'], 4)))
        frames.append(Frame(f'f/{k}.jpg', f'r{k % 4}', 640, 480, boxes, {'cup': 1 + k % 7}))
    Bank(tmp_path, tuple(frames), (), 'ego4d').save('parquet')
    bank = load_bank(tmp_path)
    for task in ('picture_vocabulary', 'localize', 'leftright', 'spatialdetails', 'compare_real', 'compare_synthetic', 'count', 'subitize_real'):
        drafts = build(task, bank, 8)
        assert len(drafts) == 8 and all(len(d.pictures) == sum(q.count('<image>') for q, _ in d.turns) for d in drafts)
    assert 'toycups' in ' '.join(q for d in build('count', bank, 40) for q, _ in d.turns)


def size(file): return open_image(file[0]).size


@pytest.mark.parametrize('side', [64, 160])
def test_objects_are_drawn_at_the_size_they_are_shown(bank, side):
    for task in ('picture_vocabulary', 'looking_while_listening', 'memory', 'spatialdetails', 'localize'):
        for d in build(task, bank, 4, side=side):
            for file, shown in zip(d.pictures, d.shows):
                if 'box' in shown or task == 'localize': assert min(size(file)) >= side, (task, size(file))
                else: assert size(file)[0] >= side
    for task in ('count', 'compare_real', 'leftright', 'vdr-open'):
        for d in build(task, bank, 3, side=side): assert all(size(f)[0] >= side for f in d.pictures)


def test_what_is_drawn_again_is_what_was_cut(bank):
    for f in bank.frames[:6]:
        for b in f.boxes:
            cut = open_image(bank.root/f.image).crop([round(v) for v in (b.xywh[0], b.xywh[1], b.xywh[0] + b.xywh[2], b.xywh[1] + b.xywh[3])])
            drawn = Pool(bank, side=96).view(f.image, b.xywh)
            a, c = (np.asarray(p.resize((4, 4)), float).ravel() for p in (cut, drawn))
            assert np.abs(a - c).mean() < 14, (f.image, b.category)


def test_photographs_are_cut_as_they_are(bank, tmp_path):
    shutil.copytree(bank.root/'images', tmp_path/'images'); bank.save()
    shutil.copy(bank.root/'frames.json', tmp_path)
    photographs = load_bank(tmp_path)
    for f in photographs.frames[:5]:
        for b in f.boxes: assert abs(Pool(photographs, side=160).view(f.image, b.xywh).size[0] - b.xywh[2]) < 2
    assert [size(p)[0] for p in build('count', photographs, 3)[0].pictures] == [64]
    for knob in (dict(style='web'), dict(clutter=2), dict(occlusion=.2)):
        with pytest.raises(ValueError, match='no drawn frame'): Pool(photographs, **knob)


def test_each_canvas_holds_something_unless_it_may_be_empty(bank, tmp_path):
    assert all(s['counts'][d.facts['word']] > 0 for d in build('compare_synthetic', bank, 80) for s in d.shows)
    items = build_items(bank, 'compare_synthetic', tmp_path, 80, least=0)      # as the published format allows
    assert any(not np.asarray(open_image(p)).any() for i in items for p in i.images)
    assert {e.value for e in score_items(items, ideal_replies(items)).values()} == {1.}


@pytest.mark.parametrize('task', ['picture_vocabulary', 'looking_while_listening'])
def test_neither_colour_nor_shape_gives_the_word_away(bank, task):
    boxes = {(f.image, b.xywh): b for f in bank.frames for b in f.boxes}
    drafts, found = build(task, bank, 160), Counter()
    for d in drafts:
        target, *others = sorted((boxes[s['frame'], tuple(s['box'])] for s in d.shows), key=lambda b: b.category != d.facts['word'])
        found.update(likeness(target, o) for o in others)
    for look, share in LOOKS.items(): assert abs(found[look]/found.total() - share) < .1, (look, found)
    assert all(c.colour for c in boxes.values())
    plain = build(task, bank, 20, looks=dict(neither=1))
    assert {l for d in plain for l in d.facts['looks']} == {'neither'}


KNOBS = [('picture_vocabulary', dict(looks=dict(colour=1))), ('picture_vocabulary', dict(looks=dict(shape=1))), ('picture_vocabulary', dict(choices=2)),
         ('looking_while_listening', dict(occlusion=.6)), ('count', dict(clutter=12, style='web')), ('compare_synthetic', dict(least=0)),
         ('vdr-open', dict(delay=4)), ('vdr-binary', dict(occlusion=.4)), ('memory', dict(learned=3)), ('memory', dict(learned=7)), ('localize', dict(clutter=12)),
         ('spatialdetails', dict(style='generated')), ('leftright', dict(style='elsewhere', clutter=6)), ('compare_real', dict(occlusion=.4))]


@pytest.mark.parametrize('task,knob', KNOBS, ids=lambda x: '-'.join(map(str, x)) if isinstance(x, dict) else x)
def test_knobs_make_it_harder_and_nothing_else(bank, tmp_path, task, knob):
    n = {'memory': 12, 'vdr-open': 16, 'vdr-binary': 16}.get(task, 40)
    items = build_items(bank, task, tmp_path, n, start='canvas', **knob)
    assert len(items) == n and {e.value for e in score_items(items, ideal_replies(items)).values()} == {1.}
    table = shortcut_audit(items, names=('most frequent answer', 'text only'))
    assert not open_ways(table), open_ways(table)
    assert build(task, bank, 4, **knob) == build(task, bank, 4, **knob)


GUESSES = {'whohasmore_synthetic': 'compare_synthetic', 'whohasmore_real': 'compare_real', 'picture_vocab_selected': 'picture_vocabulary', 'left_right': 'leftright',
           'spatial_details': 'spatialdetails', 'object_counting': 'count', 'delayed_response': 'vdr-binary', 'picture_vocab': 'picture_vocabulary',
           'looking_while_listening': 'looking_while_listening', 'who_has_more': 'compare_real', 'Who Has More': 'compare_real', 'Left-Right': 'leftright',
           'Memory': 'memory', 'VDR-Open': 'vdr-open', 'baby_count': 'count', 'Visual Delayed Response, open': 'vdr-open', 'subitizing_real': 'subitize_real'}
FORMS = ['{}/data.json', 'test/{}/data.json', '{}/test/data.json', '{}_test.json', '{}.json', 'dataset/{}_test.json', '{}/DATA.JSON', 'Test/{}/Data.json', '{}_TEST.JSON']


def put(file, rows='[]'): file.parent.mkdir(parents=True, exist_ok=True); file.write_text(rows); return file


def told(folder):
    """What is found in a folder, and what is said about the rest."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        return find_tasks(folder), [str(w.message) for w in said]


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', GUESSES)
def test_a_plain_guess_of_a_name_is_read(tmp_path, name, form):
    file = put(tmp_path/'sample'/form.format(name))
    assert told(tmp_path/'sample')[0] == {GUESSES[name]: file} and find_file(tmp_path/'sample', GUESSES[name]) == file
    assert task_name(name) == GUESSES[name]


def test_what_is_not_known_is_named(tmp_path):
    ours, record = put(tmp_path/'count/data.json'), '[{"conversations": []}]'
    put(tmp_path/'juggling/data.json'), put(tmp_path/'memmory_test.json', record), put(tmp_path/'dataset_info.json', '{}')
    put(tmp_path/'whohasmore_synthetic/data.json'), put(tmp_path/'object_counting/data.json'), put(tmp_path/'count/train/data.json')
    put(tmp_path/'tower/train/data.json'), put(tmp_path/'more/localize/data.json'), put(tmp_path/'more/croissant.json', '{}')
    found, said = told(tmp_path)
    assert found == {'compare_synthetic': tmp_path/'whohasmore_synthetic/data.json', 'count': ours}
    expected = {'juggling/data.json': "'juggling' is no DevCV task", 'memmory_test.json': "did you mean 'memory'?",
                'whohasmore_synthetic/data.json': 'is read as compare_synthetic', 'object_counting/data.json': 'count is read from another file'}
    for file, why in expected.items(): assert [s for s in said if f"'{file}'" in s and why in s], (file, said)
    assert len(said) == 4 and not any(m in s for s in said for m in ('info', 'tower', 'croissant'))
    put(tmp_path/'more/localize/data.json', record)
    assert [s for s in told(tmp_path)[1] if "pass the folder 'more'" in s or "'more/localize/data.json'" in s]
    shutil.rmtree(tmp_path/'count'), shutil.rmtree(tmp_path/'whohasmore_synthetic'), shutil.rmtree(tmp_path/'object_counting')
    with pytest.raises(FileNotFoundError, match="'juggling' is no DevCV task"): find_tasks(tmp_path)


def one_file(folder, *rows):
    """A file of records (question, answer, pictures); the pictures are drawn."""
    from PIL import Image
    for p in {p for *_, pictures in rows for p in pictures}:
        (folder/p).parent.mkdir(exist_ok=True); Image.new('RGB', (8, 8)).save(folder/p, 'PNG')
    records = [dict(id='x', image=list(p), conversations=[{'from': 'human', 'value': q}, {'from': 'gpt', 'value': a}]) for q, a, p in rows]
    return put(folder/'data.json', json.dumps(records))


@pytest.mark.parametrize('task', ['vdr-open', 'vdr-binary'])
def test_delayed_response_without_options_is_asked_openly(tmp_path, task):
    asked = "<image><image> Where did the dog's ball leave the dog's yard?"
    file = one_file(tmp_path, (asked, 'left', 'ab'), (asked + ' ', 'Top-right.', 'ab'), (asked + '?', 'behind', 'ab'),
                    ('<image> Is it the top-left or the bottom-left side?', 'bottom left', 'a'))
    items = load_items(file, task)
    assert [(i.prompt, len(i.options), i.options[i.gold]) for i in items][:2] == [(asked, 8, 'left'), (asked + ' ', 8, 'top right')]
    assert items[2].options == ('top left', 'bottom left') and items.ledger.skipped == {'answer outside the options': 1}
    replies = [Reply(i.uid, text=t) for i, t in zip(items, ('It went left.', 'top left', 'bottom left'))]
    exact = score_items(items, replies)['acc_exact']
    assert exact.value == pytest.approx(2/3) and exact.chance == pytest.approx((1/8 + 1/8 + 1/2)/3) and exact.skipped == 1


def test_links_that_lead_out_are_refused_unless_asked_for(tmp_path):
    (root := tmp_path/'root').mkdir(), (tmp_path/'else').mkdir()
    file = one_file(root, ('<image> How many cups?', '3', ['a']), ('<image> How many cups?', '4', ['out']), ('<image> How many cups?', '5', ['in']), ('<image> How many cups?', '6', ['d/a']))
    shutil.copy(root/'a', tmp_path/'else'/'a'), shutil.rmtree(root/'d'), (root/'out').unlink(), (root/'in').unlink()
    for name, target in {'out': '../else/a', 'in': 'a', 'd': '../else'}.items(): (root/name).symlink_to(target)
    items = load_items(file, 'count')
    assert [i.options[i.gold] for i in items] == ['3', '5'] and items.ledger.skipped == {'link leaves the folder': 2}
    assert "'out'" in str(items.faults[0]) and 'record 1' in str(items.faults[0])
    assert len(load_items(file, 'count', links=True)) == 4
    (tmp_path/'way in').symlink_to(root)
    assert len(load_items(tmp_path/'way in'/'data.json', 'count')) == 2      # the root itself may be a link


def test_a_record_that_occurs_twice_is_named(tmp_path):
    rows = [('<image> How many cups?', '3', 'a'), ('<image> How many cups?', '3', 'b'), ('<image> How many dogs?', '3', 'a')]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not load_items(one_file(tmp_path, *rows), 'count').twice
    with pytest.warns(UserWarning, match='count, data.json: record 3 is the same as record 0, record 4 is the same as record 0; all count'):
        items = load_items(one_file(tmp_path, *rows, rows[0], rows[0]), 'count')
    assert items.twice == ((3, 0), (4, 0)) and len(items) == 5


def test_warnings_of_a_command_are_one_line(tmp_path):
    usual = warnings.formatwarning
    with pytest.raises(typer.Exit), one_line():
        assert warnings.formatwarning('not read: x', UserWarning, 'place.py', 3) == 'babyvlm: not read: x\n'
        raise ValueError('gone')
    assert warnings.formatwarning is usual


def test_what_the_nursery_knows_of_its_items_is_no_file_to_warn_of(toy):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert find_tasks(toy[0]/'home', 'train')


def test_a_chart_of_numbers_may_have_one_bar():
    item = Item('count/0', 'devcv/count', ('a',), options=tuple('123'), gold=1, meta=dict(answer='number'))
    table = by_number([item, item], [Reply('count/0', text='2'), Reply('count/0', text='3')])
    assert table['number'].tolist() == [2] and (table['acc'][0].value, table['acc'][0].n, table['acc'][0].chance) == (.5, 2, 1/3)
    assert by_number([item], [Reply('count/0', text='2')])['acc'][0].value == 1


def test_a_mean_names_its_columns_and_what_lacks():
    assert overall({'count': {'acc': .5}, 'localize': {'acc': .7}, 'juggling': {'acc': 0.}}).value == pytest.approx(.6)
    some = overall({'count': {'acc': .5}}, 'leaderboard')
    keys = [t for t, x in TASKS.items() if x.key]
    assert (some.value, some.n, some.columns, some.missing) == (.5, len(keys), 'leaderboard', tuple(k for k in keys if k != 'count'))
    assert repr(some) == f"0.500 (mean of 1 of {len(keys)}, leaderboard, without {', '.join(some.missing)})"
    every = overall({t: {x.primary: .25} for t, x in TASKS.items()})
    assert (every.missing, repr(every)) == ((), f'0.250 (mean of {len(TASKS)} of {len(TASKS)}, columns)') and np.isnan(overall({}).value)
    with pytest.raises(ValueError, match="unknown columns 'all': one of columns,"): overall({}, 'all')


def test_a_result_holds_the_credit_of_each_item_and_a_set_its_truth(bank, toy, tmp_path):
    done = evaluate_devcv(Says(lambda i: i.options[0] if i.meta['answer'] != 'letter' else 'A'), toy[0]/'home', ['Localization', 'count'], batch_size=7)
    assert list(done) == ['localize', 'count']
    for r in done.values():
        assert r.credit.tolist() == [float(i.gold == 0) for i in r.items] and r.scores[TASKS[r.task].primary].value == r.credit.mean() and r.run == ''
    items = build_items(bank, 'count', tmp_path)
    assert len(items) == 100 and truth_file(items.file).is_file() and items.file.parent.name == 'count'
    assert not truth_file(build_items(bank, 'count', tmp_path/'bare', 4, truth=False).file).exists()


def test_the_next_round_is_asked_with_what_was_said(toy):
    item = load_items(toy[0]/'home', 'memory')[0]
    first, third = round_item(item, []), round_item(item, ['B', 'A'])
    assert (first.uid, third.uid) == (f'{item.uid}/01', f'{item.uid}/03') and first.rounds == () and first.images == item.images[:item.rounds[0]['images']]
    assert third.rounds == tuple(dict(prompt=r['prompt'], answer=a) for r, a in zip(item.rounds, 'BA'))
    assert len(third.images) == sum(r['images'] for r in item.rounds[:3]) and third.options[third.gold] == item.rounds[2]['gold'] and third.meta == dict(answer='letter')


def test_a_model_without_a_mouth_is_refused_and_words_come_first(toy):
    class Both(Says):
        def loglik(self, items): raise AssertionError
    items = load_items(toy[0]/'home', 'count')[:3]
    assert [r.text for r in ask(Both(lambda i: '1'), items)] == ['1']*3
    with pytest.raises(TypeError, match='int cannot answer DevCV items'): ask(3, items)
    with pytest.raises(ValueError, match='2 replies to 3 items'): score_items(items, ask(Both(lambda i: '1'), items)[:2])


def test_intervals_of_records_are_resampled_and_of_items_wilsons(toy):
    for task in ('memory', 'count'):
        items = load_items(toy[0]/'home', task)
        replies = ask(Says(lambda i: 'B' if i.rounds or i.options[0] == 'A' else '2'), items)
        for m, c in credit(items, replies).items():
            assert score_items(items, replies)[m] == (c.bootstrap() if task == 'memory' else c.wilson()), (task, m)


def test_hidden_files_and_folders_hold_no_task(toy, tmp_path):
    folder = shutil.copytree(toy[1]['home', 'test']['count'].parent, tmp_path/'test'/'count')
    want = load_items(tmp_path, 'count')
    for place in ('test/._count', 'test/count/.ipynb_checkpoints', '._test/count'):
        (tmp_path/place).mkdir(parents=True); (tmp_path/place/'data.json').write_bytes(b'\0\5\x16\7')
    (folder/'._data.json').write_bytes(b'\0\5\x16\7')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert find_tasks(tmp_path) == {'count': folder/'data.json'} and load_items(tmp_path, 'count') == want


def test_a_null_id_is_no_id_and_half_a_character_is_a_fault(toy, tmp_path):
    folder = shutil.copytree(toy[1]['home', 'test']['count'].parent, tmp_path/'count')
    rows = json.loads((folder/'data.json').read_text())[:3]
    rows[0]['id'] = None; del rows[1]['id']; rows[2]['conversations'][0]['value'] += ' \ud83d'
    (folder/'data.json').write_text(json.dumps(rows))
    items = load_items(folder, 'count')
    assert [i.meta['id'] for i in items] == ['', ''] and [f.reason for f in items.faults] == ['bad turn'] and 'half a character' in str(items.faults[0])


def test_a_round_that_is_answered_with_several_letters_shares_its_point(toy):
    items = load_items(toy[0]/'home', 'memory')[:1]
    gold = [r['gold'] for r in items[0].rounds]
    def score(said): return score_items(items, [Reply(items[0].uid, text=json.dumps(said))])['acc_testing_raw'].value
    assert (score([['A', 'B']]*len(gold)), score([[g] for g in gold]), score(gold), score([[]]*len(gold))) == (.5, 1., 1., 0.)
