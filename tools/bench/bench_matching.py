"""Exact matching without the matrix against scipy's dense solver and the shortcuts people take.

Every method runs in a fresh process on the same seeded vectors; methods take turns and the figure is the median over rounds.
With one thread the clock counts processor time (so a busy machine does no harm), with several it is the wall's.
Memory is the growth of the process's peak while the method runs. `--gpu` runs the same search with the pass over all
similarities on a CUDA device, up to 67,000 x 3,000,000, and checks each answer with `verify` on that device (`tools/bench/gpu.py matching`
does the same on a bare machine). Needs numpy, torch, scipy and numba beside `babyvlm.matching.exact`.
"""
import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
REGIMES = ('uniform', 'clip', 'video', 'dup', 'narrow', 'onehub', 'ties')


def _unit(v):
    for i in range(0, len(v), 8192): v[i:i+8192] /= np.linalg.norm(v[i:i+8192], axis=1, keepdims=True)
    return v


def _clip_like(rng, n, d, centres, weight, cone, noise=.6):
    "A cone around one direction, Zipf-sized clusters inside it, noise around those."
    out = rng.standard_normal((n, d), np.float32)
    out *= np.float32(noise / np.sqrt(d))
    for i in range(0, n, 8192): out[i:i+8192] += cone + centres[rng.choice(len(centres), len(out[i:i+8192]), p=weight)]
    return out


