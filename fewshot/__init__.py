"""Few-shot image classification on MLX.

Public names are loaded when first used: importing fewshot loads no plugin and no MLX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adaptation import evaluate_adapted as evaluate_adapted
    from .adapters import FinetuneOptions as FinetuneOptions
    from .adapters import WhitenOptions as WhitenOptions
    from .adapters import finetune as finetune
    from .adapters import whiten as whiten
    from .backbones import Conv4 as Conv4
    from .backbones import Conv4Options as Conv4Options
    from .backbones import conv4 as conv4
    from .checkpoint import load_weights as load_weights
    from .checkpoint import save_weights as save_weights
    from .datasets import ArrayDataset as ArrayDataset
    from .datasets import decode as decode
    from .datasets import from_arrays as from_arrays
    from .datasets import read_episode as read_episode
    from .datasets import split_classes as split_classes
    from .datasets import write_episode as write_episode
    from .draws import Episode as Episode
    from .draws import EpisodeBlock as EpisodeBlock
    from .draws import Ints as Ints
    from .draws import Labelled as Labelled
    from .draws import Pairs as Pairs
    from .draws import Triplets as Triplets
    from .embedding import Embedder as Embedder
    from .embedding import embed as embed
    from .embedding import raw_pixels as raw_pixels
    from .errors import ConfigError as ConfigError
    from .errors import DataError as DataError
    from .errors import FewshotError as FewshotError
    from .errors import OutputError as OutputError
    from .errors import TrainingError as TrainingError
    from .evaluation import evaluate as evaluate
    from .evaluation import k_shot_episodes as k_shot_episodes
    from .evaluation import predict as predict
    from .evaluation import unembedded as unembedded
    from .evaluation import validation as validation
    from .exporting import export as export
    from .folders import ImageFiles as ImageFiles
    from .folders import ImageFolderOptions as ImageFolderOptions
    from .folders import class_folders as class_folders
    from .folders import image_files as image_files
    from .folders import image_folder as image_folder
    from .folding import copied as copied
    from .folding import folded as folded
    from .heads import LdaOptions as LdaOptions
    from .heads import NearestSupportOptions as NearestSupportOptions
    from .heads import lda as lda
    from .heads import nearest_prototype as nearest_prototype
    from .heads import nearest_support as nearest_support
    from .hookspecs import hookimpl as hookimpl
    from .interfaces import Adapter as Adapter
    from .interfaces import Backbone as Backbone
    from .interfaces import Dataset as Dataset
    from .interfaces import Head as Head
    from .interfaces import Loss as Loss
    from .interfaces import Metric as Metric
    from .interfaces import Sampler as Sampler
    from .interfaces import Transform as Transform
    from .layers import BatchNorm as BatchNorm
    from .layers import Flatten as Flatten
    from .layers import MaxPool2x2 as MaxPool2x2
    from .layers import Sequential as Sequential
    from .losses import ContrastiveOptions as ContrastiveOptions
    from .losses import PrototypicalOptions as PrototypicalOptions
    from .losses import TripletOptions as TripletOptions
    from .losses import contrastive as contrastive
    from .losses import prototypical as prototypical
    from .losses import triplet as triplet
    from .metrics import cosine as cosine
    from .metrics import euclidean as euclidean
    from .metrics import manhattan as manhattan
    from .metrics import sqeuclidean as sqeuclidean
    from .plugins import build_registry as build_registry
    from .prediction import Classifier as Classifier
    from .prediction import Neighbour as Neighbour
    from .prediction import Prediction as Prediction
    from .prediction import Support as Support
    from .records import ClassSplit as ClassSplit
    from .records import Component as Component
    from .records import Evaluation as Evaluation
    from .records import EvaluationOptions as EvaluationOptions
    from .records import History as History
    from .records import Preset as Preset
    from .records import Setting as Setting
    from .records import SplitOptions as SplitOptions
    from .records import Study as Study
    from .records import TrainingOptions as TrainingOptions
    from .records import Verification as Verification
    from .records import above as above
    from .records import at_least as at_least
    from .records import at_most as at_most
    from .records import below as below
    from .records import option as option
    from .records import within as within
    from .run import trained as trained
    from .runtime import cores as cores
    from .runtime import prepare as prepare
    from .samplers import AllPairsOptions as AllPairsOptions
    from .samplers import EpisodesOptions as EpisodesOptions
    from .samplers import PairsOptions as PairsOptions
    from .samplers import ProxiesOptions as ProxiesOptions
    from .samplers import TripletsOptions as TripletsOptions
    from .samplers import all_pairs as all_pairs
    from .samplers import all_way as all_way
    from .samplers import episodes as episodes
    from .samplers import pairs as pairs
    from .samplers import proxies as proxies
    from .samplers import triplets as triplets
    from .seeding import generator as generator
    from .sources import Source as Source
    from .sources import data_folder as data_folder
    from .sources import fetch as fetch
    from .training import Learned as Learned
    from .training import fit as fit
    from .transforms import BlurOptions as BlurOptions
    from .transforms import ColourOptions as ColourOptions
    from .transforms import CropOptions as CropOptions
    from .transforms import FlipOptions as FlipOptions
    from .transforms import NormaliseOptions as NormaliseOptions
    from .transforms import colour_jitter as colour_jitter
    from .transforms import gaussian_blur as gaussian_blur
    from .transforms import horizontal_flip as horizontal_flip
    from .transforms import normalise as normalise
    from .transforms import random_resized_crop as random_resized_crop
    from .verification import verification_pairs as verification_pairs
    from .verification import verify as verify

_MODULES = {
    "adaptation": "evaluate_adapted",
    "adapters": "FinetuneOptions WhitenOptions finetune whiten",
    "backbones": "Conv4 Conv4Options conv4",
    "checkpoint": "load_weights save_weights",
    "datasets": "ArrayDataset decode from_arrays read_episode split_classes write_episode",
    "embedding": "Embedder embed raw_pixels",
    "errors": "ConfigError DataError FewshotError OutputError TrainingError",
    "evaluation": "evaluate k_shot_episodes predict unembedded validation",
    "exporting": "export",
    "folders": "ImageFiles ImageFolderOptions class_folders image_files image_folder",
    "folding": "copied folded",
    "heads": "LdaOptions NearestSupportOptions lda nearest_prototype nearest_support",
    "hookspecs": "hookimpl",
    "interfaces": "Adapter Backbone Dataset Head Loss Metric Sampler Transform",
    "layers": "BatchNorm Flatten MaxPool2x2 Sequential",
    "losses": "ContrastiveOptions PrototypicalOptions TripletOptions contrastive "
    "prototypical triplet",
    "metrics": "cosine euclidean manhattan sqeuclidean",
    "plugins": "build_registry",
    "prediction": "Classifier Neighbour Prediction Support",
    "draws": "Episode EpisodeBlock Ints Labelled Pairs Triplets",
    "records": "ClassSplit Component Evaluation EvaluationOptions History "
    "Preset Setting SplitOptions Study TrainingOptions Verification above "
    "at_least at_most below option within",
    "run": "trained",
    "runtime": "cores prepare",
    "samplers": "AllPairsOptions EpisodesOptions PairsOptions ProxiesOptions TripletsOptions "
    "all_pairs all_way episodes pairs proxies triplets",
    "seeding": "generator",
    "sources": "Source data_folder fetch",
    "training": "Learned fit",
    "verification": "verification_pairs verify",
    "transforms": "BlurOptions ColourOptions CropOptions FlipOptions NormaliseOptions "
    "colour_jitter gaussian_blur horizontal_flip normalise "
    "random_resized_crop",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fewshot' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
