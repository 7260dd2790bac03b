//! A kernel, a provisioner and a clock that exist only in memory.
