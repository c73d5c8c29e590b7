"""Which steps a target needs, which of them are done already, and why the others are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from personalize.egress import has_secret, without_secrets
from personalize.files import value_digest
from personalize.recipe.config import Merged, Override, load, with_overrides
from personalize.recipe.errors import Faults, RecipeError, nearest
from personalize.recipe.fetched import pull, unpulled
from personalize.recipe.fingerprint import Components, code_closure, differences, environment
from personalize.recipe.steps import AGAIN, Sources, Step, StepConfig, load_steps
from personalize.recipe.tracking import StepRun, Store
from personalize.recipe.validation import validate

MOST_REASONS = 3


@dataclass(frozen=True)
class Prepared:
    """A validated recipe: the steps the target needs, in order, each with its config and what its result depends on.

    components: without their inputs, which are known when the steps before have their results.
    """

    merged: Merged
    steps: dict[str, Step]
    configs: dict[str, StepConfig]
    components: dict[str, Components]
    target: str
    alone: bool = False

    @property
    def name(self) -> str:
        return self.merged.name

    @property
    def root(self) -> Path:
        return self.merged.root

    def needs(self, step: str) -> tuple[str, ...]:
        """The steps whose results this one reads, under its config."""
        return needs_of(self.steps[step], self.configs[step])

    def outside_data(self) -> list[str]:
        """The folders and files that the configuration names as data, which stay on this machine."""
        return sorted({place for config in self.configs.values() for place in config.outside_data()})

    @property
    def work(self) -> str:
        """Digest of all that decides what the needed steps come to, known before any of them has run.

        Empty where one of them always runs.
        """
        if not all(self.steps[name].reuse for name in self.components):
            return ""
        return value_digest([self.target, *(components.digest for components in self.components.values())])

    def resolved(self) -> dict[str, Any]:
        """Everything that was decided, as plain values: what is logged and what `reproduce` reads.

        withheld: what was given a value with a secret in it, which is not kept.
        """
        return {
            "recipe": self.name,
            "profile": self.merged.profile.name,
            "step" if self.alone else "until": self.target,
            "overrides": {override.name: without_secrets(override.text) for override in self.merged.overrides},
            "withheld": sorted(each.name for each in self.merged.overrides if has_secret(each.text)),
            "outside_data": self.outside_data(),
            "variables": dict(self.merged.profile.variables.values),
            "steps": {name: self.configs[name].model_dump(mode="json") for name in self.components},
        }


@dataclass(frozen=True)
class Planned:
    """What will happen to one step. "maybe": it depends on what the steps in `waiting` come to.

    reused: the run whose result is used.
    """

    step: Step
    action: Literal["run", "maybe", "reuse"]
    why: str
    reused: StepRun | None = None
    waiting: tuple[str, ...] = ()


def prepare(root: Path, profile: str, overrides: Sequence[Override] = (), until: str = "", step: str = "") -> Prepared:
    """Read and validate everything, and digest what the needed steps depend on, a registry's champion among it.

    until: every step of recipe.yaml up to this one (default: the recipe's own `until`). step: this one and what it
    needs. Raises RecipeError for every fault, with file and line.
    """
    if until and step:
        raise RecipeError(f"give --until {until} or --step {step}, not both")
    faults = Faults()
    merged = load(root, profile, overrides, faults)
    target = step or until or merged.until
    if target not in merged.steps:
        raise RecipeError(f"unknown step '{target}'{nearest(target, merged.steps)}")
    steps = load_steps(root, merged.places)
    kinds = {name: step.kind for name, step in steps.items()}
    configs = validate(merged, kinds, set(), faults)
    order = list(steps)
    needed = closure([step] if step else order[: order.index(target) + 1], steps, configs)
    if not set(needed) <= set(configs):
        validate(merged, kinds, set(needed), faults)
    known = [name for name in needed if name in configs]
    if faults.said and unpulled(root, [configs[name] for name in known]):
        faults.refuse()  # what is wrong is said before minutes go into data
    pull(root, [configs[name] for name in known])
    components = _components(root, known, steps, configs, environment(root), faults)
    return Prepared(merged, steps, configs, components, target, bool(step))


class Variants:
    """The same recipe again and again with a few keys changed: what all have in common is read and digested once.

    As `prepare`, which gives the same for each.
    """

    def __init__(self, root: Path, profile: str, overrides: Sequence[Override] = (), until: str = "") -> None:
        self._root, self._profile, self._common, self._until = root, profile, tuple(overrides), until
        self._bases: dict[tuple[Override, ...], Merged] = {}
        self._known: dict[tuple[str, str], Components] = {}
        self._steps: dict[str, Step] = {}

    @cached_property
    def _pinned(self) -> dict[str, str]:
        return environment(self._root)

    def prepare(self, overrides: Sequence[Override]) -> Prepared:
        """Raises RecipeError as `prepare` does."""
        short = self._base(()).short
        late = tuple(each for each in overrides if str(short.get(each.name, each.name)).isupper())
        merged = with_overrides(self._base(late), [each for each in overrides if each not in late])
        target, steps = self._target(merged), self._loaded(merged)
        kinds = {name: step.kind for name, step in steps.items()}
        configs = validate(merged, kinds, set())
        order = list(steps)
        needed = closure(order[: order.index(target) + 1], steps, configs)
        if not set(needed) <= set(configs):
            validate(merged, kinds, set(needed))
        return Prepared(merged, steps, configs, {name: self._of(name, configs[name]) for name in needed}, target)

    def common(self) -> tuple[Merged, str, dict[str, StepConfig]]:
        """The recipe as it is without changes, its target, and the configs of the steps that can be configured so."""
        merged = self._base(())
        kinds = {name: step.kind for name, step in self._loaded(merged).items()}
        return merged, self._target(merged), validate(merged, kinds, set())

    def _target(self, merged: Merged) -> str:
        target = self._until or merged.until
        if target not in merged.steps:
            raise RecipeError(f"unknown step '{target}'{nearest(target, merged.steps)}")
        return target

    def _loaded(self, merged: Merged) -> dict[str, Step]:
        self._steps = self._steps or load_steps(self._root, merged.places)
        return self._steps

    def _base(self, late: tuple[Override, ...]) -> Merged:
        if late not in self._bases:
            self._bases[late] = load(self._root, self._profile, [*self._common, *late])
        return self._bases[late]

    def _of(self, name: str, config: StepConfig) -> Components:
        key = (name, config.model_dump_json())
        if key not in self._known:
            known = _components(self._root, [name], self._steps, {name: config}, self._pinned, Faults())
            self._known[key] = known[name]
        return self._known[key]


def survey(root: Path, profile: str, overrides: Sequence[Override] = ()) -> Prepared:
    """As `prepare`, for every step that can be configured now; missing data makes a step not done."""
    merged = load(root, profile, overrides)
    steps = load_steps(root, merged.places)
    configs = validate(merged, {name: step.kind for name, step in steps.items()}, set())
    known = [name for name in steps if set(closure([name], steps, configs)) <= set(configs)]
    return Prepared(merged, steps, configs, _components(root, known, steps, configs, environment(root)), merged.until)


def _components(
    root: Path,
    names: Sequence[str],
    steps: Mapping[str, Step],
    configs: Mapping[str, StepConfig],
    pinned: Mapping[str, str],
    faults: Faults | None = None,
) -> dict[str, Components]:
    """pinned: the environment. faults: what is wrong so far; without it what is not there is no fault.

    Raises RecipeError for all faults at once: before a server is asked or code is read, where this machine shows them.
    """
    sources = {name: _sources(name, steps[name].sources, configs[name], faults) for name in names}
    if faults is not None:
        faults.refuse()
    for name in names:
        sources[name] |= _sources(name, steps[name].remote_sources, configs[name], faults)
    if faults is not None:
        faults.refuse()
    components: dict[str, Components] = {}
    for name in names:
        step, config = steps[name], configs[name]
        components[name] = Components(
            step=name,
            code=code_closure(root, step.path, step.code),
            config={key: value for key, value in config.model_dump(mode="json").items() if key in config.result_keys()},
            inputs={},
            sources=sources[name],
            environment=dict(pinned),
        )
    return components


def closure(targets: Sequence[str], steps: Mapping[str, Step], configs: Mapping[str, StepConfig]) -> list[str]:
    """The targets and everything they need, in the recipe's order."""
    wanted, waiting = set(), list(targets)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting.extend(needs_of(steps[name], configs.get(name)))
    return [name for name in steps if name in wanted]


def needs_of(step: Step, config: StepConfig | None) -> tuple[str, ...]:
    """NEEDS, narrowed by the step's own `needs(config)` where it has one."""
    if step.narrow is None or config is None:
        return step.needs
    narrowed = tuple(step.narrow(config))
    if not set(narrowed) <= set(step.needs):
        raise RecipeError(
            f"steps/{step.name}.py: needs(config) gave {narrowed}, which is not within NEEDS {step.needs}"
        )
    return narrowed


def _sources(step: str, ask: Sources, config: StepConfig, faults: Faults | None) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in ask(config).items()}
    except (ValueError, OSError) as error:
        if faults is not None:
            faults.said.append(f"{step}: {error}")
        return {"missing": str(error)}


