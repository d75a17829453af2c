"""Two guards for an environment or a program that is older than this package.

**torchvision.** A CPU torch and the registry's torchvision can meet in one environment; the C++ library of the second
then does not load and `import torchvision` fails on the missing operator `torchvision::nms`. The guard waits for that
import, tries the real library first, and only if it does not load declares the two operator schemas it would have
brought. Calling `nms` then still raises; nothing here needs it. Cost: nothing until torchvision is imported.

**Modules that moved.** A path of before the package was put in order goes on working: `babyvlm.models.vlms` looks its
names up in `babyvlm.models.hub_models` and says so once in a DeprecationWarning. Cost: nothing, as the finder stands
last and is asked only for what nobody else has.

**Names that moved.** A module of which a part became another one, or a class of which got another name, still gives the
names of before, with the same warning. Cost: a dictionary's look-up an import.
"""
import importlib.abc
import importlib.machinery
import sys
import warnings
from pathlib import Path


class _TorchvisionGuard(importlib.abc.MetaPathFinder):
    lib = None

    def find_spec(self, name, path=None, target=None):
        if name != 'torchvision': return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is None: return None
        import torch
        try:
            torch.ops.load_library(next(Path(spec.origin).parent.glob('_C*.so')))
        except (OSError, StopIteration):
            type(self).lib = lib = torch.library.Library('torchvision', 'DEF')
            for op in ('nms', 'qnms'):
                lib.define(f'{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        return spec


def guard_torchvision():
    "Install the guard once, unless torchvision is already loaded."
    if 'torchvision' in sys.modules or any(isinstance(f, _TorchvisionGuard) for f in sys.meta_path): return
    sys.meta_path.insert(0, _TorchvisionGuard())


# old module: where its names are now, the first place first
MOVED = {old: new.split() for old, _, new in (line.strip().partition(': ') for line in """
    analysis.mixed_logistic: analysis.survey.mixed_logistic
    analysis.simulated_people: nursery.people
    analysis.survey_page: analysis.survey.page
    analysis.survey_power: analysis.survey.power
    batch: run.batch
    bench: run.speed
    benchmarks.catalogue: benchmarks.devcv.tasks benchmarks.devcv.read
    benchmarks.credit: credit
    benchmarks.embedded: benchmarks.devcv.embeddings
    benchmarks.items: items pictures benchmarks.protocols
    benchmarks.protocol: benchmarks.hierarchy.run
    benchmarks.questions: benchmarks.hierarchy.questions
    benchmarks.shortcuts: benchmarks.devcv.shortcuts
    cards: reporting.cards
    cli: run.cli
    commands: run.commands
    compare: run.compare
    data.assignment: matching.assignment
    data.clips: nursery.clips
    data.creatures: nursery.creatures
    data.crops: benchmarks.devcv.crops
    data.crowds: benchmarks.devcv.counting
    data.devcv: benchmarks.devcv.build benchmarks.devcv.tasks data.question_wordings
    data.drawing: nursery.drawing
    data.home: nursery.household
    data.matching: matching.exact
    data.nursery: nursery.world
    data.places: nursery.backdrops
    data.recordings: data.video nursery.film
    data.scenes: nursery.scenes
    data.screening: matching.screening
    data.speech: nursery.speech
    data.things: nursery.objects
    data.toolbox: benchmarks.devcv.files benchmarks.devcv.tasks
    data.views: nursery.views
    data.wording: data.question_wordings
    evaluation: run.evaluate models.families
    hub: reporting.hub models.weights
    logs: run.logs
    models.vlms: models.hub_models models.chat models.servers models.shared_reading
    published: reporting.published
    recipes: experiments
    recipes.asking: experiments.prompting
    recipes.hierarchy: experiments.planted
    recipes.rehearsal: experiments.rehearsal
    recipes.sources: experiments.sources
    recipes.v1: experiments.v1
    recipes.v1_data: experiments.v1_data
    recipes.v2: experiments.v2
    recipes.v2_data: experiments.v2_data
    report: reporting.tables reporting.figures
    report_page: reporting.page
    reproduction: reporting.coverage
    results: run.results
    running: run.notebook
    scores: run.scorecard
    verification: run.verify
    """.strip().splitlines())}


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.removeprefix('babyvlm.') not in MOVED or not name.startswith('babyvlm.'): return None
        return importlib.machinery.ModuleSpec(name, self, is_package=name == 'babyvlm.recipes')

    def exec_module(self, module):
        places = [f'babyvlm.{m}' for m in MOVED[module.__name__.removeprefix('babyvlm.')]]
        warnings.warn(f"'{module.__name__}' has moved: import from {' or '.join(map(repr, places))}", DeprecationWarning, stacklevel=2)
        there = [importlib.import_module(m) for m in places]

        def look_up(name):
            for m in there:
                if hasattr(m, name): return getattr(m, name)
            raise AttributeError(f"module {module.__name__!r} has moved to {places[0]!r}, which has no attribute {name!r}")
        module.__getattr__, module.__all__ = look_up, [n for m in there for n in getattr(m, '__all__', ())]


# module: where a part of its names is now, or OLD=NEW for a name of its own
PARTED = {old: new.split() for old, _, new in (line.strip().partition(': ') for line in """
    analysis.survey: Rules=ExclusionRules
    analysis.survey.answers: Rules=ExclusionRules
    benchmarks.devcv.embeddings: Embedded=EmbeddingScorer
    benchmarks.hierarchy.run: Items=QuestionItems
    data.annotations: Clip=LeavingClip
    data.child_directed: data.rewriters
    data.pretraining: data.segments
    data.question_wordings: Style=QuestionStyle
    experiments.v1: PARTS=SECTIONS
    items: pictures benchmarks.protocols
    models.cvcl: DualEncoder=DualEncoderBase
    models.hub_models: models.chat models.servers models.shared_reading
    models.tiny: Family=TinyFamily
    nursery.creatures: Plan=BodyPlan
    nursery.world: Utterance=Moment
    run.speed: PARTS=BENCHES
    training.generative: Features=FrozenFeatures Sequences=TokenSequences
    training.trainer: training.samples
    """.strip().splitlines())}


class _MovedNames(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.removeprefix('babyvlm.') not in PARTED or not name.startswith('babyvlm.'): return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            module.__getattr__ = lambda old: self.look_up(name, old)
            load(module)
        spec.loader.exec_module = exec_module
        return spec

    def look_up(self, name, old):
        for place in PARTED[name.removeprefix('babyvlm.')] if not old.startswith('__') else ():
            was, renamed, new = place.rpartition('=')
            module = importlib.import_module(name if renamed else f'babyvlm.{place}')
            if (was != old) if renamed else (old not in vars(module)): continue
            there = f'{name}.{new}' if renamed else f'{module.__name__}.{old}'
            warnings.warn(f"'{name}.{old}' has moved: it is '{there}' now", DeprecationWarning, stacklevel=3)
            return vars(module)[new if renamed else old]
        raise AttributeError(f"module '{name}' has no attribute '{old}'")


def keep_old_paths():
    "Let old import paths go on working, once."
    if any(isinstance(f, _MovedModules) for f in sys.meta_path): return
    sys.meta_path.insert(0, _MovedNames())
    sys.meta_path.append(_MovedModules())
