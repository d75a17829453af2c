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

from babyvlm.models.chat import Question
from babyvlm.models.hub_models import HubVLM, load_vlm
from babyvlm.models.shared_reading import letter_ids
from babyvlm.models.tiny import Sizes, tiny_config, tiny_processor, tiny_tokenizer, tiny_vlm
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
def candidate_at_a_time(m, questions, device='cpu'):
    "What lmms-eval does: picture and candidate in one call, logits everywhere, nothing reused."
    out, spelled = [], letter_ids(m.tokenizer, NAMES)     # 'A' and ' A' both count, as in `score_letters`
    for q in questions:
        scores = []
        for name, own in zip(NAMES, spelled):
            x = m.processor(text=[m.prompt(q) + name], images=[Image.open(q.images[0]).convert('RGB')], return_tensors='pt').to(device)
            logits = m.model(**x, use_cache=True).logits[0].float()
            scores.append(float(logits[-2].log_softmax(-1)[own].logsumexp(0)))
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


def talk(folder, rounds):
    "The rounds of a record of Memory: one picture, then two each."
    said, out = [], []
    paths = [folder/f'talk{i}.png' for i in range(2*rounds - 1)]
    for i, p in enumerate(paths): Image.fromarray(np.random.default_rng(i).integers(0, 255, (128, 128, 3), dtype=np.uint8)).save(p)
    for k in range(rounds):
        words = '<image> '*min(k + 1, 2) + 'Which is new?\nA. first\nB. second'
        out.append(Question(words, tuple(map(str, paths[:2*k + 1])), earlier=tuple(said)))
        said.append((words, 'AB'[k % 2]))
    return out


def going_on(folder, rounds):
    "A row: rounds of a conversation in words, each read on from the last one, or whole."
    on, whole = (model(folder/'talk', 'qwen2_5_vl', 128, share, **(QWEN | dict(patch=8, positions=8192))) for share in (True, False))
    asked = talk(folder, rounds)
    def said(m, once):
        m.heard, m.seen, m.read, out = {}, {}, 0, []
        for q in asked:
            if not once: m.seen = {}
            out += m.say([q], 2)
        return out
    for m in (on, whole): said(m, True)              # what may be shared is tried once, before the clock runs
    (mine, x), (theirs, y) = _seconds(lambda: said(on, True)), _seconds(lambda: said(whole, False))
    weights, each = sum(p.numel() for p in on.model.parameters()) / 1e6, on._grown(asked[-1]).runs[0].count(on.token_id)
    return dict(part='questions', size=f'qwen2_5_vl, {weights:.0f} M weights, {rounds} rounds of Memory, {each} tokens a picture',
                peer=f'each round read whole, {theirs:.2f} s', ours=f'on from the last round, {mine:.2f} s, {whole.read / on.read:.1f} x fewer picture tokens read',
                ratio=round(theirs / mine, 1), memory_ratio=None, exactness='same replies' if x == y else 'replies differ')


def rows(quick=True, rounds=3):
    "Qwen2.5-VL's class at 47 M weights, then the other families small; quick: one round, two pictures."
    with tempfile.TemporaryDirectory() as d, full_precision():
        d = Path(d)
        yield going_on(d, 8 if quick else 15)
        for kind, side, sizes in (('qwen2_5_vl', 448, QWEN), ('qwen2_5_vl', 896, QWEN), ('qwen3_vl', 256, SMALL), ('llava_onevision', 128, SMALL), ('internvl', 256, SMALL)):
            shared, plain = (model(d/f'{kind}-{side}', kind, side, share, **sizes) for share in (True, False))
            weights = sum(p.numel() for p in shared.model.parameters()) / 1e6
            for each in (6, 12):
                if quick and sizes is SMALL and each == 12: continue
                questions = ask(d, 1 if quick else 2, each)
                yield from compare(f'{kind}, {weights:.0f} M weights', shared, plain, questions, each, 1 if quick else rounds)
            del shared, plain


