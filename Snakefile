"""Paper notebooks as a batch: one rule, papermill inside. `babyvlm reproduce` calls this; so can a cluster."""
import json
import os
import sys
from pathlib import Path

PROFILE = config.get('profile', 'toy')
given = os.environ.get('BABYVLM_PLAN')  # `babyvlm reproduce` has worked it out already
if given: PLAN = json.loads(Path(given).read_text())
else:
    from babyvlm.batch import plan
    PLAN = plan(PROFILE, config.get('paper'), config.get('only'))
BY_DONE = {d['done']: d for d in PLAN.values()}
os.environ['BABYVLM_PYTHON'] = sys.executable


def step(wildcards): return BY_DONE[f'_runs/{wildcards.profile}/{wildcards.page}.{wildcards.key}.done']


wildcard_constraints:
    profile='[^/]+', page='[^.]+', key='[0-9a-f]{16}'

rule all:
    input: list(BY_DONE)

rule notebook:
    input:
        page=ancient('nbs/papers/{page}.ipynb'), before=lambda w: step(w)['before']
    output: '_runs/{profile}/{page}.{key}.done'
    params:
        index=lambda w: step(w).get('index', 1), total=lambda w: step(w).get('total', 1)
    resources:
        gpu=1 if PROFILE == 'paper' else 0
    shell:
        '"${{BABYVLM_PYTHON:-python}}" -c "from babyvlm.cli import app; app()" notebook {input.page:q} {output:q} --profile {wildcards.profile} '
        '--index {params.index} --total {params.total}'
