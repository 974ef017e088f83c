"""One configuration from many layers: flags > --set > TOML file > preset > implied > defaults."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import tomli_w
from attrs import frozen

from ..catalogue.kinds import KINDS, LISTS, PARTS
from ..catalogue.registry import Registry, make
from ..core.components import Component, Preset, Study
from ..core.errors import ConfigError, PluginError, UnknownComponentError, choose_from
from ..core.interfaces import Loss
from ..core.options import component_options, component_tables
from ..core.reading import parse_toml, read_toml, shortened
from ..data.split import SplitOptions
from ..engine.objective import LAYOUTS
from ..engine.protocol import EvaluationOptions
from ..engine.training import TrainingOptions
from ..parts.embedder import EmbeddingOptions
from .schema import Tree, options, plain

# Sections of plain options; those that name parts are `PARTS` and `LISTS` of the kinds.
PLAIN: dict[str, type] = {
    "split": SplitOptions,
    "embedding": EmbeddingOptions,
    "training": TrainingOptions,
    "evaluation": EvaluationOptions,
}

# Of a network as it comes, which no loss has prepared for another. With one image of each class,
# that is without spread, it is the nearest prototype.
UNTRAINED_HEAD = "lda"

DEFAULTS: Tree = {
    "metric": {"name": "euclidean"},
    "loss": {"name": "contrastive"},
    "miner": {"name": "none"},
    "mixer": {"name": "none"},
    "adapter": {"name": "none"},
    "learner": {"name": "plain"},
    "optimizer": {"name": "adam"},
    "schedule": {"name": "cosine"},
    "observers": [],
    "augment": [],
    "preprocess": [{"name": "normalise"}],
}


@frozen
class Chosen:
    """A component's qualified name and its options."""

    name: str
    options: Any


@frozen
class RunConfig:
    """Everything that decides a run, but the machine."""

    dataset: Chosen
    backbone: Chosen
    metric: Chosen
    loss: Chosen
    sampler: Chosen
    miner: Chosen
    mixer: Chosen
    head: Chosen
    adapter: Chosen
    learner: Chosen
    optimizer: Chosen
    schedule: Chosen
    augment: tuple[Chosen, ...]
    preprocess: tuple[Chosen, ...]
    observers: tuple[Chosen, ...]
    split: SplitOptions = SplitOptions()
    embedding: EmbeddingOptions = EmbeddingOptions()
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    seed: int = 0

    @property
    def needs_training_classes(self) -> bool:
        """Whether steps are taken, or the training classes' mean embedding."""
        return self.training.steps > 0 or self.embedding.centre != "none"


# ------------------------------------------------------------------------------ sources


@contextmanager
def naming_file(path: Path | None, layer: Tree, registry: Registry) -> Iterator[None]:
    """A ConfigError that what a file says gives without any other layer begins with the file."""
    try:
        yield
    except ConfigError as error:
        if path is not None:
            try:
                resolve(registry, [layer])
            except ConfigError as alone:
                if str(alone) == str(error):
                    raise type(error)(f"{path}: {error}") from error
        raise


def parse_set(text: str) -> tuple[list[str], Any]:
    """`backbone.dropout=0.2` -> (["backbone", "dropout"], 0.2): TOML's grammar, bare words too."""
    key, equals, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise ConfigError(f"--set wants KEY=VALUE such as training.steps=200, got '{text}'")
    try:
        return path, parse_toml(f"value = {value}", f"--set {key}")["value"]
    except ConfigError as error:
        if not isinstance(error.__cause__, tomllib.TOMLDecodeError):
            raise
        if re.match(r"\s*[\[{\"']", value):
            raise ConfigError(f"--set {key}: '{value}' is not a TOML value") from None
        return path, value.strip()


def settings_layer(settings: Iterable[str]) -> Tree:
    """All `--set` as one layer. `augment.blur.sigma=1` stays a table, which `merge` applies."""
    return nested((parse_set(text) for text in settings), "--set ")


def nested(values: Iterable[tuple[list[str], Any]], source: str = "") -> Tree:
    """Values by their paths as one layer; `source` begins the text of an error."""
    layer: Tree = {}
    for path, value in values:
        place, text = layer, f"{source}{'.'.join(path)}={value}"
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{text}: '{part}' is already a value")
        if isinstance(place.get(path[-1]), dict):
            raise ConfigError(f"{text}: options of '{path[-1]}' are set already; use .name")
        place[path[-1]] = value
    return layer


# -------------------------------------------------------------------------------- merge


