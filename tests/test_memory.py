"""Peak memory of each stage that goes over a corpus, with few frames and with many: it must not grow with them.

    python -m pytest tests/test_memory.py -m slow            # 2,000 and 20,000 frames
    BABYVLM_FRAMES=200000 python -m pytest tests/test_memory.py -m slow
    python tests/test_memory.py dino 2000                    # one stage, prints its peak in MiB
    python tests/test_memory.py --write 2000 200000 [STAGE]  # all stages or one, to tests/reliability/memory.json
"""
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

FEW, MANY, MOST = 2000, int(os.environ.get('BABYVLM_FRAMES', 20_000)), 200   # frames, frames, MiB between them
RESULTS = Path(__file__).resolve().parent/'reliability'/'memory.json'
SIDE, STAGES = 32, ('dino', 'cvcl', 'features', 'phases', 'records')


def frames(folder, n):
    "Real files, each decoded when it is read; a hundred pictures under n names."
    from PIL import Image
    import numpy as np
    rng, paths = np.random.default_rng(0), []
    for k in range(100): Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder/f'{k}.jpg')
    for k in range(n):
        paths.append(f'{folder}/frame-{k:07}.jpg')
        os.link(folder/f'{k % 100}.jpg', paths[-1])
    return paths


def bundle(standardize=False):
    from babyvlm.models.babyllava import (BabyLlava, BabyLlavaConfig, BabyLlavaForConditionalGeneration, BabyLlavaProcessor,
                                          babyllava_toy)
    from babyvlm.models.tokenizers import build_vocab, word_tokenizer
    from babyvlm.models.vision import image_processor, num_image_tokens
    words = word_tokenizer(build_vocab(['look at the ball', 'a red cup'], 1))
    toy = babyllava_toy(len(words), 'gpt2', width=16, layers=1, image_size=SIDE)
    config = BabyLlavaConfig(toy.vision_config, toy.text_config, standardize=standardize)
    processor = BabyLlavaProcessor(image_processor(SIDE), words, num_image_tokens(config.vision_config))
    return BabyLlava(BabyLlavaForConditionalGeneration(config), processor)


def pairs(paths): return [dict(uid=f'u{k}', image=p, utterance='look at the ball') for k, p in enumerate(paths)]


def dino(paths, out):
    from babyvlm.models.vision import image_processor, resnext_toy, vision_encoder
    from babyvlm.training.contrastive import load_pixels
    from babyvlm.training.dino import TOY, pretrain
    pixels = load_pixels(paths, image_processor(SIDE), out/'frames.npy')
    recipe = replace(TOY, global_size=SIDE, local_size=16, epochs=1, batch=64)
    pretrain(vision_encoder(resnext_toy(SIDE)), pixels, out, recipe, threads=1, max_steps=20)
    for k in range(0, len(pixels), 64): pixels[list(range(k, min(k + 64, len(pixels))))]   # the rest of the epoch


def cvcl(paths, out):
    import pandas as pd
    from babyvlm.models.cvcl import new_cvcl
    from babyvlm.models.tokenizers import build_vocab
    from babyvlm.training.contrastive import train_cvcl
    model = new_cvcl(build_vocab(['look at the ball'], 1), image_size=SIDE, width=8)
    train_cvcl(model, pd.DataFrame(pairs(paths)), out, '/', epochs=1, batch=64, threads=1)


def features(paths, out):
    from babyvlm.training.generative import encode_once
    b = bundle(standardize=True)
    encode_once(b.fit_features(paths), paths, '/', path=out/'features.npy')


def phases(paths, out):
    from babyvlm.training.generative import PHASE1, PHASE2, encode_once, train_phase
    b, rows = bundle(), pairs(paths)
    seen = encode_once(b, [r['image'] for r in rows], '/', path=out/'features.npy')
    for phase in (PHASE1, PHASE2):
        train_phase(b, rows, replace(phase, epochs=1, batch=64), '/', out/phase.name, threads=1, data=dict(features=seen))


def records(paths, out):
    from babyvlm.data.conversations import IMAGE, Record, Turn
    from babyvlm.models.babyllava_v2 import BabyLlavaV2, RecordProcessor, babyllava_v2_toy
    from babyvlm.models.babyllava import BabyLlavaForConditionalGeneration
    from babyvlm.models.tokenizers import bpe_tokenizer
    from babyvlm.models.vision import image_processor, num_image_tokens
    from babyvlm.training.instructions import V2_PHASE1, train_records
    words = bpe_tokenizer(['look at the ball', 'a red cup USER: ASSISTANT:']*9, 300)
    config = babyllava_v2_toy(len(words), SIDE)
    processor = RecordProcessor(image_processor(SIDE, pad_to_square=True), words, num_image_tokens(config.vision_config))
    turns = Turn('human', f'{IMAGE}\n'), Turn('gpt', 'look at the ball')
    root, rows = os.path.dirname(paths[0]), [Record(f'r{k}', turns, (os.path.basename(p),)) for k, p in enumerate(paths)]
    paths.clear()   # names are in the records
    train_records(BabyLlavaV2(BabyLlavaForConditionalGeneration(config), processor), rows, replace(V2_PHASE1, epochs=1, batch=64),
                  root, out, threads=1, pictures=dict(keep=True))


def peak(stage, n):
    "MiB of a process that runs one stage."
    command = [sys.executable, __file__, stage, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stderr[-3000:]
    return float(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize('stage', STAGES)
def test_memory_does_not_grow_with_the_corpus(stage):
    few, many = peak(stage, FEW), peak(stage, MANY)
    print(f'| {stage} | {few:.0f} | {many:.0f} | {many - few:+.0f} |')
    assert many - few < MOST


@pytest.mark.parametrize('stage', STAGES)
def test_the_committed_table_does_not_grow_with_the_corpus(stage):
    r = json.loads(RESULTS.read_text())[stage]
    assert r['many'] >= 10*r['few'] and r['many_mib'] - r['few_mib'] < MOST, r


def write(few, many, *stages):
    "The table of the reliability page, a stage at a time."
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for stage in stages or STAGES:
        kept[stage] = dict(few=few, few_mib=round(peak(stage, few)), many=many, many_mib=round(peak(stage, many)))
        print(stage, kept[stage], flush=True)
        RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + '\n')


if __name__ == '__main__' and sys.argv[1] == '--write': write(*map(int, sys.argv[2:4]), *sys.argv[4:])
elif __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        place, out = Path(folder)/'frames', Path(folder)/'out'
        place.mkdir(); out.mkdir()
        globals()[sys.argv[1]](frames(place, int(sys.argv[2])), out)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
