"""Our tasks and models under a real lmms-eval, in its own environment: `make lmms`, or BABYVLM_LMMS_PYTHON=<its python>."""
import csv
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from babyvlm.benchmarks.devcv.files import toy_devcv
from babyvlm.benchmarks.devcv.score import evaluate_devcv
from babyvlm.benchmarks.leaderboard import collate, parity, write_submission
from babyvlm.benchmarks.protocols import evaluate
from babyvlm.benchmarks.v1 import FILES, LOADERS, score
from babyvlm.items import Reply
from babyvlm.models.babyllava import BabyLlava, BabyLlavaForConditionalGeneration, BabyLlavaProcessor, babyllava_toy
from babyvlm.models.tokenizers import build_vocab, word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens
from babyvlm.models.weights import seeded
from babyvlm.run.evaluate import load_model

ROOT = Path(__file__).parent.parent
WORDS = ['a red cup', 'a green cup', 'a blue hat', 'a grey hat', 'cup', 'hat', 'ball']


@pytest.fixture(scope='module')
def lmms():
    "Run `babyvlm-lmms-eval` in an environment that has lmms-eval; gives its results."
    python = os.environ.get('BABYVLM_LMMS_PYTHON') or (sys.executable if importlib.util.find_spec('lmms_eval') else None)
    if not python: pytest.skip('lmms-eval is not installed here: run `make lmms`, or set BABYVLM_LMMS_PYTHON')
    def run(folder, *args):
        env = dict(os.environ, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE='1', HF_DATASETS_CACHE=str(folder/'cache'),
                   TOKENIZERS_PARALLELISM='false', OMP_NUM_THREADS='1')
        code = 'import sys; from babyvlm.benchmarks.lmms_eval import main; main(sys.argv[1:])'
        done = subprocess.run([python, '-c', code, *map(str, args), '--output_path', str(folder/'logs')], cwd=folder, env=env,
                              capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        paths = list((folder/'logs').rglob('*_results.json'))   # it exits with 0 after an error, too
        assert len(paths) == 1, done.stdout[-3000:] + done.stderr[-3000:]
        path = paths[0]
        return json.loads(path.read_text()), path
    run.python = python
    return run


class Sloppy:
    "Mostly right, in many spellings, some of which the two parsers read differently."
    name = 'sloppy'
    def reply(self, items):
        def one(i):
            rng = random.Random(i.uid)
            o = i.options[i.gold if rng.random() < .7 else rng.randrange(len(i.options))]
            return Reply(i.uid, text=rng.choice([o, f'{o}.', f'The answer is {o}', f'a {o} I think', o.lower(), 'not sure']))
        return [one(i) for i in items]


def test_same_items_same_replies_same_numbers(lmms, tmp_path):
    toy_devcv(tmp_path/'toy', train=0, val=0, test=6, recordings=8)
    ours = evaluate_devcv(Sloppy(), tmp_path/'toy'/'home', journals=tmp_path/'journals')
    theirs, path = lmms(tmp_path, '--devcv', tmp_path/'toy'/'home', '--model', 'babyvlm', '--batch_size', '8', '--model_args',
                        f"pretrained={tmp_path/'journals'},loader=babyvlm.benchmarks.lmms_eval:Replayed")
    table = parity(theirs, ours)
    assert len(table) == 17 and table.key.nunique() == 13
    assert table.difference.abs().max() < 1e-12, table.to_string()
    assert (table['read apart'] > 0).any() and (table.strict != table.ours).any()   # the strict rules do differ, and say where
    scores, _, _ = collate(path.parent)
    assert set(scores) == {k for k in table.key if k not in ('baby_looking_while_listening', 'baby_subitize', 'baby_subitize_real')}


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "A small talkative BabyLLaVA on disk, and V1 label files with pictures."
    folder = tmp_path_factory.mktemp('world')
    tokenizer = word_tokenizer(build_vocab(WORDS, 1))
    model = seeded(lambda: BabyLlavaForConditionalGeneration(babyllava_toy(len(tokenizer))), 0).eval()
    with torch.no_grad():
        for name, p in model.language_model.named_parameters():
            if p.dim() > 1 and 'wte' not in name: p.mul_(15)
    processor = BabyLlavaProcessor(image_processor(64), tokenizer, num_image_tokens(model.config.vision_config))
    BabyLlava(model, processor).save_pretrained(folder/'baby')
    rng = random.Random(0)
    (folder/'v1').mkdir()
    def picture(name):
        im = Image.new('RGB', (64, 64), tuple(rng.randrange(256) for _ in range(3)))
        im.paste(tuple(rng.randrange(256) for _ in range(3)), (8, 8, 8 + rng.randrange(8, 40), 40))
        im.save(folder/'v1'/name)
        return name
    def write(task, header, rows):
        with open(folder/'v1'/FILES[task], 'w', newline='') as f: csv.writer(f).writerows([header, *rows])
    write('vtwt', ['image', 'positive_phrase', 'negative_phrase'], [[picture(f'v{i}.png'), *rng.sample(WORDS[:4], 2)] for i in range(8)])
    write('labeled_s', ['trial_id', 'target_category', 'real_category', 'image'],
          [[i, 'cup', kind, picture(f's{i}{kind}.png')] for i in range(6) for kind in rng.sample(['cup', 'hat', 'ball', 'dog'], 4)])
    pairs = [(i, rng.sample(WORDS[:4], 2)) for i in range(8)]
    write('baby_winoground', ['instance_id', 'positive_phrase', 'negative_phrase', 'image', 'image_tag'],
          [[i, *p, picture(f'w{i}{end}.png'), tag] for i, p in pairs for end, tag in (('', 'positive'), ('_neg', 'negative'))])
    return folder


def test_a_submission_runs_and_its_losses_give_our_scores(lmms, world, tmp_path, monkeypatch):
    toy_devcv(tmp_path/'toy', train=0, val=0, test=2, recordings=8)
    home = tmp_path/'toy'/'home'
    home_of = tmp_path/'hub'/'models--lab--baby'   # what the hub's cache looks like after a download
    (home_of/'refs').mkdir(parents=True)
    (home_of/'refs'/'main').write_text('0' * 40)
    shutil.copytree(world/'baby', home_of/'snapshots'/('0' * 40))
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path/'hub'))
    entry = write_submission(tmp_path/'entry', 'small baby', 'lab/baby', weights=world/'baby')
    theirs, _ = lmms(tmp_path, '--submission', entry, '--v1', world/'v1', '--devcv', home, '--batch_size', '4', '--tasks',
                     'baby_winoground,babyvlm_vtwt,babyvlm_labeled_s,baby_pv,baby_memory')
    found = {k: {m.split(',')[0]: v for m, v in d.items()} for k, d in theirs['results'].items()}
    model = load_model(world/'baby')
    for task, key in dict(baby_winoground='baby_winoground', vtwt='babyvlm_vtwt', labeled_s='babyvlm_labeled_s').items():
        items = LOADERS[task](world/'v1'/FILES[task], world/'v1')
        ours = score(task, evaluate(model, items, protocol='loglik'), 'reference', items)
        for metric in set(found[key]) & set(ours): assert found[key][metric] == pytest.approx(ours[metric].value, abs=1e-12), (key, metric)
        assert set(found[key]) & set(ours)
    talk = evaluate_devcv(model, home, ['pv', 'memory'], protocol='chat')
    assert parity(theirs, talk).difference.abs().max() < 1e-12


def test_lmms_eval_finds_the_model_by_its_entry_point(lmms):
    code = ("import babyvlm, importlib.metadata as m\n"
            "eps = [e for e in m.entry_points(group='lmms_eval.models') if e.name == 'babyvlm']\n"
            "from lmms_eval.models import get_model\n"
            "print(len(eps), get_model('babyvlm').__name__ if eps else '')")
    done = subprocess.run([lmms.python, '-c', code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    count, *name = done.stdout.split()[-2:] if len(done.stdout.split()) > 1 else done.stdout.split()
    if count == '0': pytest.skip('babyvlm itself is not installed in that environment')
    assert name == ['BabyVlm']
