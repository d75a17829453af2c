"""Shards of an evaluation on the command line: joined, they are one run byte for byte; gaps and doubles are refused by name."""
import json
import shutil

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from babyvlm.benchmarks.devcv.score import converse
from babyvlm.data.taxonomy import build_questions, random_taxonomy, save_annotations
from babyvlm.models.babyllava import BabyLlava, BabyLlavaForConditionalGeneration, BabyLlavaProcessor, babyllava_toy
from babyvlm.models.cvcl import CVCL, CVCLModel, cvcl_tokenizer, cvcl_toy
from babyvlm.items import Item, Journal, Reply
from babyvlm.models.tiny import tiny_vlm
from babyvlm.models.tokenizers import build_vocab, word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens
from babyvlm.nursery.world import Nursery
from babyvlm.run.cli import app

N = 3


def run(*words):
    result = CliRunner().invoke(app, [str(w) for w in words])
    return result.exit_code, result.output


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Labels of three papers and tiny checkpoints of real classes."
    root = tmp_path_factory.mktemp('shards')
    Nursery(0, 32).write_benchmarks(root/'labels', labeled_s=1, vtwt=150, winoground=4, captions=4)
    tree = random_taxonomy((2, 2, 2), root='')
    save_annotations(build_questions(tree, [f'/x/{i}.png' for i in range(40)], list(tree) * 5), root/'birds.jsonl')
    (root/'birds').mkdir()
    for i in range(39): Image.new('RGB', (32, 32), (5 * i, 90, 90)).save(root/'birds'/f'{i}.png')   # one is missing
    vocab = build_vocab(['the ball', 'a red cup', 'wash the cup'], min_freq=1)
    torch.manual_seed(0)
    CVCL(CVCLModel(cvcl_toy(len(vocab))), cvcl_tokenizer(vocab), image_processor(32)).save_pretrained(root/'models'/'cvcl')
    words, config = word_tokenizer(vocab), babyllava_toy(len(vocab))
    processor = BabyLlavaProcessor(image_processor(64), words, num_image_tokens(config.vision_config))
    BabyLlava(BabyLlavaForConditionalGeneration(config), processor).save_pretrained(root/'models'/'babyllava')
    tiny_vlm(root/'vlm')
    return root


def files(out):
    "Every file of results that a user reads."
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob('*'))
            if p.is_file() and 'shards' not in p.parts and '.shard' not in p.name and p.suffix != '.lock'}


CASES = {'folder of models': lambda w: ['--models', w/'models', '--benchmark', 'v1/vtwt', '--benchmark', 'v1/labeled_s', '--labels', w/'labels'],
         'hub model, a picture lost': lambda w: ['--model', w/'vlm', '--benchmark', 'hierarchy/cub200', '--labels', w/'birds.jsonl', '--images', w/'birds']}


@pytest.mark.parametrize('case', CASES)
def test_joined_shards_are_one_run(world, tmp_path, case):
    out, words = tmp_path/'out', ['evaluate', *CASES[case](world)]
    status, said = run(*words, '--out', out)
    assert status == 0, said
    one = files(out)
    assert any(n.endswith('.jsonl') for n in one) and any(n.endswith('.json') for n in one)
    shutil.rmtree(out)
    for k in (2, 1, 3):
        status, said = run(*words, '--out', out, '--shard', f'{k}/{N}')
        assert status == 0 and f'shard {k}/{N} is done' in said, said
    parts = sorted(out.rglob('*.jsonl.shard*of3'))
    assert not files(out) and len(parts) > 1, parts
    first = [{json.loads(line)['uid'] for line in p.read_text().splitlines()[1:]} for p in parts if p.name.partition('.shard')[0] == parts[0].name.partition('.shard')[0]]
    assert sum(map(len, first)) == len(set().union(*first))
    status, said = run('merge', out)
    assert status == 0, said
    assert files(out) == one
    assert run('merge', out)[0] == 0 and files(out) == one               # once more changes nothing


def test_a_shard_keeps_the_questions_of_a_picture(world, tmp_path):
    words = ['evaluate', *CASES['hub model, a picture lost'](world), '--out', tmp_path]
    for k in (1, 2): assert run(*words, '--shard', f'{k}/2')[0] == 0
    rows = {json.loads(line)['uid'].rsplit('/', 1)[0]: p.name for p in tmp_path.rglob('*.shard*of2') for line in p.read_text().splitlines()[1:]}
    pictures = [{json.loads(line)['uid'].rsplit('/', 1)[0] for line in p.read_text().splitlines()[1:]} for p in sorted(tmp_path.rglob('*.shard*of2'))]
    assert len(set(rows.values())) == 2 and not pictures[0] & pictures[1]


