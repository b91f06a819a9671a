//! Stand-in, see gpu-sim/README.md.
