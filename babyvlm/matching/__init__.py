"""One-to-one matching with a proof that no other is better: `match` finds it, `verify` checks it."""

from .exact import *  # noqa: F401,F403
