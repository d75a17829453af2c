"""Bootstrap intervals: one shared matrix of draws against `scipy.stats.bootstrap`.

Both are timed in one process on one core, in turn. `ratio` is the median over rounds of the peer's time over ours;
`memory_ratio` is the peer's peak allocation over ours, taken in a pass of its own: below 1 we hold more, about 25 MB,
because scipy runs at its fastest batch (its default allocates some 300 MB and takes several times as long). Where the peer's
calls are alike only some are timed; `peer` says how many. `exactness` is the largest distance between our interval's ends
and scipy's for one model, both from 100,000 draws (20,000 when quick), since with fewer the ends differ by their own noise.
Goals: 5 times at 20 models, 30 times at 200, ends within 1e-3, differences at no cost.
"""
import gc
import sys
import time
import tracemalloc
from statistics import median

import numpy as np
from scipy.stats import bootstrap as scipy_bootstrap
from threadpoolctl import threadpool_limits

from babyvlm.estimate import resample

TRIALS, IMAGES, ENDS = 2000, 400, [.025, .975]
SCIPY = dict(method='percentile', batch=64)   # the fastest of 64, 1024 and all at once


def ratio_of_sums(sums, sizes, axis=-1): return sums.sum(axis) / sizes.sum(axis)


def outcomes(models, clustered, seed=0):
    "Right or wrong, (trials, models), and the image of each trial; images differ in difficulty."
    rng = np.random.default_rng(seed)
    image = rng.integers(0, IMAGES, TRIALS)
    ease = rng.normal(0, .15, IMAGES)[image][:, None]
    x = rng.random((TRIALS, models)) < np.clip(np.linspace(.4, .8, models) + ease, 0, 1)
    return x.astype(float), image if clustered else None


def ours(x, image, n_boot, pairs=None):
    "Interval ends of every model, (2, models), or of every pair's difference."
    draws = resample(x, image, n_boot)
    if pairs is None: return np.quantile(draws, ENDS, axis=0)
    draws = np.ascontiguousarray(draws.T)
    return np.stack([np.quantile(draws[i] - draws[j], ENDS) for i, j in pairs], 1)


def scipys(x, image, n_boot):
    "The same by one call a model; clusters by their sums and sizes, drawn together."
    out = []
    for j in range(x.shape[1]):
        if image is None: samples, statistic, paired = (x[:, j],), np.mean, False
        else:
            samples = np.bincount(image, x[:, j], IMAGES), np.bincount(image, minlength=IMAGES)
            statistic, paired = ratio_of_sums, True
        ci = scipy_bootstrap(samples, statistic, n_resamples=n_boot, paired=paired, rng=j, **SCIPY).confidence_interval
        out.append((ci.low, ci.high))
    return np.array(out).T


def in_one_call(x, image, n_boot):
    "scipy at its best: all models as columns of one sample, which then share its draws."
    ci = scipy_bootstrap((x,), np.mean, axis=0, n_resamples=n_boot, method='percentile', rng=0, batch=16).confidence_interval
    return np.stack([ci.low, ci.high])


def seconds(f):
    gc.collect(); t = time.perf_counter(); f()
    return time.perf_counter() - t


def peak(f):
    "Largest allocation beyond what was held before, bytes; numpy reports its arrays."
    gc.collect(); tracemalloc.start()
    try: f(); return tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()


def race(ours_run, peer_run, repeats, share=1.):
    "Our median seconds and the median ratio, in turn; the peer may run a share of its work when its parts are alike."
    ours_run()
    times = [(seconds(ours_run), seconds(peer_run) / share) for _ in range(repeats)]
    return median(a for a, _ in times), median(b / a for a, b in times)


def line(size, peer, seconds, ratio, memory, gap):
    return dict(part='resampling', size=size, peer=peer, ours=f'{seconds:.2g} s', ratio=round(ratio, 1),
                memory_ratio=round(memory, 2), exactness=f'ends within {gap:.1e}')


def against_scipy(models, clustered, n_boot, repeats, n_exact, share=1.):
    x, image = outcomes(models, clustered)
    part = x[:, :max(1, round(models * share))]
    timed = part.shape[1]
    times = race(lambda: ours(x, image, n_boot), lambda: scipys(part, image, n_boot), repeats, timed / models)
    memory = peak(lambda: scipys(x[:, :1], image, n_boot)) / peak(lambda: ours(x, image, n_boot))
    gap = np.abs(ours(x[:, :1], image, n_exact) - scipys(x[:, :1], image, n_exact)).max()
    size = f"{models} models x {TRIALS} trials{f' in {IMAGES} images' if clustered else ''}, {n_boot} draws"
    return line(size, f'scipy, one call a model ({timed} of {models} timed)', *times, memory, gap)


def against_one_call(models, n_boot, repeats, n_exact):
    x, _ = outcomes(models, False)
    times = race(lambda: ours(x, None, n_boot), lambda: in_one_call(x, None, n_boot), repeats)
    memory = peak(lambda: in_one_call(x, None, n_boot)) / peak(lambda: ours(x, None, n_boot))
    gap = np.abs(ours(x[:, :1], None, n_exact) - in_one_call(x[:, :1], None, n_exact)).max()
    return line(f'{models} models x {TRIALS} trials, {n_boot} draws', 'scipy, all models in one call', *times, memory, gap)


def all_differences(models, n_boot, repeats, n_exact):
    "All pairs of models from the draws that already exist; scipy draws again for each pair (five timed, the rest alike)."
    x, _ = outcomes(models, False)
    pairs = [(i, j) for i in range(models) for j in range(i)]
    some = np.stack([x[:, i] - x[:, j] for i, j in pairs[:5]], 1)
    times = race(lambda: ours(x, None, n_boot, pairs), lambda: scipys(some, None, n_boot), repeats, len(some.T) / len(pairs))
    memory = peak(lambda: scipys(some[:, :1], None, n_boot)) / peak(lambda: ours(x, None, n_boot, pairs))
    gap = np.abs(ours(x, None, n_exact, pairs[:1]) - scipys(some[:, :1], None, n_exact)).max()
    return line(f'{len(pairs)} paired differences of {models} models', f'scipy, one call a pair (5 of {len(pairs)} timed)',
                *times, memory, gap)


def rows(quick:bool)->list[dict]:
    "Lines of the report; quick: fewer draws, fewer repeats and a tenth of scipy's calls at 200 models."
    n_boot, repeats, n_exact = (4999, 3, 20_000) if quick else (9999, 3, 100_000)
    with threadpool_limits(1):
        return [against_scipy(20, False, n_boot, repeats, n_exact, .25 if quick else 1.),
                against_scipy(200, False, n_boot, repeats, n_exact, .02 if quick else .1),
                against_scipy(20, True, n_boot, repeats, n_exact, .25 if quick else 1.),
                against_one_call(20, n_boot, repeats, n_exact),
                all_differences(20, n_boot, repeats, n_exact)]


if __name__ == '__main__':
    for r in rows('--quick' in sys.argv): print(r)
