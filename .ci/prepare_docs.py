"""Everything that nbdev_docs does before it calls Quarto, without Quarto."""
import re
import shutil

import fastcore.docments as docments
from nbdev.config import get_config
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs

_signature = docments.signature


def signature(obj, eval_str=False, **kwargs):
    "Configurations of transformers carry annotations as text whose names are not all importable: show those as text."
    try: return _signature(obj, eval_str=eval_str, **kwargs)
    except NameError: return _signature(obj, **kwargs)


docments.signature = signature   # here and not in a function: each worker imports this file


def data_cards(site):
    "Quarto renders no file called README: in the site a card is the index page of its folder."
    for card in site.glob('data_cards/*/README.md'): shutil.copyfile(card, card.with_name('index.md'))
    config = site/'_quarto.yml'
    text = re.sub(r'(data_cards/\w+)/README\.md', r'\1/index.md', config.read_text(encoding='utf-8'))
    config.unlink()   # it may be a link to the source
    config.write_text(text, encoding='utf-8')


def notebooks(folder):
    "Relative names of the notebooks below a folder."
    return {p.relative_to(folder) for p in folder.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts}


def prepare():
    "Fill _proc/ with the processed notebooks and the site's configuration."
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    source, site = get_config().nbs_path, get_config().config_path/'_proc'
    pages, made = notebooks(source), notebooks(site)
    for gone in made - pages: (site/gone).unlink()
    site = proc_nbs(source, n_workers=2, force=bool(pages - made))   # a run that was cut short is done again
    data_cards(site)
    return site


if __name__ == '__main__': print('prepared', prepare().name)
