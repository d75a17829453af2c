"""Shared-prefix scoring against the candidate-at-a-time protocol of lmms-eval, BabyLLaVA-GPT2 at its real size.

The peer repeats what a harness does: one (picture, candidate) a call, the picture encoded again for each, logits at every
position. Both sides run in one process, interleaved; the figure is the median of the per-round ratios.
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
import torch.nn.functional as F
from PIL import Image

import babyvlm  # noqa: F401
from babyvlm.benchmarks.likelihood import loglik, requests
from babyvlm.data.conversations import IMAGE
from babyvlm.items import Item
from babyvlm.models.babyllava import (BabyLlava, BabyLlavaConfig, BabyLlavaForConditionalGeneration, BabyLlavaProcessor, babyllava_gpt2,
                                      babyllava_llama, babyllava_toy, llama_text)
from babyvlm.models.babyllava_v2 import BabyLlavaV2, RecordProcessor
from babyvlm.models.tokenizers import bpe_tokenizer, word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens, vit
from babyvlm.models.weights import seeded
from babyvlm.pictures import open_image
from babyvlm.products import full_precision, quick_products


SIZES = dict(gpt2=babyllava_gpt2, llama=babyllava_llama, toy=babyllava_toy)


def bundle(device, seed=0, size='gpt2'):
    "BabyLLaVA at a published size with random weights."
    torch.manual_seed(seed)
    words = 32000 if size == 'llama' else 2350
    config = SIZES[size](words)
    vocab = {w: i for i, w in enumerate(['<pad>', '<unk>', '<sos>', '<eos>', *(f'w{i}' for i in range(words - 4))])}
    model = BabyLlavaForConditionalGeneration(config).to(device).eval()
    side = config.vision_config.image_size
    return BabyLlava(model, BabyLlavaProcessor(image_processor(side), word_tokenizer(vocab), num_image_tokens(config.vision_config)))


def workload(kind, n, folder, rng):
    "Items of one shape over noise pictures."
    def picture(i):
        p = folder/f'{i}.png'
        if not p.exists(): Image.fromarray(rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)).save(p)
        return str(p)
    def words(k): return ' '.join(f'w{i}' for i in rng.integers(0, 2346, k))
    out = []
    for i in range(n):
        if kind == '4 candidates, own picture':
            out.append(Item(str(i), kind, (picture(i),), words(6), tuple(words(int(rng.integers(1, 6))) for _ in range(4))))
        if kind == '2 candidates, 4 items a picture':
            out.append(Item(str(i), kind, (picture(i // 4),), words(6), tuple(words(2) for _ in range(2))))
        if kind == '4 candidates, long prompts, 8 items a picture':
            out.append(Item(str(i), kind, (picture(i // 8),), words(int(rng.integers(60, 121))), tuple(words(int(rng.integers(1, 6))) for _ in range(4))))
        if kind == '4 pictures x 1 word, pictures shared':
            pool = max(4, n // 2)
            out.append(Item(str(i), kind, tuple(picture(int(j)) for j in rng.choice(pool, 4, replace=False)), '', (words(1),), choice='images'))
    return out


KINDS = ('4 candidates, own picture', '2 candidates, 4 items a picture', '4 candidates, long prompts, 8 items a picture',
         '4 pictures x 1 word, pictures shared')


@torch.inference_mode()
def candidate_at_a_time(model, items):
    "What lmms-eval's wrappers do: picture and candidate in one call of batch 1, logits everywhere, nothing reused."
    net, t, out = model.model, model.processor.num_image_tokens, [dict() for _ in items]
    for r in requests(items):
        ids = [model.processor.image_token_id] * t + model.prompt_ids(r.prompt) + model.option_ids(r.prompt, r.option)
        k = len(model.option_ids(r.prompt, r.option))
        pixels = model.processor.image_processor([open_image(r.images[0])]).to(model.device)
        x = torch.tensor([ids], device=model.device)
        logits = net(x, pixel_values=pixels, use_cache=True).logits[0].float()
        out[r.item][r.slot] = F.log_softmax(logits[-k - 1:-1], -1).gather(1, x[0, -k:, None]).sum().item()
    return [np.array(list(o.values())) for o in out]


def _timed(f, device):
    "Seconds and result; processor time where one thread does all the work, since a busy machine then does no harm."
    gpu = device.type == 'cuda'
    clock = time.perf_counter if gpu or torch.get_num_threads() > 1 else time.process_time
    if gpu: torch.cuda.synchronize()
    began = clock(); result = f()
    if gpu: torch.cuda.synchronize()
    return clock() - began, result


def compare(model, kind, n, device, rounds, seconds, name):
    "A row of one workload; no further round once `seconds` are spent."
    gpu = device.type == 'cuda'
    batch = 64 if gpu else 4
    with tempfile.TemporaryDirectory() as folder, full_precision():  # both sides in full float32
        items = workload(kind, n, Path(folder), np.random.default_rng(0))
        pictures = sorted({p for i in items for p in i.images})
        def ours(): return loglik(model, items)
        def peer(): return candidate_at_a_time(model, items)
        def images():
            with torch.inference_mode(), quick_products(device), model.encoding():  # as quickly as ours encodes them
                for s in range(0, len(pictures), batch): model.image_tokens([open_image(p) for p in pictures[s:s + batch]])
        ours(); images(); candidate_at_a_time(model, items[:1])
        ratios, floors, times, off, same, began = [], [], [], 0., 1., time.perf_counter()
        for r in range(rounds):
            if r and time.perf_counter() - began > seconds: break
            a, x = _timed(ours, device); b, y = _timed(peer, device); c, _ = _timed(images, device)
            ratios.append(b / a); floors.append(a / c); times.append((a, b))
            off = max(off, max(float(np.abs(p.ravel() - q).max()) for p, q in zip(x, y)))
            same = min(same, np.mean([p.argmax() == q.argmax() for p, q in zip(x, y)]))
    mine, theirs = (statistics.median(t[k] for t in times) for k in (0, 1))
    return dict(part='likelihood', size=f'{name}, {n} items: {kind}', peer=f'candidate at a time (lmms-eval protocol), {theirs:.2f} s',
                ours=f'{mine:.2f} s, {statistics.median(floors):.2f} x encoding the pictures once', ratio=round(statistics.median(ratios), 1),
                memory_ratio=None, exactness=f'largest difference {off:.1e}, same choices {same:.0%}')


def conversations(n, rounds, folder):
    "Items of every round of Memory: a picture more each, the answers so far in the history."
    rng, ask = np.random.default_rng(0), f'{IMAGE} Was it there before, (A) or (B)?'
    names = [[folder/f'{i}-{k}.png' for k in range(rounds)] for i in range(n)]
    for p in (p for row in names for p in row): Image.fromarray(rng.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(p)
    before = [tuple(dict(prompt=ask, answer='AB'[i % 2]) for i in range(k)) for k in range(rounds)]
    return [[Item(f'{i}/{k}', 'memory', tuple(map(str, row[:k + 1])), ask, ('A', 'B'), 0, rounds=before[k]) for i, row in enumerate(names)]
            for k in range(rounds)]


def going_on(n, rounds, device):
    "A row: rounds of a conversation, each read on from the last one, or whole."
    words = bpe_tokenizer(['USER: Was it there before, (A) or (B)? ASSISTANT: A', 'ASSISTANT: B'], 300)
    config = BabyLlavaConfig(vit(128, 4, 4, 14, 112), llama_text(len(words), 6, 256, 8, 8, 768, 2048, 0, 2, 3))
    model = seeded(lambda: BabyLlavaForConditionalGeneration(config), 0).to(device).eval()
    m = BabyLlavaV2(model, RecordProcessor(image_processor(112, pad_to_square=True), words, num_image_tokens(config.vision_config), max_length=2048),
                    max_new_tokens=2)
    def on(asked): m.state = None; return [s for some in asked for s in m.loglik(some)]
    def whole(asked):
        out = []
        for some in asked: m.state = None; out += m.loglik(some)
        return out
    with tempfile.TemporaryDirectory() as d, full_precision():
        asked = conversations(n, rounds, Path(d))
        m.loglik(asked[0])
        (mine, x), (theirs, y) = _timed(lambda: on(asked), device), _timed(lambda: whole(asked), device)
    off = max(float(np.abs(a - b).max()) for a, b in zip(x, y))
    return dict(part='likelihood', size=f'BabyLLaVA-V2, {rounds} rounds of Memory, {n} records, {m.processor.num_image_tokens} tokens a picture',
                peer=f'each round read whole, {theirs:.2f} s', ours=f'on from the last round, {mine:.2f} s', ratio=round(theirs/mine, 1),
                memory_ratio=None, exactness=f'largest difference {off:.1e}')


def rows(quick=True, device='cpu', rounds=3):
    "Rows for the benchmark table; quick: 8 items, and no further round of a workload once it has taken 10 seconds."
    device = torch.device(device)
    yield going_on(4 if quick else 16, 8 if quick else 15, device)
    model, n = bundle(device), 8 if quick else 32
    for kind in KINDS: yield compare(model, kind, n, device, 1 if quick else rounds, 10 if quick else 90, 'BabyLLaVA-GPT2')


def gpu_rows(quick=False, device='cuda', late=lambda: False):
    "Both published sizes, all workloads."
    device = torch.device(device)
    for size, n in (('toy', 4),) if quick else (('gpt2', 256), ('llama', 64)):
        model = bundle(device, size=size)
        name = dict(gpt2='BabyLLaVA-GPT2', llama='BabyLLaVA-Llama (1.41 G weights)', toy='toy')[size]
        for kind in KINDS:
            if late(): return
            yield compare(model, kind, n, device, 3, 40, name)
        del model


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('--full', action='store_true'); a.add_argument('--gpu', action='store_true'); a.add_argument('--out')
    a = a.parse_args()
    found = list(gpu_rows() if a.gpu else rows(not a.full))
    text = json.dumps(found, indent=1)
    if a.out: Path(a.out).write_text(text)
    sys.stdout.write(text + '\n')
