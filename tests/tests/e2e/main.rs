//! End-to-end tests against a real engine: one binary, one module a subject.

// Each runtime through the suite that all of them pass.
mod conformance;
// The core image: built, cached, measured, and what is in it.
mod image;
