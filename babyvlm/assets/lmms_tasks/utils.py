"""What the task files of this folder call; everything is in `babyvlm.benchmarks.lmms_eval`."""
import babyvlm  # noqa: F401  before anything imports torchvision
from babyvlm.benchmarks.lmms_eval import (doc_images, doc_question, doc_round, doc_target, mean, score_choice, score_memory,  # noqa: F401
                                          score_pairs, vtwt_acc, labeled_s_acc, winoground_group, winoground_image,
                                          winoground_text)
