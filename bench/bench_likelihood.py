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
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import babyvlm  # noqa: F401
from babyvlm.benchmarks.items import Item, open_image
from babyvlm.benchmarks.likelihood import loglik, requests
from babyvlm.models.babyllava import BabyLlava, BabyLlavaForConditionalGeneration, BabyLlavaProcessor, babyllava_gpt2
from babyvlm.models.tokenizers import word_tokenizer
from babyvlm.models.vision import image_processor, num_image_tokens


def bundle(device, seed=0):
    "BabyLLaVA-GPT2 at its published size with random weights."
    torch.manual_seed(seed)
    config = babyllava_gpt2(2350)
    vocab = {w: i for i, w in enumerate(['<pad>', '<unk>', '<sos>', '<eos>', *(f'w{i}' for i in range(2346))])}
    model = BabyLlavaForConditionalGeneration(config).to(device).eval()
    return BabyLlava(model, BabyLlavaProcessor(image_processor(224), word_tokenizer(vocab), num_image_tokens(config.vision_config)))


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
    if device.type == 'cuda': torch.cuda.synchronize()
    began = time.perf_counter(); result = f()
    if device.type == 'cuda': torch.cuda.synchronize()
    return time.perf_counter() - began, result


def rows(quick=True, device='cpu', rounds=3):
    "Rows for the benchmark table; quick: 8 items, and no further round of a workload once it has taken 10 seconds."
    device, out = torch.device(device), []
    model, n = bundle(device), (8 if quick else 48) if device.type == 'cpu' else 256
    with tempfile.TemporaryDirectory() as d, warnings.catch_warnings():
        for kind in KINDS:
            rng = np.random.default_rng(0)
            folder = Path(d)/kind.replace(' ', '_').replace(',', ''); folder.mkdir()
            items = workload(kind, n, folder, rng)
            pictures = sorted({p for i in items for p in i.images})
            def ours(): return loglik(model, items, image_batch=8 if device.type == 'cpu' else 64, tokens=4096 if device.type == 'cpu' else 65536)
            def peer(): return candidate_at_a_time(model, items)
            def images():
                with torch.inference_mode():
                    b = 8 if device.type == 'cpu' else 64
                    for s in range(0, len(pictures), b): model.image_tokens([open_image(p) for p in pictures[s:s + b]])
            ours(); images()
            ratios, floors, off, began = [], [], 0., time.perf_counter()
            for r in range(rounds):
                if r and quick and time.perf_counter() - began > 10: break
                a, x = _timed(ours, device); b, y = _timed(peer, device); c, _ = _timed(images, device)
                ratios.append(b / a); floors.append(a / c)
                off = max(off, max(float(np.abs(p.ravel() - q).max()) for p, q in zip(x, y)))
                same = np.mean([p.argmax() == q.argmax() for p, q in zip(x, y)])
            out.append(dict(part='likelihood', size=f'{n} items: {kind}', peer='candidate at a time (lmms-eval protocol)',
                            ours=f'{statistics.median(floors):.2f} x encoding the pictures once', ratio=round(statistics.median(ratios), 1),
                            memory_ratio=None, exactness=f'largest difference {off:.1e}, same choices {same:.0%}'))
    return out


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('--full', action='store_true'); a.add_argument('--gpu', action='store_true'); a.add_argument('--out')
    a = a.parse_args()
    found = rows(not a.full, 'cuda' if a.gpu else 'cpu')
    text = json.dumps(found, indent=1)
    if a.out: Path(a.out).write_text(text)
    sys.stdout.write(text + '\n')
