"One-to-one matching on similarity, with its proof."
from babyvlm.data.matching import Certificate, Match, match, verify  # noqa: F401