def test_gaps_and_doubles_are_named(world, tmp_path):
    words = ['evaluate', *CASES['folder of models'](world)]
    def shard(s, out): assert run(*words, '--out', tmp_path/out, '--shard', s)[0] == 0
    shard('1/3', 'a'), shard('3/3', 'a')
    status, said = run('merge', tmp_path/'a')
    assert status == 2 and 'shard 2/3 is missing' in said and not (tmp_path/'a'/'scores.csv').exists(), said
    shard('2/3', 'b'), shard('3/3', 'b')
    status, said = run('merge', tmp_path/'a', tmp_path/'b', '--out', tmp_path/'c')
    assert status == 2 and 'shard 3/3 is there twice' in said and "a'" in said and "b'" in said, said
    shutil.rmtree(tmp_path/'b')
    shard('2/3', 'b')
    assert run('merge', tmp_path/'a', tmp_path/'b', '--out', tmp_path/'c')[0] == 0
    shard('1/2', 'b')
    status, said = run('merge', tmp_path/'a', tmp_path/'b', '--out', tmp_path/'d')
    assert status == 2 and 'cut it in different ways' in said and not (tmp_path/'d').exists(), said


def test_a_killed_shard_goes_on_and_a_cut_one_is_refused(world, tmp_path):
    words = ['evaluate', '--model', world/'models'/'cvcl', '--benchmark', 'v1/vtwt', '--labels', world/'labels', '--out', tmp_path]
    for k in (1, 2): assert run(*words, '--shard', f'{k}/2')[0] == 0
    first = sorted(tmp_path.rglob('*.shard1of2'))[0]
    whole = first.read_bytes()
    first.write_bytes(b''.join(whole.splitlines(True)[:9]) + b'{"uid": "cut o')
    status, said = run('merge', tmp_path)
    assert status == 2 and 'no shard has a reply to' in said, said
    assert run(*words, '--shard', '1/2')[0] == 0 and first.read_bytes() == whole
    assert run('merge', tmp_path)[0] == 0
    journal = next(tmp_path.rglob('*.jsonl'))
    journal.write_bytes(journal.read_bytes() + b'\n')
    assert run('merge', tmp_path)[0] == 2


@pytest.mark.parametrize('shard', ['0/2', '3/2', 'x', '1/2/3', '-1/2'])
def test_a_shard_that_is_none(world, tmp_path, shard):
    status, said = run('evaluate', *CASES['folder of models'](world), '--out', tmp_path, '--shard', shard)
    assert status == 2 and 'expected k/n' in said, said


def test_labels_that_changed_are_refused(world, tmp_path):
    shutil.copytree(world/'labels', tmp_path/'labels')
    words = ['evaluate', '--model', world/'models'/'cvcl', '--benchmark', 'v1/vtwt', '--labels', tmp_path/'labels', '--out', tmp_path/'out']
    for k in (1, 2): assert run(*words, '--shard', f'{k}/2')[0] == 0
    lines = (tmp_path/'labels'/'vtwt.csv').read_text().splitlines(True)
    (tmp_path/'labels'/'vtwt.csv').write_text(''.join(lines[:-1]))
    status, said = run('merge', tmp_path/'out')
    assert status == 2 and 'these labels are not those' in said, said
    assert run('merge', tmp_path/'out', '--labels', world/'labels')[0] == 0


class Company:
    "Says how many are asked together and what was said before, so that other company gives other words."
    name = 'company'
    def reply(self, items): return [Reply(i.uid, text=f'{len(items)}, {"".join(j.uid[0] for j in items)}, {i.rounds[-1:]}') for i in items]


def test_rounds_have_the_same_company_in_shards(tmp_path):
    def record(k):
        rounds = [dict(prompt=f'Round {r}? <image>', options=('A', 'B'), gold='A', images=1) for r in range(1 + k % 3)]
        return Item(f'{k}-', 'devcv/memory', tuple(f'{k // 2}-{r}.png' for r in range(1 + k % 3)), rounds=rounds, choice='open', gold='')
    items = [record(k) for k in range(9)]
    one = converse(Company(), items, tmp_path/'one.jsonl', batch_size=4)
    header, *lines = (tmp_path/'one.jsonl').read_bytes().splitlines(True)
    parts, said = [], {}
    for k in (1, 2):
        journal = Journal(tmp_path/f'{k}')
        journal.claim(shard=f'{k}/2')
        said |= {r.uid: r for r in converse(Company(), items, journal, batch_size=4) if r.text is not None}
        parts += (tmp_path/f'{k}').read_bytes().splitlines(True)[1:]
    assert parts == lines and [said[i.uid] for i in items] == one
