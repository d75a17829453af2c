"Published values with their sources."
from babyvlm.published import published  # noqa: F401
