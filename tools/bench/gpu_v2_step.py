"""One training step of BabyLLaVA-V2 at its real size on a GPU: time and peak memory, within a budget that is enforced.

Needs torch, torchvision, transformers and fastcore. `python tools/bench/gpu_v2_step.py --budget 24` sets the most memory the process may take
(GiB) and runs, for each sequence length, a forward and a backward pass in bf16 with gradient checkpointing, then a step of AdamW.
"""
import argparse
import json
import time

import babyvlm  # noqa: F401  before torchvision
import torch

from babyvlm.models.babyllava import BabyLlavaConfig, BabyLlavaForConditionalGeneration, llama_text
from babyvlm.models.vision import num_image_tokens, vit_large


def build(device, dtype):
    text = llama_text(6000, positions=8192, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    config = BabyLlavaConfig(vit_large(), text)
    with torch.device(device):
        model = BabyLlavaForConditionalGeneration(config).to(dtype)
    model.gradient_checkpointing_enable()
    model.config.use_cache = model.language_model.config.use_cache = False
    return model.train()


def batch(model, images, length, device):
    "One record: `images` pictures, then words up to `length`; the last 8 tokens are supervised."
    tokens = num_image_tokens(model.config.vision_config)
    if images * tokens + 16 > length: raise ValueError(f'{images} pictures need {images * tokens} tokens, {length} are too few')
    ids = torch.randint(4, 6000, (1, length), device=device)
    ids[0, 2:2 + images * tokens] = model.config.image_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -8:] = ids[:, -8:]
    dtype = next(model.parameters()).dtype
    return dict(input_ids=ids, labels=labels, attention_mask=torch.ones_like(ids),
                pixel_values=torch.randn(images, 3, 224, 224, device=device, dtype=dtype))


def measure(device, dtype, images, length, optimise):
    torch.manual_seed(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = build(device, dtype)
    inputs = batch(model, images, length, device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=False) if optimise else None
    seconds, losses = [], []
    for _ in range(3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        with torch.autocast('cuda', torch.bfloat16, enabled=dtype == torch.float32):
            loss = model(**inputs).loss
        loss.backward()
        if optimiser: optimiser.step()
        model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        losses.append(float(loss))
    peak = torch.cuda.max_memory_allocated() / 2**30
    del model, inputs, optimiser, loss
    torch.cuda.empty_cache()
    return dict(weights=str(dtype).split('.')[-1], optimiser='AdamW' if optimise else 'none', images=images, length=length,
                peak_gib=round(peak, 2), seconds=round(min(seconds), 3), loss=[round(x, 3) for x in losses])


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--budget', type=float, default=24., help='GiB this process may take; more is an out-of-memory error')
    a = p.parse_args()
    device = 'cuda'
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(min(1., a.budget / total))
    model = build('meta', torch.float32)
    parts = {k: sum(p.numel() for p in v.parameters()) for k, v in model.named_children()}
    print(json.dumps(dict(device=torch.cuda.get_device_name(0), budget_gib=a.budget, torch=torch.__version__, parameters=parts)))
    runs = [(torch.float32, 1, 256, False), (torch.float32, 8, 2048, False), (torch.float32, 29, 8192, False),
            (torch.bfloat16, 8, 2048, True), (torch.bfloat16, 29, 8192, True), (torch.float32, 1, 256, True)]
    for dtype, images, length, optimise in runs:
        try: print(json.dumps(measure(device, dtype, images, length, optimise)), flush=True)
        except torch.OutOfMemoryError as e:
            print(json.dumps(dict(weights=str(dtype), images=images, length=length, optimiser=optimise,
                                  out_of_memory=str(e).splitlines()[0])), flush=True)


if __name__ == '__main__': main()
