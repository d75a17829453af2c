"""Kill work at a random point, do it again, and compare what is on disk with an uninterrupted run, byte for byte.

`python tests/kills.py [--n 50] [--add]` writes the figures to tests/reliability/kills.json; pytest takes a few points of each stage (test_kills.py).
Half of the points are drawn among the calls during which a file is being written.
"""
import argparse
import inspect
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import test_babyllava_v2 as v2
import test_contrastive as pairs
import test_filters as filters
import test_generative as captions
import torch
from papermill.iorw import write_ipynb
from transformers import AutoModelForImageTextToText, GPT2LMHeadModel, Trainer
from transformers.utils import logging

from babyvlm.benchmarks.protocols import evaluate
from babyvlm.data.conversations import IMAGE, Record, Turn
from babyvlm.data.filters import embed_pairs, select_above
from babyvlm.estimate import Estimate
from babyvlm.items import Item, Journal
from babyvlm.matching.exact import match_stored
from babyvlm.models.babyllava import gpt2_text
from babyvlm.models.tiny import Sizes, tiny_config, tiny_processor, tiny_tokenizer
from babyvlm.models.tokenizers import word_tokenizer
from babyvlm.models.vision import resnext_toy, vision_encoder
from babyvlm.models.weights import seeded
from babyvlm.run.evaluate import Evaluation
from babyvlm.run.notebook import run_page
from babyvlm.run.scorecard import Scores, write_scores
from babyvlm.store import Store, write_whole, writing
from babyvlm.training.contrastive import train_cvcl
from babyvlm.training.dino import TOY, pretrain
from babyvlm.training.generative import train_phase
from babyvlm.training.instructions import V2_PHASE3, train_records
from babyvlm.training.language import train_language
from babyvlm.training.lora import Lora, tune
from babyvlm.training.trainer import discard_checkpoints, fingerprint

HALF = {inspect.unwrap(writing).__code__: 1} | {f.__code__: 2 for f in (Journal.write, Trainer._save_checkpoint, discard_checkpoints, write_ipynb)}
RESULTS = Path(__file__).resolve().parent/'reliability'/'kills.json'


class Model:
    name = 'm'
    def loglik(self, items):
        company = sum(len(i.options[1]) for i in items)/99   # digits depend on who is asked along
        return [np.array([1/(3 + len(i.options[1])), company]) for i in items]


ITEMS = [Item(f'é{k}', 'b', (), options=('x', 'ÿ'*k + 'y')) for k in range(24)]


def evaluation(folder): evaluate(Model(), ITEMS, folder/'j.jsonl', batch_size=4)


def aggregation(folder):
    done = [Evaluation(m, 'v1/vtwt', 'fair', {'acc': Estimate(v, v - .1, v + .1, 100, .5)}, []) for m, v in (('a', .6), ('b', .7))]
    write_scores(Scores(done=done), folder)


def artifact(folder):
    def build(path):
        for k in range(4): (path/f'{k}.txt').write_text(f'{k}\n'*2000)
    Store(folder).get('toy', dict(n=4), build)


def filtering(folder):
    root = folder.parent/f'pictures-{os.getpid()}'; root.mkdir()
    scored = embed_pairs(filters.world(root, 12), filters.Counting(), 'e', root, Store(folder/'store'), batch=2, per_shard=1)
    select_above(scored, .9).selection.save(folder/'chosen.json')


def matching(folder):
    rng = np.random.default_rng(13)
    x, y = np.float32(1 + .02*rng.normal(size=(120, 8))), np.float32(rng.normal(size=(300, 8)))
    found = match_stored(x, y, Store(folder), solver='lists', first=4, precision='float32')
    write_whole(folder/'columns.txt', f'{found.total.hex()} {found.columns.tolist()}')


CELLS = "profile_name = 'toy'", """from babyvlm.store import Store, write_whole
def build(path):
    for k in range(4): (path/f'{k}.txt').write_text(f'{k}\\n'*2000)
made = Store('store').get('toy', dict(n=4), build)""", "write_whole('table.csv', (made.path/'3.txt').read_text()); len(list(made.path.iterdir()))"