def merge(registry: Registry, layers: Iterable[Tree]) -> Tree:
    """Layers, lowest first, into one tree of qualified names.

    A layer that names another component discards the lower layers' options of that kind, another
    loss their sampler and head too, which went with it. A list
    (`augment`, `preprocess`) is replaced whole; a table in its place changes the options of
    entries by name. `split` is replaced whole.
    """
    merged: Tree = {}
    for layer in layers:
        if chooses(layer, "loss") and "loss" in merged:
            chosen = _merge_part(registry, "loss", {}, layer["loss"])["name"]
            if chosen != merged["loss"]["name"]:
                merged.pop("sampler", None)
                merged.pop("head", None)
        for key, value in layer.items():
            if key in PARTS:
                merged[key] = _merge_part(registry, key, merged.get(key, {}), value)
            elif key in LISTS:
                merged[key] = _merge_list(registry, key, merged.get(key, []), value)
            elif key in PLAIN:
                below = {} if key == "split" else merged.get(key, {})
                merged[key] = {**below, **_table(key, value)}
            elif key == "seed":
                merged[key] = value
            else:
                valid = [*PARTS, *LISTS, *PLAIN, "seed", "preset"]
                raise ConfigError(f"unknown section '{key}': {choose_from(key, valid)}")
    return merged


def _table(where: str, value: Any) -> Tree:
    if not isinstance(value, Mapping):
        raise ConfigError(f"'{where}' is a section of options, not {value!r}")
    return dict(value)


def _merge_part(registry: Registry, kind: str, below: Tree, value: Any) -> Tree:
    table = {"name": value} if isinstance(value, str) else _table(kind, value)
    if "name" in table:
        if not isinstance(table["name"], str):
            raise ConfigError(f"{kind}.name wants text, got {table['name']!r}")
        table["name"] = registry.get(kind, table["name"]).qualified
        if table["name"] != below.get("name"):
            below = {}
    merged = {**below, **table}
    if "name" in merged:  # options of a part within this one add up, too

        def added(inner: str, where: str, under: Any, value: Any) -> Any:
            if not isinstance(value, str | Mapping):
                return value  # which is refused later
            try:
                lower = _merge_part(registry, inner, {}, under)
                return _merge_part(registry, inner, lower, value)
            except UnknownComponentError as error:
                raise UnknownComponentError(f"{kind}.{where}: {error}") from error

        options = registry.get(kind, merged["name"]).component.options
        one, several = component_options(options), component_tables(options)
        for key in one.keys() & table.keys():
            merged[key] = added(one[key], key, below.get(key, {}), table[key])
        for key in several.keys() & table.keys():
            under, given = below.get(key, {}), table[key]
            if isinstance(given, Mapping):
                merged[key] = {**under}
                for called, value in given.items():
                    lower = under.get(called, {})
                    merged[key][called] = added(several[key], f"{key}.{called}", lower, value)
    return merged


def _merge_list(registry: Registry, key: str, below: list[Tree], value: Any) -> list[Tree]:
    kind = LISTS[key]
    if isinstance(value, list):
        merged = [_merge_part(registry, kind, {}, entry) for entry in value]
        if not all("name" in entry for entry in merged):
            raise ConfigError(f"every entry of '{key}' needs a name")
        return merged
    entries = [dict(entry) for entry in below]
    for name, changes in _table(key, value).items():
        qualified = registry.get(kind, name).qualified
        if qualified not in (entry["name"] for entry in entries):
            present = ", ".join(entry["name"] for entry in entries) or "nothing"
            raise ConfigError(f"{key} has no '{name}' to change, it has: {present}")
        for entry in entries:
            if entry["name"] == qualified:
                entry.update(_table(f"{key}.{name}", changes))
    return entries


# ------------------------------------------------------------------------------ resolve


def resolve(registry: Registry, layers: Iterable[Tree]) -> RunConfig:
    """The configuration that the layers, lowest first and above `DEFAULTS`, come to.

    Sampler and head, where no layer names one, are those that fit the loss; where no step is taken
    the head is `lda`. Data set and backbone,
    where no layer names one, are those of the preset that an installed plugin marks as the default.
    What the chosen components imply lies below the layers. Unknown names and keys, wrong types and
    values out of range are ConfigErrors, in what a component implies PluginErrors.
    """
    above = with_preset(registry, layers)
    # A default that a layer replaces need not exist: the bundle may not be installed.
    defaults = {
        key: value
        for key, value in (DEFAULTS | _start(registry, above)).items()
        if not any(chooses(layer, key) for layer in above)
    }
    tree = _complete(registry, [defaults, *above], {})
    implied = _implied(registry, tree)
    if implied:
        options_of_parts = {key: implied.pop(key) for key in PARTS if key in implied}
        tree = _complete(registry, [defaults, implied, *above], options_of_parts)
    seed = tree.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 63:
        raise ConfigError(f"seed wants a whole number from 0 to 2^63 - 1, got {shortened(seed)}")
    every: dict[str, Any] = {kind: from_table(registry, kind, tree[kind], kind) for kind in PARTS}
    for key, kind in LISTS.items():
        every[key] = tuple(
            from_table(registry, kind, table, f"{key}.{table['name']}") for table in tree[key]
        )
    for key, cls in PLAIN.items():
        every[key] = options(cls, tree.get(key, {}), key)
    return RunConfig(**every, seed=seed)


