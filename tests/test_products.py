"Products: equal to double precision on every way, untouched where gradients or foreign tensors are about."
import platform
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from babyvlm import products
from babyvlm.numerics import numerics
from babyvlm.products import crossprod, full_precision, linear, quick_products


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    "Small products take the quick way too, as large ones do on this kind of processor."
    monkeypatch.setattr(products, '_pays', lambda x, c, least=128: x.device.type == 'cpu' and x.dtype == torch.float32 and x.numel() > 0)


def table(n, d, seed=0): return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 70), st.integers(1, 40), st.booleans(), st.integers(0, 9))
def test_equal_to_double_precision(n, d, c, with_bias, seed):
    x, w, b = table(n, d, seed), table(c, d, seed + 1), table(1, c, seed + 2)[0] if with_bias else None
    right = F.linear(x.double(), w.double(), None if b is None else b.double())
    assert torch.allclose(linear(x, w, b).double(), right, atol=1e-5*d**.5, rtol=1e-5)
    g = table(n, c, seed + 3)
    out = crossprod(g, x)
    assert out.shape == (c, d) and torch.allclose(out.double(), g.double().T @ x.double(), atol=1e-5*n**.5, rtol=1e-5)


@pytest.mark.parametrize('x', [table(64, 12).T.contiguous().T, table(128, 12)[::2], table(64, 24)[:, ::2],
                               table(64, 12).reshape(4, 16, 12), table(64, 12).reshape(2, 2, 16, 12).transpose(0, 1)])
def test_any_layout_in_memory(x):
    w = table(7, 24)[:, ::2]
    assert torch.allclose(linear(x, w), F.linear(x, w), atol=1e-5)
    assert linear(x, w).shape == (*x.shape[:-1], 7)


def test_models_of_others_give_the_same_numbers():
    layer, deep = torch.nn.Linear(32, 16), torch.nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x, y, bias = table(64, 32), table(32, 16), table(1, 16)[0]
    with torch.inference_mode():
        plain = layer(x), torch.addmm(bias, x, y), deep(x[None], x[None], x[None])[0]
        with quick_products(): quick = layer(x), torch.addmm(bias, x, y), deep(x[None], x[None], x[None])[0]
    for a, b in zip(plain, quick): assert torch.allclose(a, b, atol=1e-5)


def test_what_counts_which_way_was_taken(monkeypatch):
    "Gradients, other signatures and other types go the plain way."
    taken = []
    monkeypatch.setattr(products, 'linear', lambda x, w, b=None: taken.append(x.shape) or F.linear(x, w, b))
    layer, x, y = torch.nn.Linear(32, 16), table(64, 32), table(32, 16)
    with quick_products():
        layer(x).sum().backward()
        torch.addmm(table(64, 16), x, y)                 # a table, not a bias
        torch.addmm(table(1, 16)[0], x, y, beta=2.)
        F.linear(x, table(1, 32)[0])                     # a vector of weights
        F.linear(x, table(16, 32).to_sparse())
        assert not taken and layer.weight.grad is not None
        with torch.no_grad(): layer(x)
        torch.addmm(table(1, 16)[0], x, y)
        assert taken == [(64, 32), (64, 32)]
    with torch.no_grad(): layer(x)
    with torch.no_grad(), quick_products('cuda'): layer(x)   # a model on a GPU is none of its business
    assert len(taken) == 2


def test_settings_come_back_after_an_error():
    b = torch.backends
    parts = b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn, b.mkldnn.matmul, b.mkldnn.conv
    read = lambda: (*(p.fp32_precision for p in parts), b.cuda.matmul.allow_bf16_reduced_precision_reduction)
    torch.set_float32_matmul_precision('medium')
    before = read()
    try:
        with pytest.raises(RuntimeError, match='inside'), full_precision():
            assert read() == (*['ieee'] * 5, False)
            assert numerics()['matmul'] == 'highest'    # no older name is read: PyTorch refuses it while the newer ones differ
            raise RuntimeError('inside')
        assert read() == before and torch.get_float32_matmul_precision() == 'medium'
    finally: torch.set_float32_matmul_precision('highest')


def test_size_and_device_decide(monkeypatch):
    monkeypatch.undo()
    assert not products._pays(torch.zeros(127, 512), 4096)         # few rows
    assert not products._pays(torch.zeros(255, 512), 4096, 256)
    assert not products._pays(torch.zeros(512, 64), 64)            # little work
    assert not products._pays(torch.zeros(256, 4096), 4096)        # weights take longer than rows
    assert not products._pays(torch.zeros(0, 512), 512) and not products._pays(torch.zeros(5, 0), 512)
    assert not products._pays(torch.zeros(4096, 512, device='meta'), 512)
    assert not products._pays(torch.zeros(4096, 512, dtype=torch.bfloat16), 512)
    monkeypatch.setattr(products.platform, 'machine', lambda: 'arm64')
    assert not products._pays(torch.zeros(4096, 512), 512)
    monkeypatch.setattr(products.platform, 'machine', lambda: 'x86_64')
    assert products._pays(torch.zeros(4096, 512), 512) == torch.backends.mkldnn.is_available()


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='another C library has rules of its own')
def test_freed_memory_is_kept():
    "The same work in fresh memory and in memory that was kept: nearly all page faults are gone."
    code = ('import resource, torch\n'
            'from babyvlm.products import quick_products\n'
            'def faults():\n'
            '    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
            '    for _ in range(5): del [torch.ones(3_000_000) for _ in range(3)][:]\n'
            '    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n'
            'plain = faults()\n'
            'with quick_products(): pass\n'
            'faults()\n'
            'print(plain, faults())')
    plain, kept = map(int, subprocess.check_output([sys.executable, '-c', code], text=True).split())
    assert kept < plain/10 and plain > 10_000