def batch(folder):
    "A page of a batch as its job runs it: the executed copy, an artifact, a table and, last, the file that says it is done."
    page, done = folder/'page.ipynb', folder/'_runs'/'page.0123456789abcdef.done'
    cells = [dict(cell_type='code', id=f'cell{k}', metadata=dict(tags=['parameters'][k:]), execution_count=None, outputs=[], source=s) for k, s in enumerate(CELLS)]
    write_whole(page, json.dumps(dict(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')), nbformat=4, nbformat_minor=5)))
    if not done.exists() and run_page(page, done, 'toy'): raise ValueError('the page stopped')


def trained(folder, model, history):
    write_whole(folder/'trained.json', json.dumps([fingerprint(model), history.losses().tolist()]))


def contrastive(folder):
    train, val = pairs.draw(folder, 32), pairs.draw(folder, 16, seed=1, start=500)
    cvcl = pairs.fresh()
    trained(folder, cvcl.model, train_cvcl(cvcl, train, folder/'run', folder, val, epochs=2, batch=8, lr=3e-3, save_every=2, evaluate=2, threads=1))


def dino(folder):
    pixels = torch.randint(0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    small = replace(TOY, out_dim=32, hidden=32, bottleneck=16, epochs=3, batch=8)
    trained(folder, *pretrain(seeded(lambda: vision_encoder(resnext_toy(width=4)), 0), pixels, folder/'run', small, threads=1, device='cpu', save_every=2))


def language(folder):
    said = ['look at the ball .', 'wash the cup .', 'do you see the dog ?', 'up !']*12
    words = word_tokenizer(pairs.build_vocab(said))
    model = seeded(lambda: GPT2LMHeadModel(gpt2_text(len(words), 1, 16, 2, 64, .1)), 0)
    trained(folder, model, train_language(model, words, said, folder/'run', block=8, epochs=1, batch=4, device='cpu', threads=1, save_every=2))


def generative(folder):
    rows, frames = captions.world(16)
    bundle = captions.bundle()
    trained(folder, bundle.model, train_phase(bundle, rows, replace(captions.TOY2, epochs=3), frames, folder/'run', save_every=2, **captions.HERE))


def instructions(folder):
    rows = [Record(f'{c}-{i}', (Turn('human', f'{IMAGE} What colour?'), Turn('gpt', c)), (f'{c}.png',), form='image[]') for i in range(6) for c in v2.COLOURS]
    for c, rgb in v2.COLOURS.items(): v2.Image.new('RGB', (32, 32), rgb).save(folder/f'{c}.png')
    bundle = v2.bundle(rows)
    quick = replace(V2_PHASE3, epochs=2, batch=4, lr=3e-3, vision_lr=1e-3)
    trained(folder, bundle.model, train_records(bundle, rows, quick, folder, folder/'run', save_every=2, threads=1, device='cpu'))


def lora(folder):
    for c, rgb in v2.COLOURS.items(): v2.Image.new('RGB', (32, 32), rgb).save(folder/f'{c}.png')
    rows = [Record(f'{c}-{i}', (Turn('human', f'{IMAGE} What colour?'), Turn('gpt', c)), (f'{c}.png',)) for i in range(6) for c in v2.COLOURS]
    kind, sizes = 'qwen2_5_vl', Sizes(vocab_size=300, width=32, image=32)
    words = tiny_tokenizer([t.text for r in rows for t in r.turns], sizes.vocab_size, kind)
    model = seeded(lambda: AutoModelForImageTextToText.from_config(tiny_config(kind, words, sizes)), 0)
    trained(folder, *tune(model, tiny_processor(kind, words, sizes), rows, folder/'run', folder, Lora(rank=4, lr=1e-2, batch=4), threads=1, device='cpu', save_every=1))


STAGES = dict(evaluation=evaluation, aggregation=aggregation, artifact=artifact, filter=filtering)
TRAINERS = dict(contrastive=contrastive, dino=dino, language=language, generative=generative, instructions=instructions, lora=lora)
LONG = dict(matching=matching, batch=batch)   # minutes
WORK = STAGES | TRAINERS | LONG


def on_disk(folder):
    "Every file that is a result; locks and the manifest's dates are none."
    def content(p):   # an executed copy says when each cell ran
        return p.read_bytes() if p.suffix != '.ipynb' else [c['outputs'] for c in json.loads(p.read_text())['cells']]
    return {p.relative_to(folder).as_posix(): content(p) for p in sorted(folder.rglob('*'))
            if p.is_file() and p.suffix != '.lock' and 'manifest' not in p.name and 'log' not in p.name}


def forked(work, folder, before=lambda: None):
    "The exit status of work in a process of its own; negative: the signal that ended it."
    pid = os.fork()
    if not pid:
        status = 5   # an error that nobody named
        try: before(); work(folder); status = 0
        except (OSError, ValueError) as e: status = 3 if str(e) else 4
        finally:
            if status == 5: traceback.print_exc()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def points(work, folder):
    "Where the work can be killed: its calls, as their number, and those during which a file is being written."
    def count():
        n, during, writes = [0], [], [0]
        def seen(frame, event, arg):
            n[0] += event in ('call', 'c_call')
            if event in ('call', 'return'): writes[0] += HALF.get(frame.f_code, 0)   # a context is entered and left twice
            if writes[0] % 4: during.append(n[0])
        real = os._exit
        def report(status):
            sys.setprofile(None)
            (folder.parent/'points.json').write_text(json.dumps([n[0], sorted(set(during))]))
            real(status)
        os._exit = report
        sys.setprofile(seen)
    with tempfile.TemporaryDirectory() as first: assert forked(work, Path(first)) == 0   # what is compiled once, or imported late
    assert forked(work, folder, count) == 0
    return json.loads((folder.parent/'points.json').read_text())


def killer(point):
    "Ends the process at its call number `point`, as `kill -9` does."
    def arm():
        left = [point]
        def seen(frame, event, arg):
            left[0] -= event in ('call', 'c_call')
            if left[0] <= 0: os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(seen)
    return arm


def killed(stage, n, seed=0):
    "Kills that landed, and how many of them were resumed to the bytes of an uninterrupted run."
    work, rng, same, landed = WORK[stage], random.Random(f'{stage}/{seed}'), 0, 0
    with tempfile.TemporaryDirectory() as d:
        plain = Path(d)/'plain'; plain.mkdir()
        (calls, during), right = points(work, plain), on_disk(plain)
        for k in range(n):
            folder = Path(d)/str(k); folder.mkdir()
            for _ in range(rng.randint(1, 3)):   # killed again while it resumes
                point = rng.choice(during) if during and rng.random() < .5 else rng.randint(1, calls)
                landed += forked(work, folder, killer(point)) == -signal.SIGKILL
            same += forked(work, folder) == 0 and on_disk(folder) == right
            shutil.rmtree(folder)
    return dict(rounds=n, kills=landed, same=same, points=calls)


def at_once(stage):
    "Two processes do the same work in one folder: their exit statuses, and whether what is there then, or after a third, is right."
    with tempfile.TemporaryDirectory() as d:
        plain, both = Path(d)/'plain', Path(d)/'both'; plain.mkdir(); both.mkdir()
        assert forked(WORK[stage], plain) == 0
        with ThreadPoolExecutor(2) as pool: ends = [*pool.map(lambda _: forked(WORK[stage], both), range(2))]
        return sorted(ends), forked(WORK[stage], both) == 0 and on_disk(both) == on_disk(plain)


def full_disk(): signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))


def jumping_clock():
    real, k = time.time, [0]
    def now(): k[0] += 1; return real() + (-1)**k[0]*10**6
    time.time = now


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--n', type=int, default=50, help='rounds of each stage')
    p.add_argument('--stage', nargs='*', default=list(WORK), choices=list(WORK), help='default: all')
    p.add_argument('--add', action='store_true', help='only the rounds that the record lacks, at other points')
    a, found = p.parse_args(argv), {}
    logging.disable_progress_bar()
    for stage in a.stage:
        known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        before = known.get(stage, {}) if a.add else {}
        new = killed(stage, a.n - before.get('rounds', 0), seed=before.get('rounds', 0))
        found[stage] = new | {k: new[k] + before.get(k, 0) for k in ('rounds', 'kills', 'same')}
        RESULTS.write_text(json.dumps({k: v for k, v in (known | found).items() if k in WORK}, indent=1, sort_keys=True) + '\n')
        print(stage, found[stage], flush=True)
    return int(any(f['same'] < f['rounds'] for f in found.values()))


if __name__ == '__main__': sys.exit(main())