def large(device, side, share, quick=False):
    "Qwen2.5-VL's class at the 7 B model's sizes with random bf16 weights made on the card; quick: the small one of above."
    from transformers import AutoModelForImageTextToText
    s = Sizes(**(SMALL | dict(image=side, patch=14) if quick else dict(width=3584, layers=28, heads=28, mlp=1, vision_width=1280, vision_layers=32, image=side, patch=14, positions=32768)))
    tokenizer = tiny_tokenizer(TEXTS, 600, 'qwen2_5_vl')
    config = tiny_config('qwen2_5_vl', tokenizer, s)
    if not quick:
        for part, own in ((config.text_config, dict(num_key_value_heads=4, intermediate_size=18944, vocab_size=152064)),
                          (config.vision_config, dict(num_heads=16, intermediate_size=3420, window_size=112, fullatt_block_indexes=[7, 15, 23, 31]))):
            for k, v in own.items(): setattr(part, k, v)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32 if quick else torch.bfloat16)
        torch.manual_seed(0)
        with torch.device(device): model = AutoModelForImageTextToText.from_config(config)
    finally: torch.set_default_dtype(before)
    return HubVLM(model.eval(), tiny_processor('qwen2_5_vl', tokenizer, s), 'random 7B', device, share=share)


def gpu_rows(quick=False, device='cuda', late=lambda: False):
    "Two thousand questions to Qwen2.5-VL at 7 B: questions a second, the harness's protocol on a part of them, memory."
    def timed(work):
        if device == 'cuda': torch.cuda.synchronize(); torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter(); result = work()
        if device == 'cuda': torch.cuda.synchronize()
        return time.perf_counter() - began, result, torch.cuda.max_memory_allocated() / 2**30 if device == 'cuda' else 0.
    with tempfile.TemporaryDirectory() as d:
        for side, each, n in ((448, 6, 2000), (896, 6, 498)):
            if late(): return
            if quick: side, n = side // 4, 12
            m = large(device, side, True, quick)
            questions = ask(Path(d), -(-n // each), each)[:n]
            some = questions[::max(1, n // 60)]
            apart = lambda a, b: max(float(np.abs(p - q).max()) for p, q in zip(a, b))
            same = lambda a, b: float(np.mean([p.argmax() == q.argmax() for p, q in zip(a, b)]))
            m.score_letters(questions[:each], [4] * each); m.seen, m.read = {}, 0     # kernels are chosen before the clock runs
            ours, x, peak = timed(lambda: m.score_letters(questions, [4] * n))
            tokens, weights = m.read * each // n, sum(p.numel() for p in m.model.parameters()) / 1e9
            m.share, m.seen, m.read = False, {}, 0
            whole, y, peak_whole = timed(lambda: m.score_letters(questions, [4] * n))
            candidate_at_a_time(m, some[:1], device)
            peer, z, peak_peer = timed(lambda: candidate_at_a_time(m, some, device))
            peer, mine = peer * n / len(some), x[::max(1, n // 60)]
            row = dict(part='questions', memory_ratio=None, ours=f'{n / ours:.1f} questions a second, {peak:.1f} GiB',
                       size=f'qwen2_5_vl, {weights:.1f} G random weights, {"float32" if quick else "bf16"}, {tokens} tokens a picture, {each} questions, {n:,} in all')
            yield row | dict(peer=f'candidate at a time (lmms-eval protocol), {n / peer:.1f} questions a second, {peak_peer:.1f} GiB, from {len(some)} questions',
                             ratio=round(peer / ours, 1), exactness=f'largest difference {apart(mine, z):.1e}, same letter {same(mine, z):.3f}')
            yield row | dict(peer=f'each question read whole, {n / whole:.1f} questions a second, {peak_whole:.1f} GiB',
                             ratio=round(whole / ours, 1), exactness=f'largest difference {apart(x, y):.1e}, same letter {same(x, y):.3f}')
            del m
            if device == 'cuda': torch.cuda.empty_cache()


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('--full', action='store_true'); a.add_argument('--out')
    a = a.parse_args()
    found = []
    for r in rows(not a.full): found.append(r); sys.stderr.write(f"{r['size']}: {r['ratio']} x {r['peer']}; {r['ours']}; {r['exactness']}\n")
    text = json.dumps(found, indent=1)
    if a.out: Path(a.out).write_text(text)
    sys.stdout.write(text + '\n')
