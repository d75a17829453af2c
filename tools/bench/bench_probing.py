"""Linear probes: time to 1e-4 of the optimal objective, ours and scikit-learn's, each run in a fresh process.

python tools/bench/bench_probing.py [--quick] [--gpu] [--repeats 3] [--out bench_probing.json]
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIZES = {   # rows, columns, classes of the levels from coarse to fine, penalties, tolerance of scikit-learn
    'quick': (2000, 128, (5, 12, 40), (30., 3.), 1e-5),
    'cub': (8000, 512, (13, 38, 124, 200), (100., 10., 1.), 3e-6),
    'wide': (20000, 1280, (13, 38, 124, 200), (100., 10.), 1e-5),
    'large': (100_000, 3584, (12, 60, 300, 1500, 5388), (3000., 300.), 1e-5),
    'tiny': (400, 16, (3, 9, 30), (30., 3.), 1e-5),
    'plants': (20000, 512, (8, 40, 120, 600, 1500), (100.,), 1e-5),
}


def made(n, d, sizes, seed=0):
    "Features of a random taxonomy, variance falling as rank ** -1.5 as in image encoders, and every level's labels."
    import torch
    g = torch.Generator().manual_seed(seed)
    means, parents = torch.randn(sizes[0], d, generator=g), []
    for few, many in zip(sizes, sizes[1:]):
        p = torch.cat([torch.arange(few), torch.randint(few, (many - few,), generator=g)])
        means, parents = means[p] + .8*torch.randn(many, d, generator=g), [p, *parents]
    y = [torch.randint(sizes[-1], (n,), generator=g)]
    noise = torch.randn(n, d, generator=g)
    turn = torch.linalg.qr(torch.randn(d, d, generator=g))[0]
    x = (.2*means[y[0]] + noise)*torch.arange(1, d + 1)**-.75 @ turn + .5*torch.randn(d, generator=g)
    for p in parents: y.append(p[y[-1]])
    return x, y[::-1]


def probe(x, labels, sizes, penalties, tolerance, device='cpu'):
    "Ours: one basis, every level and penalty on it."
    import torch
    from babyvlm.analysis.probing import fit_basis, minimise, new_head
    x = x.to(device)
    basis = fit_basis(x)
    rows = basis.project(x)
    heads, found = [new_head(y, c, 1., rows.shape[1], device) for y, c in zip(labels, sizes)], []
    for p in penalties:
        for h in heads: h.penalty, h.value = p, float('inf')
        minimise(rows, basis.curvature, heads, tolerance, 3000)
        found.append([h.value for h in heads])
    if device != 'cpu': torch.cuda.synchronize()
    return found


def peer(x, labels, sizes, penalties, tolerance, device='cpu'):
    "scikit-learn: one estimator a level, warm start along the penalties."
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression
    z = ((x - x.mean(0))/x.std(0, correction=0)).double().numpy()
    found = [[] for _ in penalties]
    for y, c in zip(labels, sizes):
        model = LogisticRegression(tol=tolerance, max_iter=5000, warm_start=True)
        for k, p in enumerate(penalties):
            model.C = 1/p
            model.fit(z, y.numpy())
            scores = torch.from_numpy(z @ model.coef_.T + model.intercept_)
            loss = torch.nn.functional.cross_entropy(scores, y, reduction='sum') + p/2*float(np.square(model.coef_).sum())
            found[k].append(float(loss))
    return found


def plain_torch(x, labels, sizes, penalties, tolerance, device='cpu', goals=None, most=400):
    "What one writes on a GPU: `torch.optim.LBFGS` on standardised features, stopped within 1e-4 of the known optimum."
    import torch
    x, found = x.to(device), []
    z = (x - x.mean(0))/x.std(0, correction=0)
    for y, c, k in zip(labels, sizes, range(len(sizes))):
        y, layer = y.to(device), torch.nn.Linear(z.shape[1], c, device=device)
        for v in layer.parameters(): torch.nn.init.zeros_(v)
        for i, p in enumerate(penalties):
            seen = []
            solver = torch.optim.LBFGS(layer.parameters(), max_iter=20, history_size=10, line_search_fn='strong_wolfe')
            def closure():
                solver.zero_grad()
                loss = torch.nn.functional.cross_entropy(layer(z), y, reduction='sum') + p/2*layer.weight.square().sum()
                (loss/len(y)).backward()
                seen.append(float(loss))
                return loss/len(y)
            while len(seen) < most and (not seen or goals is None or seen[-1] > goals[i][k]*(1 + 1e-4)): solver.step(closure)
            found.append(min(seen))
    return [found[i::len(penalties)] for i in range(len(penalties))]


def work(spec):
    "One timed run in this process; the imports and the data are outside the clock."
    import babyvlm  # noqa: F401
    import torch
    torch.set_num_threads(spec['threads'])
    n, d, sizes, penalties, sk = SIZES[spec['size']]
    x, labels = made(n, d, sizes)
    keep = slice(None) if spec['levels'] == 'all' else slice(-1, None)
    run = dict(peer=peer, ours=probe, torch=plain_torch)[spec['who']]
    more = {k: spec[k] for k in ('goals',) if k in spec}
    if spec['who'] == 'peer': from sklearn.linear_model import LogisticRegression  # noqa: F401
    else: import babyvlm.analysis.probing  # noqa: F401
    args = labels[keep], sizes[keep], spec.get('penalties') or penalties, spec.get('tolerance') or sk
    run(x[:300], [y[:300] % 3 for y in args[0]], [3]*len(args[0]), (10.,), 1e-2, spec['device'])  # warm-up
    clock = time.process_time if spec['threads'] == 1 and spec['device'] == 'cpu' else time.perf_counter
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, clock()  # one thread: a busy machine does no harm
    found = run(x, *args, spec['device'], **more)
    return dict(seconds=clock() - began, objectives=found,
                mib=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1024)


def fresh(**spec):
    "A run in a new process."
    roots = [str(Path(__file__).resolve().parents[2]), os.environ.get('PYTHONPATH', '')]
    env = {**os.environ, 'OMP_NUM_THREADS': str(spec['threads']), 'OPENBLAS_NUM_THREADS': str(spec['threads']),
           'PYTHONPATH': os.pathsep.join(roots)}
    r = subprocess.run([sys.executable, __file__, '--work', json.dumps(spec)], capture_output=True, text=True, env=env)
    if r.returncode: raise RuntimeError(f'{spec}: {r.stderr[-1500:]}')
    return json.loads(r.stdout.splitlines()[-1])


def worst(found, best):
    "The largest relative distance from the optimum."
    return max(f/b - 1 for fs, bs in zip(found, best) for f, b in zip(fs, bs))


def _shape(size, levels='finest'):
    n, d, sizes, penalties, _ = SIZES[size]
    classes = f'{sizes[-1]} classes' if levels == 'finest' else f'levels of {", ".join(map(str, sizes))}'
    return f'{n:,} x {d:,}, {classes}, {len(penalties)} penalties'


def against_peer(size, device, threads, repeats):
    "The finest level along the penalties, interleaved with scikit-learn."
    common = dict(size=size, threads=threads, levels='finest')
    best = fresh(**common, who='ours', device=device, tolerance=1e-8)['objectives']
    runs = [(fresh(**common, who='ours', device=device, tolerance=3e-5), fresh(**common, who='peer', device='cpu'))
            for _ in range(repeats)]
    ours, other = (statistics.median(r[k]['seconds'] for r in runs) for k in (0, 1))
    memory = [max(1., statistics.median(r[k]['mib'] for r in runs)) for k in (0, 1)]
    gaps = [max(worst(r[k]['objectives'], best) for r in runs) for k in (0, 1)]
    return dict(part='probing', size=_shape(size), peer=f'scikit-learn LogisticRegression, {threads} threads: {other:.2f} s',
                ours=f'{ours:.2f} s', ratio=statistics.median(r[1]['seconds']/r[0]['seconds'] for r in runs),
                memory_ratio=None if device != 'cpu' else memory[1]/memory[0],
                exactness=f'from the optimum: ours {gaps[0]:.0e}, scikit-learn {gaps[1]:.0e}')


def all_levels(size, device, threads, repeats):
    "Every level together against the finest alone: the cost of a taxonomy."
    common = dict(size=size, threads=threads, device=device, who='ours', tolerance=1e-5)
    runs = [(fresh(**common, levels='all'), fresh(**common, levels='finest')) for _ in range(repeats)]
    both, alone = (statistics.median(r[k]['seconds'] for r in runs) for k in (0, 1))
    off = max(abs(a[-1]/b[-1] - 1) for r in runs for a, b in zip(r[0]['objectives'], r[1]['objectives']))
    ratio = statistics.median(r[0]['seconds']/r[1]['seconds'] for r in runs)
    return dict(part='probing', size=_shape(size, 'all'), peer=f'the largest level alone, ours: {alone:.2f} s',
                ours=f'{both:.2f} s for all levels, {ratio:.2f} x the largest', ratio=1/ratio, memory_ratio=None,
                exactness=f'finest level differs by {off:.0e}')


def against_torch(size, device, threads):
    "The finest level along the penalties, against the plain recipe on the same device."
    common = dict(size=size, threads=threads, levels='finest', device=device)
    best = fresh(**common, who='ours', tolerance=3e-7)['objectives']
    mine = fresh(**common, who='ours', tolerance=1e-5)
    other = fresh(**common, who='torch', goals=best)
    gaps = [worst(r['objectives'], best) for r in (mine, other)]
    return dict(part='probing', size=_shape(size),
                peer=f'torch.optim.LBFGS on the same device: {other["seconds"]:.1f} s', ours=f'{mine["seconds"]:.1f} s',
                ratio=other['seconds']/mine['seconds'], memory_ratio=None,
                exactness=f'from the optimum: ours {gaps[0]:.0e}, torch {gaps[1]:.0e}')


def gpu_rows(quick=False, device='cuda', late=lambda: False):
    "The sizes of the tables, then 100,000 x 3,584 features of 5,388 classes."
    threads = 1 if quick else len(os.sched_getaffinity(0))
    jobs = [lambda: all_levels('tiny', device, threads, 1), lambda: against_torch('tiny', device, threads)] if quick else [
        lambda: against_peer('cub', device, threads, 1), lambda: against_torch('large', device, threads),
        lambda: all_levels('large', device, threads, 1), lambda: all_levels('cub', device, threads, 3),
        lambda: against_peer('wide', device, threads, 1)]
    for job in jobs:
        if late(): return
        yield job()


def rows(quick:bool, device:str='cpu', threads:int=None, repeats:int=3):
    "Lines of the report, as they come; threads as torch counts them where none are given."
    threads = threads or int(os.environ.get('OMP_NUM_THREADS') or len(os.sched_getaffinity(0)))
    jobs = [(against_peer, 'quick', 1), (all_levels, 'quick', 1)] if quick else [
        (against_peer, 'cub', 1), (all_levels, 'cub', repeats), (all_levels, 'plants', 1), (against_peer, 'wide', 1), (all_levels, 'wide', 1)]
    for work, size, times in jobs: yield work(size, device, threads, times)


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--work')
    p.add_argument('--quick', action='store_true')
    p.add_argument('--gpu', action='store_true')
    p.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--out')
    a = p.parse_args()
    if a.work: print(json.dumps(work(json.loads(a.work))))
    else:
        table = list(gpu_rows(a.quick)) if a.gpu else list(rows(a.quick, 'cpu', a.threads, a.repeats))
        print(json.dumps(table, indent=1))
        if a.out or a.gpu: open(a.out or 'bench_probing.json', 'w').write(json.dumps(table, indent=1))
