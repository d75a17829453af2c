"""{title}: a model for lmms-eval, as the BabyVLM 2026 leaderboard takes it.

Needs `pip install babyvlm=={version}` in the environment of lmms-eval. The class answers `generate_until` (ten benchmarks),
`generate_until_multi_round` (Memory) and `loglikelihood` (Looking While Listening, by loss).
"""
import babyvlm  # noqa: F401  before anything imports torchvision
from lmms_eval.api.registry import register_model

from babyvlm.benchmarks.lmms_eval import lmms_model


@register_model("{name}")
class {class_name}(lmms_model()):
    "{title}"

    def __init__(self, pretrained={checkpoint!r}, loader={loader!r}, **kwargs):
        super().__init__(pretrained=pretrained, loader=loader, **kwargs)
