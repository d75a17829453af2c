"""Everything that nbdev_docs does before it calls Quarto, without Quarto."""
from nbdev.config import get_config
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs


def prepare():
    "Fill _proc/ with the processed notebooks and the site's configuration."
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    return proc_nbs(get_config().nbs_path, n_workers=2)


if __name__ == '__main__': print('prepared', prepare())
