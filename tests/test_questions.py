"""Questions asked: the released shuffle, kill and resume, unreadable pictures, and the command line."""
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from babyvlm.benchmarks.audit import guess
from babyvlm.benchmarks.hierarchy import run as protocol
from babyvlm.benchmarks.hierarchy.questions import Ask, Words, question_items, score_items
from babyvlm.data.question_wordings import STYLES, VARIANTS, legacy_order, style
from babyvlm.data.taxonomy import build_questions, load_annotations, random_taxonomy, released_file, save_annotations
from babyvlm.items import Reply
from babyvlm.models.hub_models import load_vlm
from babyvlm.models.tiny import tiny_vlm
from babyvlm.run.cli import app


@pytest.fixture(scope='module')
def birds(tmp_path_factory):
    "Eight pictures, the labels, and a tiny checkpoint of the real class."
    d, tree = tmp_path_factory.mktemp('birds'), random_taxonomy((2, 2, 2), root='')
    for i in range(8): Image.new('RGB', (64, 64), (30 * i, 90, 200 - 20 * i)).save(d/f'{i}.png')
    save_annotations(build_questions(tree, [f'/cluster/{i}.png' for i in range(8)], list(tree)), d/'birds.jsonl')
    tiny_vlm(d/'tiny', texts=['what is the order of the bird'] * 5)
    return d


def test_released_shuffle(golden, real_data):
    want = json.loads((golden/'hierarchy.json').read_text())
    if not released_file('CUB-200', 'similar', real_data).is_file(): pytest.skip('CUB-200 annotations are not here')
    rows = legacy_order(load_annotations('CUB-200', 'similar', real_data))
    first = [''.join('ABCD'[c.index(t)] for t, c in zip(a.truth, a.choices)) for a in rows]
    assert first[:len(want['shuffle_letters'])] == want['shuffle_letters']
    count = dict.fromkeys('ABCD', 0)
    for a in rows:
        for t, c in zip(a.truth, a.choices): count['ABCD'[c.index(t)]] += 1
    assert count == want['shuffle_counts']


class Killed:
    "A model that dies after some batches."
    def __init__(self, model, batches): self.model, self.name, self.left = model, model.name, batches
    def score_letters(self, *a):
        if not self.left: raise KeyboardInterrupt
        self.left -= 1
        return self.model.score_letters(*a)
    def say(self, *a): raise AssertionError


def test_killed_and_resumed_is_byte_identical(birds, tmp_path):
    def run(path, batches=99, cut=0):
        items = protocol.load_items('cub200', birds/'birds.jsonl', birds)
        model = Killed(load_vlm(birds/'tiny', device='cpu'), batches)
        try: return items, protocol.ask(model, 'cub200', items, path, batch_size=5)
        except KeyboardInterrupt:
            if cut: path.write_bytes(path.read_bytes()[:-cut])   # the kill tore the last line
    items, whole = run(tmp_path/'whole.jsonl')
    assert run(tmp_path/'parts.jsonl', 2, cut=9) is None
    _, resumed = run(tmp_path/'parts.jsonl')
    assert (tmp_path/'whole.jsonl').read_bytes() == (tmp_path/'parts.jsonl').read_bytes()
    assert whole == resumed
    assert protocol.score('cub200', items, whole) == protocol.score('cub200', items, resumed)


def test_command_line(birds, tmp_path, monkeypatch):
    "Twice the same command: the second takes all replies from the journal and prints the same."
    (tmp_path/'seen').mkdir()
    for i in range(8): (tmp_path/'seen'/f'{i}.png').write_bytes((birds/f'{i}.png').read_bytes() if i != 5 else b'<html>')
    cmd = ['evaluate', '--model', birds/'tiny', '--benchmark', 'hierarchy/cub200', '--labels', birds/'birds.jsonl',
           '--images', tmp_path/'seen', '--out', tmp_path/'r.jsonl']
    monkeypatch.setenv('BABYVLM_DEVICE', 'cpu')
    runs = [CliRunner().invoke(app, list(map(str, cmd))) for _ in range(2)]
    assert runs[0].exit_code == 0, runs[0].output
    assert runs[0].stdout == runs[1].stdout
    assert 'n = 7 pictures, skipped 1' in runs[0].stdout and '5.png: a web page saved as a picture' in runs[0].stdout
    assert 'asked 24 = answered 21' in runs[0].stdout


@pytest.mark.parametrize('word', ['text', 'cyclic', 'binary', 'cot/reference', 'path/reference', 'taxonomy', 'v4', 'words'])
def test_every_word_of_a_name_runs(birds, word):
    task = f'cub200/{word}'
    items = protocol.load_items(task, birds/'birds.jsonl', birds)
    scores = protocol.score(task, items, protocol.ask(load_vlm(birds/'tiny', device='cpu'), task, items), n_boot=100)
    assert 0 <= scores['hca'].value <= scores['por'].value <= 1


def test_random_answers_score_chance():
    tree = random_taxonomy((4, 3, 3), seed=1)
    leaves = list(tree) * 40
    items = question_items(list(build_questions(tree, leaves, leaves)), Ask(tree))
    for m, e in score_items(items, guess(items, 3), n_boot=200).items(): assert abs(e.value - e.chance) < .035, m


def test_questions_differ_by_wording_only():
    tree = random_taxonomy((3, 3), seed=1)
    rows = list(build_questions(tree, ['1'], list(tree)[:1]))
    texts = {v: [i.prompt.split('\n')[1:] for i in question_items(rows, Ask(tree, variant=v))] for v in VARIANTS}
    assert all(t == texts[0] for t in texts.values())
    assert len({question_items(rows, Ask(tree, variant=v))[0].prompt for v in VARIANTS}) == 5
    for s in STYLES: assert question_items(rows, Ask(tree, style=style(s, taxonomy=tree)))


def test_a_refusal_is_no_answer():
    class Shy:
        name = 'shy'
        def say(self, questions, room): return ['[refused]'] * len(questions)
    tree = random_taxonomy((3, 3), seed=1)
    items = question_items(list(build_questions(tree, list(tree), list(tree))), Ask(tree, kind='text'))
    replies = protocol.evaluate(Words(Shy()), items, parser=protocol.parse_item)
    assert {str(r.status) for r in replies} == {'no answer'}
    e = score_items(items, replies, n_boot=50)['hca']
    assert e.value == 0 and e.no_answer == len(items)
    assert isinstance(replies[0], Reply)
