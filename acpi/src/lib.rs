//! ACPI tables.
#![forbid(unsafe_code)]