def _complete(registry: Registry, layers: Iterable[Tree], implied: Tree) -> Tree:
    """The layers as one tree with a part of every kind; `implied`: options below theirs."""
    tree = merge(registry, layers)

    def fill(kind: str) -> None:
        known = attrs.fields_dict(registry.get(kind, tree[kind]["name"]).component.options)
        below = {
            k: v for k, v in implied.get(kind, {}).items() if k in known and k not in tree[kind]
        }
        try:
            from_table(registry, kind, {**below, "name": tree[kind]["name"]}, kind)
        except ConfigError as error:
            raise ConfigError(
                f"{error}; another part implies it: --set {kind}.… says otherwise"
            ) from error
        tree[kind] = {**below, **tree[kind]}

    for kind in ("dataset", "backbone"):
        if "name" not in tree.get(kind, {}):
            raise ConfigError(
                f"no {kind} named, and no plugin offers one to start with: install one that does, "
                "or name a preset with --preset NAME (`fewshot list preset`), or one with "
                f"{KINDS[kind].flag} NAME; valid: "
                f"{', '.join(registry.names(kind))}"
            )
    for kind in PARTS:
        if "name" in tree.get(kind, {}):
            fill(kind)
    loss = _made_loss(registry, from_table(registry, "loss", tree["loss"], "loss"))
    feed = LAYOUTS[loss.layout]
    of_labelled = any(tree[kind]["name"] != "none" for kind in ("miner", "mixer"))
    draws = "labelled" if of_labelled else loss.draws
    untrained = tree.get("training", {}).get("steps") == 0
    head = UNTRAINED_HEAD if untrained else feed.head
    for kind, name in (("sampler", feed.sampler(draws)), ("head", head)):
        if "name" not in tree.get(kind, {}):
            tree[kind] = {"name": name, **tree.get(kind, {})}
            fill(kind)
    return tree


def _start(registry: Registry, above: Iterable[Tree]) -> Tree:
    """Data set and backbone of the preset that is marked as the default; {} where there is none.

    Raises ConfigError for several such presets, where a layer leaves one of these open.
    """
    keys = ("dataset", "backbone")
    if all(any(chooses(layer, key) for layer in above) for key in keys):
        return {}
    offers = [entry for entry in registry.all("preset") if entry.preset.default]
    if len(offers) > 1:
        listed = ", ".join(entry.qualified for entry in offers)
        raise ConfigError(f"several presets say what to start with: name one of {listed}")
    return {k: v for entry in offers for k, v in entry.preset.values.items() if k in keys}


def _implied(registry: Registry, tree: Tree) -> Tree:
    """What the tree's parts imply, as one tree; the first part that says something has it."""
    together: Tree = {}
    for kind in PARTS:
        entry = registry.get(kind, tree[kind]["name"])
        called = f"{kind} '{entry.qualified}'"
        for key, value in check_implied(registry, entry.component, called).items():
            below = together.get(key, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping):
                below = {**value, **below}
            together[key] = below
    return together


def check_implied(registry: Registry, component: Component, called: str) -> Tree:
    """What a component implies. Raises PluginError, so calling it, where it cannot be used."""
    try:
        for key, value in component.implies.items():
            if key in PARTS:
                _check_options(registry, key, _table(key, value))
            elif key in PLAIN:
                options(PLAIN[key], _table(key, value), key)
            elif key in LISTS:
                below = {key: DEFAULTS.get(key, [])}
                for table in merge(registry, [below, {key: value}])[key]:
                    from_table(registry, LISTS[key], table, f"{key}.{table['name']}")
            else:
                valid = [*PARTS, *LISTS, *PLAIN]
                raise ConfigError(f"unknown section '{key}': {choose_from(key, valid)}")
    except ConfigError as error:
        raise PluginError(f"{called} implies what cannot be: {error}") from error
    return dict(component.implies)


