"""LoRA: kill and resume give the same adapters; text records are not repeated; pictures stand where they are marked."""
import re

import pytest
import torch

from babyvlm import _compat  # noqa: F401
from babyvlm.data.conversations import Record, Turn
from babyvlm.data.question_wordings import HELPFUL
from babyvlm.data.taxonomy import build_questions, random_taxonomy
from babyvlm.models.chat import Question
from babyvlm.models.hub_models import HubVLM
from babyvlm.models.tiny import tiny_vlm
from babyvlm.nursery.creatures import Zoo
from babyvlm.training.lora import Conversations, Lora, collate_conversations, lora_arguments, question_records, tune
from babyvlm.training.trainer import BabyTrainer


class Killed(RuntimeError): pass


@pytest.fixture(scope='module')
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp('lora')
    t = random_taxonomy((4, 2), seed=0, root='')
    leaves = [leaf for leaf in t for _ in range(2)]
    for i, leaf in enumerate(leaves): Zoo(t).picture(leaf, i, 32).save(folder/f'{i}.png')
    rows = list(build_questions(t, [f'{i}.png' for i in range(len(leaves))], leaves, seed=0))
    records = {k: question_records(rows, t, k) for k in ('vision', 'text')}
    texts = [turn.text for r in records['vision'] for turn in r.turns]
    return folder, records, tiny_vlm(folder/'base', 'qwen2_5_vl', texts, vocab_size=500, image=32, width=32)


def _base(path):
    from transformers import AutoModelForImageTextToText, AutoProcessor
    return AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)


def _adapters(m): return {k: v.clone() for k, v in m.state_dict().items() if 'lora_' in k}


def test_a_killed_run_goes_on_to_the_same_adapters(setting, tmp_path, monkeypatch):
    folder, records, base = setting
    lora = Lora(rank=4, lr=1e-2, batch=4, epochs=1)
    run = lambda out: tune(*_base(base), records['vision'][:16], out, folder, lora, save_every=2)[0]
    whole = _adapters(run(tmp_path/'whole'))
    steps, step = [], BabyTrainer.training_step
    def dying(self, *a, **k):
        steps.append(1)
        if len(steps) > 3: raise Killed
        return step(self, *a, **k)
    monkeypatch.setattr(BabyTrainer, 'training_step', dying)
    with pytest.raises(Killed): run(tmp_path/'cut')
    monkeypatch.setattr(BabyTrainer, 'training_step', step)
    again = _adapters(run(tmp_path/'cut'))
    assert whole.keys() == again.keys() and all(torch.equal(whole[k], again[k]) for k in whole)


def test_text_questions_are_asked_once_and_leave_the_leaf_out(setting):
    _, records, _ = setting
    asks = [r.turns[0].text for r in records['text']]
    assert len(asks) == len(set(asks))
    assert not any(r.images for r in records['text']) and all(r.images for r in records['vision'])


def test_a_batch_without_pictures_has_no_pixels(setting):
    folder, records, base = setting
    _, processor = _base(base)
    batch = collate_conversations([Conversations(records['text'][:2], processor)[i] for i in (0, 1)])
    assert 'pixel_values' not in batch and batch['labels'].shape == batch['input_ids'].shape


def test_published_arguments(tmp_path):
    a = lora_arguments(Lora(), tmp_path, device='cpu')
    got = (a.learning_rate, a.weight_decay, a.warmup_steps, a.save_steps, a.per_device_train_batch_size)
    assert got == (5e-5, .1, .03, 20, 128)


def _ask(words, *images, answer='B', **more): return Record('0', (Turn('human', words), Turn('gpt', answer)), images, **more)


@pytest.mark.parametrize('words, want', [
    ('<image>\nWhat is it?', 'PWhat is it?'), ('<image>What is it?', 'PWhat is it?'), ('What is it?\n<image>', 'What is it?P'),
    ('What is\n<image>\nhere?', 'What isPhere?'), ('Is it <image>?', 'Is it P?'), ('What is it?', 'PWhat is it?')])
def test_a_mark_becomes_the_picture_at_its_place(setting, words, want):
    folder, _, base = setting
    processor = _base(base)[1]
    data = Conversations([_ask(words, '0.png'), _ask('<image>\n<image>\nWhich? <image>', *['0.png']*3)], processor, folder)
    said = [data.prompt(r).split('<|im_start|>user\n')[1].split('<|im_end|>')[0] for r in data.records]
    picture = '<|vision_start|><|image_pad|><|vision_end|>'
    assert said == [want.replace('P', picture), f'{picture*2}Which? {picture}'], 'no mark is left, every picture is at its place'
    assert (data[1]['input_ids'] == processor.image_token_id).sum() == 3*(data[0]['input_ids'] == processor.image_token_id).sum()


def test_training_and_evaluation_write_a_question_alike(setting):
    folder, records, base = setting
    model, processor = _base(base)
    r = records['vision'][0]
    evaluated = HubVLM(model, processor, device='cpu').prompt(Question(r.turns[0].text.removeprefix('<image>\n'), ('0.png',), HELPFUL))
    assert Conversations([r], processor).prompt(r) == evaluated


@pytest.mark.parametrize('record, problem', [
    (_ask('<image><image>', '0.png'), "2 marks '<image>' for 1 pictures"), (_ask('What is <image>?'), "1 marks '<image>' for 0 pictures"),
    (_ask('<image>', '0.png', answer='<image>'), 'pictures belong to the question'), (_ask('What?', '0.png', video=('a.mp4',)), 'list its frames'),
    (_ask('<image> <|image_pad|>', '0.png'), "its words hold '<|image_pad|>'")])
def test_pictures_that_cannot_be_placed_are_told_before_training(setting, record, problem):
    with pytest.raises(ValueError, match=f"record '0': .*{re.escape(problem)}"):
        Conversations([record], _base(setting[2])[1])


def test_a_processor_without_a_template_is_told_before_training(setting):
    from jinja2 import TemplateError

    class Bare:
        tokenizer = chat_template = None
    with pytest.raises(ValueError, match="'Bare' has no chat template: set processor.chat_template"): Conversations([_ask('Which?')], Bare())

    class Broken:
        chat_template = '{% for'
        def apply_chat_template(self, *args, **how): raise TemplateError('no end')
    with pytest.raises(ValueError, match=r"'Broken': its chat template fails \(no end\)"): Conversations([_ask('Which?')], Broken()).prompt(_ask('Which?'))
