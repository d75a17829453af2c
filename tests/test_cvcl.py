"""CVCL: what a page cannot show: full-size import, hostile files, laws over random inputs."""
import math
import pickle

import pytest
import torch
from PIL import Image

from babyvlm.models.cvcl import (CVCL, CVCLConfig, CVCLModel, contrastive_loss, cvcl_state, cvcl_toy, cvcl_tokenizer,
                                 encode_rows, import_cvcl, new_cvcl, read_lightning, text_ids)
from babyvlm.models.tokenizers import build_vocab
from babyvlm.models.vision import resnext50
from babyvlm.models.weights import seeded

VOCAB = build_vocab(['look at the red ball', 'a cup and a cat'], min_freq=1)


def released(model, learned=False):
    "The names under which the training code stored a model, copies included."
    state = {}
    for k, v in model.state_dict().items():
        if k.startswith('vision_encoder.body.'): name = 'vision_encoder.model.' + k.removeprefix('vision_encoder.body.')
        elif k.startswith('projection.'): name = 'vision_encoder.model.fc.' + k.removeprefix('projection.')
        elif k == 'log_scale':
            state['model.logit_neg_log_temperature'] = v
            continue
        else: name = 'text_encoder.embedding.weight'
        state[name] = v
        if name.startswith('vision'): state['model.image_embed.' + name.removeprefix('vision_encoder.')] = v
        else:
            for copy in ('model.text_embed.embedding', 'language_model.text_encoder.embedding', 'language_model.output_layer'):
                state[copy + '.weight'] = v
    state['language_model.output_layer.bias'] = torch.zeros(model.config.vocab_size)
    return state


class Bomb:
    "Pickles as a call that leaves a file behind."
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return open, (self.path, 'w')


def test_published_sizes_load_and_agree_with_torchvision(tmp_path):
    import torchvision
    vocab = build_vocab([' '.join(f'w{i}' for i in range(2346))], min_freq=1)
    tower = seeded(lambda: torchvision.models.resnext50_32x4d(num_classes=512), 0).eval()
    table = torch.randn(2350, 512, generator=torch.Generator().manual_seed(0))
    table[0] = 0
    state = {f'vision_encoder.model.{k}': v for k, v in tower.state_dict().items()}
    state |= {'model.image_embed.model.' + k.removeprefix('vision_encoder.model.'): v for k, v in state.items()}
    state |= {k: table for k in ('text_encoder.embedding.weight', 'model.text_embed.embedding.weight',
                                 'language_model.output_layer.weight')}
    torch.save(dict(state_dict=state, epoch=1), tmp_path/'cvcl.ckpt')
    cvcl = import_cvcl(tmp_path/'cvcl.ckpt', vocab, device='cpu')
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(): theirs = torch.nn.functional.normalize(tower(x), dim=-1)
    torch.testing.assert_close(cvcl.model.embed_images(x), theirs, atol=1e-5, rtol=1e-4)
    assert cvcl.image_processor.size == 224 and cvcl.image_processor.resample == 'bicubic'
    mean = torch.nn.functional.normalize(table[[2, vocab['w3'], vocab['w7'], 3]].mean(0), dim=0)
    torch.testing.assert_close(cvcl.encode_texts(['w3 w7'])[0], mean, atol=1e-6, rtol=1e-5)


def test_learned_temperature_is_imported(tmp_path):
    model = seeded(lambda: CVCLModel(cvcl_toy(len(VOCAB), learn_temperature=True)), 0)
    with torch.no_grad(): model.log_scale.fill_(math.log(20.))
    state = released(model)
    config = cvcl_toy(len(VOCAB), learn_temperature=True)
    assert import_cvcl(dict(state_dict=state), VOCAB, config, 'cpu').model.logit_scale.item() == pytest.approx(20.)
    with pytest.raises(ValueError, match='1 unexpected: log_scale'):
        import_cvcl(dict(state_dict=state), VOCAB, cvcl_toy(len(VOCAB)), 'cpu')


def test_vocabulary_of_another_size_is_refused():
    state = released(new_cvcl(VOCAB, device='cpu').model)
    with pytest.raises(ValueError, match=r'1 misshaped: text_embedding.weight'):
        import_cvcl(state, build_vocab(['ball'], 1), cvcl_toy(5), 'cpu')


def test_copies_that_disagree_are_refused():
    state = released(new_cvcl(VOCAB, device='cpu').model)
    state['model.image_embed.model.bn1.weight'] = state['vision_encoder.model.bn1.weight'] + 1
    with pytest.raises(ValueError, match="'model.image_embed.model.bn1.weight' and another copy"): cvcl_state(state)


def test_reading_a_checkpoint_runs_no_code(tmp_path):
    trace = tmp_path/'ran'
    torch.save(dict(state_dict=dict(w=torch.ones(1)), hyper_parameters=dict(a=Bomb(trace))), tmp_path/'a.ckpt')
    assert read_lightning(tmp_path/'a.ckpt')['state_dict']['w'].item() == 1
    assert not trace.exists()
    torch.load(tmp_path/'a.ckpt', weights_only=False)  # the file really is armed
    assert trace.exists()


def test_operating_system_calls_are_refused(tmp_path):
    class Shell:
        def __reduce__(self): return __import__('os').system, ('true',)
    torch.save(dict(state_dict={}, x=Shell()), tmp_path/'a.ckpt')
    with pytest.raises(ValueError, match='a.ckpt holds more than weights'): read_lightning(tmp_path/'a.ckpt')


