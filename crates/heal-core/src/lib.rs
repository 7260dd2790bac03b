//! The healing machine, without I/O and without a clock.