def make_plan(prepared: Prepared, store: Store, fresh: bool = False) -> list[Planned]:
    """Look every needed step up in the tracking store. fresh: use nothing of the past."""
    plan: dict[str, Planned] = {}
    for name in prepared.components:
        needs = [plan[need] for need in prepared.needs(name)]
        waiting = tuple(need.step.name for need in needs if need.reused is None)
        results = {need.step.name: need.reused for need in needs if need.reused is not None}
        plan[name] = plan_step(prepared, store, name, results, waiting, fresh)
    return list(plan.values())


def make_plan_on(prepared: Prepared, store: Store, fresh: bool = False) -> tuple[Prepared, list[Planned]]:
    """The plan, gone on with as far as the runs that it reuses have asked for more; and the recipe raised as far."""
    plan = make_plan(prepared, store, fresh)
    while asked := [
        each.step.name for each in plan if each.reused and asks_again(prepared, each.step.name, each.reused)
    ]:
        prepared, _ = raised(prepared, asked[0])
        plan = make_plan(prepared, store, fresh)
    return prepared, plan


def asks_again(prepared: Prepared, step: str, past: StepRun) -> str:
    """Why a run of a step wants more, where recipe.yaml says of what; empty where it does not."""
    return past.tags.get(AGAIN, "") if step in prepared.merged.again else ""


