"""Several questions about one picture to hub models of the real classes, against the protocol of lmms-eval: one (picture, answer) a call.

Weights are random, sizes small, the classes real. The peer runs each candidate answer through the whole model, picture included; `plain`
is this package with `share=False`: the picture is encoded once, and read by the language model once a question. All three run
interleaved in one process; figures are medians of the per-round ratios.
"""
import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from babyvlm.models.hub_models import HubVLM, Question, load_vlm
from babyvlm.models.tiny import tiny_vlm
from babyvlm.products import full_precision

TEXTS = ['What is the creature in this picture? Answer with a letter. A. cup B. dog C. hat D. cat'] * 9
NAMES = ('A', 'B', 'C', 'D')
QWEN = dict(width=512, layers=12, heads=8, mlp=3, vision_width=256, vision_layers=4, vocab_size=600, patch=14)
SMALL = dict(width=256, layers=6, heads=4, mlp=3, vision_width=128, vision_layers=2)


def model(folder, kind, side, share, **sizes):
    "A model whose pictures have so many pixels a side."
    if not folder.exists(): tiny_vlm(folder, kind, TEXTS, image=side, **sizes)
    return load_vlm(folder, device='cpu', share=share)


def ask(folder, pictures, questions):
    "Questions of about sixty tokens, all of a picture's in a row."
    rng, out = np.random.default_rng(0), []
    for i in range(pictures):
        path = folder/f'{i}.png'
        if not path.exists(): Image.fromarray(rng.integers(0, 255, (448, 448, 3), dtype=np.uint8)).save(path)
        out += [Question(f'Level {j}: which creature is in this picture?\nA. cup {j}\nB. dog\nC. hat\nD. cat {i}', (str(path),)) for j in range(questions)]
    return out


@torch.inference_mode()
def candidate_at_a_time(m, questions):
    "What lmms-eval does: picture and candidate in one call, logits everywhere, nothing reused."
    out = []
    for q in questions:
        scores = []
        for name in NAMES:
            x = m.processor(text=[m.prompt(q) + name], images=[Image.open(q.images[0]).convert('RGB')], return_tensors='pt')
            logits = m.model(**x, use_cache=True).logits[0].float()
            scores.append(float(logits[-2].log_softmax(-1)[x['input_ids'][0, -1]]))
        out.append(np.array(scores))
    return out


def _seconds(work):
    began = time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
    result = work()
    return (time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()) - began, result


def compare(name, shared, plain, questions, each, rounds):
    "Rows of one family: against the harness, and against reading the picture once a question."
    def ours(): shared.seen = {}; return shared.score_letters(questions, [4] * len(questions))
    def whole(): plain.seen = {}; return plain.score_letters(questions, [4] * len(questions))
    def peer(): return candidate_at_a_time(plain, questions[:1])     # one question; the others cost the same
    pictures = len(questions) // each
    shared.score_letters(questions[:2], [4, 4])     # whether it may share is tried once, before the clock runs
    times = []
    for _ in range(rounds):
        shared.read = plain.read = 0
        (a, x), (b, y) = _seconds(ours), _seconds(whole)
        c, _ = _seconds(peer)
        times.append((a, b, c * len(questions)))
    off = max(float(np.abs(p - q).max()) for p, q in zip(x, y))
    mine, theirs, harness = (statistics.median(t[k] for t in times) for k in range(3))
    kept = 2 * shared.model.config.get_text_config().num_hidden_layers * shared.model.config.get_text_config().hidden_size * 4
    size = f'{name}, {shared.read // pictures} tokens a picture, {each} questions'
    note = f'{mine / pictures:.2f} s a picture, {plain.read // shared.read} x fewer picture tokens read, {kept * shared.read / pictures / 2**20:.0f} MB kept'
    for who, seconds, k in (('each question read whole', theirs, 1), ('candidate at a time (lmms-eval protocol)', harness, 2)):
        yield dict(part='questions', size=size, peer=f'{who}, {seconds / pictures:.2f} s a picture', ours=note,
                   ratio=round(statistics.median(t[k] / t[0] for t in times), 1), memory_ratio=None, exactness=f'largest difference {off:.1e}')


def rows(quick=True, rounds=3):
    "Qwen2.5-VL's class at 47 M weights, then the other families small; quick: one round, two pictures."
    with tempfile.TemporaryDirectory() as d, full_precision():
        d = Path(d)
        for kind, side, sizes in (('qwen2_5_vl', 448, QWEN), ('qwen2_5_vl', 896, QWEN), ('qwen3_vl', 256, SMALL), ('llava_onevision', 128, SMALL), ('internvl', 256, SMALL)):
            shared, plain = (model(d/f'{kind}-{side}', kind, side, share, **sizes) for share in (True, False))
            weights = sum(p.numel() for p in shared.model.parameters()) / 1e6
            for each in (6, 12):
                if quick and sizes is SMALL and each == 12: continue
                questions = ask(d, 1 if quick else 2, each)
                yield from compare(f'{kind}, {weights:.0f} M weights', shared, plain, questions, each, 1 if quick else rounds)
            del shared, plain


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('--full', action='store_true'); a.add_argument('--out')
    a = a.parse_args()
    found = []
    for r in rows(not a.full): found.append(r); sys.stderr.write(f"{r['size']}: {r['ratio']} x {r['peer']}; {r['ours']}; {r['exactness']}\n")
    text = json.dumps(found, indent=1)
    if a.out: Path(a.out).write_text(text)
    sys.stdout.write(text + '\n')
