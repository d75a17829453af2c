"""Training steps a second at the published sizes: forward, backward and optimizer, on data that is already on the device.

The peer is the same step in float32; ours is the package's recipe on a GPU, bfloat16 autocast. One batch is used over and over: the
figure is what the model costs, with no loader in it.
"""
import gc
import time
from statistics import median

import babyvlm  # noqa: F401
import torch


def cvcl(quick):
    "CVCL: ResNeXt-50 trained with its word table, batches of 512 pairs."
    from babyvlm.models.cvcl import CVCLConfig, CVCLModel, cvcl_toy
    n, side, words = (4, 32, 12) if quick else (512, 224, 2350)
    config = cvcl_toy(words) if quick else CVCLConfig(vocab_size=words, freeze_cnn=False)
    model = CVCLModel(config)
    side = config.vision_config.image_size
    return 'CVCL, all weights trained', model, dict(pixel_values=torch.randn(n, 3, side, side), input_ids=torch.randint(4, words, (n, 25)))


def _babyllava(config, n, length, thaw):
    from babyvlm.models.babyllava import BabyLlavaForConditionalGeneration
    from babyvlm.models.vision import num_image_tokens
    model = BabyLlavaForConditionalGeneration(config)
    model.vision_tower.requires_grad_(thaw)
    t, words = num_image_tokens(config.vision_config), config.text_config.vocab_size
    ids = torch.cat([torch.full((n, t), config.image_token_id), torch.randint(4, words, (n, length))], 1)
    labels = ids.masked_fill(ids == config.image_token_id, -100)
    side = config.vision_config.image_size
    return model, dict(pixel_values=torch.randn(n, 3, side, side), input_ids=ids, labels=labels)


def gpt2(quick):
    "BabyLLaVA-GPT2: frozen ResNeXt-50, projector and GPT-2 trained, 16 words a picture."
    from babyvlm.models.babyllava import babyllava_gpt2, babyllava_toy
    return 'BabyLLaVA-GPT2, encoder frozen', *_babyllava(babyllava_toy(50) if quick else babyllava_gpt2(), 4 if quick else 256, 16, False)


def llama(quick):
    "BabyLLaVA-Llama: frozen ViT-L, projector and Llama trained, 32 words a picture."
    from babyvlm.models.babyllava import babyllava_llama, babyllava_toy
    return ('BabyLLaVA-Llama (1.41 G weights), encoder frozen',
            *_babyllava(babyllava_toy(50, 'llama') if quick else babyllava_llama(), 2 if quick else 16, 32, False))


def v2(quick):
    "BabyLLaVA-V2, once its configuration is part of the package."
    from babyvlm.models import babyllava
    make = getattr(babyllava, 'babyllava_v2', None)
    if make is None: return None
    config = babyllava.babyllava_toy(50, 'llama') if quick else make()
    return 'BabyLLaVA-V2, all weights trained', *_babyllava(config, 2 if quick else 16, 64, True)


def _seconds(model, batch, device, half, steps, warm):
    "Seconds of a step, median, and the peak of device memory in GiB."
    kinder = dict(fused=True) if device == 'cuda' else {}
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, **kinder)
    sync = torch.cuda.synchronize if device == 'cuda' else lambda: None
    if device == 'cuda': torch.cuda.reset_peak_memory_stats()
    times = []
    for i in range(warm + steps):
        sync(); began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=half): loss = model(**batch).loss
        loss.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        sync()
        if i >= warm: times.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated()/2**30 if device == 'cuda' else 0.
    return median(times), peak, loss.item()


def compare(make, quick, device):
    "A row of one model; None where the package has no such model."
    torch.manual_seed(0)
    made = make(quick)
    if made is None: return None
    name, model, batch = made
    model.to(device).train()
    batch = {k: v.to(device) for k, v in batch.items()}
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision('highest')
    torch.backends.cudnn.allow_tf32 = False  # float32 that deserves the name
    steps = 2 if quick else 12
    peer, wide, _ = _seconds(model, batch, device, False, steps, 1 if quick else 4)
    ours, narrow, loss = _seconds(model, batch, device, True, steps, 1 if quick else 4)
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    n = len(batch['input_ids'])
    row = dict(part='training step', size=f'{name}, batch {n}', peer=f'float32: {1/peer:.2f} steps/s, {n/peer:.0f} pairs/s',
               ours=f'bfloat16 autocast: {1/ours:.2f} steps/s, {n/ours:.0f} pairs/s, peak {narrow:.1f} GiB',
               ratio=round(peer/ours, 2), memory_ratio=round(wide/narrow, 2) if narrow else None,
               exactness=f'finite loss {loss:.2f}')
    del model, batch
    gc.collect()
    if device == 'cuda': torch.cuda.empty_cache()
    return row


def gpu_rows(quick=False, device='cuda', late=lambda: False):
    "The four models of the papers."
    for make in (cvcl, gpt2, llama, v2):
        if late(): return
        row = compare(make, quick, device)
        if row: yield row


def rows(quick=True, device='cpu'):
    "A training step at real size is a GPU's work: no rows on a CPU."
    return [] if device == 'cpu' else list(gpu_rows(quick, device))