def raised(prepared: Prepared, step: str) -> tuple[Prepared, list[str]]:
    """The recipe with what `again` names for that step raised by one, and the steps up to it that this changes."""
    parameter = prepared.merged.again[step]
    of, _, key = parameter.partition(".")
    changed = with_overrides(prepared.merged, [Override(parameter, str(getattr(prepared.configs[of], key) + 1))])
    merged = replace(changed, overrides=prepared.merged.overrides)  # nobody has typed it
    configs = validate(merged, {name: step.kind for name, step in prepared.steps.items()}, set())
    order = list(prepared.components)
    anew = [name for name in order if configs[name] != prepared.configs[name]]
    pinned = prepared.components[order[0]].environment
    components = prepared.components | _components(prepared.root, anew, prepared.steps, configs, pinned)
    touched: list[str] = []
    for name in order[: order.index(step) + 1]:
        if name in anew or set(needs_of(prepared.steps[name], configs[name])) & set(touched):
            touched.append(name)
    return replace(prepared, merged=merged, configs=configs, components=components), touched


def plan_step(
    prepared: Prepared,
    store: Store,
    name: str,
    results: Mapping[str, StepRun],
    waiting: Sequence[str] = (),
    fresh: bool = False,
) -> Planned:
    """What is to happen to one step. results: what the steps it needs have come to; waiting: those that have to run."""
    step = prepared.steps[name]
    if not step.reuse:
        return Planned(step, "run", "always runs", waiting=tuple(waiting))
    if fresh:
        return Planned(step, "run", "asked to run anew", waiting=tuple(waiting))
    components = given(prepared, store, name, results)
    tries = [] if waiting else store.with_fingerprint(components.digest)
    done = [past for past in tries if past.status == "FINISHED"]
    doubts = []
    for past in done:
        if not (said := store.doubt(past)):
            return Planned(step, "reuse", f"run {past.run_id[:8]}, {past.ago()}", past)
        doubts.append(said)
    if doubts:
        return Planned(step, "run", doubts[0])
    if tries:
        last = tries[0]
        how = {"FAILED": "failed", "KILLED": "was stopped"}.get(last.status, "did not finish")
        return Planned(step, "run", f"the last try {how} (run {last.run_id[:8]}, {last.ago()})")
    before = store.latest(prepared.name, name)
    if before is None:
        return Planned(step, "run", "first run", waiting=tuple(waiting))
    then = store.components(before)
    if then is None:
        why = f"run {before.run_id[:8]} does not say what it was made from"
        return Planned(step, "run", why, waiting=tuple(waiting))
    reasons = differences(components, then, waiting)
    if waiting and not reasons:
        return Planned(step, "maybe", f"only if {_results_of(waiting)}", waiting=tuple(waiting))
    if len(reasons) > MOST_REASONS:
        reasons = [*reasons[:MOST_REASONS], f"{len(reasons) - MOST_REASONS} more"]
    return Planned(step, "run", "; ".join(reasons) or "not run in this experiment", waiting=tuple(waiting))


def given(prepared: Prepared, store: Store, name: str, results: Mapping[str, StepRun]) -> Components:
    """What a step's result depends on, now that the steps it needs have theirs.

    Of an input of which the step reads a few files, those count: another result with the same files is the same to it.
    """
    reads = prepared.steps[name].reads(prepared.configs[name])
    return prepared.components[name].given(
        {need: store.digest_of(past, reads[need]) if need in reads else past.digest for need, past in results.items()}
    )


def _results_of(steps: Sequence[str]) -> str:
    """`caption's result changes`, `caption's or prior's result changes`."""
    return " or ".join(f"{step}'s" for step in steps) + " result changes"