def test_truncated_checkpoint_is_an_error(tmp_path):
    torch.save(dict(state_dict=dict(w=torch.ones(1000))), tmp_path/'a.ckpt')
    data = (tmp_path/'a.ckpt').read_bytes()
    (tmp_path/'a.ckpt').write_bytes(data[:len(data)//2])
    with pytest.raises(ValueError, match='a.ckpt is no whole file of weights'): read_lightning(tmp_path/'a.ckpt')
    with pytest.raises(FileNotFoundError, match='no checkpoint'): read_lightning(tmp_path/'gone.ckpt')


@pytest.mark.parametrize('fields', [dict(), dict(learn_temperature=True), dict(freeze_cnn=True, frozen_norm='train'),
                                    dict(embed_dim=32, temperature=.1)])
def test_round_trip(tmp_path, fields):
    cvcl = new_cvcl(VOCAB, seed=1, device='cpu', **fields)
    cvcl.save_pretrained(tmp_path, data='test')
    again = CVCL.from_pretrained(tmp_path, device='cpu')
    for name in ('temperature', 'learn_temperature', 'freeze_cnn', 'frozen_norm', 'embed_dim', 'vocab_size'):
        assert getattr(again.model.config, name) == getattr(cvcl.model.config, name)
    assert all(torch.equal(a, b) for a, b in zip(again.model.state_dict().values(), cvcl.model.state_dict().values()))
    assert again.model.vision_encoder.body.conv1.weight.requires_grad == (not fields.get('freeze_cnn', False))
    assert not list(tmp_path.glob('*.bin')) and (tmp_path/'README.md').read_text().startswith('---')


def test_from_pretrained_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='config.json is missing'): CVCL.from_pretrained(tmp_path)


def test_memory_order_changes_nothing():
    cvcl = new_cvcl(VOCAB, device='cpu')
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = torch.nn.functional.normalize(cvcl.model.projection(cvcl.model.vision_encoder(x).pooler_output), dim=-1)
        torch.testing.assert_close(cvcl.model.embed_images(x), plain, atol=1e-5, rtol=1e-4)


def test_text_laws():
    cvcl, rng = new_cvcl(VOCAB, device='cpu'), torch.Generator().manual_seed(0)
    words = [w for w in VOCAB if not w.startswith('<')]
    for _ in range(20):
        n = int(torch.randint(1, 30, (1,), generator=rng))
        pick = [words[i] for i in torch.randint(len(words), (n,), generator=rng).tolist()]
        row = cvcl.encode_texts([' '.join(pick)])[0]
        ids = ([2] + [VOCAB[w] for w in pick] + [3])[:25]
        expected = torch.nn.functional.normalize(cvcl.model.text_embedding.weight.detach()[ids].mean(0), dim=0)
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=1e-5)
        batched = cvcl.encode_texts(['ball', ' '.join(pick), 'cup cup cup'])[1]
        torch.testing.assert_close(batched, row, atol=1e-6, rtol=1e-5)


def test_unknown_words_count_in_the_mean():
    cvcl = new_cvcl(VOCAB, device='cpu')
    assert text_ids(cvcl.tokenizer, ['purple ball'])[0].tolist() == [2, 1, VOCAB['ball'], 3]
    assert not torch.allclose(cvcl.encode_texts(['purple ball']), cvcl.encode_texts(['ball']))


def test_loss_against_a_slow_one():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(7, 5, generator=g), dim=1) for _ in range(2))
    cos = (a.double() @ b.double().T/.07).tolist()
    down = [-math.log(math.exp(cos[i][i])/sum(math.exp(v) for v in cos[i])) for i in range(7)]
    up = [-math.log(math.exp(cos[i][i])/sum(math.exp(cos[j][i]) for j in range(7))) for i in range(7)]
    assert contrastive_loss(a, b).item() == pytest.approx((sum(down) + sum(up))/14, abs=1e-4)


def test_broken_pictures_and_weights_are_named(tmp_path):
    cvcl = new_cvcl(VOCAB, device='cpu')
    for name in 'abc': Image.new('RGB', (8, 8), 'red').save(tmp_path/f'{name}.png')
    (tmp_path/'b.png').write_bytes((tmp_path/'b.png').read_bytes()[:20])
    with pytest.raises(OSError): cvcl.encode_images([tmp_path/'a.png', tmp_path/'b.png'])
    with torch.no_grad(): cvcl.model.text_embedding.weight[VOCAB['cup']] = float('nan')
    with pytest.raises(ValueError, match='1 of 2 embeddings are zero or not finite: red cup'):
        cvcl.encode_texts(['red ball', 'red cup'])
    with pytest.raises(TypeError, match='expected a list'): cvcl.encode_texts('ball')
    with pytest.raises(ValueError, match='empty'): encode_rows([], lambda b: b)


def test_config_refuses_nonsense():
    with pytest.raises(ValueError, match="frozen_norm"): CVCLConfig(frozen_norm='both')
    assert CVCLConfig().vision_config.to_dict() == resnext50().to_dict()


def test_prepared_pixels_meet_a_model_in_evaluation_mode():
    "Filters go in through pixels: a model left in training mode neither mixes the pictures of a batch nor learns from them."
    from PIL import Image
    cvcl = new_cvcl(build_vocab(['ball cup'], min_freq=1), device='cpu')
    prepare = cvcl.pixel_preparation()
    pixels = torch.stack([prepare(Image.new('RGB', (40, 30), c)) for c in ('red', 'green', 'blue')])
    with torch.no_grad():
        want, state = cvcl.encode_pixels(pixels), {k: v.clone() for k, v in cvcl.model.state_dict().items()}
        cvcl.model.train()
        torch.testing.assert_close(cvcl.encode_pixels(pixels), want)
    assert pixels.dtype == torch.uint8 and all(torch.equal(v, state[k]) for k, v in cvcl.model.state_dict().items())
