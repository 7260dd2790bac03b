//! The trait behind which storage vendors plug in, and the built-in backends.
