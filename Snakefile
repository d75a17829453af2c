"""Paper notebooks as a batch: one rule, papermill inside. `babyvlm reproduce` calls this; so can a cluster."""
import os
import sys
from pathlib import Path

from babyvlm.batch import paper_notebooks

PROFILE = config.get('profile', 'toy')
TODO = paper_notebooks(config.get('paper'), config.get('only'))
PAGES = {p.relative_to('nbs/papers').with_suffix('').as_posix(): i for i, p in enumerate(TODO, 1)}
CODE = [str(p) for p in sorted(Path('babyvlm').rglob('*.py')) if p.name != '_modidx.py']
REPORT = [p for p in PAGES if Path(p).name.startswith('90_')]
PARAMETERS = {k: os.environ.get(k, '') for k in ('BABYVLM_DATA', 'BABYVLM_OVERRIDES', 'BABYVLM_DEVICE')}


def copies(pages): return [f'_runs/{PROFILE}/{p}.ipynb' for p in pages]


rule all:
    input: copies(PAGES)

rule notebook:
    input:
        page='nbs/papers/{page}.ipynb', code=CODE,
        before=lambda w: copies(p for p in PAGES if p not in REPORT) if w.page in REPORT else []
    output: '_runs/{profile}/{page}.ipynb'
    params:
        environment=PARAMETERS, place=lambda w: PAGES[w.page], total=len(PAGES), python=sys.executable
    resources:
        gpu=lambda w: 1 if PROFILE == 'paper' else 0
    shell:
        '{params.python} -m babyvlm.cli notebook {input.page} {output} --profile {wildcards.profile} '
        '--index {params.place} --total {params.total}'