def vectors(regime, n, m, d, seed=0):
    "Unit vectors of one kind: (n, d) queries and an (m, d) pool, float32."
    rng = np.random.default_rng(seed)
    if regime == 'uniform': return [_unit(rng.standard_normal((k, d), np.float32)) for k in (n, m)]
    if regime == 'ties': return [_unit(np.sign(rng.standard_normal((k, d))).astype(np.float32)) for k in (n, m)]
    if regime in ('narrow', 'onehub'):  # queries in 8 tight clusters (or one): each shares its neighbours, mean cosine 0.9
        c = 8 if regime == 'narrow' else 1
        centres = (rng.standard_normal((c, d)) * .3 / np.sqrt(d)).astype(np.float32)
        cone = (rng.standard_normal(d) / np.sqrt(d)).astype(np.float32)
        return [_unit(_clip_like(rng, k, d, centres, np.full(c, 1 / c), cone, noise)) for k, noise in ((n, .03), (m, .3))]
    c = max(16, n // 10)
    weight = 1 / np.arange(1, c + 1)
    weight /= weight.sum()
    centres = (rng.standard_normal((c, d)) * .8 / np.sqrt(d)).astype(np.float32)
    cone, shift = ((rng.standard_normal(d) * s / np.sqrt(d)).astype(np.float32) for s in (.8, .4))
    x = _clip_like(rng, n, d, centres, weight, cone + shift)
    y = _clip_like(rng, m, d, centres, rng.permutation(weight), cone)  # the pool is about other things than the queries
    if regime == 'video':  # runs of near-copies, as frames of one scene are
        for v in (x, y):
            first = np.arange(len(v)) // 20 * 20
            v[:] = v[first] + rng.standard_normal(v.shape, np.float32) * np.float32(.1 / np.sqrt(d))
    x, y = _unit(x), _unit(y)
    if regime == 'dup': y[rng.choice(m, m // 5, replace=False)] = y[rng.choice(m, m // 5)]
    return x, y


def _dense(x, y): return x.astype(np.float64) @ y.T.astype(np.float64)


def scipy_dense(x, y):
    from scipy.optimize import linear_sum_assignment
    return linear_sum_assignment(_dense(x, y), maximize=True)[1]


def ours(x, y, **options):
    from babyvlm.matching.exact import match
    return match(x, y, **options)


def greedy(x, y):
    "Each query in turn takes its best item that is left."
    free, out = np.zeros(len(y), np.float32), np.empty(len(x), np.int64)
    for i in range(len(x)):
        out[i] = (y @ x[i] + free).argmax()
        free[out[i]] = -np.inf
    return out


def chunked(x, y, chunks=8):
    "Queries and pool cut into as many pieces, solved piece by piece."
    a, b = (np.linspace(0, len(v), chunks + 1).astype(int) for v in (x, y))
    return np.concatenate([b[i] + scipy_dense(x[a[i]:a[i+1]], y[b[i]:b[i+1]]) for i in range(chunks)])


def knn_sparse(x, y, k=64):
    "The graph of nearest neighbours, solved as if it were the problem."
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching
    col, cost = np.empty((len(x), k), np.int64), np.empty((len(x), k))
    for i in range(0, len(x), 512):
        s = x[i:i+512] @ y.T
        col[i:i+512] = np.argpartition(-s, k, axis=1)[:, :k]
        cost[i:i+512] = 2 - np.take_along_axis(s, col[i:i+512], 1)
    graph = csr_matrix((cost.ravel(), col.ravel(), np.arange(0, len(x) * k + 1, k)), shape=(len(x), len(y)))
    return min_weight_full_bipartite_matching(graph)[1]


def one_pass(x, y):
    "The floor: every similarity computed once in blocks and forgotten."
    import torch
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    for i in range(0, len(a), 4096):
        for j in range(0, len(b), 1024): a[i:i+4096] @ b[j:j+1024].T


METHODS = {f.__name__: f for f in (scipy_dense, ours, greedy, chunked, knn_sparse, one_pass)}


def _status(field):
    "Memory of this process in GB, as the kernel tells it; None where it does not."
    path = Path('/proc/self/status')
    if not path.exists(): return None
    return next(int(line.split()[1]) / 1e6 for line in path.read_text().splitlines() if line.startswith(field))


def _fresh_peak():
    "Forget the peak so far, so that making the vectors does not hide what the method takes."
    path = Path('/proc/self/clear_refs')
    if path.exists(): path.write_text('5')
    return _status('VmRSS')


def _clock():
    "Wall clock; processor time where one thread does all the work, since a busy machine then does no harm."
    import torch
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def child(job):
    "One method on one problem in this process; prints what came out as JSON."
    x, y = vectors(*job['problem'])
    tiny = vectors('uniform', 200, 400, 16)
    if job['method'] in ('ours', 'verify'):
        warm = ours(*tiny, solver='lists', first=8)
        ours(*tiny, solver='lists', first=8, precision='bfloat16'), ours(*tiny, solver='lists', first=8, precision='float32')
        del warm
    _dense(*tiny)
    x[:256] @ y[:4096].T
    clock = _clock()
    before, start, note, value = _fresh_peak(), clock(), '', None
    try: found = METHODS[job['method']](x, y, **job.get('options', {}))
    except ValueError as e: found, note = None, str(e)
    out = dict(seconds=clock() - start)
    if before is not None: out['memory'] = _status('VmHWM') - before
    if hasattr(found, 'columns'):
        out |= dict(gap=found.certificate.gap, rounds=found.rounds, certified=found.total)
        if job.get('verify'):
            from babyvlm.matching.exact import verify
            start = clock()
            proof = verify(x, y, found)
            out |= dict(verify_seconds=clock() - start, verify_gap=proof.gap, reduced=proof.min_reduced_cost)
        found = found.columns
    if found is not None: value = float(np.einsum('ij,ij->', x, y[found], dtype=np.float64))
    sys.stdout.write(json.dumps(out | dict(total=value, note=note)) + '\n')


def measure(method, problem, **extra):
    "Run one method in a fresh process."
    job = json.dumps(dict(method=method, problem=problem, **extra))
    done = subprocess.run([sys.executable, __file__, '--child', job], capture_output=True, text=True, check=False)
    if done.returncode: raise RuntimeError(f'{method} on {problem} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def compare(problem, peers, rounds):
    "Rows of one problem: ours against each peer, taking turns."
    names, runs = ['ours', *peers], {}
    for r in range(rounds):
        for name in names[r % len(names):] + names[:r % len(names)]:
            runs.setdefault(name, []).append(measure(name, problem, verify=name == 'ours' and r == 0))
    regime, n, m, d = problem
    mine, first, out = runs['ours'], runs['ours'][0], []
    size = f'{n:,} x {m:,}, d = {d}, {regime}'
    for peer in peers:
        ratio = statistics.median(b['seconds'] / a['seconds'] for a, b in zip(mine, runs[peer]))
        theirs, total = runs[peer][0], first['total']
        lost = None if theirs['total'] is None else (total - theirs['total']) / n
        exact = (f'ours proved: gap {first["verify_gap"]:.1e}; peer loses {lost:.2e} a row' if lost is not None else
                 f'ours proved: gap {first["verify_gap"]:.1e}; peer: {theirs["note"] or "computes no assignment"}')
        if peer == 'scipy_dense': exact = f'gap {first["verify_gap"]:.1e}; relative difference of totals {abs(total - theirs["total"]) / abs(total):.1e}'
        grown = [(a.get('memory'), b.get('memory')) for a, b in zip(mine, runs[peer])]
        memory = None if None in grown[0] else statistics.median(b / max(a, 1e-3) for a, b in grown)
        took = statistics.median(b['seconds'] for b in runs[peer])
        out.append(dict(part='matching', size=size, peer=f'{peer}: {took:.2f} s', ours=f'{statistics.median(a["seconds"] for a in mine):.2f} s, '
                        f'+{first.get("memory", 0):.2f} GB, verify {first["verify_seconds"]:.2f} s, {first["rounds"]} passes',
                        ratio=round(ratio, 2), memory_ratio=None if memory is None else round(memory, 1), exactness=exact))
    return out


SHORTCUTS = ['scipy_dense', 'greedy', 'chunked', 'knn_sparse', 'one_pass']


def rows(quick=True):
    "Rows for the benchmark table, as they come."
    if quick: jobs = [('clip', 4000, 16000, 512, SHORTCUTS, 1)] + [(r, 2000, 8000, 256, ['scipy_dense'], 1) for r in ('video', 'narrow')]
    else:
        jobs = [(r, 4000, 16000, 512, ['scipy_dense'], 1) for r in REGIMES] + [(r, 4000, 16000, 64, ['scipy_dense'], 1) for r in ('video', 'narrow')]
        jobs += [('clip', 8000, 32000, 512, ['scipy_dense', 'chunked', 'knn_sparse', 'one_pass'], 1)]
        jobs += [(r, 8000, 32000, 512, ['scipy_dense', 'chunked'], 1) for r in ('video', 'dup')]
        jobs += [('clip', 8000, 100000, 512, ['one_pass'], 1), ('clip', 16000, 64000, 512, ['scipy_dense', 'chunked'], 1)]
    for *problem, peers, rounds in jobs: yield from compare(problem, peers, rounds)


def at_scale(regime, n, m, d=512):
    "The papers' size: no peer can hold the matrix; the floor is one bare pass over the pool for a tenth of the queries."
    found = measure('ours', (regime, n, m, d), verify=True)
    floor = 10 * measure('one_pass', (regime, n // 10, m, d))['seconds']
    return dict(part='matching', size=f'{n:,} x {m:,}, d = {d}, {regime}', peer=f'one_pass (a tenth of the queries, times ten): {floor:.0f} s; '
                f'scipy_dense would need {8 * n * m / 1e9:.0f} GB', ratio=round(floor / found['seconds'], 2), memory_ratio=round(8 * n * m / 1e9 / found['memory'], 0),
                ours=f'{found["seconds"]:.0f} s, +{found["memory"]:.2f} GB beside the vectors ({4 * (n + m) * d / 1e9:.1f} GB), verify '
                f'{found["verify_seconds"]:.0f} s, {found["rounds"]} passes', exactness=f'proved optimal: gap {found["verify_gap"]:.1e}, total {found["certified"]:.9f}')


def gpu_vectors(regime, n, m, d, device, seed=0):
    "The same kinds of vectors, made on a CUDA device and brought back as float32 arrays."
    import torch
    if regime in ('narrow', 'onehub'): return vectors(regime, n, m, d, seed)
    g = torch.Generator(device).manual_seed(seed)
    def normal(*shape): return torch.randn(*shape, generator=g, device=device)
    c = max(16, n // 10)
    weight, centres = 1 / torch.arange(1, c + 1, device=device), normal(c, d) * .8 / d ** .5
    cone, shift = normal(d) * .8 / d ** .5, normal(d) * .4 / d ** .5
    out = []
    other = weight[torch.randperm(c, generator=g, device=device)]
    for k, middle, share in ((n, cone + shift, weight), (m, cone, other)):
        v = np.empty((k, d), np.float32)
        for i in range(0, k, 100_000):
            b = min(100_000, k - i)
            block = middle + centres[torch.multinomial(share, b, replacement=True, generator=g)] + normal(b, d) * .6 / d ** .5
            if regime == 'video': block = block[torch.arange(b, device=device) // 20 * 20] + normal(b, d) * .1 / d ** .5
            v[i:i+b] = torch.nn.functional.normalize(block, dim=1).cpu().numpy()
        out.append(v)
    return out


def _gpu_row(regime, n, m, d, device, peer):
    "One problem with the pass on a device, checked there, against scipy on that machine's processor or the bare pass."
    import torch

    from babyvlm.matching.exact import match, verify
    x, y = gpu_vectors(regime, n, m, d, device)
    sync = torch.cuda.synchronize if device == 'cuda' else lambda: None
    if device == 'cuda': torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    found = match(x, y, device=device, solver='lists')
    solve = time.perf_counter() - begun
    begun = time.perf_counter()
    proof = verify(x, y, found, device=device)
    check = time.perf_counter() - begun
    card = f', {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the card' if device == 'cuda' else ''
    exact = f'gap {proof.gap:.1e}, smallest reduced cost {proof.min_reduced_cost:.1e}, total {found.total:.9f}'
    if peer == 'scipy_dense':
        begun = time.perf_counter()
        other = scipy_dense(x, y)
        theirs = time.perf_counter() - begun
        lost = found.total - float(np.einsum('ij,ij->', x, y[other], dtype=np.float64))
        exact += f'; relative difference of totals {abs(lost / found.total):.1e}'
    else:
        a, b = (torch.from_numpy(v).to(device) for v in (x, y))
        sync(); begun = time.perf_counter()
        for i in range(0, n, 4096):
            for j in range(0, m, 65536): a[i:i+4096] @ b[j:j+65536].T
        sync(); theirs = time.perf_counter() - begun
    name = dict(scipy_dense='scipy_dense on its processor', one_pass=f'bare float32 pass on the {device}')[peer]
    alone = '' if device == 'cuda' else f', {torch.get_num_threads()} threads, no GPU'
    return dict(part='matching', size=f'{n:,} x {m:,}, d = {d}, {regime}{alone}', peer=f'{name}: {theirs:.2f} s',
                ours=f'{solve:.1f} s, verify {check:.1f} s, {found.rounds} passes{card}', ratio=round(theirs / solve, 3),
                memory_ratio=None, exactness=exact)


def gpu_rows(quick=False, device='cuda', late=lambda: False):
    "The search with its pass on a CUDA device, up to 67,000 x 3,000,000."
    from babyvlm.matching.exact import match
    match(*vectors('uniform', 3000, 6000, 64), device=device, solver='lists')
    big, dense = 'one_pass', 'scipy_dense'
    jobs = [('clip', 8000, 32000, dense), ('clip', 67_000, 1_000_000, big), ('clip', 67_000, 3_000_000, big),
            ('video', 67_000, 1_000_000, big), ('narrow', 8000, 32000, dense), ('clip', 16_000, 64_000, dense),
            ('clip', 67_000, 300_000, big), ('video', 67_000, 3_000_000, big)]
    if quick: jobs = [(r, n // 100, m // 200, p) for r, n, m, p in jobs[:5]]
    for regime, n, m, peer in jobs:
        if late(): return
        yield _gpu_row(regime, n, m, 64 if quick else 512, device, peer)
    if not quick and not late(): yield _gpu_row('clip', 67_000, 1_000_000, 512, 'cpu', big)  # that machine's processor alone


def context():
    "Where and with what it ran."
    import numba
    import scipy
    import torch
    return dict(date=datetime.now(timezone.utc).isoformat(timespec='minutes'), machine=platform.processor() or platform.machine(),
                device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu', threads=torch.get_num_threads(),
                python=platform.python_version(), numpy=np.__version__, torch=torch.__version__, scipy=scipy.__version__, numba=numba.__version__)


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('--quick', action='store_true')
    a.add_argument('--full', action='store_true')
    a.add_argument('--gpu', action='store_true')
    a.add_argument('--out')
    a.add_argument('--child')
    a = a.parse_args()
    if a.child: child(json.loads(a.child))
    else:
        found = list(gpu_rows(not a.full) if a.gpu else rows(not a.full))
        text = json.dumps(dict(context=context(), rows=found), indent=1)
        if a.out: Path(a.out).write_text(text)
        sys.stdout.write(text + '\n')
