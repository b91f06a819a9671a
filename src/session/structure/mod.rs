//! The layers of a model, found in the order of its kernels: a forward pass repeats one block of kernels per layer.

mod names;
mod runs;
mod walk;
