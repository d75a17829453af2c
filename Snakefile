"""Paper notebooks as a batch: one rule, papermill inside. `babyvlm reproduce` calls this; so can a cluster."""
import json
import os
import sys
from pathlib import Path

PROFILE = config.get('profile', 'toy')
given = os.environ.get('BABYVLM_PLAN')  # `babyvlm reproduce` has worked it out already
if given: PLAN = json.loads(Path(given).read_text())
else:
    from babyvlm.run.batch import plan
    PLAN = plan(PROFILE, *(str(config[k]) if k in config else None for k in ('paper', 'only')))   # '63' arrives as a number
BY_DONE = {d['done']: d for d in PLAN.values()}
os.environ['BABYVLM_PYTHON'] = sys.executable


def step(wildcards): return BY_DONE[f'_runs/{wildcards.profile}/{wildcards.page}.{wildcards.key}.done']
def need(kind): return lambda w: step(w)['resources'][kind]   # from babyvlm/assets/resources.csv
BUILDS = 'v1/69_claims', 'v2/74_main_results'   # they make what the other pages of their papers read, which would only wait beside them
def beside(paper): return lambda w: (1 + (w.page in BUILDS)) if w.page.startswith(paper) else 0


wildcard_constraints:
    profile='[^/]+', page='[^.]+', key='[0-9a-f]{16}'

localrules: all

rule all:
    input: list(BY_DONE)

rule notebook:
    input:
        page=ancient('nbs/papers/{page}.ipynb'), before=lambda w: step(w)['before']
    output: '_runs/{profile}/{page}.{key}.done'
    params:
        index=lambda w: step(w).get('index', 1), total=lambda w: step(w).get('total', 1)
    priority: lambda w: step(w)['first']   # the longest first: short ones fill what is left
    threads: lambda w: step(w)['resources']['cpus'] if step(w)['resources']['gpu'] else 1
    resources:
        gpu=need('gpu'), mem_mb=need('mem_mb'), runtime=need('minutes'), v1=beside('v1/'), v2=beside('v2/')
    shell:
        '"${{BABYVLM_PYTHON:-python}}" -c "from babyvlm.run.cli import app; app()" notebook {input.page:q} {output:q} --profile {wildcards.profile} '
        '--index {params.index} --total {params.total} --gpus {resources.gpu}'
