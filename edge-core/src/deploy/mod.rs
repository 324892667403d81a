//! From a manifest to what must be done: desired, observed, plan, restart, report.
