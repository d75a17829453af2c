"""A dual encoder of your own on every benchmark: two methods, ten lines.

    python tools/examples/dual_encoder.py [FOLDER]
"""
import sys
import tempfile

import numpy as np

from babyvlm.benchmarks.devcv.embeddings import EmbeddingScorer
from babyvlm.nursery.world import Nursery
from worlds import everything, report, write_world


class AverageSight:
    "Believes that a word looks like the average of all pictures it was heard with."
    def __init__(self, pictures, sayings):
        seen, said = self.look(pictures), [s.split() for s in sayings]
        self.usual = seen.mean(0)
        self.words = {w: seen[[w in s for s in said]].mean(0) - self.usual for w in set(sum(said, []))}
    def look(self, pictures): return np.array([np.ravel(p.resize((4, 4))) for p in pictures], float)
    def unit(self, x): return (x + 1e-9) / np.linalg.norm(x + 1e-9, axis=1, keepdims=True)
    def encode_images(self, pictures): return self.unit(self.look(pictures) - self.usual)
    def encode_texts(self, texts):
        return self.unit(np.array([sum(self.words.get(w, 0 * self.usual) for w in t.split()) for t in texts]))


def trained(recordings=8):
    "The model, taught by what child S saw and heard."
    world = Nursery()
    heard = [u for s in world.sessions(recordings, 'S') for u in world.recording(s, 40)]
    return AverageSight([world.picture(u) for u in heard], [u.text for u in heard])


def main(folder=None):
    "Scores on all benchmarks; DevCV is asked by comparing vectors."
    model = trained()
    return everything(model, write_world(folder or tempfile.mkdtemp()), chat=EmbeddingScorer(model))


if __name__ == '__main__': print(report(main(*sys.argv[1:2])))
