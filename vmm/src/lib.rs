//! Placeholder, replaced by its room.
