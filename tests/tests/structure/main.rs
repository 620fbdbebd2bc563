//! The rules that hold the source together, checked: dependencies, layers, counters, sizes, documents, test profiles.

mod counters;
mod dependencies;
mod documents;
mod files;
mod layers;
mod source;
