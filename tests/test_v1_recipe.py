"The V1 recipe's keys."
from babyvlm.config import profile
from babyvlm.experiments.v1 import V1
from babyvlm.store import Store


def test_other_data_settings_are_another_artifact(tmp_path):
    "Splits, filter and vocabulary stand behind every weight, though no stage has them in its own section."
    def key(**changed):
        run = V1(profile('toy', {'data.threshold': .1} | changed), Store(tmp_path))
        return run._made('probe', run.profile.cvcl, lambda path: (path/'x').write_text('x') and None).key
    assert key() == key() != key(**{'data.threshold': .2})
