"""The command line on tiny real checkpoints: scores, resume, gaps in the data, damage in the store."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from babyvlm.config import PROFILES
from babyvlm.credit import MODES
from babyvlm.models.babyllava import BabyLlava, BabyLlavaForConditionalGeneration, BabyLlavaProcessor, babyllava_toy
from babyvlm.models.cvcl import CVCL, CVCLModel, cvcl_tokenizer, cvcl_toy
from babyvlm.models.dual_encoders import new_clip
from babyvlm.models.tokenizers import build_vocab, word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens
from babyvlm.nursery.world import Nursery
from babyvlm.reporting.published import PAPERS
from babyvlm.run import speed
from babyvlm.run.cli import app
from babyvlm.run.commands import one_line
from babyvlm.store import Store


def run(*words, env=None):
    result = CliRunner().invoke(app, [str(w) for w in words], env=env)
    return result.exit_code, result.output


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Labels, pictures and one checkpoint of each family."
    root = tmp_path_factory.mktemp('world')
    Nursery(0, 64).write_benchmarks(root/'labels', labeled_s=1, vtwt=12, winoground=4, captions=4)
    vocab = build_vocab(['the ball', 'a red cup', 'wash the cup'], min_freq=1)
    torch.manual_seed(0)
    CVCL(CVCLModel(cvcl_toy(len(vocab))), cvcl_tokenizer(vocab), image_processor(64)).save_pretrained(root/'cvcl')
    new_clip(vocab).save_pretrained(root/'clip')
    words, config = word_tokenizer(vocab), babyllava_toy(len(vocab))
    processor = BabyLlavaProcessor(image_processor(64), words, num_image_tokens(config.vision_config))
    BabyLlava(BabyLlavaForConditionalGeneration(config), processor).save_pretrained(root/'babyllava')
    return root


@pytest.mark.parametrize('model', ['cvcl', 'clip', 'babyllava'])
def test_evaluate_and_resume(world, tmp_path, model):
    words = ['evaluate', '--model', world/model, '--benchmark', 'v1/vtwt', '--labels', world/'labels', '--out', tmp_path/'a.jsonl']
    status, first = run(*words)
    assert status == 0 and 'n = 12' in first and 'items: asked 12 = answered 12 + no answer 0 + skipped 0' in first, first
    whole = (tmp_path/'a.jsonl').read_bytes()
    (tmp_path/'a.jsonl').write_bytes(b''.join(whole.splitlines(True)[:6]) + b'{"uid": "cut o')   # killed in the middle of a line
    assert run(*words) == (0, first)
    assert (tmp_path/'a.jsonl').read_bytes() == whole
    status, other = run(*words, '--mode', 'reference')
    assert status == 0 and ', reference' in other


def test_every_benchmark(world, tmp_path):
    for task in ('labeled_s', 'baby_winoground', 'saycam_caption'):
        status, out = run('evaluate', '--model', world/'babyllava', '--benchmark', f'v1/{task}', '--labels', world/'labels',
                          '--out', tmp_path/f'{task}.jsonl')
        assert status == 0 and 'answered' in out, out


def test_mistakes_are_one_line(world, tmp_path):
    labels = ['--labels', world/'labels']
    journal = tmp_path/'j.jsonl'
    assert run('evaluate', '--model', world/'cvcl', '--benchmark', 'vtwt', *labels, '--out', journal)[0] == 0
    cases = [(['--model', 'no/such/folder', '--benchmark', 'v1/vtwt', *labels], 'no folder'),
             (['--model', world/'labels', '--benchmark', 'v1/vtwt', *labels], 'config.json'),
             (['--model', world/'cvcl', '--benchmark', 'v1/vtwt2', *labels], 'v1/labeled_s'),
             (['--model', world/'cvcl', '--benchmark', 'v1/vtwt', '--labels', tmp_path], 'no label file'),
             (['--model', world/'cvcl', '--benchmark', 'v1/vtwt', *labels, '--mode', 'kind'], "unknown mode 'kind'"),
             (['--model', world/'cvcl', '--benchmark', 'v1/vtwt', *labels, '--images', tmp_path, '--out', tmp_path/'k.jsonl'], 'no such file'),
             (['--model', world/'cvcl', '--benchmark', 'v1/saycam_caption', *labels], 'cvcl@'),
             (['--model', world/'clip', '--benchmark', 'v1/vtwt', *labels, '--out', journal], 'written for model')]
    for words, said in cases:
        status, out = run('evaluate', *words)
        assert status == 2 and said in out and out.startswith('babyvlm: ') and len(out.strip().splitlines()) == 1, (words, out)


@pytest.mark.parametrize('command, option, choices', [
    ('reproduce', 'profile', PROFILES), ('plan', 'profile', PROFILES), ('reproduce', 'paper', PAPERS), ('plan', 'paper', PAPERS), ('verify', 'paper', PAPERS),
    ('evaluate', 'mode', MODES), ('audit', 'mode', MODES), ('rescore', 'mode', MODES), ('bench', 'part', speed.BENCHES)] + [
    (c, 'split', ('train', 'val', 'test')) for c in ('evaluate', 'audit', 'rescore', 'survey build')], ids=str)
def test_help_names_every_choice(command, option, choices):
    found = typer.main.get_command(app)
    for word in command.split(): found = found.commands[word]
    said = next(p.help for p in found.params if p.name == option)
    assert [c for c in choices if c not in said] == []


def test_a_reader_that_has_seen_enough_is_no_mistake():
    "`babyvlm data list | head -1`, with a reader that is gone before the first line."
    code = 'from babyvlm.run.cli import app; app()'
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, '-c', code, 'data', 'list'], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, '')


def test_same_name_other_weights_do_not_share_a_journal(world, tmp_path):
    shutil.copytree(world/'cvcl', tmp_path/'one'/'cvcl')
    torch.manual_seed(1)
    words = CVCL.from_pretrained(world/'cvcl').tokenizer
    CVCL(CVCLModel(cvcl_toy(len(words))), words, image_processor(64)).save_pretrained(tmp_path/'two'/'cvcl')
    call = ['--benchmark', 'v1/vtwt', '--labels', world/'labels', '--out', tmp_path/'a.jsonl']
    assert run('evaluate', '--model', tmp_path/'one'/'cvcl', *call)[0] == 0
    assert run('evaluate', '--model', tmp_path/'two'/'cvcl', *call)[0] == 2


def test_audit_needs_no_pictures(world, tmp_path):
    shutil.copy(world/'labels'/'vtwt.csv', tmp_path)
    fair, reference = (run('audit', '--benchmark', 'v1/vtwt', '--labels', tmp_path, '--mode', m) for m in ('fair', 'reference'))
    assert fair[0] == reference[0] == 0
    assert 'refused' in fair[1] and '! acc: constant gets 1.000' in reference[1] and '! acc: constant' not in fair[1]


def test_audit_of_the_released_labels(real_data):
    status, out = run('audit', '--benchmark', 'v1/vtwt', '--labels', real_data)
    assert status == 0 and 'n = 967' in out


def test_a_package_of_an_extra_is_named_in_a_line(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openai', None)
    status, out = run('evaluate', '--model', 'endpoint:any', '--benchmark', 'v1/vtwt', '--labels', world/'labels', '--out', tmp_path,
                      env=dict(OPENAI_API_KEY='none'))
    assert status == 2 and "needs the package 'openai': pip install 'openai" in out and '[endpoint]' in out, out


def test_a_list_of_trials_is_named_where_benchmarks_are(tmp_path):
    status, out = run('evaluate', '--model', 'm', '--benchmark', 'nix', '--labels', tmp_path)
    assert status == 2 and 'trials:FILE' in out and 'trials/FILE' not in out
    assert 'trials:FILE' in run('evaluate', '--help')[1] and 'trials:FILE' in run('audit', '--help')[1]


def test_hierarchy_files_that_lack_lead_to_their_cards(tmp_path):
    status, out = run('audit', '--benchmark', 'hierarchy/cub200', '--labels', tmp_path)
    assert status == 2 and 'no annotation file' in out and 'babyvlm data list' in out, out


def test_wordnet_is_not_made_here(monkeypatch):
    import babyvlm.benchmarks.wordnet as W
    monkeypatch.setattr(W, 'find_wordnet', lambda: None)
    status, out = run('data', 'check', 'wordnet')
    assert status == 1 and out.startswith('wordnet: missing (public); how to get it is in')
    monkeypatch.setattr(W, 'find_wordnet', lambda: '/somewhere')
    assert run('data', 'check', 'wordnet') == (0, 'wordnet: here (/somewhere)\n')
    assert run('data', 'check', 'nursery') == (0, 'nursery: made by this package\n')


def test_data_says_what_is_missing(world, tmp_path):
    status, out = run('data', 'list', env=dict(BABYVLM_DATA=''))
    assert status == 0 and 'BABYVLM_DATA is not set' in out and 'made by this package' in out
    assert run('data', 'check', 'vtwt', env=dict(BABYVLM_DATA=''))[0] == 2
    shutil.copytree(world/'labels', tmp_path/'babylmms-eval')
    status, out = run('data', 'check', 'vtwt', '--root', tmp_path)
    assert status == 1 and '12 items' in out and "'saycam' is not there" in out
    frames = tmp_path/'saycam'/'frames'
    shutil.copytree(world/'labels'/'frames', frames)
    assert run('data', 'check', 'vtwt', '--root', tmp_path)[0] == 0
    first = sorted(frames.glob('S_*.jpg'))[0]
    first.write_text('<!doctype html>')
    status, out = run('data', 'check', 'vtwt', env=dict(BABYVLM_DATA=str(tmp_path)))
    assert status == 1 and first.name in out and 'a web page' in out
    (tmp_path/'babylmms-eval'/'vtwt.csv').write_text('image,positive\n')
    status, out = run('data', 'check', 'vtwt', '--root', tmp_path)
    assert status == 1 and "no column 'positive_phrase'" in out


def test_verify_finds_damage(tmp_path):
    env, store = dict(BABYVLM_STORE=str(tmp_path)), Store(tmp_path)
    def write(folder): (folder/'n.txt').write_text('1')
    made = [store.get('numbers', dict(n=i), write) for i in range(3)]
    assert run('verify', '--hash-only', env=env) == (0, '3 artifacts, 3 files: 0 damaged\n0 released files: 0 differ from their cards\n')
    (made[0].path/'n.txt').write_text('2')
    (made[1].path/'n.txt').unlink()
    (made[2].path/'manifest.json').write_text('{"key": ')
    status, out = run('verify', '--hash-only', env=env)
    assert status == 1 and out.count('DAMAGED') == 3 and 'changed since' in out and 'missing' in out and 'unreadable' in out


def test_bench_writes_one_table(tmp_path, monkeypatch):
    from babyvlm.run import speed as bench
    scripts = tmp_path/'tools'/'bench'; scripts.mkdir(parents=True)
    (tmp_path/'nbs').mkdir(); (tmp_path/'settings.ini').write_text('')
    (scripts/'bench_matching.py').write_text("def rows(quick): return [dict(part='matching', size='4 x 8', peer='scipy', ours='1 s', ratio=12.,"
                                             " memory_ratio=3., exactness='same total')]")
    records = scripts/'results'; records.mkdir()
    row = dict(part='likelihood', size='9', peer='p', ours='o', ratio=20., memory_ratio=None, exactness='same')
    (records/'gpu_likelihood.json').write_text(json.dumps(dict(context=dict(device='cuda (a card)', date='2026-01-01'), rows=[row])))
    monkeypatch.setattr(bench, 'repo_root', lambda: tmp_path)
    status, out = run('bench')
    assert status == 0 and 'no script bench_probing.py' in out and '12 x' in out and 'cuda (a card)' in out, out
    assert 'no GPU was at hand' in out
    assert not [*records.glob('cpu_*')] and '12 x' in (tmp_path/'_runs'/'bench'/'table.md').read_text()
    assert run('bench', '--full')[0] == 0
    (mine,) = records.glob('cpu_matching_*.json')      # the name says on which processor, so that another one's stays
    other = records/'cpu_matching_another_processor.json'
    other.write_text(mine.read_text().replace('12.0', '7.5'))
    record = json.loads(mine.read_text())
    assert record['rows'][0]['ratio'] == 12 and 'cores' in record['context']['device'] and '--full' in record['command']
    assert '12 x' in (records/'table.md').read_text()
    (scripts/'bench_matching.py').write_text('1 / 0')
    assert run('bench')[0] == 1
    status, out = run('bench', '--full')
    assert status == 1 and 'ZeroDivisionError' in out and '12 x' in out, out       # the failure and the record that stays
    assert json.loads(mine.read_text()) == record and '7.5 x' in (records/'table.md').read_text()


@pytest.mark.parametrize('words', ['survey build --benchmark v1/vtwt --labels x --items 0', 'survey build --benchmark v1/vtwt --labels x --checks -1', 'survey build --benchmark v1/vtwt --labels x --per-task 0',
                                   'survey people x.csv --guess 7', 'power --items 0', 'power --items 9 --icc 5', 'power --items 9 --cluster 0', 'power --items 9 --comparisons 0'])
def test_a_number_that_cannot_be_meant_is_refused(words):
    from typer.testing import CliRunner

    from babyvlm.run.cli import app
    out = CliRunner().invoke(app, words.split())
    assert out.exit_code == 2 and 'Invalid value' in out.output, out.output


@pytest.mark.parametrize('words, said', [('data list --root nowhere', "'nowhere' is not a folder"), ('data list --root file', "'file' is not a folder"),
                                         ('rescore --benchmark v1/vtwt --labels lab --journal nowhere', "no journal 'nowhere'"), ('rescore --benchmark v1/vtwt --labels lab --journal lab', "no journal 'lab'"),
                                         ('leaderboard --issue lab', "'lab' is a folder, not a file"), ('data make file/x', 'a part of it is a file'),
                                         ('survey build --benchmark v1/vtwt --labels lab --out file/x.html', "'file' is a file, not a folder")])
def test_a_file_for_a_folder_or_nothing_there_is_named(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'lab').mkdir(); (tmp_path/'file').write_text('x')
    Image.new('RGB', (32, 32)).save('lab/a.png'); (tmp_path/'lab'/'vtwt.csv').write_text('image,positive_phrase,negative_phrase\na.png,see cup,see ball\n')
    status, out = run(*words.split())
    assert status == 2 and said in out and 'Errno' not in out, out


def test_a_file_is_no_model_and_here_is_a_folder(world, tmp_path, monkeypatch):
    words = ['--benchmark', 'v1/vtwt', '--labels', world/'labels', '--out', tmp_path/'a.jsonl']
    status, out = run('evaluate', '--model', world/'clip'/'open_clip_config.json', *words)
    assert status == 2 and 'is a file: name the folder of the model' in out, out
    monkeypatch.chdir(tmp_path)
    status, out = run('evaluate', '--model', '.', *words)
    assert status == 2 and 'holds neither open_clip_config.json nor config.json' in out, out


def test_labels_are_found_in_any_case(world, tmp_path):
    labels = shutil.copytree(world/'labels', tmp_path/'labels', symlinks=True)
    found = next(labels.rglob('vtwt.csv')); found.rename(found.with_name('VTWT.CSV')); found.with_name('._vtwt.csv').write_bytes(b'x')
    status, out = run('evaluate', '--model', world/'clip', '--benchmark', 'v1/vtwt', '--labels', labels, '--out', tmp_path/'a.jsonl')
    assert status == 0 and 'n = 12' in out, out
    status, out = run('rescore', '--benchmark', 'v1/vtwt', '--labels', labels, '--journal', tmp_path/'a.jsonl', '--mode', 'nice')
    assert status == 2 and "unknown mode 'nice'" in out, out


def test_verify_of_a_kind_that_is_not_there_is_no_success(tmp_path):
    status, out = run('verify', '--hash-only', '--stage', 'nope', env=dict(BABYVLM_STORE=str(tmp_path), BABYVLM_DATA=''))
    assert status == 1 and "no artifact is of the kind 'nope'" in out, out


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full here')
def test_a_full_disk_is_named(capsys):
    with pytest.raises(typer.Exit), one_line(): Path('/dev/full').write_text('x')
    assert capsys.readouterr().err == 'babyvlm: the disk is full: make room and run again; what is finished stays\n'
