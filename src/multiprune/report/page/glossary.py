"""The terms of a page, in a sentence each."""

from __future__ import annotations

GLOSSARY = {
    "density": "kept parameters over those of the dense model, counted as the budget counts; "
    "sparsity is 1 - density.",
    "budget": "the number of parameters that a model may keep; each model here was trained for "
    "one.",
    "score": "the first metric of a task, and of several tasks their mean.",
    "seed": "runs that differ in their seed alone are one model; what stands in brackets is from "
    "its lowest to its highest seed.",
    "interval": "of a difference: 95 % of resamples of the seeds, and of the evaluation examples "
    "where all runs kept their predictions; over fewer than three seeds alone it is called a "
    "range.",
}
