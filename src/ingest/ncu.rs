//! The raw page of ncu.