def _check_options(registry: Registry, kind: str, table: Tree) -> None:
    """Refuse options that no part of the kind has, and values that none takes."""
    if "name" in table:
        raise ConfigError(f"a component names no other: {kind}.name = {table['name']!r}")
    classes = [entry.component.options for entry in registry.all(kind)]
    for key, value in table.items():
        refusals = []
        having = [cls for cls in classes if key in attrs.fields_dict(cls)]
        for cls in having:
            try:
                options(cls, {key: value}, kind, registry)
            except ConfigError as error:
                refusals.append(error)
        if having and len(refusals) == len(having):
            raise refusals[0]
        if not having:
            known = {name for cls in classes for name in attrs.fields_dict(cls)}
            raise ConfigError(f"no {kind} has an option '{key}': {choose_from(key, known)}")


def with_preset(registry: Registry, layers: Iterable[Tree]) -> list[Tree]:
    """The layers, with the topmost preset that they name as a layer below them."""
    layers = list(layers)
    preset = next((layer["preset"] for layer in reversed(layers) if "preset" in layer), None)
    if preset is not None and not isinstance(preset, str):
        raise ConfigError(f"preset wants text, got {preset!r}")
    above = [{k: v for k, v in layer.items() if k != "preset"} for layer in layers]
    if preset is not None:
        above.insert(0, _preset(registry, preset))
    return above


def _preset(registry: Registry, name: str) -> Tree:
    """A preset's values; ConfigError, naming it, where they ask for what is not there."""
    entry = registry.get("preset", name)
    values = dict(entry.preset.values)
    try:
        merge(registry, [values])
    except ConfigError as error:
        raise ConfigError(f"preset '{entry.qualified}': {error}") from error
    return values


def _made_loss(registry: Registry, loss: Chosen) -> Loss:
    """The loss, only to see what it is fed."""
    made: Loss = make(registry.get("loss", loss.name), loss.options, embedding_dim=2)
    if made.layout not in LAYOUTS:
        raise PluginError(f"loss '{loss.name}' made {made!r}, which has none of the layouts known")
    serving = LAYOUTS[made.layout].fed_by
    if made.draws is not None and made.draws not in serving:
        raise PluginError(
            f"loss '{loss.name}' is meant for '{made.draws}' draws; '{made.layout}' is served by "
            f"{' or '.join(serving)}"
        )
    return made


def names_path(registry: Registry, layers: Iterable[Tree]) -> bool:
    """Whether the topmost data set that layers or their preset name has an option `path`.

    Raises ConfigError as `resolve` does for what stands there.
    """
    above = with_preset(registry, layers)
    merged = merge(registry, [{"dataset": a["dataset"]} for a in above if "dataset" in a])
    name = merged.get("dataset", {}).get("name")
    if name is None:
        return False
    return "path" in attrs.fields_dict(registry.get("dataset", name).component.options)


def from_table(registry: Registry, kind: str, table: Tree, where: str) -> Chosen:
    """A named component and its options, checked; `where` they stand, for messages."""
    entry = registry.get(kind, table["name"])
    values = {key: value for key, value in table.items() if key != "name"}
    return Chosen(entry.qualified, options(entry.component.options, values, where, registry))


def chooses(layer: Tree, key: str) -> bool:
    """Whether a layer says which component (or which list of them) to use."""
    value = layer.get(key)
    return isinstance(value, str | list) or (isinstance(value, Mapping) and "name" in value)


# ---------------------------------------------------------------------------- and back


def to_tree(config: RunConfig) -> Tree:
    """The configuration as a tree that `resolve` takes again and that means the same."""
    return {
        "seed": config.seed,
        **{kind: to_table(getattr(config, kind)) for kind in PARTS},
        **{key: [to_table(entry) for entry in getattr(config, key)] for key in LISTS},
        **{key: plain(getattr(config, key)) for key in PLAIN},
    }


def to_table(chosen: Chosen) -> Tree:
    """A component's name and all its options in one table."""
    return {"name": chosen.name, **plain(chosen.options)}


def to_toml(config: RunConfig) -> str:
    """The configuration as a file that `--config` takes again."""
    return tomli_w.dumps(to_tree(config))


def read_study(path: Path) -> Study:
    """A study from a TOML file, named as the file. Raises ConfigError, naming the file."""
    table = read_toml(path)
    try:
        return options(Study, {"name": path.stem, **table}, "study")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def partial_to_toml(part: Preset | Study) -> str:
    """A preset or a study as a file that `--config`, or `read_study`, takes again."""
    if isinstance(part, Preset):
        return tomli_w.dumps(dict(part.values))
    published = {row: {str(k): v for k, v in of.items()} for row, of in part.published.items()}
    return tomli_w.dumps({**plain(part), "published": published})
