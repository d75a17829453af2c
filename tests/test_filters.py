"""What the filters page cannot show: kills, worker processes, broken files, laws."""
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from babyvlm.data.filters import Embedded, Ledger, Selection, embed_pairs, open_picture, select_above, threshold_sweep
from babyvlm.store import Store


class Counting:
    "Brightness against the number in the text; counts what it is asked."
    def __init__(self, fail_after=None): self.images, self.fail_after = 0, fail_after
    def encode_images(self, images):
        if self.fail_after is not None and self.images >= self.fail_after: raise KeyboardInterrupt
        self.images += len(images)
        angle = torch.tensor([np.asarray(i).mean()/255*3 for i in images])
        return torch.stack([angle.cos(), angle.sin()], 1)
    def encode_texts(self, texts):
        angle = torch.tensor([float(t)*3 for t in texts])
        return torch.stack([angle.cos(), angle.sin()], 1)


def world(folder, n=20):
    rows = []
    for i in range(n):
        Image.new('RGB', (16, 16), (i*255//n,)*3).save(folder/f'{i:03}.png')
        rows.append(dict(uid=f'u{i:03}', image=f'{i:03}.png', utterance=str((i % 4)/4)))
    return Dataset.from_list(rows)


def test_similarity_is_that_of_the_slow_obvious_way(tmp_path):
    pairs, enc = world(tmp_path), Counting()
    got = embed_pairs(pairs, enc, 'e', tmp_path, Store(tmp_path/'store'), batch=3, per_shard=2)
    for r, s in zip(pairs, got.similarity):
        image, text = enc.encode_images([Image.open(tmp_path/r['image'])]), enc.encode_texts([r['utterance']])
        assert s == pytest.approx(float(image.float() @ text.float().T), abs=1e-6)
    assert got.uids == tuple(pairs['uid']) and got.image.dtype == np.float16


@pytest.mark.parametrize('batch, per_shard', [(1, 1), (3, 2), (7, 1), (64, 32)])
def test_batches_and_shards_change_nothing(tmp_path, batch, per_shard):
    pairs = world(tmp_path)
    a = embed_pairs(pairs, Counting(), 'e', tmp_path, Store(tmp_path/'a'), batch=batch, per_shard=per_shard)
    b = embed_pairs(pairs, Counting(), 'e', tmp_path, Store(tmp_path/'b'), batch=5, per_shard=1)
    assert a.uids == b.uids and np.allclose(a.similarity, b.similarity, atol=1e-6) and np.array_equal(a.image, b.image)


def test_workers_decode_the_same(tmp_path):
    pairs = world(tmp_path)
    (tmp_path/'003.png').write_text('<html>')
    a = embed_pairs(pairs, Counting(), 'e', tmp_path, Store(tmp_path/'a'), batch=4)
    b = embed_pairs(pairs, Counting(), 'e', tmp_path, Store(tmp_path/'b'), batch=4, workers=2)
    assert a.uids == b.uids and np.array_equal(a.similarity, b.similarity) and a.faults == b.faults == {'u003': 'file is not an image'}


class Prepared(Counting):
    "The same encoder, with a preparation that workers can run and many small tensors to send."
    def encode_images(self, images): raise AssertionError('pictures should have been prepared')
    def encode_pixels(self, pixels):
        angle = pixels.mean((1, 2, 3))*3
        return 5*torch.stack([angle.cos(), angle.sin()], 1)  # of any length
    def pixel_preparation(self): return brightness

def brightness(im): return torch.from_numpy(np.array(im)).permute(2, 0, 1)/255


@pytest.mark.parametrize('workers', [0, 2])
def test_workers_prepare_what_the_encoder_would_have(tmp_path, workers):
    pairs = world(tmp_path, 40)
    (tmp_path/'003.png').write_text('<html>')
    a = embed_pairs(pairs, Counting(), 'e', tmp_path, Store(tmp_path/'a'), batch=7, per_shard=2)
    b = embed_pairs(pairs, Prepared(), 'e', tmp_path, Store(tmp_path/'b'), batch=7, per_shard=2, workers=workers)
    assert a.uids == b.uids and a.faults == b.faults == {'u003': 'file is not an image'}
    np.testing.assert_allclose(a.similarity, b.similarity, atol=1e-5)
    facts = b.artifact.manifest['extra']
    assert facts['wait_s'] <= facts['other_s'] and facts['encoded'] == 40


def test_an_interrupted_run_goes_on(tmp_path):
    pairs, store = world(tmp_path), Store(tmp_path/'store')
    with pytest.raises(KeyboardInterrupt): embed_pairs(pairs, Counting(fail_after=8), 'e', tmp_path, store, batch=2, per_shard=2)
    late = Counting()
    got = embed_pairs(pairs, late, 'e', tmp_path, store, batch=2, per_shard=2)
    assert late.images == 12 and len(got.uids) == 20      # two whole shards of four survived
    untouched = Counting()
    embed_pairs(pairs, untouched, 'e', tmp_path, store, batch=2, per_shard=2)
    assert untouched.images == 0


def test_a_killed_process_leaves_no_half_shard(tmp_path):
    world(tmp_path)
    script = textwrap.dedent(f'''
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_filters import Counting, world, embed_pairs, Store
        from pathlib import Path
        class Deadly(Counting):
            def encode_images(self, images):
                if self.images >= 8: os.kill(os.getpid(), signal.SIGKILL)
                return super().encode_images(images)
        root = Path({str(tmp_path)!r})
        embed_pairs(world(root), Deadly(), 'e', root, Store(root/'store'), batch=2, per_shard=2)''')
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    late = Counting()
    got = embed_pairs(world(tmp_path), late, 'e', tmp_path, Store(tmp_path/'store'), batch=2, per_shard=2)
    assert late.images == 12 and got.uids == tuple(f'u{i:03}' for i in range(20))


def test_broken_pictures_reach_the_ledger_and_a_repair_is_noticed(tmp_path):
    pairs, store = world(tmp_path), Store(tmp_path/'store')
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype('uint8')).save(tmp_path/'000.png')
    whole = (tmp_path/'000.png').read_bytes()
    (tmp_path/'000.png').write_bytes(whole[:len(whole)//2]); (tmp_path/'001.png').unlink(); (tmp_path/'002.png').write_text('<html>')
    selection, ledger = select_above(embed_pairs(pairs, Counting(), 'e', tmp_path, store), -2)
    assert ledger.skipped == {'file is missing': 1, 'file is not an image': 1, 'image is cut short': 1}
    assert ledger.seen == 20 and len(selection) == 17 and ledger.examples['image is cut short'] == ['u000']
    (tmp_path/'000.png').write_bytes(whole)
    assert select_above(embed_pairs(pairs, Counting(), 'e', tmp_path, store), -2).ledger.kept == 18


def test_every_picture_broken(tmp_path):
    pairs = world(tmp_path, 3)
    for p in tmp_path.glob('*.png'): p.write_text('no')
    got = embed_pairs(pairs, Counting(), 'e', tmp_path, Store(tmp_path/'s'), batch=2, per_shard=1)
    assert got.image.size == got.similarity.size == 0 and select_above(got).ledger.skipped == {'file is not an image': 3}


def test_the_threshold_is_strict_and_costs_no_encoding(tmp_path):
    pairs, enc, store = world(tmp_path), Counting(), Store(tmp_path/'s')
    got = embed_pairs(pairs, enc, 'e', tmp_path, store)
    n = enc.images
    for t in (-1, 0, float(got.similarity[4]), .9, 1):
        selection, ledger = select_above(embed_pairs(pairs, enc, 'e', tmp_path, store), t)
        assert set(selection.uids) == {u for u, s in zip(got.uids, got.similarity) if s > t} and ledger.kept == len(selection)
    assert enc.images == n


def test_another_encoder_or_text_is_another_artifact(tmp_path):
    pairs, store = world(tmp_path), Store(tmp_path/'s')
    keys = {embed_pairs(pairs, Counting(), 'e', tmp_path, store).artifact.key, embed_pairs(pairs, Counting(), 'f', tmp_path, store).artifact.key,
            embed_pairs(pairs, Counting(), 'e', tmp_path, store, draft=8).artifact.key,
            embed_pairs(pairs, Counting(), 'e', tmp_path, store, half=True).artifact.key,
            embed_pairs(pairs.map(lambda r: dict(utterance='0.5')), Counting(), 'e', tmp_path, store).artifact.key}
    assert len(keys) == 5


def test_the_caller_chooses_half_precision_and_the_device_does_not(tmp_path):
    class Linear(Counting):
        device = torch.device('cpu')
        def encode_images(self, images):
            x = torch.stack([torch.tensor(np.asarray(i).mean()/255*3).float() for i in images])[:, None]
            self.seen = (x @ torch.ones(1, 2)).dtype
            return torch.nn.functional.normalize(torch.cat([x.cos(), x.sin()], 1).float(), dim=1)
    pairs, enc = world(tmp_path), Linear()
    whole = embed_pairs(pairs, enc, 'e', tmp_path, Store(tmp_path/'a'))
    assert enc.seen == torch.float32
    enc.device = 'cpu'
    assert embed_pairs(pairs, enc, 'e', tmp_path, Store(tmp_path/'a')).artifact.key == whole.artifact.key
    half = embed_pairs(pairs, enc, 'e', tmp_path, Store(tmp_path/'a'), half=True)
    assert enc.seen == torch.bfloat16 and half.artifact.manifest['config']['forward'] == 'bfloat16'


@pytest.mark.parametrize('bad', ['nan', 'shape', 'zero'])
def test_an_encoder_that_breaks_its_promise_is_named(tmp_path, bad):
    class Bad(Counting):
        def encode_images(self, images):
            x = super().encode_images(images)
            return x*float('nan') if bad == 'nan' else x[:-1] if bad == 'shape' else x*0
    with pytest.raises(ValueError, match='encode_images'): embed_pairs(world(tmp_path, 4), Bad(), 'e', tmp_path, Store(tmp_path/'s'))


def test_repeated_uids_are_refused(tmp_path):
    pairs = world(tmp_path, 3).map(lambda r: dict(uid='u'))
    with pytest.raises(ValueError, match='not unique'): embed_pairs(pairs, Counting(), 'e', tmp_path, Store(tmp_path/'s'))


def test_pictures_of_every_mode_come_out_as_rgb(tmp_path):
    for mode in ('L', 'P', 'RGBA', 'CMYK', '1'):
        p = tmp_path/f'{mode}.{"jpg" if mode == "CMYK" else "png"}'
        Image.new(mode, (8, 8)).save(p)
        assert open_picture(p)[0].mode == 'RGB'
    Image.new('I;16', (8, 8), 25700).save(tmp_path/'deep.png')   # converted, every pixel above 255 would be white
    assert open_picture(tmp_path/'deep.png')[0].getpixel((0, 0)) == (100, 100, 100)
    Image.new('F', (8, 8), .5).save(tmp_path/'float.tif')
    assert open_picture(tmp_path/'float.tif') == (None, 'more than 16 bits a channel')


def test_a_picture_that_changes_at_equal_size_is_looked_at_again(tmp_path):
    pairs, store = world(tmp_path, 3), Store(tmp_path/'s')
    old, path = embed_pairs(pairs, Counting(), 'e', tmp_path, store), tmp_path/pairs[0]['image']
    data = bytearray(path.read_bytes()); data[-3] ^= 1; path.write_bytes(data)
    assert embed_pairs(pairs, Counting(), 'e', tmp_path, store).artifact.key != old.artifact.key


@given(st.lists(st.text('abcdef', min_size=1, max_size=4), unique=True, max_size=20), st.randoms())
def test_a_selection_does_not_depend_on_order(uids, rnd):
    mixed = list(uids); rnd.shuffle(mixed)
    assert Selection(uids) == Selection(mixed) and Selection(uids).sha256 == Selection(mixed).sha256
    assert list(Selection(uids).uids) == sorted(uids)


@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=1, max_size=40).filter(lambda x: any(t for _, t in x)), st.floats(-1.1, 1.1))
def test_sweep_against_counting_by_hand(rows, t):
    sim, truth = zip(*rows)
    row = threshold_sweep(sim, truth, [t]).iloc[0]
    kept = [y for s, y in rows if s > t]
    assert row.kept == len(kept) and row.recall == pytest.approx(sum(kept)/sum(truth))
    assert (np.isnan(row.precision) and not kept) or row.precision == pytest.approx(sum(kept)/len(kept))


def test_sweep_refuses_what_it_cannot_answer():
    with pytest.raises(ValueError, match='recall is undefined'): threshold_sweep([.1], [0])
    with pytest.raises(ValueError, match='similarity 1 is not finite'): threshold_sweep([.1, float('nan')], [0, 1])
    with pytest.raises(ValueError, match='planted answers'): threshold_sweep([.1], [0, 1])


def test_the_ledger_is_the_one_of_the_saycam_page():
    from babyvlm.data import saycam
    assert Ledger is saycam.Ledger and Embedded.__doc__
