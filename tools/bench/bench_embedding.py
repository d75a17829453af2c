"""Embedding frames for a filter: where the time goes, and what a second threshold costs.

The peer is the loop that filter scripts use: open, prepare and encode in one process, in float32. Ours is `embed_pairs`: worker
processes decode and prepare, a GPU computes in bfloat16, shards of float16 vectors are kept by uid. Frames are the nursery's,
written as JPEG; the encoders are CLIP's architectures with random weights. Frames a second of both, in turn; the share of our
time that the model takes; seconds of a second filter with another threshold.
"""
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import babyvlm  # noqa: F401
import numpy as np
import torch

SIZES = {'ViT-B/32': dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=32),
         'ViT-L/14': dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14)}
TEXT = dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8, max_position_embeddings=77)
BATCH = 128


def _draw(job):
    "Frames and utterances of one session."
    from babyvlm.nursery.world import Nursery
    folder, k, n, size = job
    world = Nursery(seed=k, size=size)
    session = world.sessions(1, heldout=bool(k % 2))[0]
    rows = []
    for i, u in enumerate(world.recording(session, n)):
        name = f'{k:03}_{i:04}.jpg'
        world.picture(u).save(f'{folder}/{name}', quality=90)
        rows.append((name[:-4], name, u.text or 'look'))
    return rows


def frames(folder, n, size, workers):
    "n nursery frames as a data set of pairs."
    from datasets import Dataset
    each = 100
    jobs = [(str(folder), k, min(each, n - k*each), size) for k in range(-(-n//each))]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool: parts = list(pool.map(_draw, jobs))
    else: parts = [_draw(j) for j in jobs]
    rows = [r for p in parts for r in p]
    return Dataset.from_dict({c: [r[i] for r in rows] for i, c in enumerate(('uid', 'image', 'utterance'))})


def encoder(name, texts, device):
    "A CLIP of `transformers` at its real size, or CVCL at the toy's; random weights."
    from babyvlm.models.dual_encoders import HubClip
    from babyvlm.models.tokenizers import word_tokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor
    words = dict.fromkeys(['<pad>', '<unk>', '<sos>', '<eos>', *sorted({w for t in texts for w in t.split()})])
    vocab = {w: i for i, w in enumerate(words)}
    if name == 'toy CVCL':
        from babyvlm.models.cvcl import new_cvcl
        return new_cvcl(vocab, device=device)
    text = dict(TEXT, vocab_size=len(vocab), pad_token_id=0, bos_token_id=2, eos_token_id=3, projection_dim=512)
    config = CLIPConfig(text_config=text, vision_config=dict(SIZES[name], image_size=224, projection_dim=512), projection_dim=512)
    torch.manual_seed(0)
    processor = CLIPProcessor(CLIPImageProcessor(), word_tokenizer(vocab, sos_eos=True))
    return HubClip(CLIPModel(config), processor, name, device, BATCH if device == 'cuda' else 32)


def plain(clip, pairs, root, batch):
    "What filter scripts do: cosine of each pair, one process, float32."
    from PIL import Image
    out = []
    for i in range(0, len(pairs), batch):
        part = pairs[i:i + batch]
        images = clip.encode_images([Image.open(root/f).convert('RGB') for f in part['image']])
        out.append((images*clip.encode_texts(part['utterance'])).sum(1))
    return torch.cat(out).numpy()


def compare(name, n, n_peer, size, device, workers, rounds, folder):
    "A row of one encoder."
    from babyvlm.data.filters import embed_pairs, select_above
    from babyvlm.store import Store
    root = Path(folder)/f'{n}'
    if not root.exists():
        root.mkdir()
        frames(root, n, size, workers).save_to_disk(str(Path(folder)/f'pairs_{n}'))
    from datasets import load_from_disk
    pairs = load_from_disk(str(Path(folder)/f'pairs_{n}'))
    clip, batch = encoder(name, pairs['utterance'], device), BATCH if device == 'cuda' else 32
    some = pairs.select(range(n_peer))
    plain(clip, pairs.select(range(min(n, 2*batch))), root, batch)
    mine, theirs, facts = [], [], {}
    for r in range(rounds):
        with tempfile.TemporaryDirectory() as d:
            began = time.perf_counter()
            scored = embed_pairs(pairs, clip, f'{name} {r}', root, Store(d), batch, 8, workers, half=clip.device.type == 'cuda')
            mine.append((time.perf_counter() - began)/n)
            facts = scored.artifact.manifest['extra']
            began = time.perf_counter()
            select_above(scored, float(np.median(scored.similarity)))
            again = time.perf_counter() - began
            began = time.perf_counter()
            cosine = plain(clip, some, root, batch)
            theirs.append((time.perf_counter() - began)/n_peer)
            off = float(np.abs(scored.similarity[:n_peer] - cosine).max())
    whole = facts['model_s'] + facts['other_s']
    return dict(part='embedding', size=f'{n:,} nursery frames of {size} px, {name}',
                peer=f'open, prepare, encode in one process, float32: {1/median(theirs):.0f} frames/s ({n_peer:,} timed)',
                ours=f'{1/median(mine):.0f} frames/s with {workers} workers, model {facts["model_s"]/whole:.0%} of the time, '
                     f'waiting for pictures {facts["wait_s"]/whole:.0%}; another threshold {again:.2f} s',
                ratio=round(median(b/a for a, b in zip(mine, theirs)), 2), memory_ratio=None,
                exactness=f'cosines differ by at most {off:.1e}')


def rows(quick=True, device='cpu'):
    "Rows for the benchmark table: CLIP's size, and ten thousand frames with the toy's encoder."
    jobs = [('ViT-B/32', 96, 96, 224)] if quick else [('toy CVCL', 10_000, 2_000, 64), ('ViT-B/32', 500, 200, 224)]
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs: yield compare(*job, device, 0, 1, folder)  # the model takes every core, a worker would take one from it


def gpu_rows(quick=False, device='cuda', late=lambda: False):
    "Ten thousand frames as large as SAYCam's are tall."
    room = shutil.disk_usage('/dev/shm').free if Path('/dev/shm').exists() else 2**33  # prepared pictures travel there
    workers = max(1, min(14, (os.cpu_count() or 2) - 2, room//(4*BATCH*3*224*224*4)))
    n, n_peer, size = (64, 32, 96) if quick else (10_000, 1_500, 480)
    with tempfile.TemporaryDirectory() as folder:
        for name in SIZES:
            if late(): return
            if quick and name != 'ViT-B/32': continue
            yield compare(name, n, n_peer, size, device, workers, 1 if quick else 2, folder)


if __name__ == '__main__':
    for row in rows(): print(row)
