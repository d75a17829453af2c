"Phase 0: packing keeps every token, the scorer against a slow one, a resumed run."
import math

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from babyvlm.models.babyllava import gpt2_text
from babyvlm.models.tokenizers import build_vocab, word_tokenizer
from babyvlm.models.weights import seeded
from babyvlm.training.language import pack, perplexity, phrase_logprob, train_language

SAID = ['look at the ball .', 'wash the cup .', 'do you see the dog ?', 'up !'] * 25


@pytest.fixture
def tokenizer(): return word_tokenizer(build_vocab(SAID))
def model(tokenizer, dropout=0.): return seeded(lambda: GPT2LMHeadModel(gpt2_text(len(tokenizer), 2, 32, 4, 64, dropout)), 0)


@pytest.mark.parametrize('block', [7, 16, 1000])
@pytest.mark.parametrize('separator', [None, '<eos>'])
def test_packing_keeps_every_token_once_and_in_order(tokenizer, block, separator):
    blocks = pack(SAID, tokenizer, block, separator).columns
    kept = blocks['input_ids'][blocks['attention_mask'].bool()].tolist()
    end = [] if separator is None else [tokenizer.convert_tokens_to_ids(separator)]
    assert kept == [i for u in SAID for i in tokenizer(u, add_special_tokens=False).input_ids + end]
    assert ((blocks['labels'] == -100) == (blocks['attention_mask'] == 0)).all()
    assert blocks['attention_mask'][:-1].all(), 'only the last block is padded'


@pytest.mark.parametrize('reduce', ['sum', 'mean'])
def test_scorer_equals_a_slow_one(tokenizer, reduce):
    lm = model(tokenizer).eval()
    phrases = ['wash the cup', 'ball', 'the dog ?', 'zebra up !']
    fast = phrase_logprob(lm, tokenizer, phrases, context='.', reduce=reduce, batch=3)
    for got, p in zip(fast, phrases):
        ids = tokenizer('. ' + p, add_special_tokens=False).input_ids
        with torch.no_grad(): logp = lm(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        each = [float(logp[k, ids[k + 1]]) for k in range(len(ids) - 1)]
        assert got == pytest.approx(sum(each) if reduce == 'sum' else sum(each)/len(each), abs=1e-4)


def test_dropout_never_reaches_a_score(tokenizer):
    lm = model(tokenizer, .5)
    train_language(lm, tokenizer, SAID[:8], _tmp(), block=16, batch=2, epochs=1, device='cpu')
    a, b = (phrase_logprob(lm, tokenizer, ['wash the cup']) for _ in range(2))
    assert a == b


def _tmp():
    import tempfile
    return tempfile.mkdtemp()


def test_killed_phase_0_resumes_to_the_same_losses(tokenizer, tmp_path):
    from transformers import TrainerCallback

    import babyvlm.training.language as module
    recipe = dict(block=16, batch=4, epochs=4, lr=5e-3, device='cpu', seed=1, threads=1)
    whole = train_language(model(tokenizer, .15), tokenizer, SAID, tmp_path/'a', **recipe)
    plain = module.BabyTrainer

    class Killed(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 13: raise KeyboardInterrupt

    module.BabyTrainer = lambda *a, **k: plain(*a, callbacks=[Killed()], **k)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_language(model(tokenizer, .15), tokenizer, SAID, tmp_path/'b', save_every=5, **recipe)
    finally: module.BabyTrainer = plain
    again = train_language(model(tokenizer, .15), tokenizer, SAID, tmp_path/'b', save_every=5, **recipe)
    assert again.resumed_from == 10
    assert again.losses().tolist() == whole.losses().tolist()


def test_perplexity_of_a_uniform_model_is_its_vocabulary(tokenizer):
    lm = model(tokenizer).eval()
    with torch.no_grad():
        for p in lm.parameters(): p.zero_()
    assert perplexity(lm, tokenizer, SAID[:4]).value == pytest.approx(len(tokenizer), rel=1e-5)


def test_training_lowers_perplexity_of_held_out_sentences(tokenizer, tmp_path):
    lm = model(tokenizer).eval()
    before = perplexity(lm, tokenizer, ['look at the dog .', 'wash the ball .'])
    train_language(lm, tokenizer, SAID, tmp_path, block=16, batch=8, epochs=10, lr=1e-2, device='cpu')
    after = perplexity(lm, tokenizer, ['look at the dog .', 'wash the ball .'])
    assert after.value < before.value/2 and math.isfinite(after.high) and isinstance(after.value, float)
    assert np.isfinite([after.low, after.high]).all()
