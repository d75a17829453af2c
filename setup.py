"""Packaging: every word of it is read from settings.ini."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here / 'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']


def words(key): return cfg.get(key, '').split()


FULL = 'train', 'match', 'explore', 'endpoint', 'analysis'   # what the core does without; papers and notebooks need all of it
extras = {k.removesuffix('_requirements'): words(k) for k in cfg if k.endswith('_requirements')}
extras['full'] = [r for k in FULL for r in extras[k]]
for name in ('batch', 'cluster', 'dev'): extras[name] += extras['full']

readme = here / 'README.md'
setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown', url=cfg['git_url'], license='Apache-2.0',
    author=cfg['author'], author_email=cfg['author_email'], keywords=cfg['keywords'],
    python_requires='>=' + cfg['min_python'],
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
    package_data={cfg['lib_path']: ['published_data/*.csv', 'experiments/*.csv', 'assets/*', 'assets/*/*', 'assets/*/*/*']}, include_package_data=True,
    install_requires=words('requirements'),
    extras_require=extras,
    entry_points={'console_scripts': words('console_scripts'), 'lmms_eval.models': words('lmms_models'),
                  'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]})
